"""A doorbell and mailbox: how virtual machines on different clients signal and send words.

The devices of several machines that name the same ``box`` are wired together, each under a
``member`` number of its own. A guest selects one of the others in PEER, rings its doorbell, or
puts words into its mailbox, a FIFO of 16; either interrupts the other machine, if its guest has
enabled that. docs/mailbox.md is the datasheet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, IntFlag

from devserver.models.channels import MAX_MEMBERS, Endpoint, NoEndpoint
from devserver.models.context import Context, OptionError
from devserver.models.device import Access, Device, Policy, Region, Register

#: Words that a mailbox holds.
DEPTH = 16
#: What SIGNATURE reads: 'MBX1', little-endian.
MAGIC = int.from_bytes(b"MBX1", "little")
#: What SENDER reads while the mailbox is empty.
NOBODY = 0xFF

_SOURCE = "docs/mailbox.md, registers"
_RING = b""


class Offset(IntEnum):
    """Where the registers are."""

    SIGNATURE = 0x00
    SELF = 0x04
    PEER = 0x05
    STATUS = 0x06
    ENABLE = 0x07
    DOORBELL = 0x08
    RING = 0x0C
    SENDER = 0x0D
    COUNT = 0x0E
    DATA = 0x10
    ACCEPTED = 0x14
    PRESENT = 0x18


class Status(IntFlag):
    """STATUS. REFUSED is written with 1 to clear it; the others follow from what is."""

    READY = 1 << 0  # a word waits in the own mailbox
    FULL = 1 << 1  # the own mailbox has no room
    PEER_PRESENT = 1 << 2
    PEER_FULL = 1 << 3  # the peer is present, and a word for it would be refused
    REFUSED = 1 << 4  # a ring or a word was refused; words are, until this is cleared
    INTERRUPT = 1 << 7  # the interrupt output is high


class Enable(IntFlag):
    """ENABLE: what makes the interrupt output high."""

    DOORBELL = 1 << 0  # some bit of DOORBELL
    READY = 1 << 1  # STATUS.READY


def _register(name: str, width: int = 1, **rest: object) -> Register:
    return Register(offset=Offset[name], name=name, width=width, source=_SOURCE, **rest)  # type: ignore[arg-type]


class Mailbox(Device):
    """``irq`` is high while a cause is there that ENABLE lets through. Options: ``box``, the name
    of the box (none: the device is alone), and ``member``, 0 to 31, its number in there."""

    kind = "mailbox"
    outputs = ("irq",)
    regions = (
        Region(
            name="io",
            size=0x1C,
            registers=(
                _register("SIGNATURE", 4, access=Access.RO, reset=MAGIC),
                _register("SELF", access=Access.RO),
                _register("PEER", policy=Policy.POSTED),
                _register("STATUS"),
                _register("ENABLE"),
                _register("DOORBELL", 4),
                _register("RING", access=Access.WO, policy=Policy.POSTED),
                _register("SENDER", access=Access.RO, reset=NOBODY),
                _register("COUNT", access=Access.RO),
                _register("DATA", 4, policy=Policy.POSTED),
                _register("ACCEPTED", 4, access=Access.RO),
                _register("PRESENT", 4, access=Access.RO),
            ),
        ),
    )

    @dataclass
    class State:
        peer: int = 0
        enable: int = 0
        doorbell: int = 0
        refused: bool = False
        accepted: int = 0
        words: list[int] = field(default_factory=list)
        senders: list[int] = field(default_factory=list)

    @dataclass(frozen=True)
    class Options:
        box: str = ""
        member: int = 0

    state: State
    options: Options

    def __init__(self, context: Context | None = None) -> None:
        super().__init__(context)
        box, member = self.options.box, self.options.member
        if not 0 <= member < MAX_MEMBERS:
            raise OptionError(f"member = {member}: members are numbered 0 to {MAX_MEMBERS - 1}")
        self._endpoint: Endpoint = (
            self.context.channels.join(box, member, self) if box else NoEndpoint()
        )

    # -- who is there -------------------------------------------------------------------------

    def read_signature(self, now_ns: int) -> int:
        return MAGIC

    def read_self(self, now_ns: int) -> int:
        return self.options.member

    def read_peer(self, now_ns: int) -> int:
        return self.state.peer

    def write_peer(self, value: int, now_ns: int) -> None:
        self.state.peer = value % MAX_MEMBERS

    def read_present(self, now_ns: int) -> int:
        return sum(1 << number for number in self._endpoint.others())

    def read_status(self, now_ns: int) -> int:
        state = self.state
        status = Status(0)
        if state.words:
            status |= Status.READY
        if not self.room():
            status |= Status.FULL
        if state.peer in self._endpoint.others():
            status |= Status.PEER_PRESENT
            if not self._endpoint.room_of(state.peer):
                status |= Status.PEER_FULL
        if state.refused:
            status |= Status.REFUSED
        if self._causes():
            status |= Status.INTERRUPT
        return status

    def write_status(self, value: int, now_ns: int) -> None:
        if value & Status.REFUSED:
            self.state.refused = False

    # -- to others ----------------------------------------------------------------------------

    def write_ring(self, value: int, now_ns: int) -> None:
        if not self._endpoint.post(_RING, self.state.peer, once=True):
            self.state.refused = True

    def write_data(self, value: int, now_ns: int) -> None:
        # Words go nowhere after one that was refused, so that those accepted are the first ones.
        if self.state.refused:
            return
        if self._endpoint.post(value.to_bytes(4, "little"), self.state.peer):
            self.state.accepted = (self.state.accepted + 1) & 0xFFFFFFFF
        else:
            self.state.refused = True

    def read_accepted(self, now_ns: int) -> int:
        return self.state.accepted

    # -- from others --------------------------------------------------------------------------

    def room(self) -> int:
        """How many words its mailbox has room for."""
        return DEPTH - len(self.state.words)

    def heard(self, sender: int, data: bytes, now_ns: int) -> None:
        """Another member rang, or sent a word."""
        if data == _RING:
            self.state.doorbell |= 1 << sender
        elif self.room():
            self.state.words.append(int.from_bytes(data[:4], "little"))
            self.state.senders.append(sender)
        self._update()

    def read_doorbell(self, now_ns: int) -> int:
        return self.state.doorbell

    def write_doorbell(self, value: int, now_ns: int) -> None:
        self.state.doorbell &= ~value
        self._update()

    def read_data(self, now_ns: int) -> int:
        if not self.state.words:
            return 0
        self.state.senders.pop(0)
        word = self.state.words.pop(0)
        self._update()
        return word

    def read_sender(self, now_ns: int) -> int:
        return self.state.senders[0] if self.state.senders else NOBODY

    def read_count(self, now_ns: int) -> int:
        return len(self.state.words)

    # -- the interrupt ------------------------------------------------------------------------

    def read_enable(self, now_ns: int) -> int:
        return self.state.enable

    def write_enable(self, value: int, now_ns: int) -> None:
        self.state.enable = value & (Enable.DOORBELL | Enable.READY)
        self._update()

    def _causes(self) -> Enable:
        causes = Enable(0)
        if self.state.doorbell:
            causes |= Enable.DOORBELL
        if self.state.words:
            causes |= Enable.READY
        return causes & Enable(self.state.enable)

    def _update(self) -> None:
        self.set_line("irq", bool(self._causes()))
