//! Exceptions and interrupts: each is written down, then an exception ends what was attempted, unless a test has something else in mind.

use crate::machine::{self, Raw};
use core::{
    mem,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
};

/// What the assembly pushes, lowest address first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    /// r15 to r8, rdi, rsi, rbp, rbx, rdx, rcx, rax.
    pub registers: [u64; 15],
    /// Vector.
    pub vector: u64,
    /// Error code, or 0.
    pub error: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Code segment.
    pub cs: u64,
    /// Flags.
    pub flags: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Stack segment.
    pub ss: u64,
}

/// What is written down of a trap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trap {
    /// Vector.
    pub vector: u8,
    /// Error code, or 0.
    pub error: u32,
    /// Instruction pointer on the stack.
    pub rip: u64,
    /// Flags on the stack.
    pub flags: u64,
    /// Code segment on the stack.
    pub cs: u16,
    /// CR2 in the handler.
    pub cr2: u64,
    /// DR6 in the handler of a debug exception.
    pub dr6: u64,
    /// Stack pointer of the handler's frame: which stack it came on.
    pub frame: u64,
}

const MOST: usize = 64;
static LOG: Raw<[Trap; MOST]> = Raw::new(
    [Trap {
        vector: 0,
        error: 0,
        rip: 0,
        flags: 0,
        cs: 0,
        cr2: 0,
        dr6: 0,
        frame: 0,
    }; MOST],
);
static LOGGED: AtomicUsize = AtomicUsize::new(0);
/// How often each vector came on the second processor.
static SECOND: [AtomicUsize; 256] = [const { AtomicUsize::new(0) }; 256];

/// Where an exception goes on; 0: nowhere.
// SAFETY: the symbol is used only by the assembly of this program.
#[unsafe(no_mangle)]
static RECOVER: AtomicU64 = AtomicU64::new(0);
// SAFETY: as above.
#[unsafe(no_mangle)]
static RECOVER_STACK: AtomicU64 = AtomicU64::new(0);
/// Where the instruction under test is, and what follows it, as its own code says.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub static FAULT_AT: AtomicU64 = AtomicU64::new(0);
// SAFETY: as above.
#[unsafe(no_mangle)]
pub static NEXT_AT: AtomicU64 = AtomicU64::new(0);

/// What a test wants done with a trap: true, and the program goes on as the frame says.
pub type Handler = fn(&mut Frame) -> bool;
static HANDLER: Raw<Option<Handler>> = Raw::new(None);

unsafe extern "C" {
    fn attempt(function: extern "C" fn(u64), argument: u64);
    fn user(function: extern "C" fn(u64), argument: u64);
    fn compatibility(function: u64);
}

// SAFETY: called only by the assembly of this program.
#[unsafe(no_mangle)]
extern "C" fn trap(frame: &mut Frame) {
    let vector = frame.vector as usize & 0xff;
    if machine::is_second() {
        SECOND[vector].fetch_add(1, SeqCst);
        if vector >= 32 {
            machine::end_of_interrupt();
        } else if vector != 2 {
            loop {
                machine::halt();
            }
        }
        return;
    }
    let index = LOGGED.load(SeqCst);
    if index < MOST {
        let trap = Trap {
            vector: vector as u8,
            error: frame.error as u32,
            rip: frame.rip,
            flags: frame.flags,
            cs: frame.cs as u16,
            cr2: if vector == 14 { machine::cr2() } else { 0 },
            dr6: if vector == 1 { machine::dr6() } else { 0 },
            frame: core::ptr::from_ref(frame) as u64,
        };
        // SAFETY: only the first processor comes here, and nothing else reads while it does.
        unsafe { (*LOG.get())[index] = trap };
        LOGGED.store(index + 1, SeqCst);
    }
    // SAFETY: as above.
    if let Some(handler) = unsafe { *HANDLER.get() }
        && handler(frame)
    {
        return;
    }
    if vector == 2 {
        return;
    }
    if vector >= 32 && vector != 0x80 {
        machine::end_of_interrupt();
        return;
    }
    let recover = RECOVER.load(SeqCst);
    if recover == 0 {
        crate::println!(
            "\nCONF unexpected exception {vector} error {:#x} at {:#x} flags {:#x}",
            frame.error,
            frame.rip,
            frame.flags
        );
        loop {
            machine::halt();
        }
    }
    frame.rip = recover;
    frame.cs = machine::CODE;
    frame.ss = machine::DATA;
    frame.rsp = RECOVER_STACK.load(SeqCst);
    frame.flags = 2;
}

