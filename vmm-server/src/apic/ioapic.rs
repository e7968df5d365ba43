//! The I/O APIC (Intel 82093AA; ICH9 datasheet 13.5): 24 pins, edge and level triggered.

use super::routing::{Delivery, Interrupts, Kick, Message};
use serde::{Deserialize, Serialize};

/// Number of pins.
pub const PINS: usize = 24;
/// Where its registers are.
pub const ADDRESS: u64 = 0xfec0_0000;
/// Length of the register window.
pub const LENGTH: u64 = 0x1000;
/// Identity, as told in the MADT.
pub const ID: u8 = 0;

const MASKED: u64 = 1 << 16;
const LEVEL: u64 = 1 << 15;
const REMOTE_IRR: u64 = 1 << 14;
const LOGICAL: u64 = 1 << 11;
/// Bits of a redirection entry that can be written: destination, mask, trigger, polarity, destination mode, delivery mode, vector.
const WRITABLE: u64 = 0xff00_0000_0001_afff;
/// Version 0x20 has the EOI register; the last entry's number is in bits 16 to 23.
const VERSION: u32 = 0x20 | ((PINS as u32 - 1) << 16);

/// The I/O APIC.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IoApic {
    select: u8,
    id: u32,
    entries: [u64; PINS],
    levels: u32,
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl IoApic {
    /// After power-on: all pins masked.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            select: 0,
            id: 0,
            entries: [MASKED; PINS],
            levels: 0,
        }
    }

    /// Reads 32 bits at `offset` of the window.
    #[must_use]
    pub const fn read(&self, offset: u64) -> u32 {
        match offset {
            0x00 => self.select as u32,
            0x10 => match self.select {
                0 | 2 => self.id,
                1 => VERSION,
                0x10..0x40 => {
                    let entry = self.entries[(self.select as usize - 0x10) / 2];
                    (if self.select & 1 == 0 { entry } else { entry >> 32 }) as u32
                }
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Writes 32 bits at `offset` of the window.
    pub fn write<K: Kick>(&mut self, offset: u64, value: u32, to: &Interrupts<K>) {
        match offset {
            0x00 => self.select = value as u8,
            0x10 => match self.select {
                0 => self.id = value & 0x0f00_0000,
                0x10..0x40 => self.write_entry(value, to),
                _ => (),
            },
            0x40 => self.end(value as u8, to),
            _ => (),
        }
    }

    fn write_entry<K: Kick>(&mut self, value: u32, to: &Interrupts<K>) {
        let pin = usize::from(self.select - 0x10) / 2;
        let entry = &mut self.entries[pin];
        let keep = *entry & REMOTE_IRR;
        *entry = if self.select & 1 == 0 {
            *entry & !0xffff_ffff | u64::from(value)
        } else {
            *entry & 0xffff_ffff | u64::from(value) << 32
        };
        *entry = *entry & WRITABLE | if *entry & LEVEL != 0 { keep } else { 0 };
        // A level that waited behind the mask goes out now; an edge that came while masked is lost.
        if *entry & LEVEL != 0 && self.levels >> pin & 1 != 0 {
            self.service(pin, to);
        }
    }

    /// Sets the level of a pin, 1 meaning that the device asks (polarity is taken as wired).
    pub fn set_pin<K: Kick>(&mut self, pin: usize, level: bool, to: &Interrupts<K>) {
        let bit = 1u32 << pin;
        let rose = level && self.levels & bit == 0;
        if level {
            self.levels |= bit;
        } else {
            self.levels &= !bit;
        }
        if rose {
            self.service(pin, to);
        }
    }

    fn service<K: Kick>(&mut self, pin: usize, to: &Interrupts<K>) {
        let entry = self.entries[pin];
        let level = entry & LEVEL != 0;
        if entry & MASKED != 0 || (level && entry & REMOTE_IRR != 0) {
            return;
        }
        if level {
            self.entries[pin] |= REMOTE_IRR;
        }
        to.send(
            &Message {
                destination: (entry >> 56) as u32,
                logical: entry & LOGICAL != 0,
                wide: false,
                delivery: Delivery::from_bits(entry >> 8),
                vector: entry as u8,
                level,
            },
            None,
        );
    }

    /// An end of interrupt was broadcast: pins with this vector may ask again.
    pub fn end<K: Kick>(&mut self, vector: u8, to: &Interrupts<K>) {
        for pin in 0..PINS {
            let entry = self.entries[pin];
            if entry & LEVEL != 0 && entry & REMOTE_IRR != 0 && entry as u8 == vector {
                self.entries[pin] &= !REMOTE_IRR;
                if self.levels >> pin & 1 != 0 {
                    self.service(pin, to);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::routing::{Event, tests::Kicks};
    use super::*;
    use proptest::prelude::*;

    fn write(ioapic: &mut IoApic, to: &Interrupts<Kicks>, register: u32, value: u32) {
        ioapic.write(0, register, to);
        ioapic.write(0x10, value, to);
    }

    fn received(to: &Interrupts<Kicks>, vcpu: usize) -> bool {
        let mut got = false;
        if to.inbox(vcpu).take_events() & Event::VECTORS != 0 {
            to.inbox(vcpu).take_vectors(|_, _, _| got = true);
        }
        got
    }

    #[test]
    fn edges() {
        let to = Interrupts::new(2, Kicks::default());
        let mut ioapic = IoApic::new();
        ioapic.set_pin(4, true, &to);
        assert!(!received(&to, 0), "masked");
        ioapic.set_pin(4, false, &to);
        write(&mut ioapic, &to, 0x18, 0x31);
        write(&mut ioapic, &to, 0x19, 1 << 24);
        ioapic.set_pin(4, true, &to);
        assert!(received(&to, 1) && !received(&to, 0));
        ioapic.set_pin(4, true, &to);
        assert!(!received(&to, 1), "no edge, no interrupt");
        ioapic.set_pin(4, false, &to);
        ioapic.set_pin(4, true, &to);
        assert!(received(&to, 1));
    }

    #[test]
    fn levels_wait_for_the_end() {
        let to = Interrupts::new(1, Kicks::default());
        let mut ioapic = IoApic::new();
        ioapic.set_pin(9, true, &to);
        write(&mut ioapic, &to, 0x22, 0x8039);
        assert!(received(&to, 0), "unmasking shows a level that waits");
        assert_eq!(ioapic.read(0x10), 0xc039);
        ioapic.set_pin(9, false, &to);
        ioapic.set_pin(9, true, &to);
        assert!(!received(&to, 0), "not before its end");
        ioapic.end(0x39, &to);
        assert!(received(&to, 0), "still asserted");
        ioapic.set_pin(9, false, &to);
        ioapic.write(0x40, 0x39, &to);
        assert!(!received(&to, 0));
        assert_eq!(ioapic.read(0x10), 0x8039);
    }

    #[test]
    fn version_and_identity() {
        let to = Interrupts::new(1, Kicks::default());
        let mut ioapic = IoApic::new();
        write(&mut ioapic, &to, 1, 0xffff_ffff);
        assert_eq!(ioapic.read(0x10), 0x17_0020);
        write(&mut ioapic, &to, 0, 0xffff_ffff);
        assert_eq!(ioapic.read(0x10), 0x0f00_0000);
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((0u8..4, any::<u8>(), any::<u32>()), 1..300)) {
            let to = Interrupts::new(4, Kicks::default());
            let mut ioapic = IoApic::new();
            for (kind, place, value) in operations {
                match kind {
                    0 => write(&mut ioapic, &to, u32::from(place), value),
                    1 => ioapic.set_pin(usize::from(place) % PINS, value & 1 != 0, &to),
                    2 => ioapic.end(value as u8, &to),
                    _ => { ioapic.write(u64::from(place), value, &to); let _ = ioapic.read(u64::from(place)); }
                }
                for entry in ioapic.entries {
                    prop_assert!(entry & REMOTE_IRR == 0 || entry & LEVEL != 0);
                }
            }
        }
    }
}
