"""The BIOS's disk behind the machine: what a guest wrote to its copy goes into the image file."""

from __future__ import annotations

import os
from pathlib import Path

from kvmshim.bundled import guests_folder
from kvmshim.errors import InputError
from kvmshim.hypervisor.guest_memory import GuestMemory
from kvmshim.loader import BootPlan


def check_disk_writable(path: Path, plan: BootPlan) -> None:
    """Refuses at the start what could not be written at the end."""
    if plan.disk_image is None:
        raise InputError(
            f"the guest's writes can't go into '{path}': a {plan.kind} image that starts without "
            "the BIOS has no disk; leave out --disk-writes"
        )
    if path.resolve().is_relative_to(guests_folder()):
        raise InputError(
            f"the guest's writes can't go into '{path}': it belongs to kvmshim's own guests; "
            "copy it and run the copy, or leave out --disk-writes"
        )
    if not os.access(path, os.W_OK):
        raise InputError(
            f"the guest's writes can't go into '{path}': no permission to write; change the "
            "file's mode, or leave out --disk-writes"
        )


def write_disk_back(path: Path, physical: GuestMemory, plan: BootPlan) -> None:
    """Puts what the guest has made of its disk into the image file, if it has changed it.

    A file that does not end with a whole sector is made to, where something was written there.
    """
    disk = plan.disk_image
    assert disk is not None
    found = physical.read(disk.address, disk.end - disk.address)
    if not any(found[len(disk.data) :]):
        found = found[: len(disk.data)]
    if found == disk.data:
        return
    try:
        with path.open("r+b") as file:
            file.write(found)
    except OSError as error:
        raise InputError(
            f"the guest's writes can't go into '{path}': {error.strerror}; the file may be "
            "damaged, and what was written is lost"
        ) from None
