; Interrupts by the thousand, on both controllers, and not one may be lost.
;
; 1. One at a time: a line goes up, its handler counts and takes it down again, as a device's
;    driver does. Only then comes the next.
; 2. Bursts: with interrupts off, four lines go up; then they must be served in the controllers'
;    order of priority. The second controller sits on line 2 of the first, so its lines come
;    before line 3.
; 3. The serial port sends a text of 200 characters, an interrupt for each.
;
; Source: 8259A datasheet, fully nested mode, edge-triggered mode; PC16550D datasheet, interrupt
; identification register (reading it, or writing a character, takes the transmitter's request
; away; the empty holding register raises the next).

%include "machine.inc"
%include "text.inc"
%include "pic.inc"

ROUNDS  equ 600                         ; per line, one at a time
BURSTS  equ 200
RAISED  equ 4 * (ROUNDS + BURSTS)

; handler LINE: counts, notes the order, takes the line down.
%macro handler 1
on_line_%1:
        push    ax
        push    bx
        push    dx
        inc     word [count_%1]
        mov     bx, [served]
        and     bx, 3
        mov     byte [order + bx], %1
        inc     word [served]
        out8    TEST_LINES + %1, 0
        end_of_interrupt %1
        pop     dx
        pop     bx
        pop     ax
        iret
count_%1: dw    0
%endmacro

; one_at_a_time LINE: raises it ROUNDS times, each time waiting for the handler.
%macro one_at_a_time 1
        mov     cx, ROUNDS
%%next: mov     bx, [count_%1]
        out8    TEST_LINES + %1, 1
%%wait: cmp     bx, [count_%1]
        jne     %%came
        sleep_until_interrupt
        jmp     %%wait
%%came: loop    %%next
%endmacro

; report LINE: prints and checks its count.
%macro report 1.nolist
        say     "line ", %str(%1), ": "
        movzx   eax, word [count_%1]
        call    print_decimal
        say     " of "
        mov     eax, ROUNDS + BURSTS
        call    print_decimal
        say     CRLF
        expect  word [count_%1], ROUNDS + BURSTS
%endmacro

        bits 16
        org 0x7c00

        call    uart_init
        call    pic_init
        set_vector VECTOR_IRQ0 + 3, on_line_3
        set_vector VECTOR_IRQ0 + 4, on_serial
        set_vector VECTOR_IRQ0 + 5, on_line_5
        set_vector VECTOR_IRQ8 + 2, on_line_10
        set_vector VECTOR_IRQ8 + 4, on_line_12
        unmask  3
        unmask  4
        unmask  5
        unmask  10
        unmask  12

        one_at_a_time 3
        one_at_a_time 10
        one_at_a_time 5
        one_at_a_time 12

        mov     cx, BURSTS
burst:  out8    TEST_LINES + 5, 1       ; in an order that is not the one of service
        out8    TEST_LINES + 12, 1
        out8    TEST_LINES + 3, 1
        out8    TEST_LINES + 10, 1
.pending:
        out8    PIC1_COMMAND, PIC_READ_IRR
        in      al, PIC1_COMMAND
        and     al, 1 << 5 | 1 << 3 | 1 << 2
        cmp     al, 1 << 5 | 1 << 3 | 1 << 2
        jne     .pending
        out8    PIC2_COMMAND, PIC_READ_IRR
        in      al, PIC2_COMMAND
        and     al, 1 << 4 | 1 << 2     ; lines 12 and 10
        cmp     al, 1 << 4 | 1 << 2
        jne     .pending
        mov     word [served], 0
.wait:  sleep_until_interrupt
        cmp     word [served], 4
        jb      .wait
        mov     eax, [order]
        expect  eax, 10 | 12 << 8 | 3 << 16 | 5 << 24
        dec     cx
        jnz     burst

        report  3
        report  5
        report  10
        report  12

        out8    UART_IER, IER_ETBEI     ; an empty transmitter asks at once
.send:  cmp     word [remaining], 0
        je      .sent
        sleep_until_interrupt
        jmp     .send
.sent:  expect  word [serial_interrupts], TEXT_SIZE + 1
        say     "nothing was lost", CRLF
        exit    0

        handler 3
        handler 5
        handler 10
        handler 12

; One character for each interrupt. When there is none left, the source is turned off.
on_serial:
        push    ax
        push    dx
        push    si
        in8     UART_IIR
        and     al, IIR_ID
        cmp     al, IIR_THR_EMPTY
        jne     .end
        inc     word [serial_interrupts]
        mov     si, [position]
        cmp     si, text_end
        je      .done
        inc     word [position]
        out8    UART_DATA, [si]
        jmp     .end
.done:  out8    UART_IER, 0
        mov     word [remaining], 0
.end:   end_of_interrupt 4
        pop     si
        pop     dx
        pop     ax
        iret

served: dw      0
order:  dd      0
serial_interrupts: dw 0
remaining: dw   1
position: dw    text

text:
%rep 4
        db      "forty-eight characters and the two that end it:", ".", CRLF
%endrep
text_end:
TEXT_SIZE equ text_end - text
%if TEXT_SIZE != 200
  %error the text must have 200 characters
%endif

        text_routines
        pic_routines
