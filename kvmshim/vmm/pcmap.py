"""What a PC has at which ports and addresses: names for accesses that no device claims.

Sources: IBM PC/AT Technical Reference (system board I/O map); Intel 82371SB datasheet (PIIX3);
VGA and EGA register maps of the IBM PS/2 Hardware Interface Reference; PCI Local Bus 3.0 (3.2.2);
IA-PC HPET 1.0a; Intel SDM volume 3 (local APIC, I/O APIC); the specifications of QEMU's PC
(docs/specs in its source tree) for what only virtual machines have.
"""

from __future__ import annotations

from typing import NamedTuple


class Range(NamedTuple):
    """Addresses ``first`` to ``last`` and what is there."""

    first: int
    last: int
    name: str


#: The first that fits names a port: single registers stand before the chip that they belong to.
PORTS: tuple[Range, ...] = (
    Range(0x00, 0x0F, "DMA controller 1"),
    Range(0x20, 0x21, "interrupt controller 1 (8259A)"),
    Range(0x22, 0x23, "chipset or IMCR"),
    Range(0x2E, 0x2F, "Super I/O configuration"),
    Range(0x4E, 0x4F, "Super I/O configuration, or TPM"),
    Range(0x40, 0x42, "timer (8254), counter"),
    Range(0x43, 0x43, "timer (8254), mode"),
    Range(0x60, 0x60, "keyboard controller, data"),
    Range(0x61, 0x61, "system control port B: speaker, timer 2 gate, refresh"),
    Range(0x64, 0x64, "keyboard controller, status and command"),
    Range(0x70, 0x70, "CMOS and clock, index"),
    Range(0x71, 0x71, "CMOS and clock, data"),
    Range(0x72, 0x73, "CMOS, upper bank"),
    Range(0x80, 0x80, "POST code"),
    Range(0x81, 0x8F, "DMA page registers"),
    Range(0x92, 0x92, "system control port A: A20 gate, fast reset"),
    Range(0xA0, 0xA1, "interrupt controller 2 (8259A)"),
    Range(0xB2, 0xB3, "APM: system management interrupt"),
    Range(0xC0, 0xDF, "DMA controller 2"),
    Range(0xE9, 0xE9, "debug console of Bochs and QEMU"),
    Range(0xED, 0xED, "delay port of Linux"),
    Range(0xF0, 0xF1, "coprocessor, busy latch"),
    Range(0xF4, 0xF4, "debug exit of QEMU"),
    Range(0xF8, 0xFF, "coprocessor"),
    Range(0x170, 0x170, "ATA secondary channel, data"),
    Range(0x171, 0x176, "ATA secondary channel"),
    Range(0x177, 0x177, "ATA secondary channel, status and command"),
    Range(0x1CE, 0x1D0, "Bochs VBE display"),
    Range(0x1F0, 0x1F0, "ATA primary channel, data"),
    Range(0x1F1, 0x1F6, "ATA primary channel"),
    Range(0x1F7, 0x1F7, "ATA primary channel, status and command"),
    Range(0x200, 0x207, "game port"),
    Range(0x220, 0x22F, "Sound Blaster 16"),
    Range(0x240, 0x24F, "Sound Blaster 16, or NE2000 network card"),
    Range(0x279, 0x279, "ISA Plug and Play, address; or parallel port LPT2"),
    Range(0x278, 0x27F, "parallel port LPT2"),
    Range(0x2E8, 0x2EF, "serial port COM4"),
    Range(0x2F8, 0x2FF, "serial port COM2"),
    Range(0x300, 0x31F, "NE2000 network card"),
    Range(0x330, 0x331, "MIDI (MPU-401), or a SCSI adapter"),
    Range(0x360, 0x36F, "network card"),
    Range(0x370, 0x375, "floppy controller 2"),
    Range(0x376, 0x376, "ATA secondary channel, device control"),
    Range(0x377, 0x377, "floppy controller 2"),
    Range(0x378, 0x37F, "parallel port LPT1"),
    Range(0x388, 0x38B, "AdLib sound (OPL)"),
    Range(0x3B0, 0x3BB, "VGA, monochrome"),
    Range(0x3BC, 0x3BE, "parallel port LPT, on a monochrome adapter"),
    Range(0x3BF, 0x3BF, "Hercules display"),
    Range(0x3C0, 0x3C1, "VGA, attribute controller"),
    Range(0x3C2, 0x3C2, "VGA, miscellaneous output"),
    Range(0x3C4, 0x3C5, "VGA, sequencer"),
    Range(0x3C6, 0x3C9, "VGA, palette"),
    Range(0x3CE, 0x3CF, "VGA, graphics controller"),
    Range(0x3D4, 0x3D5, "VGA, CRT controller"),
    Range(0x3DA, 0x3DA, "VGA, status: retrace"),
    Range(0x3C0, 0x3DF, "VGA"),
    Range(0x3E0, 0x3E7, "PCMCIA controller, or serial port"),
    Range(0x3E8, 0x3EF, "serial port COM3"),
    Range(0x3F6, 0x3F6, "ATA primary channel, device control"),
    Range(0x3F0, 0x3F7, "floppy controller"),
    Range(0x3F8, 0x3FF, "serial port COM1"),
    Range(0x402, 0x402, "debug console of SeaBIOS and OVMF"),
    Range(0x4D0, 0x4D1, "interrupt controllers, edge or level"),
    Range(0x505, 0x505, "pvpanic of QEMU"),
    Range(0x510, 0x511, "fw_cfg of QEMU"),
    Range(0x514, 0x51B, "fw_cfg of QEMU, DMA"),
    Range(0x604, 0x604, "ACPI power management: power off (QEMU)"),
    Range(0x600, 0x67F, "ACPI power management"),
    Range(0xA79, 0xA79, "ISA Plug and Play, data"),
    Range(0xAE00, 0xAE17, "ACPI hotplug of QEMU"),
    Range(0xAF00, 0xAF1F, "ACPI CPU hotplug of QEMU"),
    Range(0xAFE0, 0xAFE3, "ACPI general purpose events of QEMU"),
    Range(0xB000, 0xB03F, "ACPI power management of Bochs and old QEMU"),
    Range(0xB100, 0xB13F, "SMBus of QEMU"),
    Range(0xC000, 0xCFFF, "PCI configuration (mechanism 2), or a PCI card"),
    Range(0xCF9, 0xCF9, "reset control"),
    Range(0xCF8, 0xCFB, "PCI configuration, address"),
    Range(0xCFC, 0xCFF, "PCI configuration, data"),
    Range(0x5658, 0x5659, "VMware backdoor"),
    Range(0x8900, 0x8900, "power off of Bochs"),
    Range(0x4004, 0x4004, "power off of VirtualBox"),
)

