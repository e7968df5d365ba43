//! The ways into the kernel and out of it. All of this file is unsafe and thin: it stores registers, enters shared mode, calls a safe function, and
//! loads registers.
//!
//! The fast paths of `Call` and `ReplyRecv` never store the message words: they are in registers that the C calling convention preserves, so whatever
//! thread is resumed finds the sender's words in its own registers.

use core::arch::naked_asm;
use core::mem::offset_of;

use crate::kref::Ref;
use crate::object::thread::{Registers, Thread};

const R: usize = offset_of!(Thread, regs);
const RAX: usize = R + offset_of!(Registers, rax);
const RCX: usize = R + offset_of!(Registers, rcx);
const RDX: usize = R + offset_of!(Registers, rdx);
const RSI: usize = R + offset_of!(Registers, rsi);
const RDI: usize = R + offset_of!(Registers, rdi);
const R8: usize = R + offset_of!(Registers, r8);
const R9: usize = R + offset_of!(Registers, r9);
const R10: usize = R + offset_of!(Registers, r10);
const R11: usize = R + offset_of!(Registers, r11);
const WORDS: usize = R + offset_of!(Registers, words);
const RIP: usize = R + offset_of!(Registers, rip);
const RFLAGS: usize = R + offset_of!(Registers, rflags);
const RSP: usize = R + offset_of!(Registers, rsp);
const UTCB: usize = offset_of!(Thread, utcb_address);
const CR3: usize = offset_of!(Thread, cr3);
const BY_SYSCALL: usize = offset_of!(Thread, by_syscall);

/// Stores the message words into the thread in `rcx`.
macro_rules! store_words {
    () => {
        "mov [rcx + {words}], rbx; mov [rcx + {words} + 8], rbp; mov [rcx + {words} + 16], r12; \
         mov [rcx + {words} + 24], r13; mov [rcx + {words} + 32], r14; mov [rcx + {words} + 40], r15"
    };
}

/// Loads the page tables of the thread that the register names, through `rdx`, unless they are loaded. Label 1 is taken.
macro_rules! load_cr3 {
    ($thread:literal) => {
        concat!("mov rdx, [", $thread, " + {cr3}]; cmp rdx, gs:[40]; je 1f; mov gs:[40], rdx; mov cr3, rdx; 1:")
    };
}

/// Out of shared mode and back to where `rcx` and `r11` say, with nothing of the kernel's in the other registers that no result is in, nor what the thread before left in GS.
macro_rules! sysret {
    () => {
        "mov dword ptr gs:[32], 0; swapgs; xor edx, edx; xor r9d, r9d; xor r10d, r10d; wrgsbase rdx; sysretq"
    };
}

