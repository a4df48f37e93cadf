; Does one kind of access over and over, for 'kvmshim bench' to time from outside.
;
; The client writes what to do at 0000:0600 before the start:
;   +0 dw kind   0: IN AL   1: OUT AL   2: REP INSB of 512 bytes   3: raise a line, take its interrupt
;                4: blocks of OUT AL, for writes that may make no exit of their own
;                5: nothing, halted with interrupts on
;   +2 dw port   for kinds 0 to 2, and 4
;   +4 dd count  of blocks for kind 4
;   +8 dd block  for kind 4: how many writes are in each
; The loops hold no instruction that they don't need, so that what is timed is the access. An OUT
; to port 0, which nobody claims, marks the first instruction of the interrupt's handler, and the
; beginning of every block and the end of the last.

%include "machine.inc"
%include "pic.inc"

KIND    equ 0x600
PORT    equ 0x602
COUNT   equ 0x604
BLOCK   equ 0x608
MARK    equ 0
LINE    equ 5
BUFFER  equ 0x8000

        bits    16
        org     0x7c00

        mov     dx, [PORT]
        mov     ecx, [COUNT]
        mov     bx, [KIND]
        cmp     bx, 1
        je      writes
        cmp     bx, 2
        je      strings
        cmp     bx, 3
        je      interrupts
        cmp     bx, 4
        je      blocks
        cmp     bx, 5
        je      idle

reads:  in      al, dx
        dec     ecx
        jnz     reads
        jmp     done

writes: out     dx, al
        dec     ecx
        jnz     writes
        jmp     done

strings:
        cld
        mov     ebx, ecx
.next:  mov     di, BUFFER
        mov     cx, 512
        rep insb
        dec     ebx
        jnz     .next
        jmp     done

interrupts:
        call    pic_init
        set_vector VECTOR_IRQ0 + LINE, on_interrupt
        unmask  LINE
        sti
.next:  out8    TEST_LINES + LINE, 1    ; the line is up before the next instruction
        nop
        dec     ecx
        jnz     .next
        cli

        jmp     done

blocks: mov     ebx, ecx
.block: out     MARK, al
        mov     ecx, [BLOCK]
.next:  out     dx, al
        dec     ecx
        jnz     .next
        dec     ebx
        jnz     .block
        out     MARK, al
        jmp     done

idle:   call    pic_init                ; every line is masked: nothing comes
        sti
.sleep: hlt
        jmp     .sleep

done:   exit    0

on_interrupt:
        out     MARK, al
        push    ax
        push    dx
        out8    TEST_LINES + LINE, 0
        end_of_interrupt LINE
        pop     dx
        pop     ax
        iret

        pic_routines
