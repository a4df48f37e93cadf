; Crashes for good. In protected mode, with an interrupt descriptor table of no entries, an invalid
; opcode finds no handler; that is a fault of its own, whose handler is missing too, and so is the
; double fault's. The processor shuts down, and whoever runs the machine should report it, with the
; registers: EBX = C0DE0001h, ECX = C0DE0002h.
;
; It takes protected mode because a KVM that emulates real mode does not mind the table's limit.
;
; Source: Intel SDM volume 3, "Double fault exception" (a further fault: shutdown); volume 2, LIDT.

%include "machine.inc"
%include "text.inc"

CODE    equ 0x08

        bits 16
        org 0x7c00

        say     "about to fault three times over", CRLF
        mov     ebx, 0xc0de0001
        mov     ecx, 0xc0de0002
        cli
        lidt    [no_idt]
        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      al, 1                   ; PE
        mov     cr0, eax
        jmp     CODE:protected
protected:
        ud2
        exit    1                       ; a processor that gets here survived

        align 8
gdt:    dq      0
        dq      0x000f9a000000ffff      ; code, base 0, limit 1 MiB, 16-bit
gdt_pointer:
        dw      $ - gdt - 1
        dd      gdt
no_idt: dw      0                       ; the limit: shorter than any entry
        dd      0

        text_routines
