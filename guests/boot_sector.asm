; A boot sector, as one finds them in books: 512 bytes that end in 55 AA, printing through the
; BIOS. What runs below it is the mini BIOS of guests/bios.
;
; INT 10h, AH = 0Eh: teletype output of AL (IBM PC/AT Technical Reference, BIOS listing). The BIOS
; passes the number of the boot drive in DL.

%include "machine.inc"

        bits 16
        org 0x7c00

        jmp     0:start                 ; some BIOSes jump to 07C0:0000
start:  xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     sp, 0x7c00
        mov     bx, 7                   ; page 0, light grey
        cmp     dl, 0x80
        jne     failed

        mov     si, text
        cld
.next:  lodsb
        test    al, al
        jz      .end
        mov     ah, 0x0e
        int     0x10
        jmp     .next
.end:   exit    0

failed: exit    2

text:   db      "Hello from a boot sector, through INT 10h.", CRLF, 0

        times 510 - ($ - $$) db 0
        dw      0xaa55
