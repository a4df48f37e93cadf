"""What travels between a client platform and a device-model server, with no I/O in it.

:mod:`~devserver.protocol.messages` names every message and its fields,
:mod:`~devserver.protocol.codec` turns them into bytes and back, and
:mod:`~devserver.protocol.connection` holds the rules of a conversation, for either end.
``docs/protocol.md`` is the specification.
"""
