//! System calls and the registers they use.
//!
//! | register | in | out |
//! |---|---|---|
//! | `rax` | call number, flags << 8 | status: 0 or an [`crate::Error`]; [`NOTIFIED`] from `Recv`, `ReplyRecv`, `VcpuRun` |
//! | `rdi` | slot of the object | badge of the message, or bits of the notification |
//! | `rsi` | [`MessageInfo`] | [`MessageInfo`] |
//! | `rdx` | slot of the Reply (`Recv`, `ReplyRecv`); operation (`Invoke`) | 0 |
//! | `r8` | deadline (TSC), if flagged | 0 or the address of the message buffer |
//! | `rbx rbp r12 r13 r14 r15` | `w0` to `w5`, the first 48 bytes of the message | the same |
//! | `rcx r11` | – | destroyed by the instruction |
//! | `r9 r10` | – | 0 |
//!
//! The message words sit in the registers that the C calling convention preserves, so that the kernel's fast path can
//! carry them from one thread to another without ever storing them. No register holds a kernel value on return.

/// System calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Syscall {
    /// Does nothing; measures the way in and out.
    Null = 0,
    /// Sends to an Endpoint and waits for the reply. The deadline covers both.
    Call = 1,
    /// Replies through the Reply in `rdx`, then receives as `Recv` with the same Reply. The reply is dropped if its caller is gone.
    ReplyRecv = 2,
    /// Waits for a message on the Endpoint, or for the thread's bound Notification. The Reply in `rdx` will hold the caller.
    Recv = 3,
    /// Replies through the Reply in `rdi`, without waiting.
    Reply = 4,
    /// Sets the bits of a Notification capability's badge; one without a badge (0) sets none, and wakes nobody.
    Signal = 5,
    /// Waits for bits of a Notification and takes them all. Slot 0: only sleeps until the deadline.
    Wait = 6,
    /// Takes the bits of a Notification if there are any, else [`crate::Error::WouldBlock`].
    Poll = 7,
    /// Runs a vCPU until an exit that the kernel does not handle; see [`crate::vcpu`].
    VcpuRun = 8,
    /// An operation on any object; see [`crate::object`].
    Invoke = 9,
    /// Gives the processor to others of the same priority, if any are ready.
    Yield = 10,
}

impl Syscall {
    /// The system call with this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            0 => Self::Null,
            1 => Self::Call,
            2 => Self::ReplyRecv,
            3 => Self::Recv,
            4 => Self::Reply,
            5 => Self::Signal,
            6 => Self::Wait,
            7 => Self::Poll,
            8 => Self::VcpuRun,
            9 => Self::Invoke,
            10 => Self::Yield,
            _ => return None,
        })
    }
}

/// Flag in bits 8 and up of `rax`: `r8` holds a deadline, as an absolute TSC value. For `Recv` and `Wait`, a deadline of 0 polls.
pub const FLAG_DEADLINE: u64 = 1 << 8;

/// Status of `Recv`, `ReplyRecv` and `VcpuRun` that ended with the bound Notification's bits instead of a message or exit.
pub const NOTIFIED: u64 = 0x100;

/// Bytes of a message that travel in registers.
pub const REGISTER_BYTES: usize = 48;
/// Words of a message that travel in registers.
pub const REGISTER_WORDS: usize = 6;
/// Most bytes of a message.
pub const MAX_MESSAGE: usize = 3584;
/// Most capabilities that travel with a message.
pub const MAX_CAPS: usize = 4;

/// Length of a message in bytes (bits 0 to 15) and number of capabilities with it (bits 16 to 23).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct MessageInfo(pub u64);

impl MessageInfo {
    /// Describes a message.
    #[must_use]
    pub const fn new(bytes: usize, caps: usize) -> Self {
        Self((bytes as u64 & 0xffff) | (caps as u64 & 0xff) << 16)
    }

    /// Bytes of the message.
    #[must_use]
    pub const fn bytes(self) -> usize {
        (self.0 & 0xffff) as usize
    }

    /// Capabilities that come with it.
    #[must_use]
    pub const fn caps(self) -> usize {
        (self.0 >> 16 & 0xff) as usize
    }

    /// Whether both counts are within bounds and no other bit is set.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.bytes() <= MAX_MESSAGE && self.caps() <= MAX_CAPS && self.0 >> 24 == 0
    }
}
