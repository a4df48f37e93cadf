; Halts with interrupts off. Nothing but a non-maskable interrupt or a reset could wake the
; processor, so a machine in this state is finished, and whoever runs it can say so.

%include "machine.inc"
%include "text.inc"

        bits 16
        org 0x7c00

        say     "halting with interrupts off", CRLF
        cli
        hlt
        exit    1                       ; a processor that gets here did not halt

        text_routines
