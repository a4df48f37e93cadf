; A kernel that starts as the public KVM unit tests do: a 32-bit ELF file with a multiboot header and
; 64-bit code in it. It finds its way to 64-bit mode by itself, asks fw_cfg for the number of
; processors, reads the command line and its one module, and tries what those tests rely on: the
; test device, the local APIC and the I/O APIC, IDT gates, MSRs and the time stamp counter.
;
; It prints a line for each, and ends with the status that it was given last: 0 if all is well.

%define HEADER_MAGIC 0x1badb002
COM1    equ 0x3f8
FW_CFG  equ 0x510
EXIT    equ 0xf4
LATCH   equ 0xe0
LINES   equ 0x2000

        bits 32
        org     ORIGIN                  ; where the test says; it makes the ELF file around this
        dd HEADER_MAGIC, 0, (-HEADER_MAGIC) & 0xffffffff

start:  mov     [information], ebx
        mov     [magic], eax
        push    eax                     ; the loader's stack can be used before there is our own
        pop     ecx
        mov     al, 1
        cmp     ecx, [magic]
        jne     failed32
        mov     esp, stack_top
        lgdt    [gdt_pointer]
        mov     eax, cr4
        or      eax, 1 << 5             ; PAE
        mov     cr4, eax
        mov     eax, level4
        mov     cr3, eax
        mov     ecx, 0xc0000080         ; EFER.LME
        rdmsr
        or      eax, 1 << 8
        wrmsr
        mov     eax, cr0
        or      eax, 1 << 31
        mov     cr0, eax
        jmp     8:start64
failed32:
        out     EXIT, al

        bits 64
%macro check 2                          ; condition code under which all is well, status if not
        mov     al, %2
        j%1     %%good
        out     EXIT, al
%%good:
%endmacro

%macro say 1+
        lea     rsi, [rel %%text]
        mov     ecx, %%end - %%text
        call    print
        jmp     %%end
%%text: db %1
%%end:
%endmacro

start64:
        mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     eax, [magic]
        cmp     eax, 0x2badb002
        check   e, 2
        mov     ebx, [information]
        mov     esi, [rbx + 16]         ; the command line
        call    print_string
        say     10
        mov     eax, [rbx]
        and     eax, 1 << 3
        check   nz, 3
        cmp     dword [rbx + 20], 1     ; modules: one, with variables for the test
        check   e, 4
        mov     edi, [rbx + 24]
        mov     esi, [rdi]
        mov     ecx, [rdi + 4]
        sub     ecx, esi
        call    print

        mov     eax, 0x05               ; fw_cfg: the number of processors, as two bytes
        mov     dx, FW_CFG
        out     dx, ax
        inc     dx
        in      al, dx
        mov     bl, al
        in      al, dx
        or      al, al
        check   z, 5
        cmp     bl, 1
        check   e, 6
        say     "one processor", 10

        mov     dx, LATCH               ; the test device holds what it is told
        mov     eax, 0x12345678
        out     dx, eax
        xor     eax, eax
        in      eax, dx
        cmp     eax, 0x12345678
        check   e, 7

        mov     ecx, 0x1b               ; the local APIC is where it should be, and on
        rdmsr
        and     eax, 0xfffff800
        cmp     eax, 0xfee00800
        check   e, 8
        mov     edi, 0xfee00000
        mov     dword [rdi + 0xf0], 0x1ff
        mov     edi, 0xfec00000         ; pin 3 of the I/O APIC, as vector 77h, edge-triggered
        mov     dword [rdi], 0x10 + 2 * 3
        mov     dword [rdi + 0x10], 0x77
        mov     dword [rdi], 0x11 + 2 * 3
        mov     dword [rdi + 0x10], 0

        mov     edi, idt + 16 * 0x77
        mov     rsi, on_line
        call    gate
        mov     edi, idt + 16 * 6
        mov     rsi, on_undefined
        call    gate
        lidt    [idt_pointer]
        ud2                             ; an exception through a gate, and back
after_ud2:
        cmp     byte [undefined], 1
        check   e, 9
        mov     al, 0xff                ; the old controllers keep quiet
        out     0x21, al
        out     0xa1, al
        sti
        mov     dx, LINES + 3
        mov     al, 1
        out     dx, al
        mov     al, 0
        out     dx, al
        mov     ecx, 1000000
.wait:  cmp     byte [came], 1
        je      .came
        loop    .wait
.came:  cmp     byte [came], 1
        check   e, 10
        cli
        say     "exception and interrupt came", 10

        mov     ecx, 0xc0000102         ; KernelGSBase keeps 64 bits
        mov     eax, 0x89abcdef
        mov     edx, 0x1234
        wrmsr
        xor     eax, eax
        xor     edx, edx
        rdmsr
        cmp     eax, 0x89abcdef
        check   e, 11
        rdtsc
        mov     ebx, eax
        mov     ecx, edx
        rdtsc
        sub     eax, ebx
        sbb     edx, ecx
        check   nc, 12
        say     "MSR and TSC are there", 10
        xor     eax, eax
        out     EXIT, eax               ; those tests write 32 bits
        hlt

on_undefined:
        inc     byte [undefined]
        mov     qword [rsp], after_ud2
        iretq

on_line:
        mov     byte [came], 1
        push    rdi
        mov     edi, 0xfee000b0         ; end of interrupt
        mov     dword [rdi], 0
        pop     rdi
        iretq

gate:   mov     rax, rsi                ; RDI: the gate, RSI: its handler
        mov     [rdi], ax
        mov     word [rdi + 2], 8
        mov     word [rdi + 4], 0x8e00
        shr     rax, 16
        mov     [rdi + 6], ax
        shr     rax, 16
        mov     [rdi + 8], eax
        mov     dword [rdi + 12], 0
        ret

print_string:                           ; RSI: ends with a zero
        mov     ecx, -1
.count: inc     ecx
        cmp     byte [rsi + rcx], 0
        jne     .count
print:  mov     dx, COM1
        rep     outsb
        ret

        section .data
gdt:    dq      0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
        dw      $ - gdt - 1
        dd      gdt
idt_pointer:
        dw      16 * 256 - 1
        dq      idt

        align 4096
level4: dq      level3 + 7
        times 511 dq 0
level3:                                 ; four pages of 1 GiB would need a newer processor
%assign n 0
%rep 4
        dq      level2 + 4096 * n + 7
%assign n n + 1
%endrep
        times 508 dq 0
level2:
%assign n 0
%rep 2048
        dq      n * 0x200000 + 0x87
%assign n n + 1
%endrep

        section .bss
information: resd 1
magic:  resd 1
undefined: resb 1
came:   resb 1
        alignb 16
idt:    resb 16 * 256
        resb    4096
stack_top:
