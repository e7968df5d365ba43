//! Virtio devices over PCI (virtio 1.2): the register file is here, what stands behind the queues is served by another server, straight from the guest's memory.

pub mod block;
mod registers;
mod transport;

pub use registers::{MAX_QUEUES, QueueConfig, Registers, Service};
pub use transport::{NOTIFY_STEP, VirtioPci};

use block::CONFIG_LENGTH;

/// First bit of a vCPU thread's signals that is a queue's; those below are the monitor's own.
const FIRST_SIGNAL: u32 = 8;

/// The bit with which a queue's server signals a vCPU's thread: the queue interrupts.
#[must_use]
pub const fn signal_of(device: usize, queue: u16) -> u64 {
    1 << signal_bit(device, queue)
}

/// The number of that bit.
#[must_use]
pub const fn signal_bit(device: usize, queue: u16) -> u32 {
    FIRST_SIGNAL + device as u32 * MAX_QUEUES as u32 + queue as u32
}

/// The queues whose bits are set: device and queue.
pub fn signalled(signals: u64) -> impl Iterator<Item = (usize, u16)> {
    let mut left = signals >> FIRST_SIGNAL;
    core::iter::from_fn(move || {
        let bit = (left != 0).then(|| left.trailing_zeros() as usize)?;
        left &= left - 1;
        Some((bit / MAX_QUEUES, (bit % MAX_QUEUES) as u16))
    })
}

/// What makes a virtio device out of the transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Virtio's number of the kind of device (virtio 1.2, chapter 5).
    pub kind: u16,
    /// PCI class, subclass, interface and revision.
    pub class: u32,
    /// Features that it offers.
    pub features: u64,
    /// Queues, up to [`MAX_QUEUES`].
    pub queues: u16,
    /// Its own configuration space.
    pub space: [u8; CONFIG_LENGTH],
}

/// Features that concern every device (virtio 1.2, chapter 6).
pub mod feature {
    /// Descriptors may lead to tables of descriptors.
    pub const INDIRECT: u64 = 1 << 28;
    /// Both sides say from which index on they want to be told.
    pub const EVENT_INDEX: u64 = 1 << 29;
    /// Not the interface from before the standard.
    pub const VERSION_1: u64 = 1 << 32;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::pci::MAX_DEVICES;

    #[test]
    fn each_queue_has_a_bit() {
        let all: std::vec::Vec<_> = (0..MAX_DEVICES)
            .flat_map(|device| (0..MAX_QUEUES as u16).map(move |queue| (device, queue)))
            .collect();
        let bits = all.iter().fold(0, |bits, (device, queue)| {
            assert_eq!(bits & signal_of(*device, *queue), 0);
            bits | signal_of(*device, *queue)
        });
        assert_eq!(signalled(bits | 1).collect::<std::vec::Vec<_>>(), all);
        assert_eq!(signalled(0xff).next(), None);
    }
}
