; Prints characters the way a driver without interrupts does, a look at the line status before each.
;
; Source: PC16550D datasheet, line status register, bit 5 (THRE).

%include "machine.inc"
%include "timed.inc"

        bits    16
        org     0x7c00

        out8    UART_LCR, LCR_8N1
        mov     ecx, [COUNT]
        begin_timing
.next:  mov     dx, UART_LSR
.busy:  in      al, dx
        test    al, LSR_THRE
        jz      .busy
        mov     dx, UART_DATA
        mov     al, cl
        out     dx, al
        dec     ecx
        jnz     .next

        mov     dx, UART_LSR            ; the last character must be on the wire before the end
.last:  in      al, dx
        test    al, LSR_TEMT
        jz      .last
        end_timing
