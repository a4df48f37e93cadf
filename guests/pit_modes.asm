; The six modes of the timer, seen through its read-back command: what the status says after the
; control word, when the count gets loaded, what the gate does, how the output goes.
;
; Counter 2 is the one under test, since its gate and output can be reached through port 61h.
; Holding the gate low stops the counting, so a count can be read exactly however long the access
; takes. (8254 datasheet, "mode definitions", "read-back command", "status byte")
;
;   status: 7 output | 6 null count | 5-4 byte access | 3-1 mode | 0 BCD
;   null count is 1 from the control word or a new count until the counting element has it

%include "machine.inc"
%include "text.inc"

COUNT           equ 0x8000              ; 27 ms
POLLS           equ 500000              ; a bit that never changes is a failure, not a hang

LATCH_COUNT     equ 0x80                ; counter latch command, counter 2
READ_STATUS     equ 0xe8                ; read-back: the status of counter 2
READ_BOTH       equ 0xc8                ; read-back: status and count of counter 2
READ_STATUS_ALL equ 0xee                ; read-back: the status of all three counters
CONTROL         equ 0xb0                ; counter 2, low then high byte
STATUS_OUTPUT   equ 0x80
STATUS_NULL     equ 0x40
STATUS_WORDS    equ 0x30                ; low then high byte
BCD             equ 1

; wait_status MASK, VALUE: polls the status until its bits are so.
%macro wait_status 2.nolist
        mov     bx, (%1) << 8 | (%2)
        push    word __?LINE?__
        call    poll_status
%endmacro

; program MODE, COUNT: control word, the checks that hold for every mode, then the count.
%macro program 2.nolist
        call    gate_low
        out8    PIT_CONTROL, CONTROL | (%1) << 1
        call    status
  %if (%1) == 0
        expect  al, STATUS_NULL | STATUS_WORDS
  %else
        expect  al, STATUS_NULL | STATUS_OUTPUT | STATUS_WORDS | (%1) << 1
  %endif
        mov     cx, %2
        call    write_count
%endmacro

        bits 16
        org 0x7c00

        call    uart_init

mode_0: ; interrupt on terminal count: low until the count is over
        program 0, COUNT
        wait_status STATUS_NULL, 0      ; loaded on the next clock, gate or no gate
        call    count
        expect  ax, COUNT               ; a low gate holds it
        call    gate_high
        call    counts_down
        call    status
        expect  al, STATUS_WORDS
        wait_status STATUS_OUTPUT, STATUS_OUTPUT
        in      al, PORT_B              ; the same output, by its other way
        and     al, PORT_B_OUT2
        expect  al, PORT_B_OUT2
        say     "mode 0 ok", CRLF

mode_1: ; one-shot: nothing happens until the gate rises
        program 1, COUNT
        call    status
        expect  al, STATUS_NULL | STATUS_OUTPUT | STATUS_WORDS | 1 << 1
        call    gate_high
        wait_status STATUS_NULL | STATUS_OUTPUT, 0
        call    counts_down
        wait_status STATUS_OUTPUT, STATUS_OUTPUT
        say     "mode 1 ok", CRLF

mode_2: ; rate generator: the count starts over when it gets to 1
        program 2, COUNT
        wait_status STATUS_NULL, 0
        call    count
        expect  ax, COUNT
        call    gate_high
        call    counts_down
        call    wait_for_reload
        expect_between ax, 1, COUNT
        say     "mode 2 ok", CRLF

mode_3: ; square wave: half the time high, half low, counting by twos
        program 3, COUNT
        wait_status STATUS_NULL, 0
        call    count
        expect  ax, COUNT
        call    gate_high
        call    counts_down
        wait_status STATUS_OUTPUT, 0
        wait_status STATUS_OUTPUT, STATUS_OUTPUT
        call    count
        expect_between ax, 2, COUNT
        and     al, 1
        expect  al, 0
        call    gate_low                ; forces the output high at once
        call    status
        expect  al, STATUS_OUTPUT | STATUS_WORDS | 3 << 1
        say     "mode 3 ok", CRLF

mode_4: ; software-triggered strobe: low for one clock at the end, then counting on from FFFFh
        program 4, COUNT
        wait_status STATUS_NULL, 0
        call    count
        expect  ax, COUNT
        call    gate_high
        call    counts_down
        call    wait_for_wrap
        call    status
        expect  al, STATUS_OUTPUT | STATUS_WORDS | 4 << 1
        say     "mode 4 ok", CRLF

mode_5: ; hardware-triggered strobe: the same, but the gate starts it
        program 5, COUNT
        call    status
        expect  al, STATUS_NULL | STATUS_OUTPUT | STATUS_WORDS | 5 << 1
        call    gate_high
        wait_status STATUS_NULL, 0
        call    counts_down
        call    wait_for_wrap
        say     "mode 5 ok", CRLF