/// Entry of the `syscall` instruction; see `tessera_abi::syscall` for the registers.
///
/// # Safety
/// Only the processor comes here, by that instruction, with the user's GS base in place.
#[unsafe(naked)]
pub unsafe extern "C" fn syscall_entry() {
    naked_asm!(
        "swapgs",
        "mov r9, gs:[0]", // this processor
        "mov r10, rcx",
        "mov rcx, [r9 + 24]", // its current thread
        "mov [rcx + {rip}], r10",
        "mov [rcx + {rflags}], r11",
        "mov [rcx + {rsp}], rsp",
        "mov rsp, [r9 + 16]",
        "lock inc dword ptr [r9 + 32]",
        "cmp dword ptr [rip + KERNEL_WRITER], 0",
        "jne 8f",
        "7:",
        "cmp rax, 1",
        "je 1f",
        "cmp rax, 2",
        "je 2f",
        "cmp al, 8",
        "je 4f",
        "test rax, rax",
        "jnz 3f",
        // Null: back at once.
        "xor edi, edi",
        "xor esi, esi",
        "mov rax, rcx",
        "jmp {resume}",
        // Call. rdi slot, rsi info, rdx operation (unused), rcx thread, r8 deadline (unused), r9 processor.
        "1:",
        "push rsi",
        "call {fast_call}",
        "test rax, rax",
        "jz 5f",
        "pop rsi",
        "mov rdi, rdx",
        "jmp {resume}",
        // ReplyRecv, the same registers, rdx the Reply's slot.
        "2:",
        "push rsi",
        "call {fast_reply_recv}",
        "test rax, rax",
        "jz 13f",
        "pop rsi",
        "mov rdi, rdx",
        "jmp {resume}",
        // Not a plain reply: perhaps to the thread in rdx, which faulted. With 16 bytes it goes on at rbx with the stack rbp.
        "13:",
        "test rdx, rdx",
        "jz 6f",
        "pop rsi",
        "mov rax, rdx",
        "cmp rsi, 16",
        "jb {return_to_user}",
        "mov rcx, {user_top}",
        "cmp rbx, rcx",
        "jae 14f",
        "mov [rax + {rip}], rbx",
        "mov [rax + {rsp}], rbp",
        "jmp {return_to_user}",
        "14:",
        "call {stop_faulted}",
        "jmp {return_to_user}",
        // The fast path declined and has stored rdi, rsi and rdx; without a deadline r8 means nothing.
        "5:",
        "mov eax, 1",
        "jmp 9f",
        "6:",
        "mov eax, 2",
        "9:",
        "mov rcx, gs:[24]",
        "mov [rcx + {rax}], rax",
        "jmp 10f",
        // VcpuRun: rdi slot, rax flags, rcx thread, r8 deadline, r9 processor. Its guest's exits leave the words where they are.
        "4:",
        "mov rsi, rax",
        "push rax",
        "call {vcpu_run}",
        "add rsp, 8",
        "cmp rax, -1",
        "je 11f",
        // rax status, rdx bits or 0.
        "mov rcx, gs:[24]",
        "mov rdi, rdx",
        "xor esi, esi",
        "jmp {resume_status}",
        "11:",
        "mov rcx, gs:[24]",
        // The thread may be gone.
        "test rcx, rcx",
        "jz 12f",
        // It will make the call again, for which it needs all its arguments back.
        "mov byte ptr [rcx + {by_syscall}], 0",
        store_words!(),
        "12:",
        "call {next}",
        "jmp {return_to_user}",
        // Everything else.
        "3:",
        "mov [rcx + {rax}], rax",
        "mov [rcx + {rdi}], rdi",
        "mov [rcx + {rsi}], rsi",
        "mov [rcx + {rdx}], rdx",
        "mov [rcx + {r8}], r8",
        "10:",
        "mov byte ptr [rcx + {by_syscall}], 1",
        store_words!(),
        "mov rsp, gs:[16]",
        "call {slow}",
        "jmp {return_to_user}",
        // A writer is in the kernel: wait for it with the arguments on the stack. The thread may be gone afterwards.
        "8:",
        "push rax",
        "push rdi",
        "push rsi",
        "push rdx",
        "push r8",
        "sub rsp, 8",
        "call kernel_enter_shared_slow",
        "add rsp, 8",
        "pop r8",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "pop rax",
        "mov r9, gs:[0]",
        "mov rcx, [r9 + 24]",
        "test rcx, rcx",
        "jnz 7b",
        "call {next}",
        "jmp {return_to_user}",
        rax = const RAX, rdi = const RDI, rsi = const RSI, rdx = const RDX, r8 = const R8, words = const WORDS,
        rip = const RIP, rflags = const RFLAGS, rsp = const RSP, by_syscall = const BY_SYSCALL,
        fast_call = sym crate::syscall::fast::call,
        fast_reply_recv = sym crate::syscall::fast::reply_recv,
        vcpu_run = sym crate::syscall::vcpu_run::vcpu_run,
        slow = sym crate::syscall::dispatch,
        next = sym next_thread,
        stop_faulted = sym crate::syscall::ipc::stop_faulted,
        user_top = const tessera_abi::layout::USER_TOP,
        resume = sym resume,
        resume_status = sym resume_status,
        return_to_user = sym return_to_user,
    )
}

