//! Guests' disks: virtio block devices (virtio 1.2, 5.2) served straight from the guest's queues and memory.
//!
//! ```text
//!  guest's driver --doorbell--> Device::run: pop, read the header once, check, translate to host-physical segments
//!                                  |  submit                                             ^ completed, by number
//!                                  v                                                     |
//!                               Backing (a disk, a part of one) ------ device DMA to guest memory
//!  guest's driver <--interrupt-- Device::settle <-- push to the used ring, status byte
//! ```
//!
//! Nothing is copied and, while a request fits into one command, nothing is allocated. Whatever the guest does wrong concerns its own device: a broken rule of the queue stops that device until the guest resets it, and
//! a request that makes no sense ends with an error status.

mod backing;
mod device;
mod pace;
#[cfg(test)]
mod patience_tests;
mod request;
#[cfg(test)]
mod tests;

pub use backing::{Backing, Part};
pub use device::{Attachment, Device, Signal, Statistics};
pub use request::MAX_SEGMENTS;
pub use tessera_device::{Ram, RamFrame};
