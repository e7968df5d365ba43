# Out of long mode into protected mode without paging, what is tried there, and back.
.text
.code64
# legacy(function in rdi) -> rax: what the 32-bit function answered.
.global legacy
legacy:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [LEGACY_STACK], rsp
    mov [LEGACY_FUNCTION], edi
    lea rax, [rip + legacy_compatible]
    push 8
    push rax
    retfq
.code32
legacy_compatible:
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, cr0
    and eax, 0x7fffffff
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0xfffffeff
    wrmsr
    mov eax, cr4
    and eax, 0xffffffdf
    mov cr4, eax
    call legacy_setup
    call dword ptr [LEGACY_FUNCTION]
# eax is the answer; the stack may be any.
legacy_back:
    mov [LEGACY_RESULT], eax
    clts
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, [LEGACY_STACK]
    push 2
    popfd
    mov eax, offset enter_long
    call eax
.code64
    mov rsp, [LEGACY_STACK]
    and byte ptr [GDT + 0x45], 0xfd
    mov eax, 0x40
    ltr ax
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    mov eax, [LEGACY_RESULT]
    ret

.code32
# The step that went wrong is in STEP.
legacy_failed:
    mov eax, [STEP]
    jmp legacy_back

.macro step number
    mov dword ptr [STEP], \number
.endm
# The code that follows, up to \label, must end in an exception with this vector and error code.
.macro refused label, vector, error
    mov dword ptr [EX_VECTOR], -1
    mov dword ptr [RECOVER32], offset \label
    mov [RECOVER32_STACK], esp
.endm
.macro was vector, error
    mov dword ptr [RECOVER32], 0
    cmp dword ptr [EX_VECTOR], \vector
    jne legacy_failed
    cmp dword ptr [EX_ERROR], \error
    jne legacy_failed
.endm

# A descriptor of a TSS at eax into entry ecx, with limit edx.
legacy_tss:
    mov [GDT + ecx], dx
    mov [GDT + ecx + 2], ax
    shr eax, 16
    mov [GDT + ecx + 4], al
    mov byte ptr [GDT + ecx + 5], 0x89
    mov byte ptr [GDT + ecx + 6], 0
    mov [GDT + ecx + 7], ah
    ret

legacy_setup:
    cld
    # Gates: interrupt gates of ring 0, from 0x50 on of ring 3.
    mov edi, offset IDT32
    mov eax, offset vectors32
    xor ecx, ecx
1:  mov [edi], ax
    mov word ptr [edi + 2], 8
    mov edx, eax
    shr edx, 16
    mov [edi + 6], dx
    mov word ptr [edi + 4], 0x8e00
    cmp ecx, 0x50
    jb 2f
    mov word ptr [edi + 4], 0xee00
2:  add edi, 8
    add eax, 16
    inc ecx
    cmp ecx, 96
    jb 1b
    lidt [idt32_pointer]
    # Two tasks, one that is not present, one that is too small, a task gate.
    mov edi, offset TSS_A
    mov ecx, 2 * 32
    xor eax, eax
    rep stosd
    mov eax, offset TSS_A
    mov ecx, 0x88
    mov edx, 103
    call legacy_tss
    mov eax, offset TSS_B
    mov ecx, 0x90
    call legacy_tss
    mov eax, offset TSS_B
    mov ecx, 0x98
    call legacy_tss
    mov byte ptr [GDT + 0x98 + 5], 0x09
    mov eax, offset TSS_B
    mov ecx, 0xa0
    mov edx, 102
    call legacy_tss
    mov dword ptr [GDT + 0xa8], 0x00900000
    mov dword ptr [GDT + 0xac], 0x00008500
    mov dword ptr [TSS_A + 4], offset RING0_STACK + 16384
    mov dword ptr [TSS_A + 8], 0x18
    mov word ptr [TSS_A + 102], 104
    mov word ptr [TSS_B + 102], 104
    mov eax, 0x88
    ltr ax
    mov dword ptr [TSS_B + 36], 2
    mov dword ptr [TSS_B + 40], 0x11112222
    mov dword ptr [TSS_B + 56], offset IST_STACK + 4096
    mov dword ptr [TSS_B + 68], 0x33334444
    mov dword ptr [TSS_B + 72], 0x18
    mov dword ptr [TSS_B + 76], 8
    mov dword ptr [TSS_B + 80], 0x18
    mov dword ptr [TSS_B + 84], 0x18
    mov dword ptr [TSS_B + 88], 0
    mov dword ptr [TSS_B + 92], 0x18
    mov dword ptr [RECOVER32], 0
    ret

