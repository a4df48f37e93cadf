; The real-time clock and its memory: cells keep what is written; the calendar carries over all its
; digits at the turn of a century, in binary and in BCD; the alarm goes off at its time.
;
; Source: MC146818 datasheet. The time's format (DM, 24/12) may only be changed together with all
; time registers, while SET holds the updates. The chip updates first half a second after its
; divider chain is released, so no test has to wait longer than that. The clock ends up showing
; January 2000.

%include "machine.inc"
%include "text.inc"

POLLS   equ 4000000                     ; an update that never comes is a failure, not a hang

; A moment, in the order in which set_time writes it.
%macro moment 7                         ; hours, minutes, seconds, weekday, day, month, year
        db      RTC_HOURS, %1, RTC_MINUTES, %2, RTC_SECONDS, %3
        db      RTC_WEEKDAY, %4, RTC_DAY, %5, RTC_MONTH, %6, RTC_YEAR, %7
%endmacro
MOMENT_REGISTERS equ 7

        bits 16
        org 0x7c00

        call    uart_init
        cld
        call    test_memory
        say     "memory ok", CRLF
        call    test_alarm_registers
        say     "alarm registers ok", CRLF

        mov     al, RTC_REG_D
        call    rtc_read
        expect  al, RTC_D_VRT
        say     "battery ok", CRLF

        mov     bl, RTC_B_24H | RTC_B_BINARY
        mov     bh, 19                  ; century
        mov     si, before_binary
        mov     di, after_binary
        mov     cx, alarm_binary
        call    turn_of_century
        say     "binary, 24 hours ok", CRLF

        mov     bl, 0                   ; BCD, 12 hours
        mov     bh, 0x19
        mov     si, before_bcd
        mov     di, after_bcd
        mov     cx, alarm_bcd
        call    turn_of_century
        say     "BCD, 12 hours ok", CRLF
        exit    0

; AL = register: AL = its value.
rtc_read:
        out     RTC_INDEX, al
        in      al, RTC_DATA
        ret

; AL = register, AH = value.
rtc_write:
        out     RTC_INDEX, al
        xchg    al, ah
        out     RTC_DATA, al
        xchg    al, ah
        ret

; Cells without a meaning in the PC, the last one among them: first all are written, then all are
; read, with one value and with its complement.
test_memory:
        mov     bl, 0x00
.round: mov     si, cells
        mov     cx, cells_end - cells
.write: lodsb
        mov     ah, al                  ; each cell gets its own number, or the complement
        xor     ah, bl
        call    rtc_write
        loop    .write
        mov     si, cells
        mov     cx, cells_end - cells
.read:  lodsb
        mov     bh, al
        xor     bh, bl
        call    rtc_read
        xor     al, bh
        expect  al, 0
        loop    .read
        not     bl
        test    bl, bl
        jnz     .round
        ret

; Alarm registers hold any value; 0C0h and above means "every" (datasheet, "don't care").
test_alarm_registers:
        mov     ax, 0xc0 << 8 | RTC_HOURS_ALARM
        call    rtc_write
        mov     ax, 0x12 << 8 | RTC_MINUTES_ALARM
        call    rtc_write
        mov     ax, 0x34 << 8 | RTC_SECONDS_ALARM
        call    rtc_write
        mov     al, RTC_HOURS_ALARM
        call    rtc_read
        expect  al, 0xc0
        mov     al, RTC_MINUTES_ALARM
        call    rtc_read
        expect  al, 0x12
        mov     al, RTC_SECONDS_ALARM
        call    rtc_read
        expect  al, 0x34
        ret

; BL = format bits of register B, BH = century, SI = the moment to set, DI = the one that must
; follow, CX = hours, minutes, seconds of the alarm.
turn_of_century:
        mov     ax, RTC_A_RESET << 8 | RTC_REG_A
        call    rtc_write
        mov     al, RTC_REG_B
        mov     ah, bl
        or      ah, RTC_B_SET
        call    rtc_write
        mov     al, RTC_CENTURY
        mov     ah, bh
        call    rtc_write
        call    set_time
        mov     si, cx
        mov     ah, [si]
        mov     al, RTC_HOURS_ALARM
        call    rtc_write
        mov     ah, [si + 1]
        mov     al, RTC_MINUTES_ALARM
        call    rtc_write
        mov     ah, [si + 2]
        mov     al, RTC_SECONDS_ALARM
        call    rtc_write
        mov     al, RTC_REG_B           ; updates may go on
        mov     ah, bl
        call    rtc_write
        mov     al, RTC_REG_B
        call    rtc_read
        xor     al, bl
        expect  al, 0
        mov     al, RTC_REG_C           ; reading clears the flags
        call    rtc_read
        mov     ax, RTC_A_RUN << 8 | RTC_REG_A
        call    rtc_write

        mov     ecx, POLLS
.wait:  mov     al, RTC_REG_C
        call    rtc_read
        test    al, RTC_C_UF
        jnz     .updated
        dec     ecx
        jnz     .wait
        say     "no update came", CRLF
        exit    2
.updated:
        ; The alarm came with the update. No interrupt is enabled, so the request bit is 0.
        and     al, RTC_C_IRQF | RTC_C_AF | RTC_C_UF
        expect  al, RTC_C_AF | RTC_C_UF

        mov     si, di
        mov     cx, MOMENT_REGISTERS
.check: lodsb
        call    rtc_read
        mov     ah, al
        lodsb
        xor     al, ah
        expect  al, 0
        loop    .check
        ret

; SI = moment.
set_time:
        push    cx
        mov     cx, MOMENT_REGISTERS
.next:  lodsw                           ; register in AL, value in AH
        call    rtc_write
        loop    .next
        pop     cx
        ret

cells:  db      0x40, 0x41, 0x4f, 0x50, 0x5a, 0x60, 0x6f, 0x70, 0x7e, 0x7f
cells_end:

; Friday, 31 December 1999, and the Saturday that followed. In 12-hour format bit 7 of the hours
; means p.m., and midnight is 12 a.m.
before_binary:  moment 23, 59, 59, 6, 31, 12, 99
after_binary:   moment 0, 0, 0, 7, 1, 1, 0
alarm_binary:   db 0, 0, 0
before_bcd:     moment 0x91, 0x59, 0x59, 6, 0x31, 0x12, 0x99
after_bcd:      moment 0x12, 0x00, 0x00, 7, 0x01, 0x01, 0x00
alarm_bcd:      db 0x12, 0x00, 0xff     ; any second of the first minute

        text_routines