#: The same for memory.
MEMORY: tuple[Range, ...] = (
    Range(0xA_0000, 0xA_FFFF, "VGA graphics memory"),
    Range(0xB_0000, 0xB_7FFF, "monochrome text screen"),
    Range(0xB_8000, 0xB_FFFF, "text screen"),
    Range(0xC_0000, 0xD_FFFF, "adapters' option ROMs"),
    Range(0xE_0000, 0xF_FFFF, "BIOS"),
    Range(0xB000_0000, 0xBFFF_FFFF, "PCI express configuration (q35)"),
    Range(0xE000_0000, 0xEFFF_FFFF, "PCI express configuration, or a display's memory"),
    Range(0xFD00_0000, 0xFDFF_FFFF, "display memory of QEMU"),
    Range(0xFEB0_0000, 0xFEBF_FFFF, "registers of PCI cards (QEMU)"),
    Range(0xFEC0_0000, 0xFEC0_0FFF, "I/O APIC"),
    Range(0xFED0_0000, 0xFED0_03FF, "HPET timers"),
    Range(0xFED1_C000, 0xFED1_FFFF, "chipset configuration"),
    Range(0xFED4_0000, 0xFED4_4FFF, "TPM"),
    Range(0xFEE0_0000, 0xFEEF_FFFF, "local APIC"),
    Range(0xFEF0_0000, 0xFFFF_FFFF, "BIOS flash"),
    Range(0xC000_0000, 0xFEBF_FFFF, "PCI cards"),
)


def port_name(port: int) -> str:
    """What a PC has at a port; empty if nothing usual."""
    return _name(PORTS, port)


def memory_name(address: int) -> str:
    """What a PC has at an address above its memory; empty if nothing usual."""
    return _name(MEMORY, address)


def _name(ranges: tuple[Range, ...], address: int) -> str:
    return next((r.name for r in ranges if r.first <= address <= r.last), "")
