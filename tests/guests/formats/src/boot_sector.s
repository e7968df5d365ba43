# Real mode, entered at 0000:7c00 with the drive in dl. There is no firmware behind it.
.section .sector, "awx"
.code16
.global start
start:
    cli
    cld
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov sp, 0x7c00
    mov [drive], dl
    # The entry itself: protection is off, the drive is the first hard disk.
    mov eax, cr0
    and al, 1
    cmp byte ptr [drive], 0x80
    jne 1f
    cmp al, 0
1:  mov si, offset name_entry
    call verdict
    jmp tests

# Prints the zero-terminated text at ds:si.
print:
    push ax
    push dx
1:  mov dx, 0x3fd
    in al, dx
    test al, 0x20
    jz 1b
    lodsb
    test al, al
    jz 2f
    mov dx, 0x3f8
    out dx, al
    jmp 1b
2:  pop dx
    pop ax
    ret

# Prints the verdict on the test whose name is at si: ok if the zero flag is set.
verdict:
    pushf
    push si
    mov si, offset text_boot
    call print
    pop si
    call print
    popf
    jnz 1f
    inc word ptr [passed]
    mov si, offset text_ok
    jmp print
1:  inc word ptr [failed]
    mov si, offset text_failed
    jmp print

# Prints ax as a decimal number below 100.
number:
    push cx
    mov cl, 10
    div cl
    add ax, 0x3030
    mov [digits], ax
    mov si, offset digits
    cmp byte ptr [si], 0x30
    jne 1f
    inc si
1:  call print
    pop cx
    ret

drive: .byte 0
passed: .word 0
failed: .word 0
digits: .byte 0, 0, 0
    .org 510
    .byte 0x55, 0xaa

# From here on the file goes on behind the first sector.
tests:
    # Two segments and offsets that mean the same place; a segment override; a wrap at the end of a segment.
    mov ax, 0x2000
    mov es, ax
    mov ax, 0x2001
    mov fs, ax
    mov dword ptr es:[0x10], 0x12345678
    mov eax, fs:[0]
    cmp eax, 0x12345678
    jne 1f
    mov bx, 0xffff
    mov byte ptr es:[bx + 2], 0x5a
    cmp byte ptr es:[1], 0x5a
1:  mov si, offset name_segments
    call verdict

    # The text below comes by string output: the line is the test.
    mov si, offset text_string
    mov cx, offset text_string_end
    sub cx, si
    mov dx, 0x3f8
    rep outsb
    cmp si, offset text_string_end
    jne 1f
    test cx, cx
1:  mov si, offset name_string
    call verdict

    # String input, backwards, into another segment: the scratch register's value twice.
    mov dx, 0x3ff
    mov al, 0xa5
    out dx, al
    mov ax, 0x2000
    mov es, ax
    mov di, 0x101
    mov cx, 2
    std
    rep insb
    cld
    cmp word ptr es:[0x100], 0xa5a5
    jne 1f
    cmp di, 0xff
1:  mov si, offset name_input
    call verdict
    xor ax, ax
    mov es, ax

    # int n through the interrupt vector table: flags and return address are on the stack, interrupts off.
    mov word ptr [0x40 * 4], offset handler_software
    mov word ptr [0x40 * 4 + 2], 0
    mov bp, sp
    stc
    int 0x40
after_software:
    jc 1f
    cmp word ptr [seen], 0x1111
    jne 1f
    cmp sp, bp
1:  mov si, offset name_software
    call verdict

    # A fault: the return address is that of the division.
    mov word ptr [0], offset handler_divide
    mov word ptr [2], 0
    mov word ptr [seen], 0
    xor dx, dx
    mov ax, 6
    xor bx, bx
division:
    div bx
    cmp ax, 3
    jne 1f
    cmp word ptr [seen], offset division
1:  mov si, offset name_divide
    call verdict

    # The interval timer through the 8259, woken from hlt.
    mov word ptr [0x20 * 4], offset handler_timer
    mov word ptr [0x20 * 4 + 2], 0
    mov word ptr [seen], 0
    mov al, 0x11
    out 0x20, al
    mov al, 0x20
    out 0x21, al
    mov al, 4
    out 0x21, al
    mov al, 1
    out 0x21, al
    mov al, 0xfe
    out 0x21, al
    # Channel 0, rate generator, some 1000 per second.
    mov al, 0x34
    out 0x43, al
    mov al, 0xa9
    out 0x40, al
    mov al, 4
    out 0x40, al
