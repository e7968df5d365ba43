//! Message-signalled interrupts with a table (PCI Local Bus Specification 3.0, 6.8.2).

use crate::apic::routing::Delivery;
use crate::apic::{Interrupts, Kick, Message};
use serde::{Deserialize, Serialize};

/// Most entries of a table.
pub const MAX_VECTORS: usize = 8;
/// Bytes of an entry.
const ENTRY: u32 = 16;
const MASKED: u32 = 1;
/// Message control: all entries are masked.
const FUNCTION_MASK: u16 = 1 << 14;
/// Message control: in use instead of line interrupts.
const ENABLE: u16 = 1 << 15;
/// Capability identity.
pub const CAPABILITY: u8 = 0x11;
/// What the guest can write of the capability behind its first two bytes.
pub const WRITABLE: [u8; 2] = [0, 0xc0];

/// The table with its pending bits, and message control.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Msix {
    entries: [[u32; 4]; MAX_VECTORS],
    count: u16,
    pending: u64,
    control: u16,
}

impl Msix {
    /// A table of `count` entries, all masked.
    #[must_use]
    pub const fn new(count: u16) -> Self {
        Self {
            entries: [[0, 0, 0, MASKED]; MAX_VECTORS],
            count: if count as usize > MAX_VECTORS { MAX_VECTORS as u16 } else { count },
            pending: 0,
            control: 0,
        }
    }

    /// Content of the capability, with the table and the pending bits in range `bar`.
    #[must_use]
    pub fn capability(&self, bar: u8, table: u32, pending: u32) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&(self.count - 1).to_le_bytes());
        bytes[2..6].copy_from_slice(&(table | u32::from(bar)).to_le_bytes());
        bytes[6..].copy_from_slice(&(pending | u32::from(bar)).to_le_bytes());
        bytes
    }

    /// Entries.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// Whether it is in use.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// The guest wrote message control. What waited is sent.
    pub fn set_control(&mut self, control: u16, send: &mut dyn FnMut(Message)) {
        self.control = control;
        for vector in 0..self.count {
            self.deliver(vector, send);
        }
    }

    /// Reads the table at a byte offset, 4 or 8 bytes.
    #[must_use]
    pub fn read_table(&self, offset: u32) -> u32 {
        let (entry, word) = (offset / ENTRY, offset % ENTRY / 4);
        if entry < u32::from(self.count) {
            self.entries[entry as usize][word as usize]
        } else {
            0
        }
    }

    /// Reads `width` bytes of the table.
    #[must_use]
    pub fn read_table_bytes(&self, offset: u32, width: u8) -> u64 {
        words(offset, width, |offset| self.read_table(offset))
    }

    /// Reads `width` bytes of the pending bits.
    #[must_use]
    pub fn read_pending_bytes(&self, offset: u32, width: u8) -> u64 {
        words(offset, width, |offset| self.read_pending(offset))
    }

    /// Writes 4 or 8 bytes of the table; others are lost (6.8.2). Answers whether an entry changed.
    pub fn write_table_bytes(&mut self, offset: u32, width: u8, value: u64, send: &mut dyn FnMut(Message)) -> bool {
        match width {
            4 if offset.is_multiple_of(4) => self.write_table(offset, value as u32, send).is_some(),
            8 if offset.is_multiple_of(8) => {
                let low = self.write_table(offset, value as u32, send);
                self.write_table(offset + 4, (value >> 32) as u32, send);
                low.is_some()
            }
            _ => false,
        }
    }

    /// Reads the pending bits.
    #[must_use]
    pub const fn read_pending(&self, offset: u32) -> u32 {
        match offset & !3 {
            0 => self.pending as u32,
            4 => (self.pending >> 32) as u32,
            _ => 0,
        }
    }

    /// Writes 32 bits of the table. Answers the entry that changed.
    pub fn write_table(&mut self, offset: u32, value: u32, send: &mut dyn FnMut(Message)) -> Option<u16> {
        let (entry, word) = (offset / ENTRY, offset % ENTRY / 4);
        if entry >= u32::from(self.count) {
            return None;
        }
        self.entries[entry as usize][word as usize] = if word == 3 { value & MASKED } else { value };
        self.deliver(entry as u16, send);
        Some(entry as u16)
    }

    /// The device interrupts: the message goes out, or waits behind a mask. There is no such vector: nothing happens.
    pub fn raise(&mut self, vector: u16, send: &mut dyn FnMut(Message)) {
        if vector < self.count {
            self.pending |= 1 << vector;
            self.deliver(vector, send);
        }
    }

    fn deliver(&mut self, vector: u16, send: &mut dyn FnMut(Message)) {
        let bit = 1 << vector;
        if self.pending & bit == 0 {
            return;
        }
        if let Some(message) = self.message(vector) {
            self.pending &= !bit;
            send(message);
        }
    }

    /// What a vector sends, if nothing masks it.
    #[must_use]
    pub fn message(&self, vector: u16) -> Option<Message> {
        let [address, _, data, mask] = *self.entries[..usize::from(self.count)].get(usize::from(vector))?;
        let open = self.is_enabled() && self.control & FUNCTION_MASK == 0 && mask & MASKED == 0;
        open.then(|| message(address, data))
    }

    /// Where a vector's message goes, if nothing masks it: the first vCPU that it is for, and the vector there if that can be requested without the monitor; else 0.
    #[must_use]
    pub fn route<K: Kick>(&self, vector: u16, to: &Interrupts<K>) -> Option<(usize, u8)> {
        let message = self.message(vector)?;
        let direct = matches!(message.delivery, Delivery::Fixed | Delivery::LowestPriority) && message.vector >= 16;
        let target = to.first_target(&message)?;
        let alone = message.delivery == Delivery::LowestPriority || to.is_for_one(&message);
        Some((target, if direct && alone { message.vector } else { 0 }))
    }
}

