; Crashes for good. The interrupt descriptor table gets a limit of 0, so the breakpoint exception
; finds no entry; that is a fault of its own, whose handler is missing too, and so is the double
; fault's. The processor shuts down, and whoever runs the machine should report it, with registers:
; EBX = C0DE0001h, ECX = C0DE0002h.
;
; Source: Intel SDM volume 3, "Double fault exception", and "8086 emulation" on the IDT in real mode.

%include "machine.inc"
%include "text.inc"

        bits 16
        org 0x7c00

        say     "about to fault three times over", CRLF
        mov     ebx, 0xc0de0001
        mov     ecx, 0xc0de0002
        lidt    [no_idt]
        int3
        exit    1                       ; a processor that gets here survived

no_idt: dw      0                       ; limit: the table's last byte, so this is one byte long
        dd      0

        text_routines
