"""A machine's state as no machine ever had it, for tests that need one."""

from __future__ import annotations

import dataclasses
from typing import Any

from kvmshim.vmstate.state import (
    Block,
    ChipState,
    CpuState,
    DeviceDescription,
    Header,
    MachineDescription,
    MachineState,
    PendingInput,
)

DEVICE = DeviceDescription("com1", "uart16550", "local", {"io": 0x3F8}, {"irq": 4}, {}, {})
MACHINE = MachineDescription("a guest", 1, 16 << 20, 0, False, "kernel", False, {}, (DEVICE,))
CPU = CpuState({"regs": bytes(144)}, {0x10: 1 << 63}, ((1, 0, 0, 0, 0, 0, 0),), 0, 2_000_000)
HEADER = Header(
    machine=MACHINE,
    needs=("KVM_CAP_IRQCHIP",),
    time_ns=123_456_789,
    epoch_ns=1_800_000_000_000_000_000,
    cpu=CPU,
    chips=ChipState({"pic master": bytes(512)}, 77),
    devices={"local": {"com1": b"its state"}},
    inputs=(PendingInput("com1", 0, b"typed ahead", 3, True, False),),
)
MEMORY = (Block.pack(0x7000, b"code" * 1024), Block.pack(0x10_0000, bytes(range(256)) * 32))
STATE = MachineState(HEADER, MEMORY)


def header(**changes: Any) -> Header:
    """The header with some of its fields changed."""
    return dataclasses.replace(HEADER, **changes)
