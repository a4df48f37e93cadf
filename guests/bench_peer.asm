; A boot sector that does the same accesses to its local COM1 under another machine's BIOS, for
; 'kvmshim bench' to time: blocks of INs of the line status and of OUTs of characters, in turn. A
; character on the debug console marks the beginning of each block and the end of the last.
;
; The client writes two numbers into the image: at offset 01F4h how many accesses a block has, at
; 01F8h how many pairs of blocks are done. The debug exit ends the machine.

%include "machine.inc"

        bits    16
        org     0x7c00

        xor     ax, ax
        mov     ds, ax
        cli
        mov     esi, [rounds]
.round: out8    DEBUG_CONSOLE, 'I'
        mov     dx, UART_LSR
        mov     ecx, [block]
.read:  in      al, dx
        dec     ecx
        jnz     .read
        out8    DEBUG_CONSOLE, 'O'
        mov     dx, UART_DATA
        mov     ecx, [block]
.write: out     dx, al
        dec     ecx
        jnz     .write
        dec     esi
        jnz     .round
        out8    DEBUG_CONSOLE, '.'
        exit    0

        times   0x1f4 - ($ - $$) db 0
block:  dd      1000
rounds: dd      1
        times   510 - ($ - $$) db 0
        dw      0xaa55
