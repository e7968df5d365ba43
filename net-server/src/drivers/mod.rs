//! The drivers, a room each. What a card says is not believed: lengths are bounded, what it says it has done is looked up, and a card that reads as all ones is gone.

pub mod e1000;
mod frame;
#[cfg(test)]
mod testing;
pub mod virtio_net;

use crate::nic::Nic;
use alloc::{boxed::Box, string::String};
pub use tessera_device::Device;

/// What is said where memory is missing.
const NO_MEMORY: &str = "there is no memory for its queues: raise `device-memory` of the network server in the manifest";

/// Puts a driver on a device; `name` is for its messages. `None`: there is none for it.
///
/// # Errors
/// One line: why its driver could not start it.
pub fn start(device: &Device, name: &str) -> Option<Result<Box<dyn Nic>, String>> {
    match device.identity() {
        (0x1af4, 0x1000 | 0x1041) => Some(virtio_net::start(device, name)),
        _ => e1000::start(device, name),
    }
}
