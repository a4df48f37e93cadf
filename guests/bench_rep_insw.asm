; Reads blocks of 64 KiB from a port with REP INSW, as a driver of an IDE disk does.

%include "machine.inc"
%include "timed.inc"

BUFFER  equ 0x2000                      ; a segment
WORDS   equ 0x8000                      ; that fill it

        bits    16
        org     0x7c00

        mov     ebx, [COUNT]            ; of blocks
        mov     ax, BUFFER
        mov     es, ax
        mov     dx, TEST_LATCH
        cld
        begin_timing
.next:  xor     di, di
        mov     cx, WORDS
        rep insw
        dec     ebx
        jnz     .next
        end_timing
