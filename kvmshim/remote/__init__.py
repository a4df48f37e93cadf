"""The network side: handshake, link, several servers, the embedded server."""
