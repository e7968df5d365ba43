//! A unit of VT-d, as its specification has it. Commands that are reserved or out of order panic.

use super::{Memory, Outcome};
use std::collections::BTreeMap;

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// First table, levels, domain.
type Context = (u64, u8, u16);

pub struct Unit {
    capabilities: u64,
    extended: u64,
    levels: u8,
    status: u32,
    root_register: u64,
    root: u64,
    queue: u64,
    head: u64,
    contexts: BTreeMap<u16, Context>,
    /// Pages of domains that were looked up, and whether something was there: this unit remembers that too.
    pages: BTreeMap<(u16, u64), bool>,
    record: (u64, u64),
    overflow: bool,
    interrupts_register: u64,
    interrupts: u64,
    /// Entries that were looked up.
    entries: BTreeMap<u64, (u64, u64)>,
}

impl Unit {
    pub fn new(coherent: bool, levels: u8) -> Self {
        let sagaw = 1u64 << (levels - 2);
        Self {
            // 256 domains, remembers what is not there, pages of 2 MiB and 1 GiB, one fault record at 0x220.
            capabilities: 2 | 1 << 7 | sagaw << 8 | 0x22 << 24 | 3 << 34,
            // Units of 4 levels know local APICs of 32 bits.
            extended: 2 | u64::from(coherent) | 1 << 3 | u64::from(levels == 4) << 4,
            levels,
            // As firmware leaves it that used it.
            status: 1 << 31 | 1 << 26,
            root_register: 0,
            root: 0,
            queue: 0,
            head: 0,
            contexts: BTreeMap::new(),
            pages: BTreeMap::new(),
            record: (0, 0),
            overflow: false,
            interrupts_register: 0,
            interrupts: 0,
            entries: BTreeMap::new(),
        }
    }

    pub fn read(&self, offset: u64) -> u32 {
        let half = |word: u64| (word >> (offset % 8 * 8)) as u32;
        match offset & !7 {
            0x08 => half(self.capabilities),
            0x10 => half(self.extended),
            0x18 if offset == 0x1c => self.status,
            0x30 if offset == 0x34 => u32::from(self.overflow) | u32::from(self.record.1 >> 63 != 0) << 1,
            0x220 => half(self.record.0),
            0x228 => half(self.record.1),
            _ => 0,
        }
    }

    pub fn write(&mut self, memory: &mut Memory, offset: u64, value: u32) {
        let put = |word: &mut u64| {
            let shift = offset % 8 * 8;
            *word = *word & !(0xffff_ffff << shift) | u64::from(value) << shift;
        };
        match offset {
            0x18 => self.command(value),
            0x20 | 0x24 => put(&mut self.root_register),
            0x34 => self.overflow &= value & 1 == 0,
            0x38 | 0x64 => {}
            0x88 => self.run(memory, u64::from(value)),
            0x8c => assert_eq!(value, 0),
            0x90 | 0x94 => {
                assert_eq!(self.status >> 26 & 1, 0, "the queue is moved while it is used");
                put(&mut self.queue);
                assert_eq!(self.queue & 0xfff, 0, "a queue of one page");
                self.head = 0;
            }
            0x22c => {
                if value >> 31 != 0 {
                    self.record = (0, 0);
                }
            }
            0xb8 | 0xbc => put(&mut self.interrupts_register),
            _ => panic!("a write to {offset:#x}"),
        }
    }

    fn command(&mut self, value: u32) {
        let changed = (value ^ self.status) & (1 << 31 | 1 << 26 | 1 << 25);
        assert_eq!(value >> 23 & 1, 0, "interrupts go past the table");
        let once = value & (1 << 30 | 1 << 27 | 1 << 24);
        assert!((changed | once).count_ones() <= 1, "two commands at once: {value:#x}");
        self.status ^= changed;
        if once & 1 << 30 != 0 {
            self.root = self.root_register;
            self.status |= 1 << 30;
        }
        if once & 1 << 24 != 0 {
            self.interrupts = self.interrupts_register;
            self.status |= 1 << 24;
        }
        if changed & value & 1 << 25 != 0 {
            assert!(self.status & 1 << 24 != 0, "remapping without a table");
        }
        if changed & value >> 31 << 31 != 0 {
            assert!(self.status & 1 << 30 != 0, "translation without a root table");
        }
    }

    fn run(&mut self, memory: &mut Memory, tail: u64) {
        assert!(tail < 4096 && tail.is_multiple_of(16));
        if self.status >> 26 & 1 == 0 {
            assert_eq!(tail, 0);
            return;
        }
        while self.head != tail {
            let (low, high) = (memory.fetch(self.queue + self.head), memory.fetch(self.queue + self.head + 8));
            self.head = (self.head + 16) % 4096;
            let (domain, source) = ((low >> 16) as u16, (low >> 32) as u16);
            match (low & 15, low >> 4 & 3) {
                (1, 1) => self.contexts.clear(),
                (1, 3) => self.contexts.retain(|id, (.., of)| *id != source || *of != domain),
                (2, 1) => self.pages.clear(),
                (2, 2) => {
                    assert_eq!(low >> 6 & 3, 3, "accesses that are on their way are not waited for");
                    self.pages.retain(|(of, _), _| *of != domain);
                }
                (4, 0) => self.entries.clear(),
                (4, 1) => {
                    self.entries.remove(&(low >> 32 & 0xffff));
                }
                (5, _) => {
                    assert_eq!(low >> 5 & 1, 1);
                    memory.put(high & !7, low >> 32);
                }
                other => panic!("descriptor {other:?}"),
            }
        }
    }

