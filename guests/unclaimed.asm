; Ports that no device claims: they read all-ones, in every width, and writes to them vanish. That
; is what an ISA bus does when nobody drives it; a guest finds out with it what hardware there is.
;
; An access that lies half on a device and half beside it is split into bytes: the device answers
; its own, and all-ones stand in the others.

%include "machine.inc"
%include "text.inc"

        bits 16
        org 0x7c00

; probe PORT: reads it in three widths, writes it in three widths, reads it again.
%macro probe 1.nolist
        mov     dx, %1
        call    read_all_widths
        mov     eax, 0x12345678
        out     dx, al
        out     dx, ax
        out     dx, eax
        call    read_all_widths
%endmacro

        call    uart_init
        probe   0x0300                  ; the PC's range for prototype cards
        probe   0x01b0
        probe   0x6660
        probe   0xfff8
        say     "unclaimed ports read all-ones", CRLF

        mov     eax, 0x44332211         ; byte n of the latch is at port E0h+n
        out     TEST_LATCH, eax
        mov     eax, 0                  ; so that stale bits show
        in      ax, TEST_LATCH + 3
        expect  ax, 0xff44
        mov     eax, 0
        in      eax, TEST_LATCH + 2
        expect  eax, 0xffff4433
        mov     eax, 0
        in      eax, TEST_LATCH - 1
        expect  eax, 0x332211ff
        say     "straddling reads get the device's bytes and all-ones", CRLF

        mov     ax, 0xbb99
        out     TEST_LATCH + 3, ax
        mov     eax, 0x77665500
        out     TEST_LATCH - 2, eax
        in      eax, TEST_LATCH
        expect  eax, 0x99337766
        say     "straddling writes reach the device's bytes only", CRLF
        exit    0

read_all_widths:
        mov     eax, 0
        in      al, dx
        expect  eax, 0xff
        mov     eax, 0
        in      ax, dx
        expect  eax, 0xffff
        mov     eax, 0
        in      eax, dx
        expect  eax, 0xffffffff
        ret

        text_routines
