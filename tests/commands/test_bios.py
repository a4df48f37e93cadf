"""The mini BIOS, service by service: what boot sectors that nobody here wrote rely on."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from biosguest import SECTOR, boot, boot_image, seen

pytestmark = [
    pytest.mark.kvm,
    pytest.mark.skipif(shutil.which("nasm") is None, reason="nasm is not installed"),
]

on_each_hypervisor = pytest.mark.parametrize(
    "hypervisor", ["kvm", pytest.param("unicorn", marks=pytest.mark.unicorn)]
)

# -- restarts -------------------------------------------------------------------------------------

#: Tells of drive, disk and memory, as the BIOS does; then spoils the extended data area and starts
#: anew, once.
RESTART = """
        mov     al, dl
        mov     ah, 0
        show    "drive", ax
        mov     ax, 0x0201
        mov     cx, 2
        mov     dh, 0
        mov     bx, 0x600
        int     0x13
        show    "sector", [0x600]
        int     0x12
        show    "low", ax
        mov     ah, 0x88
        int     0x15
        show    "high", ax
        xor     ebx, ebx
.map:   mov     eax, 0xe820
        mov     edx, 0x534d4150
        mov     ecx, 20
        mov     di, 0x620
        int     0x15
        show    "entry", [0x622]
        show    "end", [0x62a]
        test    ebx, ebx
        jnz     .map
        cmp     word [0x7000], 0xbeef
        je      .second
        mov     word [0x7000], 0xbeef
        push    0x9fc0
        pop     es
        xor     di, di
        mov     al, 0xcc
        mov     cx, 1024
        rep     stosb
        mov     word [0x472], 0x1234
        {restart}
.second:
        quit
"""
ENTRIES = {
    "int 19h": "int 0x19",
    "ffff:0": "jmp 0xffff:0",
    "f000:fff0": "jmp 0xf000:0xfff0",
    "f000:e05b": "jmp 0xf000:0xe05b",
}


@on_each_hypervisor
@pytest.mark.parametrize("restart", ENTRIES.values(), ids=ENTRIES)
def test_a_restart_finds_disk_and_memory_as_the_first_start_did(
    tmp_path: Path, restart: str, hypervisor: str
) -> None:
    image = boot_image(tmp_path, RESTART.format(restart=restart), 2 * SECTOR)
    lines = seen(boot(image, "--hypervisor", hypervisor)).splitlines()
    half = len(lines) // 2
    assert lines[:3] == ["drive=0080", "sector=0001", "low=027F"]
    assert lines[:half] == lines[half:]


# -- waits ----------------------------------------------------------------------------------------

#: Waits for a second between two looks at the clock's seconds: they differ by one, or by two.
WAIT = """
        {before}
        call    second
        push    ax
        mov     cx, 1000000 >> 16
        mov     dx, 1000000 & 0xffff
        mov     ah, 0x86
        int     0x15
        setc    al
        mov     ah, 0
        show    "carry", ax
        pop     bx
        call    second
        sub     ax, bx
        jns     .same
        add     ax, 60
.same:  dec     ax
        shr     ax, 1
        show    "off", ax
        quit
second: mov     ah, 2
        int     0x1a
        mov     al, dh
        shr     al, 4
        mov     ah, al
        mov     al, dh
        and     al, 15
        aad
        ret
"""
TIMERS = {
    "untouched": "",
    "interrupts off": "cli",
    "masked": "mov al, 1\n out 0x21, al",
    "all masked": "mov al, 0xff\n out 0x21, al\n out 0xa1, al",
    "one-shot": "mov al, 0x30\n out 0x43, al\n mov al, 0\n out 0x40, al\n out 0x40, al",
    "1000 Hz": "mov al, 0x34\n out 0x43, al\n mov al, 0xa9\n out 0x40, al\n mov al, 4\n"
    "out 0x40, al",
    "square wave": "mov al, 0x36\n out 0x43, al\n mov al, 0\n out 0x40, al\n out 0x40, al",
    "hooked": "cli\n mov word [0x20], hook\n mov word [0x22], 0\n sti\n jmp hooked\n"
    "hook: push ax\n mov al, 0x20\n out 0x20, al\n pop ax\n iret\n hooked:",
}


@pytest.mark.parametrize("before", TIMERS.values(), ids=TIMERS)
def test_a_wait_lasts_as_long_whatever_became_of_the_timer(tmp_path: Path, before: str) -> None:
    assert seen(boot(boot_image(tmp_path, WAIT.format(before=before)))) == "carry=0000\noff=0000\n"


EVENT = """
        mov     byte [0x600], 0
        mov     ax, 0x8300
        xor     cx, cx
        mov     dx, 30000
        mov     bx, 0x600
        int     0x15
        setc    al
        mov     ah, 0
        show    "carry", ax
