//! PCI as software sees it (PCI Local Bus 3.0, PCI Express Base 6.0): functions found through configuration space, their address registers and capabilities, and
//! interrupts that they raise by message.
//!
//! Configuration space is a trait, since one machine has it in memory (ECAM) and another behind ports. What devices answer is not believed: every walk is bounded.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod acpi;
mod address;
mod bar;
mod capability;
mod enumerate;
mod names;
mod reset;
#[cfg(test)]
mod testing;

pub use acpi::{EcamWindow, Physical, acpi_table, ecam_windows};
pub use address::Address;
pub use bar::{Bar, BarKind};
pub use capability::{Capability, Msi, Msix, Slot, find, id as capability_id};
pub use enumerate::{Class, Function, Header, enumerate};
pub use names::{class_name, vendor_name};
pub use reset::{Reset, Step};

use core::ops::RangeInclusive;

/// Offsets in configuration space.
pub mod register {
    /// Vendor in the low half, device in the high one.
    pub const IDENTITY: u16 = 0x00;
    /// Command in the low half, status (whose bits are cleared by writing ones) in the high one.
    pub const COMMAND: u16 = 0x04;
    /// Revision and class.
    pub const CLASS: u16 = 0x08;
    /// Cache line, latency, header type, self-test.
    pub const HEADER: u16 = 0x0c;
    /// First base address register.
    pub const BAR: u16 = 0x10;
    /// Of a bridge: primary, secondary, last bus below.
    pub const BUSES: u16 = 0x18;
    /// Subsystem vendor and device.
    pub const SUBSYSTEM: u16 = 0x2c;
    /// Offset of the first capability.
    pub const CAPABILITIES: u16 = 0x34;
    /// Interrupt line and pin.
    pub const INTERRUPT: u16 = 0x3c;
}

/// Bits of the command register.
pub mod command {
    /// Answers to I/O ports.
    pub const IO: u32 = 1 << 0;
    /// Answers to memory.
    pub const MEMORY: u32 = 1 << 1;
    /// May access memory by itself.
    pub const BUS_MASTER: u32 = 1 << 2;
    /// Raises no interrupt by its line.
    pub const NO_LINE: u32 = 1 << 10;
}

/// A way to configuration space. A register that is not there reads as all ones, and takes no writes.
pub trait ConfigSpace {
    /// Reads the double word at `offset`, a multiple of 4.
    fn read(&self, address: Address, offset: u16) -> u32;
    /// Writes a double word.
    fn write(&self, address: Address, offset: u16, value: u32);
    /// Segment and buses that it reaches.
    fn buses(&self) -> (u16, RangeInclusive<u8>);
}

/// Changes the command register: sets `set`, clears `clear`, and leaves the status beside it alone.
pub fn change_command(space: &(impl ConfigSpace + ?Sized), address: Address, set: u32, clear: u32) {
    let command = space.read(address, register::COMMAND) & 0xffff;
    space.write(address, register::COMMAND, (command & !clear) | set);
}
