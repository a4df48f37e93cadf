"""One VM's conversation: handshake, attach, accesses, outbox, refusals. No sockets."""
