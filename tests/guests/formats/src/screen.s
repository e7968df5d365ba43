.section .sector, "awx"
.code16
.globl start
start:
    cli
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7c00
    mov ax, 0xb800
    mov es, ax
    cld
    mov si, offset hello
    xor di, di
    mov ah, 0x1f
1:  lodsb
    test al, al
    jz 2f
    stosw
    jmp 1b
2:  mov word ptr [typed], 320
    # The mouse: second port on, streaming on.
    mov al, 0xa8
    out 0x64, al
    call writable
    mov al, 0xd4
    out 0x64, al
    call writable
    mov al, 0xf4
    out 0x60, al

wait_key:
    in al, 0x64
    test al, 1
    jz wait_key
    mov ah, al
    in al, 0x60
    test ah, 0x20
    jnz mouse
    cmp al, 0x3a
    jae wait_key
    mov bx, offset keys
    xlatb
    cmp byte ptr [graphics], 0
    jne square
    cmp al, 'g'
    je to_graphics
    mov di, [typed]
    mov ah, 0x2e
    stosw
    mov [typed], di
    jmp wait_key

# The bytes of the mouse: an acknowledgement, then packets of three.
mouse:
    mov bl, [packet]
    inc byte ptr [packet]
    cmp bl, 1
    jb wait_key
    je 3f
    cmp bl, 2
    je 4f
    mov byte ptr [packet], 1
    cbw
    add [far_y], ax
    jmp 5f
3:  mov [buttons], al
    jmp wait_key
4:  cbw
    add [far_x], ax
    jmp wait_key
5:  cmp byte ptr [graphics], 0
    jne wait_key
    mov di, 640
    mov ax, [far_x]
    call number
    mov ax, [far_y]
    call number
    mov al, [buttons]
    and ax, 7
    call number
    jmp wait_key

# Shows AX as four hexadecimal digits and a blank at ES:DI.
number:
    mov cx, 4
    mov dx, ax
6:  rol dx, 4
    mov al, dl
    and al, 15
    add al, '0'
    cmp al, '9'
    jbe 7f
    add al, 39
7:  mov ah, 7
    stosw
    loop 6b
    mov al, ' '
    stosw
    ret

writable:
    in al, 0x64
    test al, 2
    jnz writable
    ret

.org 510
    .byte 0x55, 0xaa

hello: .asciz "This is the screen of a guest"
keys: .ascii "  1234567890-=  qwertyuiop[]  asdfghjkl;'` \\zxcvbnm,./    "
.balign 2
typed: .word 0
far_x: .word 0
far_y: .word 0
squares: .long 0
frame: .long 0
graphics: .byte 0
packet: .byte 0
buttons: .byte 0

# Register BX of Bochs's extensions gets AX.
extension:
    push ax
    mov dx, 0x1ce
    mov ax, bx
    out dx, ax
    inc dx
    pop ax
    out dx, ax
    ret

to_graphics:
    mov byte ptr [graphics], 1
    # Where the video RAM is, the card's function says: device 24, register 0x10.
    mov dx, 0xcf8
    mov eax, 0x8000c010
    out dx, eax
    mov dx, 0xcfc
    in eax, dx
    and al, 0xf0
    mov [frame], eax
    mov bx, 4
    xor ax, ax
    call extension
    mov bx, 1
    mov ax, 640
    call extension
    mov bx, 2
    mov ax, 480
    call extension
    mov bx, 3
    mov ax, 32
    call extension
    mov bx, 4
    mov ax, 0x41
    call extension
    # A segment of 4 GiB, which stays when protected mode is left.
    lgdt [table]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    jmp 1f
1:  mov bx, 8
    mov fs, bx
    and al, 0xfe
    mov cr0, eax
    jmp 2f
2:  xor ax, ax
    mov fs, ax
    # Red grows to the right, green downwards, blue is a check of 32 by 32.
    mov edi, [frame]
    xor ebp, ebp
3:  xor ecx, ecx
4:  mov eax, ecx
    shr eax, 2
    shl eax, 16
    mov edx, ebp
    shr edx, 1
    mov ah, dl
    mov edx, ecx
    xor edx, ebp
    test dl, 32
    jz 5f
    mov al, 0xff
5:  mov fs:[edi], eax
    add edi, 4
    inc ecx
    cmp ecx, 640
    jb 4b
    inc ebp
    cmp ebp, 480
    jb 3b
    jmp wait_key

# A white square of 16 by 16 at the bottom, one further to the right each time.
square:
    mov edi, [squares]
    inc dword ptr [squares]
    and edi, 31
    shl edi, 6
    add edi, 464 * 640 * 4
    add edi, [frame]
    mov bx, 16
1:  mov cx, 16
2:  mov dword ptr fs:[edi], 0xffffff
    add edi, 4
    loop 2b
    add edi, (640 - 16) * 4
    dec bx
    jnz 1b
    jmp wait_key

.balign 8
gdt: .quad 0
    .quad 0x00cf92000000ffff
table: .word 15
    .long gdt
