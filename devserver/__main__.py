"""``python -m devserver``."""

from devserver.commands.cli import main

raise SystemExit(main())
