//! Memory that clients share with this server, for files that are too long for messages. It is init's, so it stays when a client ends; what stands in it is copied in and out.
#![allow(unsafe_code)]

use alloc::format;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ptr::NonNull;
use tessera_device::DmaBuffer;
use tessera_proto::{Call, Failure, FailureKind};
use tessera_rt::{Frame, abi::object::Rights, log, start, vm};

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
                let buffer = map(call.badge)?;
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

fn map(client: u64) -> Result<DmaBuffer, Failure> {
    let none = || {
        Failure::new(
            FailureKind::NotAllowed,
            "the caller shares no memory with the storage server: grant it `buffer = { share = \"storage + 256 KiB\" }`",
        )
    };
    let grant = start::find(&format!("shared.{client}.{NAME}")).ok_or_else(none)?;
    let mapped = vm::map(Frame::new(grant.slot), Rights::READ | Rights::WRITE, 0).map_err(|error| {
        log::error!("a client's buffer cannot be mapped: {}", error.text());
        Failure::from(FailureKind::Exhausted)
    })?;
    let base = NonNull::new(mapped.as_ptr()).ok_or(Failure::from(FailureKind::Internal))?;
    // SAFETY: mapped for the life of the process, on a page's start, and no Rust object: the client writes there at any moment. No device is told of it, so its physical address does not matter.
    Ok(unsafe { DmaBuffer::new(base, 0, mapped.length) })
}
