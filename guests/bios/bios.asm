; The mini BIOS: what a boot sector needs of a PC's firmware, on a machine whose terminal is its
; serial port and whose disk is a copy of the boot image in memory.
;
; A ROM of 64 KiB at F0000-FFFFF (and below 4 GiB). It starts at F000:FFF0 or F000:E05B, sets up
; interrupt vectors, BIOS data area, interrupt controllers, timer and serial port, and jumps to the
; boot sector, which the client has already put at 0000:7C00, with DL = 80h and interrupts on.
;
;   INT 10h  video       to the serial port          video.inc, terminal.inc
;   INT 13h  disk        the copy of the image       disk.inc
;   INT 14h  serial      COM1                        serial.inc
;   INT 15h  system      memory map, waits, A20      system.inc, waiting.inc
;   INT 16h  keyboard    from the serial port        keyboard.inc, keys.inc
;   INT 1Ah  time        ticks and clock             time.inc
;   INT 11h, 12h, 17h, 18h, 19h                      system.inc
;
; The disk: the client writes an information block into this ROM, at BIOS_INFO: the four characters
; "KVSD", the physical address and the length in bytes of the boot image, and flags, each 32 bits,
; little-endian. The image lies at the top of memory, above 1 MiB, padded with zeros to whole
; sectors. With a length of 0 there is no disk. A ROM, because it is to be found again however often
; the PC is restarted, and whatever a program did to memory. The same block at physical 9FC00h says
; that the boot sector is already in its place; the BIOS then makes that KiB its extended data area
; (variables.inc), and reads the boot sector itself from then on.
;
; Source, unless a file says otherwise: IBM PC/AT Technical Reference, "System BIOS".

%include "machine.inc"
%include "bios/variables.inc"

BIOS_SEGMENT    equ 0xf000
POST_ENTRY      equ 0xe05b              ; where programs that restart the PC jump to
RESET_VECTOR    equ 0xfff0
BIOS_INFO       equ 0xffc0
BIOS_DATE       equ 0xfff5
BIOS_MODEL      equ 0xfffe

; The interrupt controllers as DOS and all boot code expect them, exceptions be damned.
BIOS_VECTOR_IRQ0 equ 0x08
BIOS_VECTOR_IRQ8 equ 0x70

; post_code NUMBER: how far the self-test has come.
%macro post_code 1
        out8    POST_PORT, %1
%endmacro

        bits 16
        org 0

power_on:
        cli
        cld
        post_code 0x01
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     sp, BOOT_ADDRESS
        call    set_vectors
        post_code 0x02
        call    set_data_area
        call    find_disk
        post_code 0x03
        call    find_memory
        post_code 0x04
        call    start_interrupt_controllers
        push    word BDA
        pop     ds
        mov     al, TEXT_MODE
        call    prepare_mode
        call    start_timer
        call    start_clock
        call    start_keyboard_controller
        call    start_serial
        post_code 0x05
        call    set_time_of_day
        post_code 0x06
        jmp     boot

; Every vector gets a handler that only returns; then those with a purpose get theirs.
set_vectors:
        xor     ax, ax
        mov     es, ax
        xor     di, di
        mov     cx, 256
.fill:  mov     ax, ignore
        stosw
        mov     ax, BIOS_SEGMENT
        stosw
        loop    .fill
        mov     si, vectors
.next:  cs lodsw
        cmp     ax, 0xffff
        je      .end
        mov     di, ax
        shl     di, 2
        cs lodsw
        mov     [es:di], ax
        jmp     .next
.end:   ret

vectors:
        dw      0x00, exception_00, 0x06, exception_06
        dw      0x08, on_timer, 0x09, irq_1, 0x0a, irq_2, 0x0b, irq_3
        dw      0x0c, on_serial, 0x0d, irq_5, 0x0e, irq_6, 0x0f, irq_7
        dw      0x10, int_10, 0x11, int_11, 0x12, int_12, 0x13, int_13, 0x14, int_14
        dw      0x15, int_15, 0x16, int_16, 0x17, int_17, 0x18, int_18, 0x19, int_19
        dw      0x1a, int_1a, 0x1b, nothing_to_do, 0x1c, nothing_to_do
        dw      0x1e, diskette_parameters, 0x41, disk_table, 0x4a, nothing_to_do
        dw      0x70, on_clock, 0x71, irq_slave, 0x72, irq_slave, 0x73, irq_slave
        dw      0x74, irq_slave, 0x75, irq_slave, 0x76, irq_slave, 0x77, irq_slave
        dw      0xffff

