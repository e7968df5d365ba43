//! A PCI function that init gave.

use crate::hardware::{Platform, Ports, Registers};
use alloc::{rc::Rc, string::String, vec::Vec};

/// A PCI function as a driver gets it.
#[derive(Clone)]
pub struct Device {
    /// Its configuration space when it was granted, 256 bytes.
    pub configuration: Vec<u8>,
    /// Its ranges of memory.
    pub memory: [Option<Rc<dyn Registers>>; 6],
    /// Its ranges of I/O ports.
    pub ports: [Option<Rc<dyn Ports>>; 6],
    /// Interrupts that it may raise: entries of its table of messages, or one.
    pub interrupts: u16,
    /// Interrupt lines that it may raise.
    pub lines: u16,
    /// The rest.
    pub platform: Rc<dyn Platform>,
}

impl Device {
    /// A number of its configuration space; all ones outside.
    #[must_use]
    pub fn configuration(&self, offset: usize, bytes: usize) -> u32 {
        let end = offset.saturating_add(bytes.min(4));
        let part = self.configuration.get(offset..end);
        part.map_or(u32::MAX, |part| {
            part.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
        })
    }

    /// Vendor and device number.
    #[must_use]
    pub fn identity(&self) -> (u16, u16) {
        (self.configuration(0, 2) as u16, self.configuration(2, 2) as u16)
    }

    /// Base class, sub-class, programming interface.
    #[must_use]
    pub fn class(&self) -> (u8, u8, u8) {
        (
            self.configuration(11, 1) as u8,
            self.configuration(10, 1) as u8,
            self.configuration(9, 1) as u8,
        )
    }
}

/// Text that a device tells: printable ASCII, without blanks around it.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let printable = bytes
        .iter()
        .map(|byte| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { ' ' });
    let text: String = printable.collect();
    text.trim().into()
}
