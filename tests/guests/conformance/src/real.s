# Real mode: the way there from protected mode, and back.
.text
.code32
.global legacy_real
legacy_real:
    movl %esp, REAL_STACK
    ljmpl $0x78, $(real_entry - real_start + 0x9000)
real_back:
    movl $0x18, %edx
    movw %dx, %ds
    movw %dx, %es
    movw %dx, %ss
    movl REAL_STACK, %esp
    lidtl idt32_pointer
    movzwl %ax, %eax
    ret

# What is copied to 0x9000: segment 0x900.
.code16
.global real_start
real_start:
.global vm86_code
vm86_code:
    movw %ds, %ax
    movw $0x4321, %bx
    pushfw
    popw %cx
    int $0x55
.global vm86_cli
vm86_cli:
    cli
.global vm86_in
vm86_in:
    movw $0x3ff, %dx
    inb %dx, %al
# In 16-bit protected mode, with a code segment at 0.
real_entry:
    movw $0x80, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw %ax, %fs
    movw %ax, %gs
    movl %cr0, %eax
    andb $0xfe, %al
    movl %eax, %cr0
    ljmpw $0x900, $(real_16 - real_start)
real_16:
    movw $0x900, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x1000, %sp
    lidtl real_idt - real_start
    # Step 1: INT through the vector table; the handler sees what was pushed.
    xorw %ax, %ax
    movw %ax, %fs
    movw $(real_handler - real_start), %fs:0x60 * 4
    movw $0x900, %fs:0x60 * 4 + 2
    movw $(real_divide - real_start), %fs:0
    movw $0x900, %fs:2
    movw $(real_undefined - real_start), %fs:6 * 4
    movw $0x900, %fs:6 * 4 + 2
    movw $0x1111, %bx
    int $0x60
    cmpw $0x2222, %bx
    movw $1, %ax
    jne real_end_of_test
    cmpw $0x1000, %sp
    jne real_end_of_test
    # Step 2: a fault at the division, which the handler steps over.
    xorw %dx, %dx
    movw $7, %ax
    xorw %cx, %cx
    divw %cx
    cmpw $0x3333, %bx
    movw $2, %ax
    jne real_end_of_test
    # Step 3: segments overlap.
    movw $0x901, %ax
    movw %ax, %gs
    movl $0xabcdef01, 0x2000
    movl %gs:0x1ff0, %eax
    cmpl $0xabcdef01, %eax
    movw $3, %ax
    jne real_end_of_test
    # Step 4: 32-bit operands and addresses.
    movl $0x2000, %ecx
    movl %ds:(%ecx), %eax
    cmpl $0xabcdef01, %eax
    movw $4, %ax
    jne real_end_of_test
    # Step 5: string output with a port, from segment and offset.
    movw $0x2000, %si
    movw $4, %cx
    movw $0x3ff, %dx
    cld
    rep outsb
    inb %dx, %al
    cmpb $0xab, %al
    movw $5, %ax
    jne real_end_of_test
    cmpw $0x2004, %si
    jne real_end_of_test
    # Step 6: MMIO by a segment of real mode is beyond reach, CPUID and RDMSR are not.
    movl $0x1b, %ecx
    rdmsr
    andl $0xfffff900, %eax
    cmpl $0xfee00900, %eax
    movw $6, %ax
    jne real_end_of_test
    # Step 7: #UD; protected-mode instructions are not known here.
    movw $0x1111, %bx
    .byte 0x0f, 0x00, 0xd8      # ltr ax
    cmpw $0x4444, %bx
    movw $7, %ax
    jne real_end_of_test
    # Step 8: PUSHF, POPF and flags; IF can be changed.
    pushw $0x0202
    popfw
    pushfw
    cli
    popw %ax
    testw $0x200, %ax
    movw $8, %ax
    jz real_end_of_test
    # Step 9: far calls.
    lcallw $0x900, $(real_far - real_start)
    cmpw $0x5555, %bx
    movw $9, %ax
    jne real_end_of_test
    xorw %ax, %ax
real_end_of_test:
    cli
    movw %ax, %bx
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    movw %bx, %ax
    ljmpl $8, $real_back
real_handler:
    pushw %bp
    movw %sp, %bp
    cmpw $0x900, 4(%bp)
    jne 1f
    cmpw $0x1000 - 8, %bp
    jne 1f
    movw $0x2222, %bx
1:  popw %bp
    iretw
real_divide:
    pushw %bp
    movw %sp, %bp
    addw $2, 2(%bp)             # div cx has two bytes
    movw $0x3333, %bx
    popw %bp
    iretw
real_undefined:
    pushw %bp
    movw %sp, %bp
    addw $3, 2(%bp)
    movw $0x4444, %bx
    popw %bp
    iretw
real_far:
    movw $0x5555, %bx
    lretw
real_idt:
    .word 0x3ff
    .long 0
.global real_end
real_end:

.data
.balign 4
REAL_STACK: .long 0
.text
.code64
