"""From the table of unclaimed accesses (native/src/vcpu/unclaimed.h) to what people read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from kvmshim.abi import ffi, lib
from kvmshim.vmm.pcmap import memory_name, port_name
from kvmshim.vmm.unclaimed import Access, Unclaimed, UnclaimedPlace

_PORTS = 0
_PAGE_BYTES = 4096


def read_unclaimed(handle: Any, post_codes: Iterable[int] = ()) -> Unclaimed:
    """What a ``struct unclaimed *`` holds; ``post_codes``: those that a device has had."""
    places = [_place(handle.places[at]) for at in range(handle.count)]
    ports = [place for place in places if place.is_port]
    memory = sorted((place for place in places if not place.is_port), key=lambda p: p.low)
    joined = sorted([*ports, *_joined(memory)], key=lambda p: p.count, reverse=True)
    codes = tuple(post_codes) or tuple(_post_codes(handle))
    return Unclaimed(tuple(joined), int(handle.forgotten), codes)


def new_table() -> Any:
    """A ``struct unclaimed *``, empty."""
    return ffi.new("struct unclaimed *")


def _place(place: Any) -> UnclaimedPlace:
    is_port = place.space == _PORTS
    low = int(place.low)
    return UnclaimedPlace(
        is_port=is_port,
        low=low,
        high=int(place.high),
        name=port_name(low) if is_port else memory_name(low),
        reads=int(place.reads),
        writes=int(place.writes),
        first=_access(place.first),
        last=_access(place.last),
        code=int(place.code) if place.has_code else None,
    )


def _access(one: Any) -> Access:
    return Access(
        time_ns=int(one.time_ns),
        address=int(one.address),
        is_write=bool(one.direction),
        size=int(one.size),
        value=int(one.value),
    )


def _joined(pages: Iterable[UnclaimedPlace]) -> Iterator[UnclaimedPlace]:
    """Pages next to each other, of the same name, as one place."""
    before: UnclaimedPlace | None = None
    for page in pages:
        near = before is not None and page.low // _PAGE_BYTES - before.high // _PAGE_BYTES <= 1
        if before is not None and near and page.name == before.name:
            before = _join(before, page)
            continue
        if before is not None:
            yield before
        before = page
    if before is not None:
        yield before


def _join(a: UnclaimedPlace, b: UnclaimedPlace) -> UnclaimedPlace:
    earlier = min(a, b, key=lambda place: place.first.time_ns)
    return replace(
        a,
        high=max(a.high, b.high),
        reads=a.reads + b.reads,
        writes=a.writes + b.writes,
        first=earlier.first,
        last=max(a.last, b.last, key=lambda access: access.time_ns),
        code=earlier.code,
    )


def _post_codes(handle: Any) -> list[int]:
    count, room = int(handle.post_count), int(lib.UNCLAIMED_POST_CODES)
    kept = range(max(0, count - room), count)
    return [int(handle.post_codes[at % room]) for at in kept]
