"""A network on one machine: one client and some servers, with a round-trip time and loss."""
