"""Boot sectors for tests of the BIOS: a few lines of assembly, and a run of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from commandline import Result, kvmshim

#: Results go to the debug console, so that the serial port is the BIOS's alone.
PRELUDE = """
        bits 16
        org 0x7c00
%macro say 1+
        call    say_inline
        db      %1, 0
%endmacro
%macro show 2                           ; label, 16-bit register or memory
        push    ax
        mov     ax, %2
        say     %1, "="
        call    show_ax
        pop     ax
%endmacro
%macro quit 0
        mov     al, 0
        out     0xf4, al
        hlt
%endmacro
        jmp     0:start
say_inline:
        push    bp
        mov     bp, sp
        push    si
        push    ax
        mov     si, [bp + 2]
.next:  cs lodsb
        test    al, al
        jz      .end
        out     0xe9, al
        jmp     .next
.end:   mov     [bp + 2], si
        pop     ax
        pop     si
        pop     bp
        ret
show_ax:
        push    cx
        mov     cx, 4
.next:  rol     ax, 4
        push    ax
        and     al, 15
        cmp     al, 10
        sbb     al, 0x69
        das
        out     0xe9, al
        pop     ax
        loop    .next
        mov     al, 10
        out     0xe9, al
        pop     cx
        ret
start:  xor     ax, ax
        mov     ds, ax
        mov     es, ax
"""
SIGNATURE = """
        times 510 - ($ - $$) db 0
        dw      0xaa55
"""
SECTOR = 512


def boot_image(folder: Path, code: str, size_bytes: int = SECTOR) -> Path:
    """Assembles a boot sector; sector ``n`` of the image behind it begins with the word ``n``."""
    source, image = folder / "guest.asm", folder / "guest.bin"
    source.write_text(PRELUDE + code + SIGNATURE)
    subprocess.run(["nasm", "-f", "bin", "-o", image, source], check=True)
    sectors = [image.read_bytes()]
    for number in range(1, size_bytes // SECTOR):
        sectors.append(number.to_bytes(2, "little") + bytes(SECTOR - 2))
    image.write_bytes(b"".join(sectors))
    return image


def boot(image: Path, *arguments: str, given: bytes | None = None) -> Result:
    """Runs an image through the BIOS."""
    return kvmshim("run", image, "--timeout", "30", *arguments, given=given)


def seen(result: Result) -> str:
    """What the guest showed, by whatever way; it must have ended by itself."""
    assert result.returncode == 0, (result.stdout, result.stderr)
    return result.stdout.decode().replace("\r", "")