.global legacy_nothing
legacy_nothing:
    step 1
    mov eax, cr0
    and eax, 0x80000001
    cmp eax, 1
    jne legacy_failed
    step 2
    mov ecx, 0xc0000080
    rdmsr
    and eax, 0x500
    cmp eax, 0
    jne legacy_failed
    step 3
    # In 32-bit mode 0x40 to 0x4f are instructions, not prefixes.
    mov eax, 5
    .byte 0x40, 0x48, 0x40
    cmp eax, 6
    jne legacy_failed
    step 4
    refused nothing_1
    ud2
nothing_1:
    was 6, 0
    xor eax, eax
    ret

.global legacy_task_call
legacy_task_call:
    mov dword ptr [TSS_B + 32], offset called_task
    mov esi, 0x51515151
    mov ebp, 0x52525252
    clts
    step 1
    .byte 0x9a
    .long 0
    .word 0x90
    # Back here.
    step 20
    str eax
    cmp ax, 0x88
    jne legacy_failed
    step 21
    pushfd
    pop eax
    test eax, 0x4000
    jnz legacy_failed
    step 22
    cmp esi, 0x51515151
    jne legacy_failed
    cmp ebp, 0x52525252
    jne legacy_failed
    step 23
    cmp byte ptr [GDT + 0x88 + 5], 0x8b
    jne legacy_failed
    cmp byte ptr [GDT + 0x90 + 5], 0x89
    jne legacy_failed
    step 24
    # The old task was saved behind its IRET, without the nested flag, with what it had.
    cmp dword ptr [TSS_B + 32], offset called_task_end
    jne legacy_failed
    cmp dword ptr [TSS_B + 44], 0x77778888
    jne legacy_failed
    test dword ptr [TSS_B + 36], 0x4000
    jnz legacy_failed
    step 25
    mov eax, cr0
    test eax, 8
    jz legacy_failed
    # And again: it goes on behind its IRET.
    step 26
    call fword ptr [task_pointer]
    step 27
    cmp dword ptr [TSS_B + 44], 0x99990000
    jne legacy_failed
    xor eax, eax
    ret
called_task:
    step 2
    cmp eax, 0x11112222
    jne legacy_failed
    cmp edi, 0x33334444
    jne legacy_failed
    step 3
    str eax
    cmp ax, 0x90
    jne legacy_failed
    step 4
    pushfd
    pop eax
    and eax, 0x4000
    jz legacy_failed
    step 5
    cmp word ptr [TSS_B], 0x88
    jne legacy_failed
    step 6
    cmp byte ptr [GDT + 0x88 + 5], 0x8b
    jne legacy_failed
    cmp byte ptr [GDT + 0x90 + 5], 0x8b
    jne legacy_failed
    step 7
    mov eax, cr0
    test eax, 8
    jz legacy_failed
    step 8
    cmp esp, offset IST_STACK + 4096
    jne legacy_failed
    step 9
    mov eax, fs
    cmp ax, 0
    jne legacy_failed
    mov eax, gs
    cmp ax, 0x18
    jne legacy_failed
    mov ecx, 0x77778888
    iretd
called_task_end:
    mov ecx, 0x99990000
    iretd

