//! A unit of AMD-Vi, as its specification has it.

use super::{Memory, Outcome};
use std::collections::BTreeMap;

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

#[derive(Default)]
pub struct Unit {
    control: u64,
    devices: u64,
    commands: u64,
    command_head: u64,
    events: u64,
    event_head: u64,
    event_tail: u64,
    overflow: bool,
    entries: BTreeMap<u16, (u64, u64)>,
    /// Pages of domains that were looked up.
    pages: BTreeMap<(u16, u64), bool>,
    /// What functions' entries say of interrupts, and entries of their tables, that were looked up.
    interrupt_words: BTreeMap<u16, u64>,
    interrupts: BTreeMap<(u16, u64), u32>,
}

impl Unit {
    pub fn read(&self, offset: u64) -> u32 {
        let half = |word: u64| (word >> (offset % 8 * 8)) as u32;
        match offset & !7 {
            0x18 => half(self.control),
            // It can forget everything at once.
            0x30 => half(1 << 6),
            0x2020 => half(u64::from(self.overflow)),
            _ => 0,
        }
    }

    pub fn write(&mut self, memory: &mut Memory, offset: u64, value: u32) {
        let put = |word: &mut u64| {
            let shift = offset % 8 * 8;
            *word = *word & !(0xffff_ffff << shift) | u64::from(value) << shift;
        };
        match offset & !7 {
            0x00 => put(&mut self.devices),
            0x08 => {
                assert_eq!(self.control >> 12 & 1, 0, "the commands are moved while they are used");
                put(&mut self.commands);
                self.command_head = 0;
            }
            0x10 => {
                assert_eq!(self.control >> 2 & 1, 0, "the log is moved while it is used");
                put(&mut self.events);
                (self.event_head, self.event_tail) = (0, 0);
            }
            0x18 => put(&mut self.control),
            0x2000 => assert_eq!(value, 0),
            0x2008 if offset == 0x2008 => self.run(memory, u64::from(value)),
            0x2010 if offset == 0x2010 => self.event_head = u64::from(value),
            0x2018 if offset == 0x2018 => self.event_tail = u64::from(value),
            0x2020 => self.overflow &= value & 1 == 0,
            _ => assert_eq!(value, 0, "a write to {offset:#x}"),
        }
    }

    fn run(&mut self, memory: &mut Memory, tail: u64) {
        assert!(tail < 4096 && tail.is_multiple_of(16));
        if self.control & 1 == 0 || self.control >> 12 & 1 == 0 {
            assert_eq!(tail, 0);
            return;
        }
        assert_eq!(self.commands >> 56, 8, "a ring of 256 commands");
        while self.command_head != tail {
            let place = (self.commands & ADDRESS) + self.command_head;
            let (low, high) = (memory.fetch(place), memory.fetch(place + 8));
            self.command_head = (self.command_head + 16) % 4096;
            match low >> 60 {
                1 => {
                    assert_eq!(low & 7, 1);
                    memory.put(low & ADDRESS | low & 0xff8, high);
                }
                2 => {
                    self.interrupt_words.remove(&(low as u16));
                    self.entries.remove(&(low as u16));
                }
                3 => {
                    assert_eq!(high, 0x7fff_ffff_ffff_f003, "all pages, and tables too");
                    let domain = (low >> 32) as u16;
                    self.pages.retain(|(of, _), _| *of != domain);
                }
                5 => {
                    self.interrupts.retain(|(id, _), _| *id != low as u16);
                }
                8 => {
                    self.interrupts.clear();
                    self.entries.clear();
                    self.pages.clear();
                }
                other => panic!("command {other}"),
            }
        }
    }

    pub fn interrupt(&mut self, memory: &Memory, source: u16, address: u64, data: u32) -> Option<(u8, u32)> {
        let place = (self.devices & ADDRESS) + u64::from(source) * 32 + 16;
        let word = *self.interrupt_words.entry(source).or_insert_with(|| memory.fetch(place));
        if self.control & 1 == 0 || word & 1 == 0 {
            return Some((data as u8, (address >> 12) as u32 & 0xff));
        }
        if word >> 60 & 3 == 0 {
            return None;
        }
        assert_eq!(
            word & 0xfff0_0000_0000_005f,
            2 << 60 | 8 << 1 | 1,
            "remapped, by a table of 256 entries, and nothing else let through"
        );
        let number = u64::from(data & 0x7ff);
        if number >= 256 {
            return None;
        }
        let place = (word & 0x000f_ffff_ffff_ff80) + number * 4;
        let fetched = || (memory.fetch(place & !7) >> (place % 8 * 8)) as u32;
        let entry = *self.interrupts.entry((source, number)).or_insert_with(fetched);
        assert_eq!(entry & 0xff00_00fe, 0, "reserved bits, or no fixed delivery to one processor");
        (entry & 1 != 0).then_some(((entry >> 16) as u8, entry >> 8 & 0xff))
    }

    pub fn access(&mut self, memory: &mut Memory, source: u16, address: u64, write: bool) -> Outcome {
        if self.control & 1 == 0 {
            return Outcome::Done;
        }
        assert_eq!(self.devices & 0x1ff, 0x1ff, "a table for all functions");
        let place = (self.devices & ADDRESS) + u64::from(source) * 32;
        let (low, high) = *self
            .entries
            .entry(source)
            .or_insert_with(|| (memory.fetch(place), memory.fetch(place + 8)));
        if low & 1 == 0 {
            // Not translated at all.
            return Outcome::Done;
        }
        assert_eq!(low & 2, 2);
        let (levels, domain) = ((low >> 9 & 7) as u32, high as u16);
        let wanted = 1u64 << if write { 62 } else { 61 };
        let there = low & wanted != 0
            && *self
                .pages
                .entry((domain, address >> 12))
                .or_insert_with(|| walk(memory, low & ADDRESS, levels, address));
        if there {
            return Outcome::Done;
        }
        self.log(memory, source, address, write);
        Outcome::Refused
    }

    fn log(&mut self, memory: &mut Memory, source: u16, address: u64, write: bool) {
        if self.control >> 2 & 1 == 0 || self.overflow {
            return;
        }
        let next = (self.event_tail + 16) % 4096;
        if next == self.event_head {
            self.overflow = true;
            return;
        }
        let place = (self.events & ADDRESS) + self.event_tail;
        memory.put(place + 8, address);
        memory.put(place, 2 << 60 | u64::from(write) << 53 | u64::from(source));
        self.event_tail = next;
    }
}

fn walk(memory: &Memory, mut table: u64, levels: u32, address: u64) -> bool {
    if address >> (12 + 9 * levels) != 0 {
        return false;
    }
    let mut level = levels;
    loop {
        let entry = memory.fetch(table + (address >> (3 + 9 * level) & 0x1ff) * 8);
        if entry & 1 == 0 {
            return false;
        }
        assert_eq!(entry >> 61 & 3, 3);
        let next = (entry >> 9 & 7) as u32;
        if next == 0 {
            let inside = (1u64 << (3 + 9 * level)) - 1;
            assert_eq!(entry & ADDRESS, (address + memory.displaced) & !inside & !0xfff, "other memory");
            return true;
        }
        assert_eq!(next, level - 1, "no level is left out");
        (table, level) = (entry & ADDRESS, next);
    }
}
