; Two machines talk through a doorbell and mailbox device (docs/mailbox.md), a thousand messages each
; way, asleep in between.
;
; Both run this image. The machine with the even number sends, the one with the odd number above it
; answers. A message is four words: its number, a pseudo-random word, the sum of all such words so
; far, and the sum of the three. The answer has the random word's complement in its place.
;
; Whoever is there first can't reach the other one yet, and is not told when it comes. So both ring
; when they start, and the answering machine rings back whenever it is rung: the sender begins at
; the first ring that it hears.

%include "machine.inc"
%include "text.inc"
%include "pic.inc"
%include "mailbox.inc"

MESSAGES        equ 1000
WORDS           equ 4
RING_SIZE       equ 64                  ; words that the handler keeps: more than a mailbox holds

        bits 16
        org 0x7c00

        call    uart_init
        cld
        mov     dx, MBX_SIGNATURE
        in      eax, dx
        cmp     eax, 'MBX1'
        je      .found
        say     "no mailbox at port 300h", CRLF
        exit    3
.found: call    pic_init
        set_vector VECTOR_IRQ0 + MAILBOX_IRQ, on_mail
        unmask  MAILBOX_IRQ
        in8     MBX_SELF
        mov     [self], al
        xor     al, 1
        out8    MBX_PEER, al
        out8    MBX_ENABLE, MBX_ON_DOORBELL | MBX_ON_READY
        call    ring
        test    byte [self], 1
        jnz     answer

; -- The machine that sends -----------------------------------------------------------------------

.wait:  cmp     byte [rung], 0
        jne     .begin
        sleep_until_interrupt
        jmp     .wait
.begin: mov     ecx, 1
.next:  call    random
        mov     ebx, eax
        add     [sum], eax
        call    send
        call    receive
        not     dword [message + 4]
        mov     eax, [message + 0]
        expect  eax, ecx
        mov     eax, [message + 4]
        expect  eax, ebx
        mov     eax, [message + 8]
        expect  eax, [sum]
        inc     ecx
        cmp     ecx, MESSAGES
        jbe     .next
        say     "sent "
        jmp     report

; -- The machine that answers ---------------------------------------------------------------------

answer: mov     ecx, 1
.next:  call    receive
        mov     eax, [message + 0]
        expect  eax, ecx
        call    random                  ; both begin with the same number
        mov     ebx, eax
        add     [sum], eax
        mov     eax, [message + 4]
        expect  eax, ebx
        mov     eax, [message + 8]
        expect  eax, [sum]
        not     ebx
        call    send
        inc     ecx
        cmp     ecx, MESSAGES
        jbe     .next
        say     "answered "

report: mov     eax, MESSAGES
        call    print_decimal
        say     " messages, sum "
        mov     eax, [sum]
        call    print_hex32
        say     CRLF
        exit    0

; -- Messages -------------------------------------------------------------------------------------

; ECX = number, EBX = the word: sends a message.
send:   push    eax
        push    dx
        mov     dx, MBX_DATA
        mov     eax, ecx
        out     dx, eax
        mov     eax, ebx
        out     dx, eax
        mov     eax, [sum]
        out     dx, eax
        add     eax, ecx
        add     eax, ebx
        out     dx, eax
        in8     MBX_STATUS
        and     al, MBX_REFUSED         ; the mailbox holds four such messages
        expect  al, 0
        pop     dx
        pop     eax
        ret

; Sleeps until a message has come; takes it to 'message' and checks its sum.
receive:
        push    eax
        push    bx
.wait:  mov     al, [rung]
        mov     byte [rung], 0
        and     al, [self]
        test    al, 1
        jz      .quiet
        call    ring
.quiet: mov     bx, [put]
        sub     bx, [got]
        cmp     bx, WORDS * 4
        jae     .take
        sleep_until_interrupt
        jmp     .wait
.take:  push    cx
        push    di
        mov     cx, WORDS
        mov     di, message
.word:  mov     bx, [got]
        add     word [got], 4
        and     bx, RING_SIZE * 4 - 1
        mov     eax, [words + bx]
        stosd
        loop    .word
        pop     di
        pop     cx
        mov     eax, [message + 0]
        add     eax, [message + 4]
        add     eax, [message + 8]
        expect  eax, [message + 12]
        pop     bx
        pop     eax
        ret

; Rings the peer; if it is not there yet, it will ring.
ring:   push    ax
        push    dx
        out8    MBX_RING, 0
        out8    MBX_STATUS, MBX_REFUSED
        pop     dx
        pop     ax
        ret

; EAX = the next number of a linear congruential sequence (Knuth, volume 2, 3.3.4, table 1).
random: mov     eax, [seed]
        imul    eax, 1664525
        add     eax, 1013904223
        mov     [seed], eax
        ret

; The controllers see edges. So no cause may be left when the handler ends, or the line would stay
; high and its next rise would never come.
on_mail:
        push    eax
        push    bx
        push    dx
.again: mov     dx, MBX_DOORBELL
        in      eax, dx
        test    eax, eax
        jz      .words
        out     dx, eax
        mov     byte [rung], 1
.words: in8     MBX_STATUS
        test    al, MBX_READY
        jz      .empty
        mov     dx, MBX_DATA
        in      eax, dx
        mov     bx, [put]
        add     word [put], 4
        and     bx, RING_SIZE * 4 - 1
        mov     [words + bx], eax
        jmp     .words
.empty: test    al, MBX_INTERRUPT
        jnz     .again
        end_of_interrupt MAILBOX_IRQ
        pop     dx
        pop     bx
        pop     eax
        iret

        text_routines
        pic_routines

seed:   dd      1
sum:    dd      0
put:    dw      0                       ; bytes put into 'words' so far, and taken out
got:    dw      0
self:   db      0
rung:   db      0
message: times WORDS dd 0
words:  times RING_SIZE dd 0