2:  sti
    hlt
    cli
    cmp word ptr [seen], 3
    jb 2b
    mov al, 0xff
    out 0x21, al
    xor ax, ax
    mov si, offset name_timer
    call verdict

    # Unreal mode: segments get 4 GiB in protected mode and keep them in real mode; then back to 64 KiB.
    lgdt [gdt_pointer]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 1f
1:  mov bx, 0x10
    mov es, bx
    and al, 0xfe
    mov cr0, eax
    .byte 0xea
    .word 2f, 0
2:  mov edi, 0x234567
    mov dword ptr es:[edi], 0xcafef00d
    mov eax, es:[edi]
    cmp eax, 0xcafef00d
    jne 1f
    # Nothing of it is at the address cut to 20 or 16 bits.
    mov ax, 0x3456
    mov fs, ax
    mov eax, fs:[7]
    cmp eax, 0xcafef00d
    je 3f
    # Code goes on in the same segment, and interrupts still go through the vectors.
    mov word ptr [seen], 0
    stc
    int 0x40
    cmp word ptr [seen], 0x1111
    jne 1f
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 4f
4:  mov bx, 8
    mov es, bx
    and al, 0xfe
    mov cr0, eax
    xor bx, bx
    mov es, bx
    mov eax, cr0
    and al, 1
    jmp 1f
3:  or al, 1
1:  mov si, offset name_unreal
    call verdict

    # Instructions that leave the guest: each gives the same as itself, and ip goes on behind it.
    xor eax, eax
    cpuid
    mov esi, ebx
    xor eax, eax
    .byte 0x66
    cpuid
    cmp esi, ebx
    jne 1f
    mov ecx, 0x1b
    rdmsr
    and eax, 0xfffff100
    cmp eax, 0xfee00100
    jne 1f
    rdtsc
    mov esi, eax
    rdtsc
    sub eax, esi
    jz 3f
    cmp eax, eax
    jmp 1f
3:  or al, 1
1:  mov si, offset name_exits
    call verdict

    mov si, offset text_end
    call print
    mov ax, [passed]
    call number
    mov si, offset text_passed
    call print
    mov ax, [failed]
    call number
    mov si, offset text_end_failed
    call print
1:  cli
    hlt
    jmp 1b

# Interrupts are off here; the return address is right behind the instruction; returns with carry clear.
handler_software:
    push bp
    mov bp, sp
    pushf
    pop ax
    test ax, 0x200
    jnz 1f
    cmp word ptr [bp + 4], 0
    jne 1f
    test word ptr [bp + 6], 1
    jz 1f
    mov word ptr [seen], 0x1111
1:  and word ptr [bp + 6], 0xfffe
    pop bp
    iret

handler_divide:
    push bp
    mov bp, sp
    mov bx, [bp + 2]
    mov [seen], bx
    mov bx, 2
    pop bp
    iret

handler_timer:
    inc word ptr [seen]
    push ax
    mov al, 0x20
    out 0x20, al
    pop ax
    iret

seen: .word 0
.balign 8
gdt:
    .quad 0
    .quad 0x000093000000ffff
    .quad 0x008f93000000ffff
gdt_pointer:
    .word 23
    .long gdt
text_boot: .asciz "BOOT "
text_ok: .asciz " ok\n"
text_failed: .asciz " FAILED\n"
text_string: .ascii "BOOT this line comes by rep outsb\n"
text_string_end:
text_end: .asciz "BOOT end "
text_passed: .asciz " passed "
text_end_failed: .asciz " failed\n"
name_entry: .asciz "entry"
name_segments: .asciz "segments"
name_string: .asciz "string-output"
name_input: .asciz "string-input"
name_software: .asciz "software-interrupt"
name_divide: .asciz "divide-error"
name_timer: .asciz "timer-and-hlt"
name_unreal: .asciz "unreal-mode"
name_exits: .asciz "cpuid-rdmsr-rdtsc"
