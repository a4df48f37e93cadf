; Prints a line through the serial port with plain writes, then exits.
;
; Nothing is read, so nothing has to be waited for: writes to the transmitter may be posted, and
; the guest runs ahead of its own output. The text ends exactly where the machine does, because a
; posted write never falls behind a later one.
;
; A real 16550 has to be set up first (see uart_init in text.inc), and overruns if it is fed faster
; than its line sends. This machine's sends at once.

%include "machine.inc"

        bits 16
        org 0x7c00

        mov     si, text
        mov     dx, UART_DATA
        cld
.next:  lodsb
        test    al, al
        jz      .end
        out     dx, al
        jmp     .next
.end:   exit    0

text:   db      "Hello from a real CPU; my devices are somewhere else.", CRLF, 0
