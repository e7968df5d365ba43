//! Virtio devices over PCI (virtio 1.2): the register file is here, what stands behind the queues is served by another server, straight from the guest's memory.

pub mod block;
pub mod driver;
pub mod local;
pub mod net;
mod registers;
mod transport;

pub use registers::{MAX_QUEUES, QueueConfig, Registers, Service, USUAL_SIZE};
pub use transport::{SavedVirtio, VirtioPci};

/// Bytes of a device's own configuration space.
pub const CONFIG_LENGTH: usize = 64;
/// First bit of a vCPU thread's signals that is a queue's; those below are the monitor's own.
pub const FIRST_SIGNAL: u32 = 8;
/// Queues that have a bit.
pub const MAX_SIGNALS: u32 = u64::BITS - FIRST_SIGNAL;

/// Queues that each device may have for a machine with `vcpus` processors, `disks` disks and `nics` network cards, so that every queue has a bit, of which others have `taken`: of a network card pairs. One for each processor is of use.
#[must_use]
pub fn fair_queues(vcpus: usize, disks: usize, nics: usize, taken: usize) -> u16 {
    let fits = |queues: &usize| disks * queues + nics * (2 * queues + 1) + taken <= MAX_SIGNALS as usize;
    (1..=vcpus.clamp(1, MAX_PAIRS)).rev().find(fits).unwrap_or(1) as u16
}

/// Most pairs of queues.
const MAX_PAIRS: usize = (MAX_QUEUES - 1) / 2;

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
    /// Descriptors of each, at most: a power of two.
    pub queue_size: u16,
    /// Its own configuration space.
    pub space: [u8; CONFIG_LENGTH],
    /// The monitor itself works at the queues ([`local`]): they need no bits in vCPU threads' signals.
    pub local: bool,
    /// It is not on the bus: the monitor drives it ([`driver`]), for a controller of another kind.
    pub hidden: bool,
    /// A bit for each byte of `space` that the driver may write.
    pub writable: u64,
}

impl DeviceConfig {
    /// Makes it one that the monitor drives, with a table of descriptors for each request.
    pub const fn hide(&mut self) {
        self.hidden = true;
        self.features |= feature::INDIRECT;
    }
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

    #[test]
    fn the_most_devices_have_a_bit_for_each_queue() {
        assert_eq!(fair_queues(4, 0, 0, 0), 4);
        assert_eq!(fair_queues(1, 8, 8, 0), 1);
        assert_eq!(fair_queues(4, 2, 4, 0), 4);
        assert_eq!(fair_queues(4, 8, 4, 0), 3);
        assert_eq!(fair_queues(4, 8, 8, 0), 2, "all 56");
        assert_eq!(fair_queues(4, 8, 8, 1), 1);
    }
}
