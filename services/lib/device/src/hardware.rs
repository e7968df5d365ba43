//! What a driver needs of the machine. On the running system these are mapped registers and granted memory; in tests, devices made of code.

use crate::dma::DmaBuffer;

/// Registers in memory. Offsets outside read as all ones, as a device that was taken away does.
pub trait Registers {
    /// Reads a byte.
    fn read8(&self, offset: u64) -> u8;
    /// Reads a word at a multiple of 2.
    fn read16(&self, offset: u64) -> u16;
    /// Reads a double word at a multiple of 4.
    fn read32(&self, offset: u64) -> u32;
    /// Writes a byte.
    fn write8(&self, offset: u64, value: u8);
    /// Writes a word at a multiple of 2.
    fn write16(&self, offset: u64, value: u16);
    /// Writes a double word at a multiple of 4.
    fn write32(&self, offset: u64, value: u32);

    /// Reads two double words, the lower first.
    fn read64(&self, offset: u64) -> u64 {
        u64::from(self.read32(offset)) | u64::from(self.read32(offset + 4)) << 32
    }

    /// Writes two double words, the lower first.
    fn write64(&self, offset: u64, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }
}

/// A range of I/O ports. Offsets outside read as all ones.
pub trait Ports {
    /// Ports.
    fn length(&self) -> u64;
    /// Reads a byte.
    fn read8(&self, offset: u16) -> u8;
    /// Reads a word.
    fn read16(&self, offset: u16) -> u16;
    /// Writes a byte.
    fn write8(&self, offset: u16, value: u8);
    /// Writes a double word.
    fn write32(&self, offset: u16, value: u32);
}

/// The rest of the machine.
pub trait Platform {
    /// Zeroed memory for a device, whole pages, for as long as the server lives; `None`: the manifest gives too little.
    fn allocate(&self, bytes: usize) -> Option<DmaBuffer>;
    /// Milliseconds since some moment.
    fn now(&self) -> u64;
    /// Waits. Only while a driver starts.
    fn pause(&self, milliseconds: u64);
    /// Lets the device access memory. The driver has reset it: it remembers nothing of what an earlier server told it.
    ///
    /// # Errors
    /// init's refusal.
    fn allow_memory_access(&self) -> Result<(), &'static str>;
    /// Takes the access away: the device does not stop when it is told to, and what it was given is to be used by others. To be called before any of that is said to have ended.
    fn deny_memory_access(&self);
}

/// Waits until `done` says so, or `milliseconds` have passed. Answers which.
pub fn wait_until(platform: &dyn Platform, milliseconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let deadline = platform.now().saturating_add(milliseconds);
    let mut pause = 0;
    loop {
        if done() {
            return true;
        }
        if platform.now() >= deadline {
            return false;
        }
        platform.pause(pause);
        pause = 1;
    }
}
