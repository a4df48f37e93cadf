; Echoes what the serial port receives, by interrupt, until Ctrl-D (04h) or until the other end
; hangs up, which the modem status shows as the carrier (DCD) going away.
;
; The interrupt handler only takes the chip's request away, by disabling its sources, and notes
; that there is something to do. The loop does it, enables the sources again (the chip then asks
; anew if anything came meanwhile) and sleeps in HLT when there is nothing.
;
; Source: PC16550D datasheet, interrupt enable, line status and modem status registers.

%include "machine.inc"
%include "text.inc"
%include "pic.inc"

END_OF_TRANSMISSION equ 4
SOURCES equ IER_ERBFI | IER_EDSSI

        bits 16
        org 0x7c00

        call    pic_init
        set_vector VECTOR_IRQ0 + 4, on_irq4
        call    uart_init
        unmask  4
        say     "ready", CRLF

work:   sti
.next:  in8     UART_LSR
        test    al, LSR_DR
        jz      .drained
        in8     UART_DATA
        cmp     al, END_OF_TRANSMISSION
        je      done
        call    put_char
        jmp     .next
.drained:
        in8     UART_MSR                ; also takes the modem status request away
        test    al, MSR_DCD
        jz      hung_up

        cli
        mov     byte [something_to_do], 0
        out8    UART_IER, SOURCES
.idle:  cmp     byte [something_to_do], 0
        jne     work
        sleep_until_interrupt
        jmp     .idle

hung_up:                                ; what came before the end is still to be echoed
        in8     UART_LSR
        test    al, LSR_DR
        jz      done
        in8     UART_DATA
        cmp     al, END_OF_TRANSMISSION
        je      done
        call    put_char
        jmp     hung_up

done:   exit    0

on_irq4:
        push    ax
        push    dx
        out8    UART_IER, 0
        mov     byte [something_to_do], 1
        end_of_interrupt 4
        pop     dx
        pop     ax
        iret

something_to_do: db 0

        text_routines
        pic_routines
