"""A machine's whole state: taken out of a paused machine, kept in a file, put into another."""