.wait:  test    byte [0x600], 0x80
        jz      .wait
        say     "event", 10
        quit
"""


def test_an_event_wait_sets_the_byte_later(tmp_path: Path) -> None:
    assert seen(boot(boot_image(tmp_path, EVENT))) == "carry=0000\nevent\n"


def test_a_loop_on_a_service_with_interrupts_off_sees_the_ticks_go_on(tmp_path: Path) -> None:
    code = """
        cli
        mov     bx, [0x46c]
    .more:
        mov     ah, 1
        int     0x16
        cmp     bx, [0x46c]
        je      .more
        pushf
        pop     ax
        and     ax, 0x200
        show    "if", ax
        quit
    """
    assert seen(boot(boot_image(tmp_path, code))) == "if=0000\n"


# -- keys -----------------------------------------------------------------------------------------

READ_KEYS = """
        {before}
        mov     cx, {count}
.next:  mov     ah, {function}
        int     0x16
        show    "key", ax
        loop    .next
        quit
"""


def keys(folder: Path, given: bytes, count: int, function: int = 0, before: str = "") -> list[str]:
    """What INT 16h gives for what is typed."""
    code = READ_KEYS.format(before=before, count=count, function=function)
    text = seen(boot(boot_image(folder, code), given=given))
    return [line.removeprefix("key=") for line in text.splitlines()]


def port(number: int, value: int) -> str:
    """A write to a port."""
    return f"mov dx, {number}\n mov al, {value}\n out dx, al\n"


PORTS = {
    "the divisor latch": port(0x3FB, 0x83),
    "no interrupt enabled": port(0x3F9, 0),
    "loopback": port(0x3FC, 0x1B),
    "the interrupt's gate closed": port(0x3FC, 0),
    "the line masked": port(0x21, 0x10),
    "nothing but masks": port(0x21, 0xFF) + port(0x3F9, 0),
    "FIFOs": port(0x3FA, 0x07),
    "110 baud": port(0x3FB, 0x83) + port(0x3F8, 0x17) + port(0x3F9, 4) + port(0x3FB, 3),
    "interrupts off": "cli",
}


@pytest.mark.parametrize("before", PORTS.values(), ids=PORTS)
def test_keys_come_whatever_became_of_the_serial_port(tmp_path: Path, before: str) -> None:
    # The FIFOs' reset throws away what had come by then: so the last of many is waited for.
    given = b"k" * 40 if "0x3fa" in before or "1018" in before else b"k"
    assert keys(tmp_path, given, 1, before=before) == ["256B"]


SEQUENCES = {
    b"\x1b[A\x1b[B\x1b[C\x1b[D": ["48E0", "50E0", "4DE0", "4BE0"],
    b"\x1bOA\x1bOD\x1b[H\x1b[F\x1bOH": ["48E0", "4BE0", "47E0", "4FE0", "47E0"],
    b"\x1b[1~\x1b[2~\x1b[3~\x1b[4~\x1b[5~\x1b[6~": [
        "47E0",
        "52E0",
        "53E0",
        "4FE0",
        "49E0",
        "51E0",
    ],
    b"\x1bOP\x1bOQ\x1bOR\x1bOS": ["3B00", "3C00", "3D00", "3E00"],
    b"\x1b[11~\x1b[15~\x1b[17~\x1b[18~\x1b[21~": ["3B00", "3F00", "4000", "4100", "4400"],
    b"\x1b[23~\x1b[24~\x1b[[A\x1b[[E": ["8500", "8600", "3B00", "3F00"],
    b"\x1b[1;5C\x1b[1;5D\x1b[1;3A\x1b[1;2P\x1b[15;5~": ["74E0", "73E0", "9800", "5400", "6200"],
    b"\x1ba\x1bZ\x1b1\x1b0\x1b-": ["1E00", "2C00", "7800", "8100", "8200"],
    b"\x1b[Z\x01\x1a\t\r\x7f": ["0F00", "1E01", "2C1A", "0F09", "1C0D", "0E08"],
    b"\x1b\x1b[A\x1b:": ["011B", "48E0", "011B", "273A"],
    b"\x1b[99~\x1b[?1;2cx": ["2D78"],
    b"\x1b": ["011B"],
}


@pytest.mark.parametrize(("given", "expected"), SEQUENCES.items(), ids=str)
def test_what_a_terminal_sends_for_a_key_is_that_key(
    tmp_path: Path, given: bytes, expected: list[str]
) -> None:
    assert keys(tmp_path, given, len(expected), 0x10) == expected


def test_the_old_functions_see_the_old_keyboards_keys(tmp_path: Path) -> None:
    assert keys(tmp_path, b"\x1b[A\x1b[24~\x1b[1;5D\xe0", 3) == ["4800", "7300", "00E0"]


def test_a_pushed_key_comes_back_and_shift_states_are_told(tmp_path: Path) -> None:
    code = """
        mov     ax, 0x0500
        mov     cx, 0x1e61
        int     0x16
        mov     ah, 0
        int     0x16
        show    "pushed", ax
        mov     ah, 0
        int     0x16
        mov     ah, 2
        int     0x16
        and     ax, 0x000f
        show    "shift", ax
        quit
    """
    assert seen(boot(boot_image(tmp_path, code), given=b"\x1b[1;5C")) == (
        "pushed=1E61\nshift=0004\n"
    )


# -- the screen -----------------------------------------------------------------------------------

CURSOR = """
        mov     ah, 3
        mov     bh, 0
        int     0x10
        show    "at", dx
