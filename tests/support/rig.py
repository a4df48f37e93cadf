"""One device with nothing around it: what it is asked, what it says, and its time.

The rig does to a device what its owner would, and holds it to what it owes its owner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgpack
from hypothesis import strategies as st

from devserver.models import Context, Device, Region, Signal, catalog

SIZES = (1, 2, 4, 8)

#: Every kind is tried with its defaults; some options change how it works enough to try them too.
VARIANTS: dict[str, list[dict[str, object]]] = {
    "uart16550": [{"paced": True}],
    "mc146818": [{"memory_bytes": 64 << 20}],
}

Said = tuple[Any, ...]


@dataclass(frozen=True)
class Variant:
    """A kind of device with options."""

    kind: str
    options: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        return " ".join([self.kind, *(f"{name}={value}" for name, value in self.options)])


def variants() -> list[Variant]:
    """All kinds that the catalog knows, and their variants."""
    return [
        Variant(kind, tuple(options.items()))
        for kind in catalog.kinds()
        for options in ({}, *VARIANTS.get(kind, ()))
    ]


class Rig:
    """A device on a bus that keeps all it says; fails where the device breaks its contract."""

    def __init__(self, variant: Variant, epoch_ns: int = 0) -> None:
        self.variant = variant
        self.epoch_ns = epoch_ns
        self.said: list[Said] = []
        self.levels: dict[str, bool] = {}
        self.now_ns = 0
        self.device: Device = catalog.find(variant.kind)(
            Context(self, epoch_ns, dict(variant.options))
        )

    # what the device does to the world

    def set_line(self, output: str, level: bool) -> None:
        assert output in catalog.find(self.variant.kind).outputs
        assert isinstance(level, bool)
        if self.levels.get(output, False) != level:
            self.said.append(("line", output, level))
        self.levels[output] = level

    def emit(self, channel: str, data: bytes) -> None:
        assert channel in self.device.emits
        assert type(data) is bytes
        self.said.append(("emit", channel, data))

    def signal(self, signal: Signal, value: int) -> None:
        assert isinstance(signal, Signal)
        assert 0 <= value < 1 << 64
        self.said.append(("signal", signal, value))

    # what the world does to the device

    def read(self, region: str, offset: int, size: int) -> int:
        value = self.device.read(region, offset, size, self.now_ns)
        assert isinstance(value, int)
        assert 0 <= value < 1 << 8 * size
        return value

    def write(self, region: str, offset: int, size: int, value: int) -> None:
        self.device.write(region, offset, size, value & ((1 << 8 * size) - 1), self.now_ns)

    def feed(self, channel: str, data: bytes) -> int:
        took = self.device.feed(channel, data, self.now_ns)
        assert 0 <= took <= len(data)
        return took

    def wait(self, span_ns: int) -> None:
        until_ns = self.now_ns + span_ns
        while (due_ns := self.device.deadline_ns()) is not None and due_ns <= until_ns:
            self.now_ns = max(self.now_ns, due_ns)
            self.device.advance(self.now_ns)
            next_ns = self.device.deadline_ns()
            assert next_ns is None or next_ns > self.now_ns, "the deadline lies in the past"
        self.now_ns = until_ns

    def do(self, step: tuple[Any, ...]) -> Any:
        """Takes one step of those that :func:`steps` makes; returns what it gave."""
        match step:
            case "read", region, offset, size:
                return self.read(region, offset, size)
            case "write", region, offset, size, value:
                return self.write(region, offset, size, value)
            case "feed", channel, data:
                return self.feed(channel, data)
            case "end", channel:
                return self.device.feed_end(channel, self.now_ns)
            case "wait", span_ns:
                return self.wait(span_ns)
        raise ValueError(step)

    def twin(self) -> Rig:
        """Another device restored from this one's snapshot, which went through msgpack."""
        twin = Rig(self.variant, self.epoch_ns)
        twin.said.clear()
        twin.device.load(msgpack.unpackb(msgpack.packb(self.device.save())))
        twin.now_ns, twin.levels = self.now_ns, dict(self.levels)
        return twin


#: Values that open modes: small ones, single bits, all of them; and any whatever.
values = st.one_of(
    st.integers(0, 0x1F),
    st.sampled_from([1 << bit for bit in range(8)]),
    st.integers(0, 0xFF),
    st.sampled_from([0xFF, 0xFFFF, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)
#: From one tick of the fastest clock to some days.
spans_ns = st.one_of(
    st.integers(0, 2_000),
    st.integers(0, 2_000_000),
    st.integers(0, 3_000_000_000),
)


def steps(variant: Variant, max_size: int = 30) -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Everything that a guest and the world can do to a device of this kind, in any order."""
    model = catalog.find(variant.kind)
    choices: list[st.SearchStrategy[tuple[Any, ...]]] = [st.tuples(st.just("wait"), spans_ns)]
    for region in model.regions:
        choices += _accesses(region)
    for channel in model.feeds:
        data = st.binary(min_size=1, max_size=40)
        choices.append(st.tuples(st.just("feed"), st.just(channel), data))
        choices.append(st.tuples(st.just("end"), st.just(channel)))
    return st.lists(st.one_of(choices), max_size=max_size)


def _accesses(region: Region) -> list[st.SearchStrategy[tuple[Any, ...]]]:
    name, bytewise = st.just(region.name), st.just(1)
    inside, anywhere = st.integers(0, region.size - 1), st.integers(0, region.size + 8)
    sizes = st.sampled_from(SIZES)
    return [
        st.tuples(st.just("read"), name, inside, bytewise),
        st.tuples(st.just("read"), name, anywhere, sizes),
        st.tuples(st.just("write"), name, inside, bytewise, values),
        st.tuples(st.just("write"), name, anywhere, sizes, values),
    ]
