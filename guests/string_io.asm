; String I/O: REP INS and REP OUTS in all three widths, in both directions of the index register.
;
; Source: Intel SDM volume 2, INS and OUTS: CX elements between port DX and ES:DI or DS:SI; the
; index moves by the element's size, down if the direction flag is set.

%include "machine.inc"
%include "text.inc"

BUFFER  equ 0x9000
BYTES   equ 512

        bits 16
        org 0x7c00

        call    uart_init
        cld
        mov     eax, 0x04030201
        out     TEST_LATCH, eax

        ; In: the latch repeats itself, so the checksum counts the elements and their lanes.
        mov     dx, TEST_LATCH
        mov     di, BUFFER
        mov     cx, BYTES
        rep     insb
        expect  di, BUFFER + BYTES
        call    checksum                ; 512 times 01
        say     "insb checksum "
        call    print_hex16
        say     CRLF
        expect  ax, BYTES * 1

        mov     di, BUFFER
        mov     cx, BYTES / 2
        rep     insw
        expect  di, BUFFER + BYTES
        call    checksum                ; 256 times 01 02
        say     "insw checksum "
        call    print_hex16
        say     CRLF
        expect  ax, BYTES / 2 * (1 + 2)

        mov     di, BUFFER
        mov     cx, BYTES / 4
        rep     insd
        expect  di, BUFFER + BYTES
        call    checksum                ; 128 times 01 02 03 04
        say     "insd checksum "
        call    print_hex16
        say     CRLF
        expect  ax, BYTES / 4 * (1 + 2 + 3 + 4)

        ; Out: the last element must be the one that stays.
        mov     si, pattern
        mov     cx, 16
        rep     outsb
        expect  si, pattern + 16
        in      al, TEST_LATCH
        expect  al, 0x0f
        mov     si, pattern
        mov     cx, 8
        rep     outsw
        in      ax, TEST_LATCH
        expect  ax, 0x0f0e
        mov     si, pattern
        mov     cx, 4
        rep     outsd
        in      eax, TEST_LATCH
        expect  eax, 0x0f0e0d0c
        std
        mov     si, pattern + 15
        mov     cx, 16
        rep     outsb                   ; downwards: the last element is the first byte
        cld
        expect  si, pattern - 1
        in      al, TEST_LATCH
        expect  al, 0x00
        mov     si, pattern
        mov     cx, 0
        rep     outsb                   ; no element at all
        expect  si, pattern
        say     "outs ok", CRLF

        call    loopback
        say     "order ok", CRLF

        mov     si, text                ; a line in one instruction
        mov     cx, text_end - text
        mov     dx, UART_DATA
        rep     outsb
        exit    0

; Sends 16 bytes through the serial chip's own loop and takes them out again: the receive FIFO
; keeps their order and number, which a latch can't show.
loopback:
        out8    UART_MCR, MCR_LOOP
        out8    UART_FCR, FCR_ENABLE | FCR_CLEAR
        mov     si, pattern
        mov     cx, 16
        mov     dx, UART_DATA
        rep     outsb
        mov     dx, UART_LSR
.wait:  in      al, dx
        test    al, LSR_TEMT
        jz      .wait
        mov     di, BUFFER
        mov     cx, 16
        mov     dx, UART_DATA
        rep     insb
        in8     UART_LSR
        and     al, LSR_DR
        expect  al, 0                   ; it was 16, no more
        mov     si, pattern
        mov     di, BUFFER
        mov     cx, 16
        repe    cmpsb
        expect  cx, 0
        mov     al, [di - 1]
        expect  al, 0x0f
        out8    UART_FCR, 0
        out8    UART_MCR, MCR_DTR_RTS | MCR_OUT2
        ret

; AX = sum of the buffer's bytes; wipes the buffer. Keeps DX.
checksum:
        push    bx
        mov     si, BUFFER
        mov     cx, BYTES
        xor     bx, bx
        xor     ax, ax
.next:  mov     al, [si]
        add     bx, ax
        mov     byte [si], 0
        inc     si
        loop    .next
        mov     ax, bx
        pop     bx
        ret

pattern: db     0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
text:   db      "and this line left in one instruction", CRLF
text_end:

        text_routines
