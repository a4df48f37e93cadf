"""What holds for the 16550A UART whatever the guest and the far end do."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st
from uart_bench import CHARACTER_NS, Bench, Port

from devserver.models import Space
from devserver.models.uart16550.registers import Fcr, Ier, Iir, Lcr, Lsr, Mcr

sizes = st.sampled_from([1, 2, 4, 8])
# Half of the values lead far: FIFOs on, loopback, all interrupts, a fast line.
telling = st.sampled_from([0, 1, 3, 0x0F, 0x1B, 0x43, Lcr.DLAB | 3, 0xC1, 0xC7])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(0, 7), sizes),
        st.tuples(st.just("write"), st.integers(0, 7), sizes, st.integers(0, (1 << 64) - 1)),
        st.tuples(st.just("write"), st.integers(0, 7), st.just(1), telling),
        st.tuples(st.just("feed"), st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("hang up")),
        st.tuples(st.just("wait"), st.integers(0, 60 * CHARACTER_NS)),
    ),
    max_size=40,
)


def do(bench: Bench, step: tuple[Any, ...]) -> int | None:
    """Takes one step; returns what was read."""
    match step:
        case "read", offset, size:
            return bench.bus.read(Space.PORT, offset, size, bench.now_ns)
        case "write", offset, size, value:
            value &= (1 << 8 * size) - 1
            bench.bus.write(Space.PORT, offset, size, value, bench.now_ns)
        case "feed", data:
            bench.type(data)
        case "hang up", *_:
            bench.hang_up()
        case "wait", span_ns:
            bench.wait(span_ns)
    return None


def twin_of(bench: Bench, *, paced: bool) -> Bench:
    """Another bench, restored from a snapshot that went through msgpack."""
    twin = Bench(paced=paced)
    twin.now_ns, twin.irq = bench.now_ns, bench.irq
    twin.bus.load(msgpack.unpackb(msgpack.packb(bench.bus.save())))
    assert twin.events == []
    return twin


@settings(max_examples=100, deadline=None)
@given(before=steps, after=steps, paced=st.booleans())
def test_a_twin_restored_in_any_state_goes_on_identically(
    before: list[tuple[Any, ...]], after: list[tuple[Any, ...]], paced: bool
) -> None:
    bench = Bench(paced=paced)
    for step in before:
        do(bench, step)
    twin = twin_of(bench, paced=paced)
    bench.events.clear()
    for step in after:
        assert do(twin, step) == do(bench, step)
        assert twin.events == bench.events
        assert twin.bus.next_deadline_ns() == bench.bus.next_deadline_ns()
    assert twin.bus.save() == bench.bus.save()


@settings(max_examples=100, deadline=None)
@given(steps=steps, paced=st.booleans())
def test_the_line_is_high_exactly_while_iir_names_an_interrupt_and_out2_is_set(
    steps: list[tuple[Any, ...]], paced: bool
) -> None:
    bench = Bench(paced=paced)
    for step in steps:
        do(bench, step)
        twin = twin_of(bench, paced=paced)  # reading IIR may change what it reads
        gate_open = bool(twin.inb(Port.MCR) & Mcr.OUT2)
        assert bench.irq == (gate_open and twin.inb(Port.IIR) & 0x0F != Iir.NONE)


far_end = st.lists(
    st.one_of(
        st.tuples(st.just("feed"), st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("trigger"), st.sampled_from([0x00, 0x40, 0x80, 0xC0])),
        st.tuples(st.just("read"), st.integers(1, 20)),
        st.tuples(st.just("look"), st.sampled_from([Port.IIR, Port.LSR, Port.MSR])),
        st.tuples(st.just("wait"), st.integers(0, 20 * CHARACTER_NS)),
    ),
    max_size=30,
)


@settings(max_examples=100, deadline=None)
@given(steps=far_end, fifo=st.sampled_from([0, Fcr.FIFO_ENABLE]), paced=st.booleans())
def test_every_byte_fed_in_is_read_once_and_in_order(
    steps: list[tuple[Any, ...]], fifo: int, paced: bool
) -> None:
    bench = Bench(paced=paced)
    bench.setup(ier=Ier.ALL, fcr=fifo)
    fed, got = bytearray(), bytearray()
    for step in steps:
        match step:
            case "feed", data:
                fed += data
                bench.type(data)
            case "trigger", level:
                bench.outb(Port.FCR, fifo | level)
            case "read", count:
                got += bytes(byte for _, byte in zip(range(count), bench.drain(), strict=False))
            case "look", port:
                bench.inb(port)
            case "wait", span_ns:
                bench.wait(span_ns)
    for _ in range(len(fed) + 1):
        got += bench.inputs()
        bench.wait(CHARACTER_NS)
    assert got == fed


@settings(max_examples=50, deadline=None)
@given(
    text=st.binary(max_size=40),
    waits_ns=st.lists(st.integers(0, 3 * CHARACTER_NS), max_size=40),
    fcr=st.sampled_from([0, Fcr.FIFO_ENABLE]),
)
def test_all_that_is_written_while_thre_is_set_is_sent_once_and_in_order(
    text: bytes, waits_ns: list[int], fcr: int
) -> None:
    bench = Bench(paced=True)
    bench.setup(fcr=fcr)
    for position, character in enumerate(text):
        while not bench.inb(Port.LSR) & Lsr.THRE:
            bench.wait(CHARACTER_NS // 3)
        bench.outb(Port.THR, character)
        bench.wait(waits_ns[position] if position < len(waits_ns) else 0)
    bench.wait(2 * CHARACTER_NS)
    assert bench.sent == text
    assert bench.inb(Port.LSR) == Lsr.THRE | Lsr.TEMT
