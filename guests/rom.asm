; A ROM image: 64 KiB that end at 4 GiB, with the reset vector sixteen bytes before the end.
;
; After reset the processor fetches from FFFFFFF0h: CS is F000h with a base of FFFF0000h. The first
; far jump loads CS anew, with base F0000h, where a copy of the ROM lies in RAM. There is nothing
; else in memory, and the segment registers are 0. (Intel SDM volume 3, "First instruction
; executed")

%include "machine.inc"
%include "text.inc"

ROM_SEGMENT equ 0xf000
RESET_VECTOR equ 0xfff0
JUMP         equ 0xe9

        bits 16
        org 0

at_top: mov     bl, [cs:RESET_VECTOR]   ; still in the ROM below 4 GiB
        mov     byte [cs:RESET_VECTOR], 0x90
        mov     bh, [cs:RESET_VECTOR]
        jmp     ROM_SEGMENT:start

start:  cli
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        mov     si, bx
        call    uart_init
        say     "Hello from a ROM.", CRLF

        mov     bx, si
        expect  bl, JUMP                ; the jump with which the processor began
        expect  bh, JUMP                ; and a ROM does not change
        say     "It cannot be written"
        mov     ax, ROM_SEGMENT
        mov     ds, ax
        expect  byte [RESET_VECTOR], JUMP
        mov     byte [RESET_VECTOR], 0x90
        expect  byte [RESET_VECTOR], 0x90
        say     ", its copy below 1 MiB can.", CRLF
        exit    0

        text_routines

        times RESET_VECTOR - ($ - $$) db 0xff
        jmp     near at_top
        times 0x10000 - ($ - $$) db 0xff
