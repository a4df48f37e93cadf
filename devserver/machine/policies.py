"""How accesses to a device travel: what its model declares, and what its wiring says instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from devserver.models.device import Device
from devserver.models.registers import Policy, Region, Register

#: Stands for every register that a wiring does not name.
ALL = "*"
ASKED, LEASED = "asked", "leased"

_WRITES = {str(policy.value): policy for policy in Policy}
_READS = {ASKED: False, LEASED: True}


class PolicyError(ValueError):
    """A wiring's policies that do not fit the model."""


class Policies:
    """The effective policies of one device."""

    def __init__(self, device: Device, wanted: Mapping[str, str]) -> None:
        """``wanted`` is in the words of ``WantedDevice.policies``. Raises :class:`PolicyError`."""
        self._device = device
        self._registers = list(_registers(device))
        self._wanted = {name: _words(device.kind, name, text) for name, text in wanted.items()}
        names = [register.name for register in self._registers]
        for name in wanted:
            if name != ALL and name not in names:
                near = get_close_matches(name.upper(), names, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"it has: {', '.join(names)}"
                raise PolicyError(f"kind '{device.kind}' has no register '{name}'; {hint}")
        for register in self._registers:
            _, leased = self._wanted.get(register.name, (None, None))
            if leased and not device.can_lease(register):
                raise PolicyError(f"register {register.name} of '{device.kind}' can't be leased")

    def write_policy(self, region: Region, offset: int) -> Policy:
        """How a write to the byte at ``offset`` travels: the strictest of the registers there."""
        here = [self._of(r)[0] for r in _at(region, offset) if r.access.writable]
        return min(here, key=lambda policy: policy.freedom, default=Policy.FINISH)

    def may_be_leased(self, region: Region, offset: int) -> bool:
        """Whether a read of the byte at ``offset`` may be leased, in one bank at least."""
        return any(self._of(r)[1] for r in _at(region, offset) if r.access.readable)

    def is_leased(self, region: Region, offset: int, bank: str) -> bool:
        """The same, for the register that answers while ``bank`` is selected."""
        here = [r for r in _at(region, offset) if r.access.readable and r.bank in ("", bank)]
        return bool(here) and self._of(max(here, key=lambda register: register.bank != ""))[1]

    def _of(self, register: Register) -> tuple[Policy, bool]:
        writes, leased = self._wanted.get(register.name) or self._wanted.get(ALL) or (None, None)
        if leased and not self._device.can_lease(register):
            leased = False  # meant by ALL, which means those that can be
        return (
            self._device.write_policy(register) if writes is None else writes,
            register.leased if leased is None else leased,
        )


def offsets(region: Region) -> list[int]:
    """The offsets where a region has registers, in order."""
    return sorted({r.offset + byte for r in region.registers for byte in range(r.width)})


def _registers(device: Device) -> Iterator[Register]:
    for region in device.regions:
        yield from region.registers


def _at(region: Region, offset: int) -> Iterator[Register]:
    for register in region.registers:
        if register.offset <= offset < register.offset + register.width:
            yield register


def _words(kind: str, name: str, text: str) -> tuple[Policy | None, bool | None]:
    writes: Policy | None = None
    leased: bool | None = None
    for word in text.split("+"):
        if word in _WRITES and writes is None:
            writes = _WRITES[word]
        elif word in _READS and leased is None:
            leased = _READS[word]
        else:
            raise PolicyError(
                f"kind '{kind}': policy '{text}' of register '{name}' is none of "
                f"{', '.join((*_WRITES, *_READS))}, nor one for writes and one for reads, joined "
                f"by +"
            )
    return writes, leased
