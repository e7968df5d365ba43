//! Memory that clients share with this server, for files that are too long for messages. It is init's, so it stays when a client ends; what stands in it is copied in and out.

use alloc::format;
use alloc::vec::Vec;
use core::cell::RefCell;
use tessera_device::{DmaBuffer, platform};
use tessera_proto::{Call, Failure, FailureKind};

/// Name of the grant at the client.
const NAME: &str = "buffer";

/// The buffers of clients that have used theirs.
#[derive(Default)]
pub struct Buffers(RefCell<Vec<(u64, DmaBuffer)>>);

impl Buffers {
    /// The caller's buffer: `length` bytes from `at` on, which have to be in it.
    pub fn part(&self, call: &Call, at: u32, length: u32) -> Result<DmaBuffer, Failure> {
        let mut known = self.0.borrow_mut();
        let buffer = match known.iter().find(|(client, _)| *client == call.badge) {
            Some((_, buffer)) => buffer.clone(),
            None => {
                let none = || {
                    Failure::new(
                        FailureKind::NotAllowed,
                        "the caller shares no memory with the storage server: grant it `buffer = { share = \"storage + 256 KiB\" }`",
                    )
                };
                let buffer = platform::shared(&format!("shared.{}.{NAME}", call.badge)).ok_or_else(none)?;
                known.push((call.badge, buffer.clone()));
                buffer
            }
        };
        let (at, length) = (at as usize, length as usize);
        if at.checked_add(length).is_none_or(|end| end > buffer.length()) {
            let text = format_args!("the part does not lie in the {} bytes that are shared", buffer.length());
            return Err(Failure::new(FailureKind::BadRequest, text));
        }
        Ok(buffer.part(at, length))
    }
}
