"""``python -m kvmshim``."""

from kvmshim.cli import main

raise SystemExit(main())