"""
SAY_X = "mov ax, 0x0e58\n mov bx, 7\n int 0x10\n"
POSITION = "mov ah, 2\n mov bh, 0\n mov dx, 0x0409\n int 0x10\n"


def test_without_a_terminal_text_stays_plain(tmp_path: Path) -> None:
    code = POSITION + SAY_X + CURSOR + "quit"
    assert seen(boot(boot_image(tmp_path, code))) == "Xat=040A\n"


def test_on_a_screen_positions_and_colours_are_control_sequences(tmp_path: Path) -> None:
    code = (
        POSITION
        + SAY_X
        + "mov ax, 0x0941\n mov bx, 0x001e\n mov cx, 2\n int 0x10\n"
        + CURSOR
        + "quit"
    )
    text = seen(boot(boot_image(tmp_path, code), "--screen"))
    assert "\x1b[2J" in text
    assert "\x1b[5;10HX" in text
    assert text.endswith("\x1b[0m\x1b[1;33;44mAA\x1b[0mat=040A\n")


def test_text_alone_is_plain_on_a_screen_too(tmp_path: Path) -> None:
    assert seen(boot(boot_image(tmp_path, SAY_X + "quit"), "--screen")) == "X"


def test_what_was_written_is_read_back_and_scrolls(tmp_path: Path) -> None:
    code = (
        POSITION
        + "mov ax, 0x0941\n mov bx, 0x001e\n mov cx, 2\n int 0x10\n"
        + "mov ax, 0x0601\n mov bh, 0x70\n xor cx, cx\n mov dx, 0x184f\n int 0x10\n"
        + "mov ah, 2\n mov bh, 0\n mov dx, 0x030a\n int 0x10\n"
        + 'mov ah, 8\n mov bh, 0\n int 0x10\n show "cell", ax\n'
        + "mov ah, 2\n mov bh, 0\n mov dx, 0x1800\n int 0x10\n"
        + 'mov ah, 8\n mov bh, 0\n int 0x10\n show "new", ax\n'
        + 'push 0xb800\n pop ds\n show "ram", [(3 * 80 + 9) * 2]\n'
        + "quit"
    )
    assert seen(boot(boot_image(tmp_path, code))).endswith("cell=1E41\nnew=7020\nram=1E41\n")


@pytest.mark.parametrize(
    ("text", "cursor"),
    [
        ("65, 66, 13, 10, 67", "0101"),
        ("65, 8, 8, 8", "0000"),
        ("65, 7", "0001"),
        (", ".join(["65"] * 81), "0101"),
        (", ".join(["10"] * 30), "1800"),
    ],
)
def test_the_cursor_follows_the_teletype(tmp_path: Path, text: str, cursor: str) -> None:
    code = f"""
        mov     si, text
        mov     cx, text_end - text
    .next:
        lodsb
        mov     ah, 0x0e
        int     0x10
        loop    .next
        show    "at", [0x450]
        quit
    text: db {text}
    text_end:
    """
    assert seen(boot(boot_image(tmp_path, code))).endswith(f"at={cursor}\n")


# -- disks ----------------------------------------------------------------------------------------

DRIVE = """
        mov     ah, 0
        mov     al, dl
        show    "drive", ax
        mov     [0x600], dl
        mov     ah, 8
        int     0x13
        mov     al, cl
        mov     ah, dh
        show    "head_sector", ax
        mov     al, ch
        mov     ah, cl
        and     ax, 0xc0ff
        shr     ah, 6
        show    "cylinder", ax
        xor     ax, ax
        mov     es, ax
        mov     ax, 0x0201
        mov     cx, 0x0101
        mov     dl, [0x600]
        mov     dh, 0
        mov     bx, 0x8000
        int     0x13
        show    "c1", [0x8000]
        quit