/// Sets what happens with traps until [`clear`].
pub fn handle(handler: Handler) {
    // SAFETY: the first processor's, which is not in a handler.
    unsafe { *HANDLER.get() = Some(handler) };
}

/// Forgets traps and handler.
pub fn clear() {
    LOGGED.store(0, SeqCst);
    // SAFETY: as in `handle`.
    unsafe { *HANDLER.get() = None };
}

/// What was written down since [`clear`].
pub fn log() -> &'static [Trap] {
    // SAFETY: the first processor's; handlers only append.
    unsafe { &(&*LOG.get())[..LOGGED.load(SeqCst).min(MOST)] }
}

/// The traps of a vector that were written down.
pub fn count(vector: u8) -> usize {
    log().iter().filter(|trap| trap.vector == vector).count()
}

/// How often a vector came on the second processor.
pub fn count_on_second(vector: u8) -> usize {
    SECOND[usize::from(vector)].load(SeqCst)
}

/// Runs code; the first trap, if there was one. Handlers stay.
pub fn probe(function: extern "C" fn(u64), argument: u64) -> Option<Trap> {
    LOGGED.store(0, SeqCst);
    // SAFETY: on an exception the assembly restores stack and preserved registers; the functions own nothing that must be dropped.
    unsafe { attempt(function, argument) };
    log().first().copied()
}

/// As [`probe`], in ring 3; code that comes to its end gives vector 0x80.
pub fn probe_user(function: extern "C" fn(u64), argument: u64) -> Trap {
    static FUNCTION: Raw<extern "C" fn(u64)> = Raw::new(nothing);
    extern "C" fn nothing(_: u64) {}
    extern "C" fn enter(argument: u64) {
        // SAFETY: the function was just stored, and returns by an exception.
        unsafe { user(*FUNCTION.get(), argument) };
    }
    // SAFETY: single-threaded.
    unsafe { *FUNCTION.get() = function };
    probe(enter, argument).unwrap_or_default()
}

/// As [`probe`], of 32-bit code in compatibility mode.
pub fn probe_compatibility(function: u64) -> Option<Trap> {
    extern "C" fn enter(function: u64) {
        // SAFETY: 32-bit code of this program's assembly that returns or faults.
        unsafe { compatibility(function) };
    }
    probe(enter, function)
}

/// Where the instruction under test was.
pub fn fault_at() -> u64 {
    FAULT_AT.load(SeqCst)
}

/// What follows it.
pub fn next_at() -> u64 {
    NEXT_AT.load(SeqCst)
}

const _: () = assert!(mem::size_of::<Frame>() == 22 * 8);

/// A function of one argument (in rdi) that runs assembly: first what prepares, then the instruction under test, whose place [`fault_at`] and [`next_at`] tell.
#[macro_export]
macro_rules! code {
    ($($before:literal),* ; $($at:literal),+ $(; $($after:literal),*)?) => {{
        extern "C" fn run(argument: u64) {
            // SAFETY: whatever it does, the caller recovers from exceptions. Registers that C preserves are saved there.
            unsafe {
                core::arch::asm!(
                    "lea rax, [rip + 2f]", "mov [FAULT_AT], rax", "lea rax, [rip + 3f]", "mov [NEXT_AT], rax", "xor eax, eax",
                    $($before,)* "2:", $($at,)+ "3:", $($($after,)*)?
                    inout("rdi") argument => _, out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            }
        }
        run as extern "C" fn(u64)
    }};
}
