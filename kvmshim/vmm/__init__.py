"""A machine: assembled, run, ended; its devices, routes and placement."""