; The BIOS data area, except for what other parts find out and put there.
set_data_area:
        push    word BDA
        pop     es
        xor     di, di
        xor     ax, ax
        mov     cx, 0x100 / 2
        rep     stosw
        push    word BDA
        pop     ds
        mov     word [BDA_COM1], COM1
        mov     word [BDA_EXTENDED], EBDA
        mov     word [BDA_EQUIPMENT], EQUIPMENT
        mov     word [BDA_MEMORY_KIB], EBDA >> 6
        mov     word [BDA_KEY_HEAD], BDA_KEYS
        mov     word [BDA_KEY_TAIL], BDA_KEYS
        mov     word [BDA_KEYS_START], BDA_KEYS
        mov     word [BDA_KEYS_END], BDA_KEYS_LAST
        mov     word [BDA_CRTC], 0x3d4
        mov     byte [BDA_LAST_ROW], ROWS - 1
        ret

start_interrupt_controllers:
        out8    PIC1_COMMAND, PIC_ICW1
        out8    PIC1_DATA, BIOS_VECTOR_IRQ0
        out8    PIC1_DATA, 1 << 2
        out8    PIC1_DATA, PIC_ICW4
        out8    PIC2_COMMAND, PIC_ICW1
        out8    PIC2_DATA, BIOS_VECTOR_IRQ8
        out8    PIC2_DATA, 2
        out8    PIC2_DATA, PIC_ICW4
        out8    PIC1_DATA, ~(1 << 0 | 1 << 2 | 1 << 4) & 0xff   ; timer, cascade, serial port
        out8    PIC2_DATA, ~(1 << 0) & 0xff                     ; clock
        ret

; Vectors that mean nothing here. One may be that of an interrupt line, of controllers that a program
; has set to other vectors: such an interrupt is ended, or none would come any more.
ignore: push    ax
        out8    PIC2_COMMAND, PIC_READ_ISR
        in      al, PIC2_COMMAND
        test    al, al
        jz      .master
        mov     al, PIC_EOI
        out     PIC2_COMMAND, al
.master:
        out8    PIC1_COMMAND, PIC_READ_ISR
        in      al, PIC1_COMMAND
        test    al, al
        jz      .end
        mov     al, PIC_EOI
        out     PIC1_COMMAND, al
.end:   pop     ax
nothing_to_do:
        iret

; An exception that would happen again if its handler returned ends the machine with a message: a
; halt with interrupts off, which whoever runs the machine reports.
%macro exception 1
exception_%1:
        push    byte 0x%1
        jmp     report_exception
%endmacro

        exception 00                    ; divide error
        exception 06                    ; invalid opcode

; Vectors 08h-0Fh belong both to IRQ0-7 and to exceptions. Only for an interrupt is the line's bit
; set in the controller's in-service register.
%macro master_irq 1
irq_%1: push    byte BIOS_VECTOR_IRQ0 + %1
        jmp     irq_or_exception
%endmacro

        master_irq 1
        master_irq 2
        master_irq 3
        master_irq 5
        master_irq 6
        master_irq 7

PIC_READ_ISR    equ 0x0b                ; OCW3: the next read gives the in-service register

irq_or_exception:
        push    bp
        mov     bp, sp
        push    ax
        push    cx
        mov     cl, [bp + 2]
        sub     cl, BIOS_VECTOR_IRQ0
        out8    PIC1_COMMAND, PIC_READ_ISR
        in      al, PIC1_COMMAND
        shr     al, cl
        test    al, 1
        jz      .not_in_service
        end_of_interrupt 0
        jmp     .return
.not_in_service:
        cmp     cl, 7                   ; IRQ7 without the bit is a spurious interrupt
        jne     .exception
.return:
        pop     cx
        pop     ax
        pop     bp
        add     sp, 2
        iret
.exception:
        pop     cx
        pop     ax
        pop     bp
report_exception:                       ; on the stack: number, IP, CS, flags
        mov     bp, sp
        mov     si, exception_text
        call    print
        mov     al, [bp]
        call    print_hex8
        mov     si, at_text
        call    print
        mov     ax, [bp + 4]
        call    print_hex16
        mov     al, ':'
        call    put_char
        mov     ax, [bp + 2]
        call    print_hex16
        mov     si, new_line
        call    print
halt:   cli
        hlt
        jmp     halt

irq_slave:
        push    ax
        end_of_interrupt 8
        pop     ax
        iret

exception_text: db CRLF, "BIOS: unhandled exception ", 0
at_text:        db " at ", 0
new_line:       db CRLF, 0

%include "bios/video.inc"
%include "bios/terminal.inc"
%include "bios/keyboard.inc"
%include "bios/keys.inc"
%include "bios/serial.inc"
%include "bios/disk.inc"
%include "bios/system.inc"
%include "bios/time.inc"
%include "bios/waiting.inc"

        times POST_ENTRY - ($ - $$) db 0xff
        jmp     BIOS_SEGMENT:power_on

        times BIOS_INFO - ($ - $$) db 0xff
        dd      INFO_MAGIC, 0, 0, 0     ; the client fills it in

        times RESET_VECTOR - ($ - $$) db 0xff
        jmp     BIOS_SEGMENT:power_on

        times BIOS_DATE - ($ - $$) db 0
        db      "01/01/26", 0
        db      0xfc                    ; model: PC/AT
        times 0x10000 - ($ - $$) db 0
