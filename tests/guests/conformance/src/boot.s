# Multiboot entry, the way into long mode for the first and the other processor, and exceptions.
.section .multiboot, "awx"
.code32
    .balign 4
header:
    .long 0x1badb002
    .long 0x10003
    .long -(0x1badb002 + 0x10003)
    .long header, image_start, image_end, bss_end, start

.global start
start:
    cli
    cld
    mov [MULTIBOOT], ebx
    mov esp, offset STACK + 65536
    # 4 GiB one to one, for everybody, with 2 MiB pages: one directory of tables for each GiB.
    mov edi, offset TABLES
    mov ecx, 6 * 1024
    xor eax, eax
    rep stosd
    mov edi, offset TABLES
    lea eax, [edi + 0x1007]
    mov [edi], eax
    mov ecx, 4
    lea eax, [edi + 0x2007]
    lea edi, [edi + 0x1000]
1:  mov [edi], eax
    add edi, 8
    add eax, 0x1000
    loop 1b
    mov edi, offset TABLES + 0x2000
    mov ecx, 2048
    mov eax, 0x87
2:  mov [edi], eax
    add edi, 8
    add eax, 0x200000
    loop 2b
    lgdt [gdt_pointer]
    call enter_long
    .code64
    mov rsp, offset STACK + 65536
    call main
3:  cli
    hlt
    jmp 3b

# From 32-bit code without paging to 64-bit code at the return address. Clobbers eax, ecx, edx.
.global enter_long
enter_long:
    .code32
    mov eax, cr4
    or eax, 0x620               # PAE, SSE
    mov cr4, eax
    mov eax, offset TABLES
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x901               # system calls, long mode, no-execute
    wrmsr
    mov eax, cr0
    and eax, 0xfffffff3
    or eax, 0x80010023          # paging, write protection, native x87 errors, monitor coprocessor, protection
    mov cr0, eax
    .byte 0xea
    .long long_entered
    .word 0x10
    .code64
long_entered:
    mov ecx, 0x18
    mov ds, ecx
    mov es, ecx
    mov fs, ecx
    mov gs, ecx
    mov ss, ecx
    # A 32-bit return address.
    mov ecx, [rsp]
    add rsp, 4
    mov esp, esp
    jmp rcx

.code64
.text
# attempt(function in rdi, argument in rsi): calls the function; an exception that nobody else takes ends up behind the call.
.global attempt
attempt:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [RECOVER_STACK], rsp
    lea rax, [rip + recovered]
    mov [RECOVER], rax
    mov rax, rdi
    mov rdi, rsi
    call rax
recovered:
    mov qword ptr [RECOVER], 0
    cld
    mov ecx, 0x18
    mov ds, ecx
    mov es, ecx
    mov ss, ecx
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

# user(function in rdi, argument in rsi): calls the function in ring 3, on the user's stack, under `attempt`. It ends by an exception or by returning to `int 0x80`.
.global user
user:
    mov rax, offset USER_STACK + 16384 - 8
    lea rcx, [rip + user_end]
    mov [rax], rcx
    push 0x33
    push rax
    push 2
    push 0x2b
    push rdi
    mov rdi, rsi
    iretq
user_end:
    int 0x80

# compatibility(function in rdi): calls 32-bit code in ring 0 in compatibility mode, under `attempt`; eax is what it returned.
.global compatibility
compatibility:
    push rbx
    push rdi
    lea rax, [rip + compatibility_code]
    push 8
    push rax
    retfq
compatibility_code:
    .code32
    mov eax, [esp]
    call eax
    .byte 0xea
    .long compatibility_end
    .word 0x10
compatibility_end:
    .code64
    pop rdi
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
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rdi, rsp
    mov rbx, rsp
    and rsp, -16
    cld
    call trap
    mov rsp, rbx
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq

.data
.balign 8
gdt_pointer:
    .word 8 * 32 - 1
    .long GDT
