//! The trace rings: one per processor, written by the kernel, mapped read-only by whoever holds the frame.

/// Events; the number is also the bit in the mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// Context switch: `a` thread switched from, `b` thread switched to (identities as in `cnode::DESCRIBE`).
    Switch = 0,
    /// Call delivered: `a` caller, `b` endpoint.
    Call = 1,
    /// Reply delivered: `a` replier, `b` caller.
    Reply = 2,
    /// Notification signalled: `a` notification, `b` bits.
    Signal = 3,
    /// Interrupt: `a` vector, `b` interrupted thread or 0.
    Interrupt = 4,
    /// VM exit: `a` vCPU, `b` exit reason.
    VmExit = 5,
    /// VM entry: `a` vCPU, `b` instruction pointer.
    VmEntry = 6,
    /// Fault: `a` thread, `b` vector | address << 8.
    Fault = 7,
    /// System call on the slow path: `a` thread, `b` number | operation << 8.
    Syscall = 8,
}

/// Number of event kinds.
pub const EVENTS: usize = 9;

/// Names, by number.
pub const NAMES: [&str; EVENTS] = ["switch", "call", "reply", "signal", "interrupt", "vm-exit", "vm-entry", "fault", "syscall"];

/// One record, 32 bytes.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Record {
    /// TSC.
    pub tsc: u64,
    /// [`Event`].
    pub event: u64,
    /// First argument.
    pub a: u64,
    /// Second argument.
    pub b: u64,
}

/// First 32 bytes of a ring; records follow. Record `i` stands at `i % capacity`; a reader that fell behind by more than `capacity` lost some.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RingHeader {
    /// Records ever written.
    pub written: u64,
    /// Records that fit.
    pub capacity: u64,
    /// The processor.
    pub cpu: u64,
    /// Not used.
    pub reserved: u64,
}
