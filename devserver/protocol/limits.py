"""Bounds that hold before anything is allocated. ``docs/protocol.md`` lists them."""

from __future__ import annotations

PROTOCOL_VERSION = 3

#: The length field in front of every frame.
FRAME_HEADER_BYTES = 4
#: Longest payload of a frame.
MAX_FRAME_BYTES = 1 << 20
#: Longest data of one request (KVM hands over at most a page of string I/O at a time).
MAX_DATA_BYTES = 4096
#: Longest data of one feed message.
MAX_FEED_BYTES = 4096
#: Longest data of one emit message; longer output is split.
MAX_EMIT_BYTES = 16384
#: Most writes in one batch.
MAX_BATCH_WRITES = 1024
#: Most terms in one lease.
MAX_TERMS = 4
#: Longest text in an event.
MAX_TEXT_BYTES = 16384
#: Longest snapshot of one device, and longest description of one to be added.
MAX_STATE_BYTES = 1 << 19
#: Most devices that one attach may ask for.
MAX_DEVICES = 256
#: Most items of any list in a session message.
MAX_LIST_ITEMS = 1024
#: Interrupt lines that a device can be wired to.
MAX_LINES = 1024
#: Longest name of anything.
MAX_NAME_BYTES = 255

#: Writes that may be posted and not yet acknowledged, unless the server says otherwise.
DEFAULT_WINDOW = 4096
#: The server acknowledges posted writes at least every so many, or every quarter of the window.
ACK_EVERY = 512
#: Feed bytes that may be under way or waiting at the server, per channel.
FEED_WINDOW_BYTES = 16384

#: So far may a client's VM time be ahead of what the server reckons from what it said before.
MAX_TIME_JUMP_NS = 60_000_000_000

#: A peer that was silent for so long is asked for a sign of life.
DEFAULT_HEARTBEAT_NS = 5_000_000_000
#: A peer that was silent for so long is dead.
DEFAULT_DEADLINE_NS = 20_000_000_000
