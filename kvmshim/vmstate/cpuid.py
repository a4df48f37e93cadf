"""Whether a host has the processor features that a guest was promised.

Source: Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

#: Rows of function, index, flags, EAX, EBX, ECX, EDX.
Table = Iterable[Sequence[int]]

_REGISTERS = {"EAX": 3, "EBX": 4, "ECX": 5, "EDX": 6}
#: Registers whose bits are features, by function and index.
_FEATURES: dict[tuple[int, int], tuple[str, ...]] = {
    (0x1, 0): ("ECX", "EDX"),
    (0x7, 0): ("EBX", "ECX", "EDX"),
    (0x7, 1): ("EAX", "EDX"),
    (0xD, 0): ("EAX", "EDX"),  # the state components that XCR0 may enable
    (0xD, 1): ("EAX",),
    (0x4000_0001, 0): ("EAX",),  # KVM's own (Documentation/virt/kvm/x86/cpuid.rst)
    (0x8000_0001, 0): ("ECX", "EDX"),
    (0x8000_0007, 0): ("EDX",),
    (0x8000_0008, 0): ("EBX",),
}


def missing_features(promised: Table, offered: Table) -> list[str]:
    """The features of ``promised`` that are not in ``offered``, such as ``CPUID 7 EBX bit 5``."""
    here = {(row[0], row[1]): row for row in offered}
    absent: list[str] = []
    for row in promised:
        key = (row[0], row[1])
        for name in _FEATURES.get(key, ()):
            at = _REGISTERS[name]
            lacking = row[at] & ~(here[key][at] if key in here else 0)
            where = f"CPUID {key[0]:X}h" + (f".{key[1]}" if key[1] else "")
            absent += [f"{where} {name} bit {bit}" for bit in range(32) if lacking >> bit & 1]
    return absent