/// Resumes the thread in `rax` after a fast path: status 0, `rdi` badge, `rsi` info, words in their registers.
#[unsafe(naked)]
unsafe extern "C" fn resume() {
    naked_asm!(
        load_cr3!("rax"),
        "mov rcx, [rax + {rip}]",
        "mov r11, [rax + {rflags}]",
        "mov r8, [rax + {utcb}]",
        "mov rsp, [rax + {rsp}]",
        "wrfsbase r8",
        "xor eax, eax",
        sysret!(),
        rip = const RIP, rflags = const RFLAGS, rsp = const RSP, utcb = const UTCB, cr3 = const CR3,
    )
}

/// As [`resume`], for the thread in `rcx` with the status in `rax`; it is the thread that came in, so its FS base is still there, but another
/// processor may have taken the translations.
#[unsafe(naked)]
unsafe extern "C" fn resume_status() {
    naked_asm!(
        load_cr3!("rcx"),
        "mov r11, [rcx + {rflags}]",
        "mov r8, [rcx + {utcb}]",
        "mov rsp, [rcx + {rsp}]",
        "mov rcx, [rcx + {rip}]",
        "wrfsbase r8",
        "xor r8d, r8d",
        sysret!(),
        rip = const RIP, rflags = const RFLAGS, rsp = const RSP, utcb = const UTCB, cr3 = const CR3,
    )
}

/// Resumes the thread in `rax` from its stored registers.
///
/// # Safety
/// `rax` is this processor's current thread, shared mode is on, and nothing on the kernel stack is needed any more.
#[unsafe(naked)]
pub unsafe extern "C" fn return_to_user() {
    naked_asm!(
        load_cr3!("rax"),
        "mov r8, [rax + {utcb}]",
        "wrfsbase r8",
        "mov rbx, [rax + {words}]",
        "mov rbp, [rax + {words} + 8]",
        "mov r12, [rax + {words} + 16]",
        "mov r13, [rax + {words} + 24]",
        "mov r14, [rax + {words} + 32]",
        "mov r15, [rax + {words} + 40]",
        "mov rdi, [rax + {rdi}]",
        "mov rsi, [rax + {rsi}]",
        "cmp byte ptr [rax + {by_syscall}], 0",
        "je 2f",
        "mov rcx, [rax + {rip}]",
        "mov r11, [rax + {rflags}]",
        "mov rsp, [rax + {rsp}]",
        "mov rax, [rax + {rax}]",
        sysret!(),
        "2:",
        "mov rsp, gs:[16]",
        "push 0x1b",
        "push [rax + {rsp}]",
        "push [rax + {rflags}]",
        "push 0x23",
        "push [rax + {rip}]",
        "mov dword ptr gs:[32], 0",
        "swapgs",
        "xor ecx, ecx",
        "wrgsbase rcx",
        "mov rcx, [rax + {rcx}]",
        "mov rdx, [rax + {rdx}]",
        "mov r8, [rax + {r8}]",
        "mov r9, [rax + {r9}]",
        "mov r10, [rax + {r10}]",
        "mov r11, [rax + {r11}]",
        "mov rax, [rax + {rax}]",
        "iretq",
        rax = const RAX, rcx = const RCX, rdx = const RDX, rsi = const RSI, rdi = const RDI, r8 = const R8, r9 = const R9, r10 = const R10, r11 = const R11,
        words = const WORDS, rip = const RIP, rflags = const RFLAGS, rsp = const RSP, utcb = const UTCB, cr3 = const CR3, by_syscall = const BY_SYSCALL,
    )
}