fn words(offset: u32, width: u8, read: impl Fn(u32) -> u32) -> u64 {
    match width {
        8 => u64::from(read(offset)) | u64::from(read(offset.saturating_add(4))) << 32,
        _ => u64::from(read(offset) >> (offset % 4 * 8)),
    }
}

/// A message of this address and data (Intel SDM volume 3, 11.11). All such messages are edges.
fn message(address: u32, data: u32) -> Message {
    Message {
        destination: address >> 12 & 0xff,
        logical: address & 1 << 2 != 0,
        wide: false,
        delivery: Delivery::from_bits(u64::from(data >> 8)),
        vector: data as u8,
        level: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn program(msix: &mut Msix, entry: u32, words: [u32; 4]) -> Vec<u8> {
        let mut sent = Vec::new();
        for (word, value) in (0..).zip(words) {
            msix.write_table(entry * ENTRY + word * 4, value, &mut |message| sent.push(message.vector));
        }
        sent
    }

    #[test]
    fn masks_hold_messages_back() {
        let mut msix = Msix::new(3);
        let mut sent = Vec::new();
        msix.raise(1, &mut |message| sent.push(message.vector));
        assert_eq!(msix.read_pending(0), 2);
        assert!(program(&mut msix, 1, [0xfee0_3004, 0, 0x4051, 0]).is_empty(), "not enabled");
        msix.set_control(ENABLE | FUNCTION_MASK, &mut |message| sent.push(message.vector));
        assert!(sent.is_empty());
        msix.set_control(ENABLE, &mut |message| {
            assert_eq!((message.destination, message.logical, message.delivery), (3, true, Delivery::Fixed));
            sent.push(message.vector);
        });
        assert_eq!((sent.as_slice(), msix.read_pending(0)), (&[0x51][..], 0), "once");
        program(&mut msix, 1, [0xfee0_0000, 0, 0x52, 1]);
        msix.raise(1, &mut |_| panic!("masked"));
        msix.raise(1, &mut |_| panic!("masked"));
        assert_eq!(program(&mut msix, 1, [0xfee0_0000, 0, 0x53, 0]), [0x53]);
        msix.raise(7, &mut |_| panic!("no such vector"));
        msix.raise(3, &mut |_| panic!("no such vector"));
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((0u8..5, any::<u32>(), any::<u32>()), 1..100), count in 1u16..20) {
            let mut msix = Msix::new(count);
            for (kind, offset, value) in operations {
                match kind {
                    0 => { msix.write_table(offset % 300, value, &mut |_| ()); }
                    1 => msix.raise(offset as u16 % 12, &mut |_| ()),
                    2 => msix.set_control(value as u16, &mut |_| ()),
                    3 => { let _ = msix.read_table(offset % 300); }
                    _ => { let _ = msix.read_pending(offset); }
                }
                prop_assert_eq!(msix.pending >> msix.count(), 0);
            }
        }
    }
}
