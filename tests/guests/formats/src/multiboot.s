# Multiboot 0.6.96: the header, then 32-bit protected mode without paging.
.section .multiboot, "awx"
.code32
    .balign 4
header:
    .long 0x1badb002
    .long 0x10003           # pages, memory, addresses
    .long -(0x1badb002 + 0x10003)
    .long header, image_start, image_end, bss_end, start

.global start
start:
    cli
    cld
    mov esp, offset stack_end
    mov [information], ebx
    mov ecx, cr0
    lgdt [gdt_pointer]
    .byte 0xea
    .long 1f
    .word 8
1:  mov edx, 0x10
    mov ds, edx
    mov es, edx
    mov ss, edx
    mov fs, edx
    mov gs, edx
    lidt [idt_pointer]
    # The entry: the magic number, protection on, paging off.
    and ecx, 0x80000001
    cmp ecx, 1
    jne 1f
    cmp eax, 0x2badb002
1:  mov esi, offset name_entry
    call verdict
    call given
    call flat
    call legacy_paging
    call pae_paging

    mov esi, offset text_end
    call print
    mov eax, [passed]
    call number
    mov esi, offset text_passed
    call print
    mov eax, [failed]
    call number
    mov esi, offset text_end_failed
    call print
1:  cli
    hlt
    jmp 1b

# Prints what the loader gave: the command line, the memory, the module's length and the sum of its bytes.
given:
    mov ebx, [information]
    mov esi, offset text_line
    call print
    mov esi, [ebx + 16]
    call print
    mov esi, offset text_memory
    call print
    mov eax, [ebx + 8]
    call number
    # All RAM of the memory map, in KiB.
    mov edi, [ebx + 48]
    mov ebp, edi
    add ebp, [ebx + 44]
    xor ecx, ecx
1:  cmp dword ptr [edi + 20], 1
    jne 2f
    mov eax, [edi + 12]
    shr eax, 10
    add ecx, eax
2:  add edi, [edi]
    add edi, 4
    cmp edi, ebp
    jb 1b
    mov esi, offset text_space
    call print
    mov eax, ecx
    call number
    mov esi, offset text_module
    call print
    mov eax, [ebx + 20]
    test eax, eax
    jz 5f
    mov edi, [ebx + 24]
    mov eax, [edi + 4]
    sub eax, [edi]
    call number
    mov esi, offset text_space
    call print
    mov esi, [edi]
    mov ebp, [edi + 4]
    xor ecx, ecx
    xor eax, eax
3:  cmp esi, ebp
    jae 4f
    lodsb
    add ecx, eax
    jmp 3b
4:  mov eax, ecx
    call number
5:  mov esi, offset text_newline
    jmp print

# Without paging: addresses are physical, a fault comes with its error code, and code runs where it was written.
flat:
    mov dword ptr [0x300000], 0x11223344
    mov byte ptr [0x300001], 0x55
    cmp dword ptr [0x300000], 0x11225544
    jne 1f
    mov eax, 0x40
    call load_es                # beyond the table: #GP with the selector
    cmp dword ptr [fault_vector], 13
    jne 1f
    cmp dword ptr [fault_error], 0x40
    jne 1f
    mov dword ptr [0x300000], 0xc3142ab8    # mov eax, ...; ret
    mov dword ptr [0x300000], 0x000042b8
    mov dword ptr [0x300004], 0x0000c300
    mov eax, 0x300000
    call eax
    cmp eax, 0x42
1:  mov esi, offset name_flat
    jmp verdict

# Loads es from eax and survives the exception, with what it pushed in `fault_*`.
load_es:
    mov dword ptr [fault_vector], -1
    mov dword ptr [recover], offset es_done
    mov [recover_stack], esp
    mov es, eax
es_done:
    mov dword ptr [recover], 0
    mov edx, 0x10
    mov es, edx
    ret

# Reads or writes (edx 0 or 1) at eax and survives the exception.
touch:
    mov dword ptr [fault_vector], -1
    mov dword ptr [recover], offset touched
    mov [recover_stack], esp
    test edx, edx
    jnz 1f
    mov ecx, [eax]
    jmp touched
1:  mov [eax], edx
touched:
    mov dword ptr [recover], 0
    ret

