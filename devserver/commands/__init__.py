"""The command line of ``devserver``, and its consoles."""
