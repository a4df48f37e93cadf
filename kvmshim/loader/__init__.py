"""What to boot: reads an image and says, as plain data, what memory and vCPU are to hold."""

from kvmshim.loader.bios import bios_info_block, informed_bios
from kvmshim.loader.detect import detect, detect_kind
from kvmshim.loader.load import load_image, plan_image
from kvmshim.loader.plan import (
    BootPlan,
    CpuStart,
    Guess,
    ImageKind,
    LongStart,
    ProtectedStart,
    RealStart,
    Rom,
    Segment,
)

__all__ = [
    "BootPlan",
    "CpuStart",
    "Guess",
    "ImageKind",
    "LongStart",
    "ProtectedStart",
    "RealStart",
    "Rom",
    "Segment",
    "bios_info_block",
    "detect",
    "detect_kind",
    "informed_bios",
    "load_image",
    "plan_image",
]