.macro expect_fault address, write, error
    mov eax, \address
    mov edx, \write
    call touch
    cmp dword ptr [fault_vector], 14
    jne 9f
    cmp dword ptr [fault_error], \error
    jne 9f
    mov eax, cr2
    cmp eax, \address
    jne 9f
.endm

.macro expect_none address, write
    mov eax, \address
    mov edx, \write
    call touch
    cmp dword ptr [fault_vector], -1
    jne 9f
.endm

# 32-bit paging: 4 MiB pages one to one, and one table at 1 GiB: entry 0 a page to 0x300000, 1 absent, 2 read-only to 0x300000.
legacy_paging:
    mov edi, offset directory
    mov ecx, 1024
    mov eax, 0x83
1:  stosd
    add eax, 0x400000
    loop 1b
    mov dword ptr [directory + 256 * 4], offset table + 7
    mov dword ptr [table], 0x300003
    mov dword ptr [table + 8], 0x300001
    mov dword ptr [0x300000], 0x600df00d
    mov eax, offset directory
    mov cr3, eax
    mov eax, cr4
    or eax, 0x10
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    jmp 1f
1:  expect_none 0x40000000, 0
    cmp ecx, 0x600df00d
    jne 9f
    # Read: accessed, not dirty.
    cmp dword ptr [table], 0x300023
    jne 9f
    expect_none 0x40000000, 1
    cmp dword ptr [table], 0x300063
    jne 9f
    cmp dword ptr [0x300000], 1
    jne 9f
    expect_fault 0x40001000, 0, 0
    expect_fault 0x40001234, 1, 2
    expect_none 0x40002000, 0
    expect_fault 0x40002004, 1, 3
    # Read-only is not obeyed in ring 0 without CR0.WP.
    mov eax, cr0
    and eax, 0xfffeffff
    mov cr0, eax
    expect_none 0x40002008, 1
    cmp dword ptr [table + 8], 0x300061
    jne 9f
    # A page that moves is seen elsewhere once invlpg was told.
    mov dword ptr [0x301000], 0x5eed
    mov dword ptr [table], 0x301003
    mov eax, 0x40000000
    invlpg [eax]
    expect_none 0x40000000, 0
    cmp ecx, 0x5eed
9:  pushfd
    call paging_off
    popfd
    mov esi, offset name_legacy
    jmp verdict

paging_off:
    mov eax, cr0
    and eax, 0x7ffeffff
    mov cr0, eax
    xor eax, eax
    mov cr3, eax
    mov eax, cr4
    and eax, 0xffffffcf
    mov cr4, eax
    ret

# PAE: 2 MiB pages one to one for the first GiB; in the second GiB a table with entry 0 to 0x300000, 1 absent, 2 read-only, 3 not executable; the third GiB absent.
pae_paging:
    mov eax, 0x80000001
    cpuid
    mov [features], edx
    mov edi, offset directory
    mov ecx, 512
    mov eax, 0x83
1:  stosd
    mov dword ptr [edi], 0
    add edi, 4
    add eax, 0x200000
    loop 1b
    mov edi, offset directory_high
    mov ecx, 3072
    xor eax, eax
    rep stosd
    mov dword ptr [pointers], offset directory + 1
    mov dword ptr [pointers + 8], offset directory_high + 1
    mov dword ptr [directory_high], offset table + 7
    mov dword ptr [table], 0x300003
    mov dword ptr [table + 16], 0x300001
    mov dword ptr [table + 24], 0x300003
    mov dword ptr [0x300000], 0x909090c3
    bt dword ptr [features], 20
    jnc 2f
    mov dword ptr [table + 28], 0x80000000
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x800
    wrmsr
2:  mov eax, offset pointers
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov eax, cr0
    or eax, 0x80010000
    mov cr0, eax
    jmp 1f
1:  expect_none 0x40000000, 0
    cmp ecx, 0x909090c3
    jne 9f
    cmp dword ptr [table], 0x300023
    jne 9f
    expect_fault 0x40001000, 0, 0
    expect_fault 0x40002004, 1, 3
    expect_fault 0x80000000, 0, 0
    bt dword ptr [features], 20
    jnc 3f
    # Not executable: an instruction fetch, present.
    expect_none 0x40003000, 0
    mov dword ptr [fault_vector], -1
    mov dword ptr [recover], offset fetched
    mov [recover_stack], esp
    mov eax, 0x40003000
    call eax
