//! The message buffer of a thread: one page, shared with the kernel. `fs` points at it while the thread runs.

use crate::syscall::{MAX_CAPS, MAX_MESSAGE};

/// The page. The kernel writes `self_address` when it maps it and never believes it afterwards.
#[repr(C, align(4096))]
pub struct Utcb {
    /// The page's own address, so that `mov rax, fs:0` finds it.
    pub self_address: u64,
    /// For the runtime: thread-local storage.
    pub tls: u64,
    /// Slots of capabilities to send with the next message, `MessageInfo::caps` of them.
    pub send_caps: [u32; MAX_CAPS],
    /// First of the consecutive empty slots into which capabilities that come with a message are put.
    pub receive_slot: u32,
    /// How many slots there are; 0 refuses capabilities.
    pub receive_count: u32,
    /// Not used.
    pub reserved: [u8; 256 - 40],
    /// The message. Its first 48 bytes travel in registers and are not stored here by the kernel.
    pub message: [u8; MAX_MESSAGE],
    /// Not used.
    pub tail: [u8; 4096 - 256 - MAX_MESSAGE],
}

/// Offset of [`Utcb::message`].
pub const MESSAGE_OFFSET: usize = 256;

const _: () = assert!(size_of::<Utcb>() == 4096);
const _: () = assert!(core::mem::offset_of!(Utcb, message) == MESSAGE_OFFSET);