.global legacy_task_jump
legacy_task_jump:
    mov dword ptr [TSS_B + 32], offset jumped_task
    mov word ptr [TSS_B], 0x1234
    step 1
    .byte 0xea
    .long 0
    .word 0x90
    step 20
    str eax
    cmp ax, 0x88
    jne legacy_failed
    cmp byte ptr [GDT + 0x88 + 5], 0x8b
    jne legacy_failed
    cmp byte ptr [GDT + 0x90 + 5], 0x89
    jne legacy_failed
    step 21
    # Through a task gate in the descriptor table.
    .byte 0xea
    .long 0
    .word 0xa8
    step 22
    str eax
    cmp ax, 0x88
    jne legacy_failed
    xor eax, eax
    ret
jumped_task:
    step 2
    pushfd
    pop eax
    test eax, 0x4000
    jnz legacy_failed
    step 3
    # A jump does not nest: the link is as it was.
    cmp word ptr [TSS_B], 0x1234
    jne legacy_failed
    step 4
    cmp byte ptr [GDT + 0x88 + 5], 0x89
    jne legacy_failed
    cmp byte ptr [GDT + 0x90 + 5], 0x8b
    jne legacy_failed
    .byte 0xea
    .long 0
    .word 0x88
    jmp jumped_task

.global legacy_task_gate
legacy_task_gate:
    mov dword ptr [TSS_B + 32], offset gate_task
    # Vectors 0x51 (for INT), 13 (with an error code) and 6.
    mov dword ptr [IDT32 + 0x51 * 8], 0x00900000
    mov dword ptr [IDT32 + 0x51 * 8 + 4], 0x0000e500
    step 1
    mov dword ptr [gate_seen], 0
    int 0x51
gate_next:
    step 20
    cmp dword ptr [gate_seen], 1
    jne legacy_failed
    str eax
    cmp ax, 0x88
    jne legacy_failed
    step 21
    cmp byte ptr [GDT + 0x90 + 5], 0x89
    jne legacy_failed
    # An exception with an error code: it is pushed on the new task's stack.
    mov dword ptr [IDT32 + 13 * 8], 0x00900000
    mov dword ptr [IDT32 + 13 * 8 + 4], 0x00008500
    mov dword ptr [TSS_B + 32], offset gate_error_task
    mov dword ptr [TSS_B + 56], offset IST_STACK + 4096
    mov eax, 0x1f8
    step 22
gate_fault:
    mov es, eax
gate_fault_next:
    step 30
    cmp dword ptr [gate_seen], 2
    jne legacy_failed
    # An exception without: #UD.
    mov dword ptr [IDT32 + 6 * 8], 0x00900000
    mov dword ptr [IDT32 + 6 * 8 + 4], 0x00008500
    mov dword ptr [TSS_B + 32], offset gate_plain_task
    mov dword ptr [TSS_B + 56], offset IST_STACK + 4096
    step 31
gate_plain:
    ud2
gate_plain_next:
    step 40
    cmp dword ptr [gate_seen], 3
    jne legacy_failed
    xor eax, eax
    ret
gate_task:
    step 2
    cmp dword ptr [TSS_A + 32], offset gate_next
    jne legacy_failed
    step 3
    pushfd
    pop eax
    test eax, 0x4000
    jz legacy_failed
    step 4
    cmp word ptr [TSS_B], 0x88
    jne legacy_failed
    inc dword ptr [gate_seen]
    iretd
gate_error_task:
    step 23
    cmp dword ptr [esp], 0x1f8
    jne legacy_failed
    step 24
    cmp dword ptr [TSS_A + 32], offset gate_fault
    jne legacy_failed
    mov dword ptr [TSS_A + 32], offset gate_fault_next
    add esp, 4
    inc dword ptr [gate_seen]
    iretd
