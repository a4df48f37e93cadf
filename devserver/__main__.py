"""``python -m devserver``, and the ``devserver`` command."""

from __future__ import annotations

import signal


def main() -> int:
    """Runs the command; returns its exit status."""
    # Ctrl-C while modules are still being imported: there is nothing yet to tidy up or to tell.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from devserver.commands import cli

    return cli.main()


if __name__ == "__main__":
    raise SystemExit(main())