fetched:
    mov dword ptr [recover], 0
    cmp dword ptr [fault_vector], 14
    jne 9f
    cmp dword ptr [fault_error], 0x11
    jne 9f
    # The same page where it may be executed.
3:  mov eax, 0x40000000
    call eax
    # The pointers are loaded with CR3: what is written there counts from then on.
    mov dword ptr [pointers + 16], offset directory_high + 1
    mov eax, offset pointers
    mov cr3, eax
    expect_none 0x80000000, 0
    cmp ecx, 0x909090c3
9:  pushfd
    call paging_off
    popfd
    mov esi, offset name_pae
    jmp verdict

# Exceptions: with and without error code.
.macro without vector
gate_\vector:
    push 0
    push \vector
    jmp exception
.endm
.macro with vector
gate_\vector:
    push \vector
    jmp exception
.endm
    without 0
    without 6
    with 13
    with 14
gate_other:
    push 0
    push 255
exception:
    cmp dword ptr [recover], 0
    je 1f
    pop dword ptr [fault_vector]
    pop dword ptr [fault_error]
    mov esp, [recover_stack]
    jmp dword ptr [recover]
1:  mov esi, offset text_unexpected
    call print
    pop eax
    call number
    mov esi, offset text_newline
    call print
2:  hlt
    jmp 2b

# Prints the zero-terminated text at esi.
print:
    push eax
    push edx
1:  mov edx, 0x3fd
    in al, dx
    test al, 0x20
    jz 1b
    lodsb
    test al, al
    jz 2f
    mov edx, 0x3f8
    out dx, al
    jmp 1b
2:  pop edx
    pop eax
    ret

# Prints eax in decimal.
number:
    push ebx
    push edx
    push esi
    mov esi, offset digits_end
    mov ebx, 10
1:  xor edx, edx
    div ebx
    add dl, 0x30
    dec esi
    mov [esi], dl
    test eax, eax
    jnz 1b
    call print
    pop esi
    pop edx
    pop ebx
    ret

# Prints the verdict on the test whose name is at esi: ok if the zero flag is set.
verdict:
    pushfd
    push esi
    mov esi, offset text_multi
    call print
    pop esi
    call print
    popfd
    jnz 1f
    inc dword ptr [passed]
    mov esi, offset text_ok
    jmp print
1:  inc dword ptr [failed]
    mov esi, offset text_failed
    jmp print

.balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
gdt_pointer:
    .word 23
    .long gdt
.macro gate handler
    # At 1 MiB and below 0x110000, so that the upper half of each address is 0x10.
    .word \handler - 0x100000
    .word 8, 0x8e00, 0x10
.endm
.balign 8
idt:
    gate gate_0
    .rept 5
    gate gate_other
    .endr
    gate gate_6
    .rept 6
    gate gate_other
    .endr
    gate gate_13
    gate gate_14
    .rept 17
    gate gate_other
    .endr
idt_pointer:
    .word 255
    .long idt
information: .long 0
passed: .long 0
failed: .long 0
features: .long 0
recover: .long 0
recover_stack: .long 0
fault_vector: .long 0
fault_error: .long 0
    .space 12
digits_end: .byte 0
text_multi: .asciz "MULTI "
text_ok: .asciz " ok\n"
text_failed: .asciz " FAILED\n"
text_line: .asciz "MULTI command line "
text_memory: .asciz "\nMULTI memory "
text_module: .asciz "\nMULTI module "
text_space: .asciz " "
text_newline: .asciz "\n"
text_unexpected: .asciz "MULTI unexpected exception "
text_end: .asciz "MULTI end "
text_passed: .asciz " passed "
text_end_failed: .asciz " failed\n"
name_entry: .asciz "entry"
name_flat: .asciz "without-paging"
name_legacy: .asciz "32-bit-paging"
name_pae: .asciz "pae-paging"

.section .tables, "aw", @nobits
directory: .space 4096
directory_high: .space 4096
table: .space 4096
pointers: .space 4096
    .space 4096
stack_end:
