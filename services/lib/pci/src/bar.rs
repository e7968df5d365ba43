//! Base address registers (PCI 3.0, 6.2.5.1).

use crate::{Address, ConfigSpace, command, register};
use alloc::vec::Vec;

/// What a base address register opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Memory.
    Memory {
        /// Reading it changes nothing, so it may be read ahead.
        prefetchable: bool,
    },
    /// I/O ports.
    Ports,
}

/// A range of addresses to which a function answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Number of its register, 0 to 5; one of 64 bits takes two.
    pub index: u8,
    /// Kind.
    pub kind: BarKind,
    /// First address, or port. 0: the firmware gave it none.
    pub address: u64,
    /// Length, a power of two.
    pub length: u64,
}

/// Finds the ranges of a function with `count` registers. It does not answer while its registers are probed, and may not access memory afterwards.
pub(crate) fn probe(space: &impl ConfigSpace, address: Address, count: u8) -> Vec<Bar> {
    let before = space.read(address, register::COMMAND) & 0xffff & !command::BUS_MASTER;
    space.write(address, register::COMMAND, before & !(command::IO | command::MEMORY));
    let mut bars = Vec::new();
    let mut index = 0;
    while index < count {
        let (bar, wide) = probe_one(space, address, index, index + 1 < count);
        bars.extend(bar);
        index += if wide { 2 } else { 1 };
    }
    space.write(address, register::COMMAND, before);
    bars
}

/// Writes all ones and sees which bits stay: those that are not part of the address.
fn mask_of(space: &impl ConfigSpace, address: Address, offset: u16) -> (u32, u32) {
    let value = space.read(address, offset);
    space.write(address, offset, u32::MAX);
    let mask = space.read(address, offset);
    space.write(address, offset, value);
    (value, mask)
}

fn probe_one(space: &impl ConfigSpace, address: Address, index: u8, room: bool) -> (Option<Bar>, bool) {
    let offset = register::BAR + 4 * u16::from(index);
    let (low, low_mask) = mask_of(space, address, offset);
    if low_mask == 0 || low_mask == u32::MAX {
        return (None, false);
    }
    if low & 1 != 0 {
        // The upper half may be wired to 0: there are only 16 bits of ports.
        let mask = (low_mask & !3) as u16;
        let bar = (mask != 0).then(|| Bar {
            index,
            kind: BarKind::Ports,
            address: u64::from(low & 0xfffc),
            length: 1 << mask.trailing_zeros(),
        });
        return (bar, false);
    }
    let wide = low & 6 == 4 && room;
    let (high, high_mask) = if wide { mask_of(space, address, offset + 4) } else { (0, u32::MAX) };
    let mask = u64::from(low_mask & !15) | u64::from(high_mask) << 32;
    let bar = (mask != 0 && low_mask & !15 | high_mask != 0).then(|| Bar {
        index,
        kind: BarKind::Memory {
            prefetchable: low & 8 != 0,
        },
        address: u64::from(low & !15) | u64::from(high) << 32,
        length: 1 << mask.trailing_zeros(),
    });
    (bar.filter(|bar| bar.length <= 1 << 40), wide)
}