latch:  ; a latched count stays until it is read; latching again before that does nothing
        program 0, COUNT
        wait_status STATUS_NULL, 0
        out8    PIT_CONTROL, LATCH_COUNT
        call    gate_high
        wait_status STATUS_OUTPUT, STATUS_OUTPUT
        out8    PIT_CONTROL, LATCH_COUNT
        call    read_count
        expect  ax, COUNT
        call    count
        sub     ax, COUNT
        expect_between ax, 1, 0xffff
        say     "latch ok", CRLF

read_back: ; status and count at once: the status comes out first
        program 0, 0x1234
        wait_status STATUS_NULL, 0
        out8    PIT_CONTROL, READ_BOTH
        in      al, PIT_COUNTER2
        expect  al, STATUS_WORDS
        call    read_count
        expect  ax, 0x1234
        out8    PIT_CONTROL, 0x34       ; counter 0: mode 2
        out8    PIT_CONTROL, 0x56       ; counter 1: mode 3, low byte only
        out8    PIT_CONTROL, READ_STATUS_ALL
        in      al, PIT_COUNTER0
        expect  al, STATUS_OUTPUT | STATUS_NULL | 0x34
        in      al, PIT_COUNTER1
        expect  al, STATUS_OUTPUT | STATUS_NULL | 0x16
        in      al, PIT_COUNTER2
        expect  al, STATUS_WORDS
        say     "read-back ok", CRLF

bcd:    ; four decimal digits
        call    gate_low
        out8    PIT_CONTROL, CONTROL | BCD
        mov     cx, 0x9876
        call    write_count
        wait_status STATUS_NULL, 0
        call    status
        expect  al, STATUS_WORDS | BCD
        call    count
        expect  ax, 0x9876
        call    gate_high
        mov     cx, 20
.next:  call    count
        call    expect_decimal
        loop    .next
        say     "bcd ok", CRLF

bytes:  ; one byte of the count only: the other one is taken as 0
        call    gate_low
        out8    PIT_CONTROL, 0x90       ; counter 2, low byte, mode 0
        out8    PIT_COUNTER2, 0x55
        wait_status STATUS_NULL, 0
        in      al, PIT_COUNTER2
        expect  al, 0x55
        in      al, PIT_COUNTER2        ; no second byte: the low one again
        expect  al, 0x55
        out8    PIT_CONTROL, 0xa0       ; counter 2, high byte, mode 0
        out8    PIT_COUNTER2, 0x66
        wait_status STATUS_NULL, 0
        in      al, PIT_COUNTER2
        expect  al, 0x66
        in      al, PIT_COUNTER2
        expect  al, 0x66
        say     "byte access ok", CRLF
        exit    0

; CX = count to write, low byte first.
write_count:
        out8    PIT_COUNTER2, cl
        out8    PIT_COUNTER2, ch
        ret

; AX = the count, latched now.
count:  out8    PIT_CONTROL, LATCH_COUNT
read_count:
        in      al, PIT_COUNTER2
        mov     ah, al
        in      al, PIT_COUNTER2
        xchg    al, ah
        ret

; AL = the status byte.
status: out8    PIT_CONTROL, READ_STATUS
        in      al, PIT_COUNTER2
        ret

gate_low:
        in      al, PORT_B
        and     al, ~PORT_B_GATE2 & 0xff
        out     PORT_B, al
        ret

gate_high:
        in      al, PORT_B
        or      al, PORT_B_GATE2
        out     PORT_B, al
        ret

; Two counts, one after the other, the second smaller.
counts_down:
        call    count
        mov     bx, ax
        call    count
        sub     bx, ax
        expect_between bx, 1, COUNT
        ret

; Waits until a count is greater than the one before; AX = that count.
wait_for_reload:
        call    count
.next:  mov     bx, ax
        call    count
        cmp     ax, bx
        jbe     .next
        ret

; Waits until the count has gone through 0 and on to FFFFh.
wait_for_wrap:
        call    count
        cmp     ax, COUNT
        jbe     wait_for_wrap
        ret

; AX must be four decimal digits.
expect_decimal:
        push    cx
        mov     bx, ax
        mov     cx, 4
.next:  mov     al, bl
        and     al, 0x0f
        expect_between al, 0, 9
        shr     bx, 4
        loop    .next
        pop     cx
        ret

; BH = mask, BL = value; on the stack: the line that asks. Takes it off.
poll_status:
        mov     ecx, POLLS
.next:  call    status
        and     al, bh
        cmp     al, bl
        je      .so
        dec     ecx
        jnz     .next
        push    bp
        mov     bp, sp
        say     "FAILED at line "
        movzx   eax, word [bp + 4]
        call    print_decimal
        say     ": the status bits never came", CRLF
        exit    1
.so:    ret     2

        text_routines
