"""A device that posts what a test writes to it, and emits what it hears."""

from __future__ import annotations

from dataclasses import dataclass, field

from devserver.machine.board import DeviceWiring
from devserver.machine.bus import Bus
from devserver.machine.message_bus import MessageBus, VmPort
from devserver.models import Context, Device, Region, Register

BASE = 0x10
#: Offsets: posts the byte to all; posts it once; does so at the next millisecond.
POST, ONCE, LATER = 0, 1, 2
MS = 1_000_000


class Talker(Device):
    """It emits what it hears as sender, byte and the time. On hearing 0xFF it fails; on hearing
    0xFE it posts, which is not allowed; 0xFD raises its line."""

    kind = "message_bus-talker"
    outputs = ("irq",)
    emits = ("out",)
    regions = (
        Region(
            name="io",
            size=3,
            registers=tuple(
                Register(offset=offset, name=name)
                for offset, name in enumerate(("POST", "ONCE", "LATER"))
            ),
        ),
    )

    @dataclass
    class State:
        heard: list[int] = field(default_factory=list)
        due_ns: int | None = None

    @dataclass(frozen=True)
    class Options:
        member: int = 0
        box: str = "box"
        room: int = 4

    state: State
    options: Options

    def __init__(self, context: Context | None = None) -> None:
        super().__init__(context)
        self.seat = self.context.channels.join(self.options.box, self.options.member, self)

    def room(self) -> int:
        return self.options.room - len(self.state.heard)

    def heard(self, sender: int, data: bytes, now_ns: int) -> None:
        if data == b"\xff":
            raise ZeroDivisionError("on hearing")
        if data == b"\xfe":
            self.seat.post(b"back")
        if data == b"\xfd":
            self.set_line("irq", True)
        self.state.heard.append(data[0])
        self.emit("out", bytes((sender,)) + data + now_ns.to_bytes(8, "little"))

    def read_post(self, now_ns: int) -> int:
        """How many can be reached, and forgets what was heard."""
        self.state.heard.clear()
        return len(self.seat.others())

    def write_post(self, value: int, now_ns: int) -> None:
        self.emit("out", bytes(self.seat.post(bytes((value,)))))

    def read_once(self, now_ns: int) -> int:
        return 0

    def write_once(self, value: int, now_ns: int) -> None:
        self.emit("out", bytes(self.seat.post(bytes((value,)), once=True)))

    def read_later(self, now_ns: int) -> int:
        return 0

    def write_later(self, value: int, now_ns: int) -> None:
        self.state.due_ns = now_ns + MS * value

    def deadline_ns(self) -> int | None:
        return self.state.due_ns

    def advance(self, now_ns: int) -> None:
        self.state.due_ns = None
        self.seat.post(b"\x07")


def wired(member: int, base: int = BASE, **options: object) -> DeviceWiring:
    """A talker under a number of the box."""
    return DeviceWiring(
        name=f"talker{member}",
        kind=Talker.kind,
        bases={"io": base},
        lines={"irq": 5},
        options={"member": member, **options},
    )


class Place:
    """A VM of one talker or several at a message_bus; VM time is what its test says, and runs."""

    def __init__(
        self, message_bus: MessageBus, *members: int, now_ns: int = 0, name: str = ""
    ) -> None:
        self.said: list[bytes] = []
        self.lines: list[tuple[int, bool]] = []
        self.now_ns = now_ns
        wirings = [wired(member, BASE + 3 * at) for at, member in enumerate(members)]
        self.bus = Bus(wirings, self, vm_port=VmPort(message_bus, name))
        self.bus.vm_port.on_message = lambda: self.bus.deliver_messages(self.now_ns)

    def write(self, offset: int, value: int) -> None:
        self.bus.write(0, BASE + offset, 1, value, self.now_ns)  # type: ignore[arg-type]

    def heard(self) -> list[tuple[int, int, int]]:
        """Sender, byte and VM time of what was heard since this was asked last."""
        heard = [(d[0], d[1], int.from_bytes(d[2:], "little")) for d in self.said if len(d) == 10]
        self.said.clear()
        return heard

    # what the bus calls

    def line(self, line: int, level: bool) -> None:
        self.lines.append((line, level))

    def emit(self, device_id: int, channel: int, data: bytes) -> None:
        self.said.append(data)

    def consumed(self, device_id: int, channel: int, total: int) -> None:
        pass

    def signal(self, device_id: int, signal: object, value: int) -> None:
        pass
