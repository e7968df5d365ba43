//! Capability lists (PCI 3.0, 6.7) and interrupts by message (6.8).

use crate::{Address, ConfigSpace, register};
use alloc::vec::Vec;

/// Capability identities.
pub mod id {
    /// Power management.
    pub const POWER: u8 = 0x01;
    /// Message-signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// What the vendor says; virtio uses it.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// Message-signalled interrupts by a table.
    pub const MSIX: u8 = 0x11;
    /// Advanced features of conventional PCI.
    pub const ADVANCED: u8 = 0x13;
}

/// A capability: identity and offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Identity, see [`id`].
    pub id: u8,
    /// Offset in configuration space.
    pub offset: u16,
}

/// More than fit into 192 bytes.
const MOST: usize = 48;

/// Walks the list. It ends after as many as fit, however it is linked.
pub(crate) fn list(space: &impl ConfigSpace, address: Address) -> Vec<Capability> {
    let mut found = Vec::new();
    // Status bit 4: there is a list.
    if space.read(address, register::COMMAND) >> 16 & 0x10 == 0 {
        return found;
    }
    let mut offset = space.read(address, register::CAPABILITIES) as u8 & !3;
    while offset >= 0x40 && found.len() < MOST {
        let offset16 = u16::from(offset);
        if found.iter().any(|known: &Capability| known.offset == offset16) {
            break;
        }
        let head = space.read(address, offset16);
        if head == u32::MAX {
            break;
        }
        found.push(Capability {
            id: head as u8,
            offset: offset16,
        });
        offset = (head >> 8) as u8 & !3;
    }
    found
}

/// The first of an identity.
#[must_use]
pub fn find(capabilities: &[Capability], id: u8) -> Option<u16> {
    capabilities
        .iter()
        .find(|capability| capability.id == id)
        .map(|capability| capability.offset)
}

/// Message-signalled interrupts, one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// Offset of the capability.
    pub offset: u16,
}

impl Msi {
    /// Sends the function's interrupt as this message.
    pub fn enable(self, space: &(impl ConfigSpace + ?Sized), at: Address, address: u64, data: u32) {
        let head = space.read(at, self.offset);
        // Control, bits 16 to 31: bit 0 enable, bits 4 to 6 number of messages (here one), bit 7 64-bit address, bit 8 masks.
        let control = head & !(0x71 << 16);
        space.write(at, self.offset, control);
        let wide = head >> 16 & 0x80 != 0;
        space.write(at, self.offset + 4, address as u32);
        let data_at = if wide {
            space.write(at, self.offset + 8, (address >> 32) as u32);
            self.offset + 12
        } else {
            self.offset + 8
        };
        space.write(at, data_at, data & 0xffff);
        if head >> 16 & 0x100 != 0 {
            space.write(at, data_at + 4, 0);
        }
        space.write(at, self.offset, control | 1 << 16);
    }

    /// Sends none.
    pub fn disable(self, space: &(impl ConfigSpace + ?Sized), at: Address) {
        let head = space.read(at, self.offset);
        space.write(at, self.offset, head & !(1 << 16));
    }
}

/// A slot of a PCI Express port into which functions can be plugged (PCI Express 7.5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Offset of the capability.
    pub offset: u16,
}

impl Slot {
    /// The slot of a port; `None`: it has none, or what is in it stays.
    #[must_use]
    pub fn read(space: &(impl ConfigSpace + ?Sized), at: Address, capabilities: &[Capability]) -> Option<Self> {
        let offset = find(capabilities, id::EXPRESS).filter(|offset| *offset <= 0xc0)?;
        // Bit 8 of the capability's own register: there is a slot. Slot capabilities, bit 6: functions can be plugged.
        let has_slot = space.read(at, offset) >> 24 & 1 != 0;
        (has_slot && space.read(at, offset + 0x14) & 1 << 6 != 0).then_some(Self { offset })
    }

    /// Whether somebody asked for what is in it, by its button or the like. Asking again says no until it is asked for anew.
    pub fn is_asked_for(self, space: &(impl ConfigSpace + ?Sized), at: Address) -> bool {
        let state = space.read(at, self.offset + 0x18);
        // Control in the low half; status in the high one, whose bits are cleared by writing ones. Bit 0: the button was pressed.
        let pressed = state != u32::MAX && state >> 16 & 1 != 0;
        if pressed {
            space.write(at, self.offset + 0x18, state & 0xffff | 1 << 16);
        }
        pressed
    }

    /// Switches it off, with its light: what is in it can be taken out.
    pub fn power_off(self, space: &(impl ConfigSpace + ?Sized), at: Address) {
        let control = space.read(at, self.offset + 0x18) & 0xffff;
        // Bit 10: power off. Bits 8 and 9: light off.
        space.write(at, self.offset + 0x18, control | 7 << 8);
    }
}

/// Message-signalled interrupts by a table in one of the function's memory ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msix {
    /// Offset of the capability.
    pub offset: u16,
    /// Entries of the table, 1 to 2048.
    pub vectors: u16,
    /// Range with the table.
    pub table_bar: u8,
    /// Offset of the table there.
    pub table_offset: u32,
    /// Range with the pending bits.
    pub pending_bar: u8,
    /// Their offset there.
    pub pending_offset: u32,
}

impl Msix {
    /// Bytes of an entry: address (8), data (4), control (4, bit 0 masks).
    pub const ENTRY: u32 = 16;

    pub(crate) fn read(space: &impl ConfigSpace, at: Address, offset: u16) -> Option<Self> {
        let [head, table, pending] = [0, 4, 8].map(|part| space.read(at, offset.saturating_add(part)));
        let bar = |word: u32| (word & 7) as u8;
        (offset <= 0xf4 && bar(table) < 6 && bar(pending) < 6).then_some(Self {
            offset,
            vectors: (head >> 16 & 0x7ff) as u16 + 1,
            table_bar: bar(table),
            table_offset: table & !7,
            pending_bar: bar(pending),
            pending_offset: pending & !7,
        })
    }

    /// Bytes of the table.
    #[must_use]
    pub const fn table_length(&self) -> u64 {
        self.vectors as u64 * Self::ENTRY as u64
    }

    /// Whether the function sends messages. While the table is written it should not.
    pub fn enable(&self, space: &(impl ConfigSpace + ?Sized), at: Address, enabled: bool) {
        let head = space.read(at, self.offset);
        // Control, bits 16 to 31: bit 15 enable, bit 14 mask all.
        space.write(at, self.offset, head & !(0xc000 << 16) | u32::from(enabled) << 31);
    }
}