gate_plain_task:
    step 32
    cmp esp, offset IST_STACK + 4096
    jne legacy_failed
    cmp dword ptr [TSS_A + 32], offset gate_plain
    jne legacy_failed
    mov dword ptr [TSS_A + 32], offset gate_plain_next
    inc dword ptr [gate_seen]
    iretd

.global legacy_task_refusals
legacy_task_refusals:
    step 1
    refused refusal_1
    .byte 0x9a
    .long 0
    .word 0x98
refusal_1:
    was 11, 0x98
    step 2
    refused refusal_2
    .byte 0x9a
    .long 0
    .word 0x88
refusal_2:
    was 13, 0x88
    step 3
    refused refusal_3
    .byte 0xea
    .long 0
    .word 0xa0
refusal_3:
    was 10, 0xa0
    step 4
    # A return to a task that is not busy.
    mov word ptr [TSS_A], 0x90
    refused refusal_4
    pushfd
    or dword ptr [esp], 0x4000
    popfd
    iretd
refusal_4:
    was 10, 0x90
    push 2
    popfd
    step 5
    str eax
    cmp ax, 0x88
    jne legacy_failed
    step 6
    # The new task's data segment is bad: the exception is the new task's.
    mov dword ptr [TSS_B + 32], offset legacy_failed
    mov dword ptr [TSS_B + 84], 0x1f8
    refused refusal_5
    .byte 0xea
    .long 0
    .word 0x90
refusal_5:
    was 10, 0x1f8
    step 7
    str eax
    cmp ax, 0x90
    jne legacy_failed
    xor eax, eax
    ret

.global legacy_segments
legacy_segments:
    step 1
    refused segment_1
    mov eax, 0x60
    mov es, eax
segment_1:
    was 11, 0x60
    step 2
    refused segment_2
    mov eax, 0x60
    mov ss, eax
segment_2:
    was 12, 0x60
    step 3
    refused segment_3
    mov eax, 0x70
    mov ds, eax
segment_3:
    was 13, 0x70
    step 6
    # Into ring 3 and back by an interrupt, on the stack of the TSS.
    refused segment_6
    push 0x33
    mov eax, offset USER_STACK + 16384
    push eax
    push 2
    push 0x23
    mov eax, offset segment_ring_3
    push eax
    iretd
segment_ring_3:
    mov eax, cs
    int 0x55
segment_6:
    mov dword ptr [RECOVER32], 0
    mov edx, 0x18
    mov ds, edx
    mov es, edx
    cmp dword ptr [EX_VECTOR], 0x55
    jne legacy_failed
    step 7
    cmp dword ptr [EX_CS], 0x23
    jne legacy_failed
    cmp eax, 0x23
    jne legacy_failed
    step 8
    # It pushed five words.
    cmp dword ptr [EX_STACK], offset RING0_STACK + 16384 - 20
    jne legacy_failed
    xor eax, eax
    ret

.global legacy_limits
legacy_limits:
    step 4
    # Beyond the limit of a 64 KiB segment.
    mov eax, 0x80
    mov es, eax
    mov eax, es:[0xfffc]
    refused segment_4
    mov eax, es:[0xfffd]
segment_4:
    was 13, 0
    step 5
    # A null segment.
    xor eax, eax
    mov es, eax
    refused segment_5
    mov eax, es:[0x1000]
segment_5:
    was 13, 0
    mov eax, 0x18
    mov es, eax
    xor eax, eax
    ret

.global legacy_vm86
legacy_vm86:
    step 1
    # With I/O privilege, INT goes to its gate, and the segments are on the stack.
    refused vm86_1
    push 0x950
    push 0x960
    push 0x970
    push 0x980
    push 0x900
    push 0x1000
    push 0x23002
    push 0x900
    mov eax, offset vm86_code
    sub eax, offset real_start
    push eax
    iretd
