; Prints characters by interrupt: the transmitter asks for each, and the processor sleeps between.
;
; Source: PC16550D datasheet, interrupt identification register (reading it takes the transmitter's
; request away, and the next character that leaves raises it anew).

%include "machine.inc"
%include "pic.inc"
%include "timed.inc"

IRQ     equ 4

        bits    16
        org     0x7c00

        call    pic_init
        set_vector VECTOR_IRQ0 + IRQ, on_interrupt
        unmask  IRQ
        out8    UART_LCR, LCR_8N1
        out8    UART_MCR, MCR_DTR_RTS | MCR_OUT2
        mov     ecx, [COUNT]
        begin_timing
        out8    UART_IER, IER_ETBEI     ; the register is empty: this raises the first request
.sleep: test    ecx, ecx
        jz      .sent
        sleep_until_interrupt
        jmp     .sleep

.sent:  out8    UART_IER, 0
        mov     dx, UART_LSR
.last:  in      al, dx
        test    al, LSR_TEMT
        jz      .last
        end_timing

on_interrupt:
        push    ax
        push    dx
        in8     UART_IIR
        and     al, IIR_ID
        cmp     al, IIR_THR_EMPTY
        jne     .done
        test    ecx, ecx
        jz      .done
        out8    UART_DATA, cl
        dec     ecx
.done:  end_of_interrupt IRQ
        pop     dx
        pop     ax
        iret

        pic_routines