"""
DISKS = {
    160: ("0000", "0008", "0027", 8),
    180: ("0000", "0009", "0027", 9),
    320: ("0000", "0108", "0027", 16),
    360: ("0000", "0109", "0027", 18),
    720: ("0000", "0109", "004F", 18),
    1200: ("0000", "010F", "004F", 30),
    1440: ("0000", "0112", "004F", 36),
    2880: ("0000", "0124", "004F", 72),
    1000: ("0080", "0F3F", "0001", 1008),
}


@pytest.mark.parametrize("kib", DISKS)
def test_an_images_size_tells_its_number_and_its_geometry(tmp_path: Path, kib: int) -> None:
    drive, heads, cylinders, lba = DISKS[kib]
    assert seen(boot(boot_image(tmp_path, DRIVE, kib << 10))) == (
        f"drive={drive}\nhead_sector={heads}\ncylinder={cylinders}\nc1={lba:04X}\n"
    )


def test_a_partition_table_tells_the_geometry_that_it_was_made_with(tmp_path: Path) -> None:
    image = boot_image(tmp_path, DRIVE, 2000 * SECTOR)
    data = bytearray(image.read_bytes())
    # starts at 0/1/1, which is LBA 17; ends at head 3, sector 17
    entry = bytes([0x80, 1, 1, 0, 6, 3, 17, 20]) + (17).to_bytes(4, "little") + bytes([0, 5, 0, 0])
    data[0x1BE:0x1CE] = entry
    image.write_bytes(data)
    assert seen(boot(image)) == "drive=0080\nhead_sector=0311\ncylinder=001D\nc1=0044\n"


WRITE = """
        mov     word [0x8000], 0x4242
        mov     ax, 0x0301
        mov     cx, 2
        mov     dh, 0
        mov     bx, 0x8000
        int     0x13
        show    "status", ax
        mov     ax, 0x0201
        mov     cx, 2
        mov     bx, 0x8200
        int     0x13
        show    "read", [0x8200]
        quit
"""


@pytest.mark.parametrize("kib", [2, 720])
def test_writes_stay_in_the_run_unless_they_are_to_be_kept(tmp_path: Path, kib: int) -> None:
    image = boot_image(tmp_path, WRITE, kib << 10)
    before = image.read_bytes()
    assert seen(boot(image)) == "status=0001\nread=4242\n"
    assert image.read_bytes() == before
    seen(boot(image, "--disk-writes"))
    assert image.read_bytes() == before[:SECTOR] + b"BB" + before[SECTOR + 2 :]


def test_a_disk_that_cannot_be_kept_is_refused_before_the_run(tmp_path: Path) -> None:
    image = boot_image(tmp_path, WRITE, 1024)
    result = boot(image, "--disk-writes", "--no-bios")
    assert b"has no disk; leave out --disk-writes" in result.stderr
    assert result.stdout == b""


def test_a_diskette_has_no_packet_functions_and_no_drive_is_said_to_be_none(
    tmp_path: Path,
) -> None:
    code = """
        mov     ah, 0x41
        mov     bx, 0x55aa
        int     0x13
        mov     al, 0
        show    "extensions", ax
        mov     ah, 2
        mov     al, 1
        mov     cx, 1
        mov     dx, 0x0081
        mov     bx, 0x8000
        int     0x13
        mov     al, 0
        show    "absent", ax
        mov     ah, 0
        mov     al, [0x474]
        show    "noted", ax
        quit
    """
    assert seen(boot(boot_image(tmp_path, code, 720 << 10))) == (
        "extensions=0100\nabsent=0100\nnoted=0001\n"
    )


# -- the clock ------------------------------------------------------------------------------------


def test_an_alarm_comes_as_int_4ah(tmp_path: Path) -> None:
    code = """
        mov     word [0x4a * 4], alarm
        mov     word [0x4a * 4 + 2], 0
        mov     ah, 6
        mov     cx, 0xffff
        mov     dh, 0xff
        int     0x1a
        setc    al
        mov     ah, 0
        show    "carry", ax
    .wait:
        cmp     byte [0x600], 0x55
        jne     .wait
        mov     ah, 7
        int     0x1a
        say     "rang", 10
        quit
    alarm: mov  byte [cs:0x600], 0x55
        iret
    """
    assert seen(boot(boot_image(tmp_path, code))) == "carry=0000\nrang\n"


@pytest.mark.parametrize("function", [0x00, 0x21, 0x4E, 0x84, 0x89, 0xD8, 0xE9])
def test_an_unsupported_system_service_says_so(tmp_path: Path, function: int) -> None:
    code = f"""
        mov     ah, {function}
        clc
        int     0x15
        setc    al
        show    "ax", ax
        quit
    """
    assert seen(boot(boot_image(tmp_path, code))) == "ax=8601\n"
