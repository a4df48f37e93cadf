; A ROM image: 64 KiB that end at 4 GiB, with the reset vector sixteen bytes before the end.
;
; After reset the processor fetches from FFFFFFF0h: CS is F000h with a base of FFFF0000h. The first
; far jump loads CS anew, with base F0000h, where the same ROM shows as well. There is RAM, but
; nothing in it, and the segment registers are 0. (Intel SDM volume 3, "First instruction
; executed")

%include "machine.inc"
%include "text.inc"

ROM_SEGMENT equ 0xf000
RESET_VECTOR equ 0xfff0

        bits 16
        org 0

start:  cli
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        call    uart_init
        say     "Hello from a ROM.", CRLF

        mov     ax, ROM_SEGMENT         ; the same jump must stand where the processor found it
        mov     ds, ax
        expect  byte [RESET_VECTOR], 0xea
        mov     byte [RESET_VECTOR], 0x90       ; and a ROM does not change
        expect  byte [RESET_VECTOR], 0xea
        say     "It cannot be written.", CRLF
        exit    0

        text_routines

        times RESET_VECTOR - ($ - $$) db 0xff
        jmp     ROM_SEGMENT:start
        times 0x10000 - ($ - $$) db 0xff
