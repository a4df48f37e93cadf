"""What ``kvmshim run`` and ``resume`` say at the end: in lines for people, or as a JSON object."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from devserver.commandline.errors import InputError as WrongCommand
from devserver.commandline.streams import OutputError
from kvmshim.errors import HostError, InputError, KvmError, ServerError
from kvmshim.termination import Terminated
from kvmshim.vmm import outcome
from kvmshim.vmm.outcome import Outcome, RunResult


def report(result: RunResult, *, stats: bool, as_json: bool) -> None:
    """Says on standard error how a run ended; standard output is the guest's."""
    if as_json:
        _print(as_object(result))
        return
    if result.message:
        print(f"kvmshim: {result.message}", file=sys.stderr)
        for line in result.details:
            print(f"  {line}", file=sys.stderr)
    elif result.status is not None and result.exit_status != result.status:
        print(f"kvmshim: the guest's exit status was {result.status}", file=sys.stderr)
    tell_reasons(result)
    if stats:
        print(json.dumps(counters(result), indent=2), file=sys.stderr)


def tell_reasons(result: RunResult) -> None:
    """Says on standard error why the guest may not have run."""
    for line in result.reasons():
        print(f"  {line}", file=sys.stderr)


def counters(result: RunResult) -> dict[str, Any]:
    """What ``--stats`` prints."""
    unclaimed = result.unclaimed
    vcpu = {
        **result.stats.get("vcpu", {}),
        "unclaimed_places": [asdict(place) for place in unclaimed.places],
        "unclaimed_elsewhere": unclaimed.elsewhere,
        "post_codes": unclaimed.post_codes,
    }
    return {**result.stats, "vcpu": vcpu}


def as_object(result: RunResult) -> dict[str, Any]:
    """A result as docs/json.md has it."""
    return {
        "outcome": result.outcome.name.lower().replace("_", "-"),
        "exit_status": result.exit_status,
        "status": result.status,
        "message": result.message,
        "details": result.details,
        "reasons": result.reasons(),
        "registers": asdict(result.registers) if result.registers else None,
        "screen": result.screen,
        "stats": counters(result),
    }


def told(work: Callable[[], int], *, as_json: bool) -> int:
    """Runs a guest; its exit status. One that can't be run has an object, too, if one is wanted."""
    try:
        return work()
    except BaseException as error:
        status = status_of(error) if as_json else None
        if status is None:
            raise
        failed = as_object(RunResult(Outcome.EXITED, message=str(error) or "stopped"))
        _print({**failed, "outcome": None, "exit_status": status})
        return status


def status_of(error: BaseException) -> int | None:
    """The exit status that an error has; None for one that should not have been."""
    kinds: dict[type[BaseException] | tuple[type[BaseException], ...], int] = {
        (InputError, WrongCommand): outcome.EXIT_BAD_INPUT,
        ServerError: outcome.EXIT_SERVER_UNREACHABLE,
        (HostError, KvmError, OutputError): outcome.EXIT_HOST,
        KeyboardInterrupt: outcome.EXIT_INTERRUPTED,
        Terminated: outcome.EXIT_TERMINATED,
        BrokenPipeError: outcome.EXIT_OUTPUT_GONE,
        OSError: outcome.EXIT_HOST,
    }
    return next((status for kind, status in kinds.items() if isinstance(error, kind)), None)


def _print(said: dict[str, Any]) -> None:
    """One line, the last one on standard error."""
    print(json.dumps(said), file=sys.stderr)
