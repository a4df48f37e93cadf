; Tries the services that boot loaders use: disk by head and sector and by number, memory map, block
; move, ticks, waits, clock, keyboard. The image is larger than its boot sector, which loads the
; rest, as boot sectors do. It runs on any PC BIOS, given a serial port, a disk and this machine's
; debug exit.
;
; Sources: see guests/bios, whose parts name them.

%include "machine.inc"
%include "text.inc"

SECTORS         equ 5
LOADED          equ 0x7e00
SCRATCH         equ 0xa000
FAR_AWAY        equ 0x300000
SMAP            equ 0x534d4150
CARRY           equ 1

; int_ok NUMBER: the interrupt, and the check that it left the carry flag clear.
%macro int_ok 1.nolist
        clc
        int     %1
        pushf
        pop     bp
        and     bp, CARRY
        push    eax
        expect  bp, 0
        pop     eax
%endmacro

; int_fails NUMBER: the same for a refusal.
%macro int_fails 1.nolist
        clc
        int     %1
        pushf
        pop     bp
        and     bp, CARRY
        push    eax
        expect  bp, CARRY
        pop     eax
%endmacro

        bits 16
        org 0x7c00

        jmp     0:start
start:  xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        cld
        mov     [drive], dl
        mov     ax, 0x0200 | SECTORS - 1        ; read, from sector 2
        mov     cx, 0x0002
        mov     dh, 0
        mov     bx, LOADED
        int     0x13
        jc      .failed
        cmp     al, SECTORS - 1
        jne     .failed
        jmp     rest
.failed:
        exit    2

drive:  db      0

        times 510 - ($ - $$) db 0
        dw      0xaa55

rest:   call    test_disk
        say     "disk ok", CRLF
        call    test_memory
        say     "memory ok", CRLF
        call    test_block_move
        say     "block move ok", CRLF
        call    test_time
        say     "time ok", CRLF
        say     "type a line: "
        call    test_keyboard
        say     CRLF, "keyboard ok", CRLF
        exit    0

; -- Disk -----------------------------------------------------------------------------------------

test_disk:
        mov     ah, 0x00                ; reset
        mov     dl, [drive]
        int_ok  0x13
        mov     ah, 0x08                ; parameters
        mov     dl, [drive]
        push    es
        int_ok  0x13
        pop     es
        and     cl, 0x3f
        expect_between cl, SECTORS, 63
        expect_between dl, 1, 8
        mov     ah, 0x15                ; type: a hard disk
        mov     dl, [drive]
        int_ok  0x13
        expect  ah, 3

        mov     ax, 0x0201              ; the last sector, by cylinder, head and sector
        mov     cx, SECTORS
        mov     dh, 0
        mov     dl, [drive]
        mov     bx, SCRATCH
        int_ok  0x13
        call    compare_last_sector

        mov     ah, 0x41                ; extensions
        mov     bx, 0x55aa
        mov     dl, [drive]
        int_ok  0x13
        expect  bx, 0xaa55
        mov     di, SCRATCH
        mov     cx, 512
        mov     al, 0
        rep     stosb
        mov     ah, 0x42                ; the same sector, by number
        mov     si, packet
        mov     dl, [drive]
        int_ok  0x13
        call    compare_last_sector

        mov     ax, 0x0201              ; there is no sector 0
        mov     cx, 0x0000
        mov     dh, 0
        mov     dl, [drive]
        mov     bx, SCRATCH
        int_fails 0x13
        mov     ah, 0x08                ; nor another drive
        mov     dl, 0x8f
        int_fails 0x13
        ret

compare_last_sector:
        mov     si, LOADED + (SECTORS - 2) * 512
        mov     di, SCRATCH
        mov     cx, 512
        repe    cmpsb
        mov     al, [si - 1]
        sub     al, [di - 1]
        expect  al, 0
        expect  cx, 0
        ret

packet: db      16, 0
        dw      1, SCRATCH, 0
        dq      SECTORS - 1

; -- Memory ---------------------------------------------------------------------------------------

