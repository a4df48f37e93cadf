; Prints a text the way a driver without interrupts does: before each character it reads the line
; status until the transmitter holding register is empty.
;
; Source: PC16550D datasheet, line status register, bit 5 (THRE).

%include "machine.inc"
%include "text.inc"

        bits 16
        org 0x7c00

        call    uart_init
        mov     si, text
        mov     cx, text_end - text
        cld
.next:  mov     dx, UART_LSR
.busy:  in      al, dx
        test    al, LSR_THRE
        jz      .busy
        mov     dx, UART_DATA
        lodsb
        out     dx, al
        loop    .next

        mov     dx, UART_LSR            ; the last character must be on the wire before the end
.last:  in      al, dx
        test    al, LSR_TEMT
        jz      .last
        exit    0

text:   db      "Each of these characters waited for its turn:", CRLF
        db      "the line status said that there was room for it.", CRLF
text_end:

        text_routines
