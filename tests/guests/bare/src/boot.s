# Linux boot protocol 2.15 (Documentation/arch/x86/boot.rst): the header that a boot loader reads, and the 64-bit entry.
.section .setup, "a"
    .org 0x1f1
    .byte 1                 # setup_sects: one sector after the boot sector
    .word 0
    .long image_paragraphs
    .word 0, 0, 0
    .word 0xaa55
    .org 0x200
    .byte 0xeb, 0x6a        # jump over the header
    .ascii "HdrS"
    .word 0x020f
    .long 0
    .word 0, 0
    .byte 0                 # type_of_loader, filled by the loader
    .byte 1                 # loadflags: LOADED_HIGH
    .word 0
    .long 0x100000          # code32_start
    .long 0, 0              # RAM disk, filled by the loader
    .long 0
    .word 0
    .byte 0, 0
    .long 0                 # cmd_line_ptr, filled by the loader
    .long 0x7fffffff        # initrd_addr_max
    .long 0x200000          # kernel_alignment
    .byte 1                 # relocatable_kernel: it moves itself
    .byte 21                # min_alignment
    .word 1                 # xloadflags: 64-bit entry at 0x200
    .long 2047              # cmdline_size
    .long 0
    .quad 0
    .long 0, 0
    .quad 0
    .quad 0x1000000         # pref_address
    .long 0x400000          # init_size
    .long 0, 0
    .org 0x400

.section .entry, "ax"
.code64
    # The 32-bit entry point: this guest has none.
    cli
1:  hlt
    jmp 1b
    .org 0x200
.global entry64
entry64:
    cli
    cld
    mov r15, rsi                        # boot_params
    lea rsi, [rip + image_start]
    mov rdi, offset image_start
    mov rcx, offset image_end
    sub rcx, rdi
    cmp rsi, rdi
    je 2f
    rep movsb
2:  mov rax, offset moved
    jmp rax
moved:
    mov rdi, offset bss_start
    mov rcx, offset bss_end
    sub rcx, rdi
    xor eax, eax
    rep stosb
    mov rsp, offset STACK + 65536
    mov rdi, r15
    call main
4:  cli
    hlt
    jmp 4b

.text
# attempt(function in rdi, argument in rsi) -> rax: 0, or vector + 1 of the exception that ended it.
.global attempt
attempt:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [RECOVER_STACK], rsp
    mov rax, rdi
    mov rdi, rsi
    call rax
    xor eax, eax
recovered:
    mov qword ptr [RECOVER_STACK], 0
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

.macro vector number
    .balign 16
    .if (\number == 8) || (\number >= 10 && \number <= 14) || (\number == 17) || (\number == 21) || (\number == 29) || (\number == 30)
    nop
    .else
    push 0
    .endif
    push \number
    jmp trap_common
.endm
.balign 16
.global vectors
vectors:
.altmacro
.set i, 0
.rept 256
    vector %i
    .set i, i + 1
.endr
.noaltmacro

trap_common:
    cmp qword ptr [rsp], 32
    jae 5f
    cmp qword ptr [RECOVER_STACK], 0
    je 6f
    mov rax, [rsp]
    inc rax
    mov rsp, [RECOVER_STACK]
    cld
    # The segments a test may have spoilt.
    mov ecx, 0x18
    mov ds, ecx
    mov es, ecx
    mov ss, ecx
    jmp recovered
5:  push rax
    mov rax, [APIC_EOI]
    test rax, rax
    jz 7f
    mov dword ptr [rax], 0
7:  pop rax
    add rsp, 16
    iretq
6:  mov rdi, rsp
    and rsp, -16
    call unexpected
    jmp 4b
