//! Guests' network cards: the device side of virtio-net (virtio 1.2, 5.1), straight from the queues in a guest's memory.
//!
//! ```text
//!  doorbell -> Device::transmit -> GuestPacket -> the data plane: Sent::Done, or Held until Device::complete
//!              Device::receive  <- Packet      <- the data plane
//!              Device::settle   -> interrupts, one for all that was returned
//! ```

mod control;
mod device;
mod features;
mod header;
mod pace;
mod queue;
mod receive;
mod steering;
mod transmit;

pub use control::STATE as CONTROL_STATE;
pub use device::{Attachment, Device, News, Signal, Statistics};
pub use features::{Features, Takes};
pub use receive::Dropped;
pub use transmit::{GuestPacket, Sent, Token};

/// Most pairs of queues.
pub const MAX_PAIRS: usize = 4;
/// Most queues: the pairs, and the control queue.
pub const MAX_QUEUES: usize = 2 * MAX_PAIRS + 1;
