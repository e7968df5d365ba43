//! The driver's side of a split virtqueue (virtio 1.2, 2.7): one piece of memory with descriptors, available ring and used ring. What its descriptors name is its user's business.

use super::{Configuration, features};
use crate::{dma::DmaBuffer, hardware::Platform};
use alloc::{format, string::String};
use core::sync::atomic::{Ordering, fence};

/// Flags of a descriptor.
pub mod flags {
    /// There is a next one.
    pub const NEXT: u16 = 1;
    /// The device writes.
    pub const WRITE: u16 = 2;
    /// It names a table of descriptors.
    pub const INDIRECT: u16 = 4;
}

/// Flag of the available ring: no interrupts; of the used ring: no notifications.
const NO: u16 = 1;
/// Bytes of a descriptor.
pub const DESCRIPTOR: usize = 16;

/// The device says that it used more than it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// An entry of the used ring. Neither number is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// First descriptor of what was used.
    pub head: u32,
    /// Bytes that the device says it wrote.
    pub length: u32,
}

/// The queue.
pub struct Ring {
    number: u16,
    size: u16,
    memory: DmaBuffer,
    /// Where it is notified.
    place: u64,
    event_index: bool,
    /// Offered, and of these told to the device.
    available: u16,
    told: u16,
    used: u16,
    /// What the device said last.
    until: u16,
}

impl Ring {
    fn available_at(&self) -> usize {
        usize::from(self.size) * DESCRIPTOR
    }

    fn used_at(&self) -> usize {
        (self.available_at() + 6 + usize::from(self.size) * 2).next_multiple_of(4)
    }

    /// Memory for queue `number` with up to `most` descriptors. It is handed to the device by [`Self::reset`].
    ///
    /// # Errors
    /// The device has no such queue, or there is no memory.
    pub fn new(configuration: &Configuration, platform: &dyn Platform, number: u16, most: u16) -> Result<Self, String> {
        let offered = configuration.select(number);
        if offered == 0 {
            return Err(format!("it has no queue {number}"));
        }
        // A power of two (2.7).
        let size = 1 << offered.min(most).max(1).ilog2();
        let count = usize::from(size);
        let memory = platform
            .allocate(count * DESCRIPTOR + 6 + count * 2 + 4 + 6 + count * 8)
            .ok_or("there is no memory for its queues: raise `device-memory` of its server in the manifest")?;
        Ok(Self {
            number,
            size,
            memory,
            place: 0,
            event_index: false,
            available: 0,
            told: 0,
            used: 0,
            until: 0,
        })
    }

    /// Hands it, empty, to a device that was reset; `accepted` are the features in use.
    ///
    /// # Errors
    /// The device does not take it.
    pub fn reset(&mut self, configuration: &Configuration, accepted: u64, vector: Option<u16>) -> Result<(), String> {
        if configuration.select(self.number) < self.size {
            return Err(format!("queue {} is smaller than before", self.number));
        }
        self.memory.clear(0, self.memory.length());
        (self.available, self.told, self.used, self.until) = (0, 0, 0, 0);
        self.event_index = accepted & features::EVENT_INDEX != 0;
        let base = self.memory.physical();
        let addresses = [base, base + self.available_at() as u64, base + self.used_at() as u64];
        self.place = configuration.enable(self.size, vector, addresses)?;
        Ok(())
    }

    /// Descriptors.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Fills in a descriptor.
    pub fn describe(&self, index: u16, physical: u64, length: u32, flags: u16, next: u16) {
        let at = usize::from(index) * DESCRIPTOR;
        self.memory.write(at, physical);
        self.memory
            .write(at + 8, u64::from(length) | u64::from(flags) << 32 | u64::from(next) << 48);
    }

    /// Changes the length in a descriptor.
    pub fn set_length(&self, index: u16, length: u32) {
        self.memory.write(usize::from(index) * DESCRIPTOR + 8, length);
    }

    /// Offers what begins with a descriptor. The device sees it after [`Self::publish`].
    pub fn offer(&mut self, head: u16) {
        let slot = self.available_at() + 4 + usize::from(self.available % self.size) * 2;
        self.memory.write(slot, head);
        self.available = self.available.wrapping_add(1);
    }

    /// Shows the device what was offered, and notifies it if it wants that.
    pub fn publish(&mut self, configuration: &Configuration) {
        if self.available == self.told {
            return;
        }
        // Release: the device sees the descriptors before it sees that there are some.
        fence(Ordering::Release);
        self.memory.write(self.available_at() + 2, self.available);
        // The device's wish is read after it could see them (2.7.13): else both could wait for each other.
        fence(Ordering::SeqCst);
        let wanted = if self.event_index {
            let event: u16 = self.memory.read(self.used_at() + 4 + usize::from(self.size) * 8);
            // The wish lies among what is new (2.7.10).
            self.available.wrapping_sub(event).wrapping_sub(1) < self.available.wrapping_sub(self.told)
        } else {
            self.memory.read::<u16>(self.used_at()) & NO == 0
        };
        self.told = self.available;
        if wanted {
            configuration.notify(self.place, self.number);
        }
    }

    /// How much the device has used that was not taken yet.
    ///
    /// # Errors
    /// More than it was given.
    pub fn look(&mut self) -> Result<u16, Broken> {
        let until = self.memory.read::<u16>(self.used_at() + 2);
        let new = until.wrapping_sub(self.used);
        if new > self.told.wrapping_sub(self.used) {
            return Err(Broken);
        }
        // Acquire: the entries were written before their number.
        fence(Ordering::Acquire);
        self.until = until;
        Ok(new)
    }

    /// Takes the next entry of those that [`Self::look`] saw.
    pub fn take(&mut self) -> Option<Used> {
        if self.used == self.until {
            return None;
        }
        let entry: u64 = self.entry();
        self.used = self.used.wrapping_add(1);
        Some(Used {
            head: entry as u32,
            length: (entry >> 32) as u32,
        })
    }

    fn entry(&self) -> u64 {
        let at = self.used_at() + 4 + usize::from(self.used % self.size) * 8;
        // The used ring is aligned to 4 only.
        u64::from(self.memory.read::<u32>(at)) | u64::from(self.memory.read::<u32>(at + 4)) << 32
    }

    /// What the device has and was told of.
    #[must_use]
    pub fn with_device(&self) -> u16 {
        self.told.wrapping_sub(self.used)
    }

    /// Entries taken, modulo 2¹⁶: whoever sees no change sees no progress.
    #[must_use]
    pub fn taken(&self) -> u16 {
        self.used
    }

    /// Wants an interrupt when the device has used another `after + 1`; `None`: no interrupts, though a few may come.
    pub fn interrupt(&self, after: Option<u16>) {
        if self.event_index {
            // Without a wish an old one stays: it is behind.
            let event = self.used.wrapping_add(after.unwrap_or(u16::MAX));
            self.memory.write(self.available_at() + 4 + usize::from(self.size) * 2, event);
        } else {
            self.memory.write(self.available_at(), if after.is_some() { 0 } else { NO });
        }
        if after.is_some() {
            // The wish stands before the caller looks once more.
            fence(Ordering::SeqCst);
        }
    }
}