; Three ways to ask must tell the same: the range of the map that begins at 1 MiB, E801h and 88h.
test_memory:
        int     0x12
        expect_between ax, 600, 640
        xor     ebx, ebx
.next:  mov     eax, 0xe820
        mov     edx, SMAP
        mov     ecx, 20
        mov     di, SCRATCH
        int_ok  0x15
        expect  eax, SMAP
        expect  cx, 20
        cmp     dword [SCRATCH], 0x100000
        jne     .other
        expect  word [SCRATCH + 16], 1
        mov     eax, [SCRATCH + 8]
        shr     eax, 10
        mov     [above_1m], ax
.other: test    ebx, ebx
        jnz     .next

        mov     ax, 0xe801
        int_ok  0x15
        shl     bx, 6
        add     ax, bx
        mov     bx, [above_1m]
        sub     bx, ax                  ; its units above 16 MiB are 64 KiB
        expect_between bx, 0, 63
        mov     ah, 0x88
        int_ok  0x15
        mov     bx, [above_1m]
        sub     bx, ax
        expect  bx, 0
        ret

above_1m: dw    0

; A text goes above 1 MiB and comes back; its length is odd in words.
test_block_move:
        mov     word [gdt.from], text
        mov     byte [gdt.from + 2], 0
        mov     word [gdt.to], FAR_AWAY & 0xffff
        mov     byte [gdt.to + 2], FAR_AWAY >> 16
        call    .move
        mov     word [gdt.from], FAR_AWAY & 0xffff
        mov     byte [gdt.from + 2], FAR_AWAY >> 16
        mov     word [gdt.to], SCRATCH
        mov     byte [gdt.to + 2], 0
        call    .move
        mov     si, text
        mov     di, SCRATCH
        mov     cx, TEXT_BYTES
        repe    cmpsb
        mov     al, [si - 1]
        sub     al, [di - 1]
        expect  al, 0
        expect  cx, 0
        ret
.move:  mov     ah, 0x87
        mov     cx, TEXT_BYTES / 2
        mov     si, gdt
        int_ok  0x15
        ret

        align 8, db 0
gdt:    dq      0, 0
        dw      0xffff
.from:  db      0, 0, 0, 0x93, 0, 0
        dw      0xffff
.to:    db      0, 0, 0, 0x93, 0, 0
        dq      0, 0

text:   db      "there and back"
TEXT_BYTES equ $ - text

; -- Time -----------------------------------------------------------------------------------------

; Waiting 200 ms takes three or four ticks of 55 ms.
test_time:
        mov     ah, 0x00
        int     0x1a
        push    dx
        mov     ah, 0x86
        mov     cx, 200000 >> 16
        mov     dx, 200000 & 0xffff
        int_ok  0x15
        mov     ah, 0x00
        int     0x1a
        pop     bx
        sub     dx, bx
        expect_between dx, 3, 100        ; on a busy host it may take long

        mov     ah, 0x02
        int_ok  0x1a
        expect_between ch, 0, 0x23
        expect_between cl, 0, 0x59
        expect_between dh, 0, 0x59
        mov     ah, 0x04
        int_ok  0x1a
        expect_between ch, 0x20, 0x21
        expect_between dh, 0x01, 0x12
        expect_between dl, 0x01, 0x31
        ret

; -- Keyboard -------------------------------------------------------------------------------------

; Reads a line, showing it, and counts its keys; each key's second look must be like its first.
test_keyboard:
        mov     ah, 0x00
        int     0x16
        cmp     al, CR
        je      .end
        push    ax
        expect_between ah, 1, 0x39
        pop     ax
        mov     ah, 0x0e
        mov     bx, 7
        int     0x10
        mov     ah, 0x01
        int     0x16
        jz      test_keyboard
        mov     cx, ax
        mov     ah, 0x01
        int     0x16
        sub     cx, ax
        expect  cx, 0
        jmp     test_keyboard
.end:   expect  ah, 0x1c
        ret

        text_routines

        times SECTORS * 512 - ($ - $$) db 0x5a
