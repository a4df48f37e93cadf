; Waits for timer interrupts at 1 kHz, asleep between them.
;
; Source: 8254 datasheet, mode 2 (rate generator).

%include "machine.inc"
%include "pic.inc"
%include "timed.inc"

MODE_2  equ 0x34                        ; counter 0, low byte and then high byte, mode 2
DIVISOR equ (PIT_HZ + 500) / 1000

        bits    16
        org     0x7c00

        call    pic_init
        set_vector VECTOR_IRQ0, on_tick
        unmask  0
        mov     ecx, [COUNT]
        begin_timing
        out8    PIT_CONTROL, MODE_2
        out8    PIT_COUNTER0, DIVISOR & 0xff
        out8    PIT_COUNTER0, DIVISOR >> 8
.sleep: test    ecx, ecx
        jz      .done
        sleep_until_interrupt
        jmp     .sleep
.done:  end_timing

on_tick:
        push    ax
        test    ecx, ecx
        jz      .done
        dec     ecx
.done:  end_of_interrupt 0
        pop     ax
        iret

        pic_routines
