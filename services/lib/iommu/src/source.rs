//! How units name a function.

use core::fmt;

/// A function as the source of a request: its segment, and bus, device and function in one number. Written as a PCI address is, `0000:00:1f.2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Segment group.
    pub segment: u16,
    /// Bus in bits 15 to 8, device in 7 to 3, function in 2 to 0.
    pub id: u16,
}

impl Source {
    /// The function at an address.
    #[must_use]
    pub const fn new(segment: u16, bus: u8, device: u8, function: u8) -> Self {
        Self {
            segment,
            id: (bus as u16) << 8 | (device as u16 & 31) << 3 | (function as u16 & 7),
        }
    }

    /// Its bus.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.id >> 8) as u8
    }

    /// Device and function in one number.
    #[must_use]
    pub const fn place(self) -> u8 {
        self.id as u8
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (device, function) = (self.place() >> 3, self.place() & 7);
        write!(formatter, "{:04x}:{:02x}:{device:02x}.{function:x}", self.segment, self.bus())
    }
}
