; Shows progress on the POST code display, as firmware does long before it can print.
;
; Source: IBM PC/AT Technical Reference, port 80h. Real firmware also uses a write to this port as
; a delay of about a microsecond, for nothing else answers there.

%include "machine.inc"
%include "text.inc"

        bits 16
        org 0x7c00

        mov     si, codes
        mov     cx, codes_end - codes
        cld
.next:  lodsb
        out     POST_PORT, al
        loop    .next
        say     "POST codes: "
        mov     si, codes
        mov     cx, codes_end - codes
.print: lodsb
        call    print_hex8
        mov     al, ' '
        call    put_char
        loop    .print
        say     CRLF
        exit    0

codes:  db      0x01, 0x10, 0x2a, 0x55, 0xaa, 0xff, 0x00
codes_end:

        text_routines
