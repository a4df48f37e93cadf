; A 32-bit ELF file with a multiboot header, made by hand so that building it takes an assembler
; and nothing else. Prints its command line and the memory that the loader tells it of.
;
; Sources: System V ABI, "ELF header" and "program header"; multiboot specification 0.6.96, 3.1
; (header), 3.2 (machine state), 3.3 (information).

%include "machine.inc"

LOAD_ADDRESS    equ 0x100000
STACK_BYTES     equ 4096

HEADER_MAGIC    equ 0x1badb002
HEADER_FLAGS    equ 0x00000002          ; the loader must say how much memory there is
LOADER_MAGIC    equ 0x2badb002          ; in EAX at entry
INFO_MEMORY     equ 0x01                ; bit of the information's flags
INFO_COMMAND_LINE equ 0x04

        bits 32
        org LOAD_ADDRESS

elf_header:
        db      0x7f, "ELF", 1, 1, 1, 0         ; 32-bit, little-endian, version 1, System V
        times 8 db 0
        dw      2, 3                            ; ET_EXEC, EM_386
        dd      1, start, program_header - $$
        dd      0, 0                            ; no sections, no flags
        dw      elf_header_size, program_header_size, 1
        dw      0, 0, 0
elf_header_size equ $ - elf_header

program_header:
        dd      1, 0                            ; PT_LOAD, from the file's beginning
        dd      LOAD_ADDRESS, LOAD_ADDRESS      ; virtual, physical
        dd      file_end - $$, file_end - $$ + STACK_BYTES
        dd      7, 0x1000                       ; readable, writable, executable; page-aligned
program_header_size equ $ - program_header

        align 4, db 0
        dd      HEADER_MAGIC, HEADER_FLAGS, -(HEADER_MAGIC + HEADER_FLAGS)

start:  mov     esp, stack_top
        cld
        cmp     eax, LOADER_MAGIC               ; EBX is the address of the information
        mov     al, 1
        jne     finish
        mov     al, 2
        test    dword [ebx], INFO_MEMORY
        jz      finish

        mov     esi, command_line_text
        call    print
        test    dword [ebx], INFO_COMMAND_LINE
        jz      .no_command_line
        mov     esi, [ebx + 16]
        call    print
.no_command_line:
        mov     esi, memory_text
        call    print
        mov     eax, [ebx + 8]                  ; mem_upper: KiB from 1 MiB upwards
        call    print_decimal
        mov     esi, end_text
        call    print
        mov     al, 0

finish: out     DEBUG_EXIT, al
.stop:  cli
        hlt
        jmp     .stop

; AL = character.
put_char:
        mov     ah, al
        mov     dx, UART_LSR
.busy:  in      al, dx
        test    al, LSR_THRE
        jz      .busy
        mov     al, ah
        mov     dx, UART_DATA
        out     dx, al
        ret

; ESI = zero-terminated text.
print:  lodsb
        test    al, al
        jz      .end
        call    put_char
        jmp     print
.end:   ret

; EAX as a decimal number.
print_decimal:
        xor     edx, edx
        mov     ecx, 10
        div     ecx
        push    edx
        test    eax, eax
        jz      .last
        call    print_decimal
.last:  pop     eax
        add     al, '0'
        jmp     put_char

command_line_text: db "command line: ", 0
memory_text:    db CRLF, "memory above 1 MiB: ", 0
end_text:       db " KiB", CRLF, 0
file_end:
stack_top       equ file_end + STACK_BYTES
