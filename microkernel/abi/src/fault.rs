//! What a fault handler receives: a call on the thread's fault Endpoint, made by the kernel in its name.
//!
//! The message has 48 bytes: `w0` [`FaultKind`] | vector << 8 | error code << 32, `w1` faulting address (page faults) or 0, `w2` instruction
//! pointer, `w3` stack pointer, `w4` flags register, `w5` thread's priority | cpu << 8. A reply resumes the thread: with 0 bytes where
//! it was, with 16 bytes at instruction pointer `w0` and stack pointer `w1`. A handler that wants the thread ended does
//! not reply but stops it.

/// Why the thread cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FaultKind {
    /// The memory is not mapped or not mapped that way.
    Page = 1,
    /// Any other processor exception (Intel SDM volume 3, 6.15).
    Exception = 2,
    /// A thread that was declared to use no FPU used it.
    Fpu = 3,
}

/// Name of an exception vector, as the SDM has it.
#[must_use]
pub const fn vector_name(vector: u8) -> &'static str {
    match vector {
        0 => "divide error",
        1 => "debug exception",
        3 => "breakpoint",
        4 => "overflow",
        5 => "bound range exceeded",
        6 => "invalid opcode",
        7 => "device not available",
        8 => "double fault",
        10 => "invalid TSS",
        11 => "segment not present",
        12 => "stack fault",
        13 => "general protection",
        14 => "page fault",
        16 => "x87 floating-point error",
        17 => "alignment check",
        18 => "machine check",
        19 => "SIMD floating-point error",
        21 => "control protection",
        _ => "exception",
    }
}
