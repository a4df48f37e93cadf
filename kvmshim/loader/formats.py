"""Files that people try to boot and that are none of the kinds here: named, with what to do."""

from __future__ import annotations

from typing import NamedTuple


class _Format(NamedTuple):
    offset: int
    magic: bytes
    note: str


_UNPACK = "unpack it first"
_CONVERT = "convert it with 'qemu-img convert -O raw'"

#: The first that fits names it. Sources: each format's own specification.
_FORMATS = (
    _Format(0x202, b"HdrS", "looks like a Linux kernel, which needs a boot loader that sets it up"),
    _Format(0x8001, b"CD001", "looks like an ISO 9660 file system, a CD; no CD drive is there"),
    _Format(0, b"QFI\xfb", f"looks like a qcow2 disk; {_CONVERT}"),
    _Format(0, b"KDMV", f"looks like a VMDK disk; {_CONVERT}"),
    _Format(0x40, b"\x7f\x10\xda\xbe", f"looks like a VDI disk; {_CONVERT}"),
    _Format(0, b"vhdxfile", f"looks like a VHDX disk; {_CONVERT}"),
    _Format(0, b"conectix", f"looks like a VHD disk; {_CONVERT}"),
    _Format(0, b"\x1f\x8b\x08", f"looks like gzip; {_UNPACK}"),
    _Format(0, b"\xfd7zXZ\0", f"looks like xz; {_UNPACK}"),
    _Format(0, b"BZh", f"looks like bzip2; {_UNPACK}"),
    _Format(0, b"\x28\xb5\x2f\xfd", f"looks like zstd; {_UNPACK}"),
    _Format(0, b"PK\x03\x04", f"looks like a zip file; {_UNPACK}"),
    _Format(0, b"MZ", "looks like a DOS, Windows or EFI program; there is no such system here"),
    _Format(0, b"\x55\xaa", "looks like an adapter's option ROM, which only a BIOS calls"),
    _Format(0, b"#!", "looks like a script, not machine code"),
    _Format(0, b"!<arch>\n", "looks like a library of object files; link a program"),
)
_MULTIBOOT2_MAGIC = b"\xd6\x50\x52\xe8"
#: A multiboot 2 header begins in these first bytes, at a multiple of 8 (specification 2.0, 3.1).
_MULTIBOOT2_BYTES, _MULTIBOOT2_ALIGNMENT = 32768, 8


def note(data: bytes) -> str:
    """What ``data`` looks like that can't be booted as it is, and what to do; mostly empty."""
    for known in _FORMATS:
        if data.startswith(known.magic, known.offset):
            return known.note
    at = data.find(_MULTIBOOT2_MAGIC, 0, _MULTIBOOT2_BYTES)
    if at >= 0 and at % _MULTIBOOT2_ALIGNMENT == 0:
        return "has a multiboot 2 magic number, but no right checksum or no address tag with it"
    return ""
