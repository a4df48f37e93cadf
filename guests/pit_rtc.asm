; Counts timer interrupts between two updates of the real-time clock: two clocks, two interrupt
; lines, and a processor that sleeps in between. A hundred ticks a second are expected, more or less.
;
; Sources: 8254 datasheet, mode 2 (rate generator); MC146818 datasheet, update-ended interrupt and
; "Divider Control": the first update comes half a second after the divider chain is released.

%include "machine.inc"
%include "text.inc"
%include "pic.inc"

DIVISOR equ (PIT_HZ + 50) / 100         ; 11932: 99.998 Hz
LOWEST  equ 30                  ; a busy host may let ticks be lost, or the update be seen late
HIGHEST equ 300

        bits 16
        org 0x7c00

        call    uart_init
        call    pic_init
        set_vector VECTOR_IRQ0, on_timer
        set_vector VECTOR_IRQ8, on_clock

        out8    PIT_CONTROL, 0x34       ; counter 0, low then high byte, mode 2, binary
        out8    PIT_COUNTER0, DIVISOR & 0xff
        out8    PIT_COUNTER0, DIVISOR >> 8

        out8    RTC_INDEX, RTC_REG_B
        out8    RTC_DATA, RTC_B_24H | RTC_B_UIE
        out8    RTC_INDEX, RTC_REG_C
        in8     RTC_DATA                ; a flag left over would keep the line high: no edge
        out8    RTC_INDEX, RTC_REG_A
        out8    RTC_DATA, RTC_A_RESET
        out8    RTC_DATA, RTC_A_RUN

        unmask  0
        unmask  8
.wait:  cmp     byte [seconds], 2
        jae     .done
        sleep_until_interrupt
        jmp     .wait

.done:  say     "timer ticks in one second of the clock: "
        movzx   eax, word [ticks]
        call    print_decimal
        say     CRLF
        expect_between word [ticks], LOWEST, HIGHEST
        exit    0

; Counts while exactly one update has gone by.
on_timer:
        push    ax
        cmp     byte [seconds], 1
        jne     .skip
        inc     word [ticks]
.skip:  end_of_interrupt 0
        pop     ax
        iret

; Reading register C takes the clock's request away; without that it raises no other.
on_clock:
        push    ax
        out8    RTC_INDEX, RTC_REG_C
        in8     RTC_DATA
        test    al, RTC_C_UF
        jz      .skip
        inc     byte [seconds]
.skip:  end_of_interrupt 8
        pop     ax
        iret

seconds: db     0
ticks:  dw      0

        text_routines
        pic_routines
