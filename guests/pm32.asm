; Switches to 32-bit protected mode and prints from there.
;
; Source: Intel SDM volume 3, "Switching to protected mode": interrupts off, load a GDT, set
; CR0.PE, far jump to load CS, then the data segments.

%include "machine.inc"
%include "text.inc"

        bits 16
        org 0x7c00

CODE32  equ 0x08
DATA32  equ 0x10
MARK    equ 0x600000                    ; above 1 MiB: out of reach of a real-mode segment

        call    uart_init
        cli
        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      al, 1                   ; PE
        mov     cr0, eax
        jmp     dword CODE32:protected

        bits 32
protected:
        mov     ax, DATA32
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     esp, 0x7c00

        mov     dword [MARK], 0x12345678        ; flat: an address that real mode has not
        cmp     dword [MARK], 0x12345678
        mov     al, 1
        jne     finish

        mov     esi, text
        cld
.next:  lodsb
        test    al, al
        jz      finish                  ; with AL = 0
        mov     ah, al
        mov     dx, UART_LSR
.busy:  in      al, dx
        test    al, LSR_THRE
        jz      .busy
        mov     al, ah
        mov     dx, UART_DATA
        out     dx, al
        jmp     .next

finish: out     DEBUG_EXIT, al
.stop:  hlt
        jmp     .stop

        align 8
gdt:    dq      0
        dq      0x00cf9a000000ffff      ; code, base 0, limit 4 GiB, 32-bit
        dq      0x00cf92000000ffff      ; data, the same
gdt_pointer:
        dw      $ - gdt - 1
        dd      gdt

text:   db      "Hello from 32-bit protected mode.", CRLF, 0

        text_routines
