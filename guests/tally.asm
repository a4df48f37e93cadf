; Checksums what it reads back while the timer ticks: ports in all widths and as strings, and 64 KiB
; of memory. A machine that is stopped and goes on elsewhere must end with the same sums; tests compute
; them too. No floating point: a KVM that emulates the processor in software may lack it.
;
; Sources: Intel SDM volume 2, INS and OUTS; 8254 datasheet, mode 2.

%include "machine.inc"
%include "text.inc"
%include "pic.inc"

ROUNDS     equ 2048
PER_DOT    equ 64
LEAST_TICKS equ 10
DIVISOR    equ (PIT_HZ + 50) / 100      ; 11932: 99.998 Hz
TABLE      equ 0x2000                   ; a segment: 64 KiB from physical 20000h

        bits 16
        org 0x7c00

        call    uart_init
        call    pic_init
        set_vector VECTOR_IRQ0, on_timer
        out8    PIT_CONTROL, 0x34       ; counter 0, low then high byte, mode 2, binary
        out8    PIT_COUNTER0, DIVISOR & 0xff
        out8    PIT_COUNTER0, DIVISOR >> 8
        unmask  0
        cld
        sti

.round: imul    eax, [seed], 1664525    ; the next pseudo-random number
        add     eax, 1013904223
        mov     [seed], eax
        call    doubleword
        call    single_word
        call    strings
        call    memory
        inc     word [rounds]
        test    word [rounds], PER_DOT - 1
        jnz     .round
        mov     al, '.'
        call    put_char
        cmp     word [rounds], ROUNDS
        jb      .round

        cli                             ; with a ticking timer the rest must still come to its end
.wait:  cmp     word [ticks], LEAST_TICKS
        jae     .done
        sleep_until_interrupt
        jmp     .wait

.done:  say     CRLF, "ports "
        mov     eax, [sum]
        call    print_hex32
        say     " memory "
        call    sum_of_table
        call    print_hex32
        say     CRLF
        exit    0

; The latch as a doubleword.
doubleword:
        mov     eax, [seed]
        out     TEST_LATCH, eax
        xor     eax, eax
        in      eax, TEST_LATCH
        add     [sum], eax
        rol     dword [sum], 1
        ret

; Its upper half as a word.
single_word:
        mov     ax, [seed]
        not     ax
        out     TEST_LATCH + 2, ax
        xor     eax, eax
        in      ax, TEST_LATCH + 2
        xor     [sum], eax
        ret

; Its first byte is written four times over, and read as often.
strings:
        mov     dx, TEST_LATCH
        mov     si, seed
        mov     cx, 4
        rep outsb
        mov     di, buffer
        mov     cx, 4
        rep insb
        mov     eax, [buffer]
        add     [sum], eax
        ret

; A doubleword of the table, picked by the upper half of the number.
memory: mov     bx, [seed + 2]
        and     bl, 0xfc
        mov     eax, [sum]
        push    TABLE
        pop     fs
        add     [fs:bx], eax
        ret

; EAX = the table's doublewords, each added and turned.
sum_of_table:
        push    TABLE
        pop     fs
        xor     eax, eax
        xor     bx, bx
.next:  add     eax, [fs:bx]
        rol     eax, 1
        add     bx, 4
        jnz     .next
        ret

on_timer:
        push    ax
        inc     word [ticks]
        end_of_interrupt 0
        pop     ax
        iret

        align   4
seed:   dd      1
sum:    dd      0
buffer: dd      0
rounds: dw      0
ticks:  dw      0

        text_routines
        pic_routines
