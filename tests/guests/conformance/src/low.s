.section .multiboot, "awx"
# The other processor begins here, at page 8, after a start-up message.
.code16
.global low_start
low_start:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl (low_gdt_pointer - low_start + 0x8000)
    movl %cr0, %eax
    andl $0x9fffffff, %eax      # caches on
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $8, $(low_protected - low_start + 0x8000)
.code32
low_protected:
    movw $0x18, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $(STACK_2 + 16384), %esp
    movl $enter_long, %eax
    call *%eax
.code64
    movl $(STACK_2 + 16384), %esp
    movl $second_main, %eax
    call *%rax
1:  cli
    hlt
    jmp 1b
low_gdt_pointer:
    .word 8 * 32 - 1
    .long GDT
.global low_end
low_end:
