"""Processes that serve: data loops, sockets, clients that come and go."""