vm86_1:
    mov dword ptr [RECOVER32], 0
    mov edx, 0x18
    mov ds, edx
    mov es, edx
    cmp dword ptr [EX_VECTOR], 0x55
    jne legacy_failed
    step 2
    cmp dword ptr [EX_CS], 0x900
    jne legacy_failed
    step 3
    test dword ptr [EX_FLAGS], 0x20000
    jz legacy_failed
    step 4
    cmp ax, 0x970
    jne legacy_failed
    step 5
    # SS, ES, DS, FS, GS behind the flags and the stack pointer.
    mov esi, [EX_STACK]
    cmp word ptr [esi + 16], 0x900
    jne legacy_failed
    cmp word ptr [esi + 20], 0x980
    jne legacy_failed
    cmp word ptr [esi + 24], 0x970
    jne legacy_failed
    cmp word ptr [esi + 28], 0x960
    jne legacy_failed
    cmp word ptr [esi + 32], 0x950
    jne legacy_failed
    step 6
    cmp esi, offset RING0_STACK + 16384 - 36
    jne legacy_failed
    step 7
    # The segments themselves are null in the handler: it could not use DS otherwise.
    cmp bx, 0x4321
    jne legacy_failed
    step 8
    # Without I/O privilege, CLI is refused.
    refused vm86_2
    push 0
    push 0
    push 0
    push 0
    push 0x900
    push 0x1000
    push 0x20002
    push 0x900
    mov eax, offset vm86_cli
    sub eax, offset real_start
    push eax
    iretd
vm86_2:
    mov edx, 0x18
    mov ds, edx
    mov es, edx
    was 13, 0
    step 9
    cmp dword ptr [EX_CS], 0x900
    jne legacy_failed
    # So is a port: the TSS has no map.
    refused vm86_3
    push 0
    push 0
    push 0
    push 0
    push 0x900
    push 0x1000
    push 0x20002
    push 0x900
    mov eax, offset vm86_in
    sub eax, offset real_start
    push eax
    iretd
vm86_3:
    mov edx, 0x18
    mov ds, edx
    mov es, edx
    was 13, 0
    step 10
    test dword ptr [EX_FLAGS], 0x20000
    jz legacy_failed
    xor eax, eax
    ret

.macro vector32 number
    .balign 16
    .if (\number == 8) || (\number >= 10 && \number <= 14) || (\number == 17)
    nop
    .else
    push 0
    .endif
    push \number
    jmp exception32
.endm
.balign 16
vectors32:
.altmacro
.set j, 0
.rept 96
    vector32 %j
    .set j, j + 1
.endr
.noaltmacro
exception32:
    push eax
    mov eax, 0x18
    mov ds, eax
    pop eax
    pop dword ptr [EX_VECTOR]
    pop dword ptr [EX_ERROR]
    mov [EX_STACK], esp
    push eax
    mov eax, [esp + 4]
    mov [EX_EIP], eax
    movzx eax, word ptr [esp + 8]
    mov [EX_CS], eax
    mov eax, [esp + 12]
    mov [EX_FLAGS], eax
    pop eax
    cmp dword ptr [RECOVER32], 0
    je 1f
    mov esp, [RECOVER32_STACK]
    jmp dword ptr [RECOVER32]
1:  mov eax, [EX_VECTOR]
    shl eax, 16
    or eax, [STEP]
    jmp legacy_back

.data
.balign 8
.global idt32_pointer
idt32_pointer:
    .word 96 * 8 - 1
    .long IDT32
task_pointer:
    .long 0
    .word 0x90
.balign 8
LEGACY_STACK: .quad 0
LEGACY_FUNCTION: .long 0
LEGACY_RESULT: .long 0
STEP: .long 0
EX_VECTOR: .long 0
EX_ERROR: .long 0
EX_EIP: .long 0
EX_CS: .long 0
EX_FLAGS: .long 0
EX_STACK: .long 0
RECOVER32: .long 0
RECOVER32_STACK: .long 0
gate_seen: .long 0
.balign 128
TSS_A: .space 128
TSS_B: .space 128
IDT32: .space 96 * 8
.text
.code64