    pub fn access(&mut self, memory: &mut Memory, source: u16, address: u64, write: bool) -> Outcome {
        if self.status >> 31 == 0 {
            return Outcome::Done;
        }
        let Some((table, levels, domain)) = self.context(memory, source) else {
            return self.refuse(source, address, write, 2);
        };
        assert_eq!(levels, self.levels, "tables of levels that the unit does not know");
        let there = *self
            .pages
            .entry((domain, address >> 12))
            .or_insert_with(|| walk(memory, table, levels, address));
        if there {
            Outcome::Done
        } else {
            self.refuse(source, address, write, if write { 5 } else { 6 })
        }
    }

    pub fn interrupt(&mut self, memory: &Memory, source: u16, address: u64, data: u32) -> Option<(u8, u32)> {
        assert_eq!(address >> 20, 0xfee);
        if self.status >> 25 & 1 == 0 {
            return Some((data as u8, (address >> 12) as u32 & 0xff));
        }
        let number = address >> 5 & 0x7fff | (address >> 2 & 1) << 15;
        let wide = self.interrupts >> 11 & 1 != 0;
        let length = 2 << (self.interrupts & 15);
        let place = (self.interrupts & ADDRESS) + number * 16;
        if address >> 4 & 1 == 0 || address >> 3 & 1 != 0 || number >= length {
            self.refuse(source, number << 48, true, 0x21);
            return None;
        }
        let fetched = || (memory.fetch(place), memory.fetch(place + 8));
        let (low, high) = *self.entries.entry(number).or_insert_with(fetched);
        let verified = match high >> 18 & 3 {
            0 => true,
            1 => high as u16 == source && high >> 16 & 3 == 0,
            _ => panic!("a range of buses"),
        };
        if low & 1 == 0 || !verified {
            self.refuse(source, number << 48, true, 0x22);
            return None;
        }
        let destination = if wide { (low >> 32) as u32 } else { (low >> 40) as u32 & 0xff };
        assert!(wide || low >> 32 & 0xff == 0 && low >> 48 == 0);
        assert_eq!(low & 0xff00_80ee, 0, "reserved bits, or no fixed delivery to one processor");
        Some(((low >> 16) as u8, destination))
    }

    fn context(&mut self, memory: &Memory, source: u16) -> Option<Context> {
        if let Some(known) = self.contexts.get(&source) {
            return Some(*known);
        }
        let root = memory.fetch(self.root + u64::from(source >> 8) * 16);
        if root & 1 == 0 {
            return None;
        }
        let place = (root & ADDRESS) + u64::from(source & 0xff) * 16;
        let (low, high) = (memory.fetch(place), memory.fetch(place + 8));
        if low & 1 == 0 {
            return None;
        }
        assert_eq!(low & 0xffe, 0, "reserved bits, or a type that is not translated");
        let context = (low & ADDRESS, (high & 7) as u8 + 2, (high >> 8) as u16);
        assert!((1..256).contains(&context.2), "a domain that the unit does not know");
        self.contexts.insert(source, context);
        Some(context)
    }

    fn refuse(&mut self, source: u16, address: u64, write: bool, reason: u64) -> Outcome {
        if self.record.1 >> 63 != 0 {
            self.overflow = true;
        } else {
            let kind = u64::from(!write) << 62;
            self.record = (address & !0xfff, 1 << 63 | kind | reason << 32 | u64::from(source));
        }
        Outcome::Refused
    }
}

fn walk(memory: &Memory, mut table: u64, levels: u8, address: u64) -> bool {
    if address >> (12 + 9 * u32::from(levels)) != 0 {
        return false;
    }
    for level in (1..=u32::from(levels)).rev() {
        let entry = memory.fetch(table + (address >> (3 + 9 * level) & 0x1ff) * 8);
        if entry & 3 == 0 {
            return false;
        }
        assert_eq!(entry & 3, 3);
        if level == 1 || entry & 1 << 7 != 0 {
            let inside = (1u64 << (3 + 9 * level)) - 1;
            assert_eq!(entry & ADDRESS & inside & !0xfff, 0, "a large page that is not aligned");
            assert_eq!(entry & ADDRESS, (address + memory.displaced) & !inside & !0xfff, "other memory");
            return true;
        }
        table = entry & ADDRESS;
    }
    unreachable!("the last level is memory")
}