/// Every exception and interrupt comes here with its vector and error code (or 0) pushed.
#[unsafe(naked)]
unsafe extern "C" fn vector_common() {
    naked_asm!(
        "test byte ptr [rsp + 24], 3",
        "jz 5f",
        "swapgs",
        "push rcx",
        "mov rcx, gs:[24]",
        "mov [rcx + {rax}], rax",
        "mov [rcx + {rdx}], rdx",
        "mov [rcx + {rsi}], rsi",
        "mov [rcx + {rdi}], rdi",
        "mov [rcx + {r8}], r8",
        "mov [rcx + {r9}], r9",
        "mov [rcx + {r10}], r10",
        "mov [rcx + {r11}], r11",
        store_words!(),
        "pop [rcx + {rcx}]",
        "pop rdi", // vector
        "pop rsi", // error code
        "pop [rcx + {rip}]",
        "add rsp, 8",
        "pop [rcx + {rflags}]",
        "pop [rcx + {rsp}]",
        "mov byte ptr [rcx + {by_syscall}], 0",
        "mov rsp, gs:[16]", // some exceptions come on a stack of their own
        "cld",
        "lock inc dword ptr gs:[32]",
        "cmp dword ptr [rip + KERNEL_WRITER], 0",
        "je 1f",
        "push rdi",
        "push rsi",
        "call kernel_enter_shared_slow",
        "pop rsi",
        "pop rdi",
        "1:",
        "call {from_user}",
        "jmp {return_to_user}",
        // From the kernel: out of idleness, out of the window after a guest's exit, or a defect.
        "5:",
        "push rax",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "cld",
        "mov rdi, [rsp + 72]",
        "lea rsi, [rsp + 80]",
        "mov rdx, rsp",
        "mov rcx, rbp",
        "push rbp",
        "mov rbp, rsp",
        "and rsp, -16",
        "call {from_kernel}",
        "mov rsp, rbp",
        "pop rbp",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rax",
        "add rsp, 16",
        "iretq",
        rax = const RAX, rcx = const RCX, rdx = const RDX, rsi = const RSI, rdi = const RDI, r8 = const R8, r9 = const R9, r10 = const R10, r11 = const R11,
        words = const WORDS, rip = const RIP, rflags = const RFLAGS, rsp = const RSP, by_syscall = const BY_SYSCALL,
        from_user = sym crate::interrupt::from_user,
        from_kernel = sym crate::interrupt::from_kernel,
        return_to_user = sym return_to_user,
    )
}

/// Stub of vector `N`. The processor pushes an error code for some exceptions (SDM volume 3, table 6-1); for the others the stub does.
#[unsafe(naked)]
unsafe extern "C" fn stub<const N: usize>() {
    naked_asm!(
        ".if {n} == 8 || ({n} >= 10 && {n} <= 14) || {n} == 17 || {n} == 21 || {n} == 29 || {n} == 30",
        ".else",
        "push 0",
        ".endif",
        "push {n}",
        "jmp {common}",
        n = const N,
        common = sym vector_common,
    )
}

macro_rules! row {
    ($($r:literal)*) => {
        [$(
            stub::<{ $r * 16 }>, stub::<{ $r * 16 + 1 }>, stub::<{ $r * 16 + 2 }>, stub::<{ $r * 16 + 3 }>,
            stub::<{ $r * 16 + 4 }>, stub::<{ $r * 16 + 5 }>, stub::<{ $r * 16 + 6 }>, stub::<{ $r * 16 + 7 }>,
            stub::<{ $r * 16 + 8 }>, stub::<{ $r * 16 + 9 }>, stub::<{ $r * 16 + 10 }>, stub::<{ $r * 16 + 11 }>,
            stub::<{ $r * 16 + 12 }>, stub::<{ $r * 16 + 13 }>, stub::<{ $r * 16 + 14 }>, stub::<{ $r * 16 + 15 }>,
        )*]
    };
}

/// Entry points for the interrupt descriptor table, by vector.
pub static VECTOR_STUBS: [unsafe extern "C" fn(); 256] = row!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);

extern "C" fn next_thread() -> Ref<Thread> {
    crate::sched::dispatch::next_thread(super::percpu::this())
}

/// Starts running threads on this processor, in shared mode, and never comes back.
pub fn start() -> ! {
    let thread = next_thread();
    // SAFETY: `thread` is this processor's current one, chosen just now, with valid stored registers; `return_to_user` resets the stack.
    unsafe {
        core::arch::asm!("jmp {}", sym return_to_user, in("rax") thread.as_ptr(), options(noreturn));
    }
}
