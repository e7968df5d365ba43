//! The serial console of one virtual machine, served by its VMX on the `control` endpoint.

use crate::{declare::interface, wire};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Most bytes of one `read` or `write`.
pub const MAX_DATA: usize = 3072;

/// What the guest printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleChunk {
    /// Cursor for what follows; equal to the asked one when there is nothing new.
    pub next: u64,
    /// Bytes between the asked cursor and the first returned byte that are no longer kept.
    pub lost: u64,
    /// The bytes as the guest printed them, at most [`MAX_DATA`].
    #[serde(with = "wire::bytes")]
    pub data: Vec<u8>,
}

interface! {
    /// The serial console of a virtual machine, with its scrollback.
    vm_console = 5;

    /// Signals the Notification that comes along whenever the guest prints; replaces an earlier one.
    0 idempotent fn attach() takes 1 -> ();
    /// Ends that.
    1 idempotent fn detach() -> ();
    /// What the guest printed from `cursor` on (0: the oldest kept).
    2 idempotent fn read(cursor: u64) -> ConsoleChunk;
    /// Types `data`; returns how many bytes were taken, fewer when the guest does not read them. Offer the rest later.
    3 once fn write(data: &'a [u8]) -> u32;
}
