//! A unit of AMD-Vi: registers (3.4), the device table (2.2.2), commands (2.4), the event log (2.5).

use crate::remapping::ENTRIES_LOG;
use crate::{Error, Fault, FaultKind, Hardware, Source, hardware::wait, tables::PAGE};
use alloc::vec::Vec;

mod register {
    pub const DEVICES: u64 = 0x00;
    pub const COMMANDS: u64 = 0x08;
    pub const EVENTS: u64 = 0x10;
    pub const CONTROL: u64 = 0x18;
    pub const FEATURES: u64 = 0x30;
    pub const COMMAND_HEAD: u64 = 0x2000;
    pub const COMMAND_TAIL: u64 = 0x2008;
    pub const EVENT_HEAD: u64 = 0x2010;
    pub const EVENT_TAIL: u64 = 0x2018;
    pub const STATUS: u64 = 0x2020;
}

/// Bits of the control register.
mod control {
    pub const ENABLE: u64 = 1 << 0;
    pub const EVENTS: u64 = 1 << 2;
    pub const COMMANDS: u64 = 1 << 12;
}

/// Pages of the device table as a power of two: an entry of 32 bytes for each of 65,536 functions.
pub const DEVICE_TABLE_ORDER: u32 = 9;
/// Bytes of an entry.
const ENTRY: u64 = 32;
/// Commands or events in a page.
const PLACES: u64 = PAGE / 16;
/// Length of a ring of [`PLACES`], as the registers have it.
const LENGTH: u64 = 8 << 56;
/// Overflow of the event log, in the status register.
const OVERFLOW: u32 = 1;

/// Commands (2.4), in bits 63 to 60.
mod command {
    pub const WAIT: u64 = 1 << 60;
    pub const FUNCTION: u64 = 2 << 60;
    pub const PAGES: u64 = 3 << 60;
    pub const INTERRUPTS: u64 = 5 << 60;
    pub const ALL: u64 = 8 << 60;
    /// All pages: the address for a range of all (2.4.3), and the bit for a range; the bit that has tables forgotten too.
    pub const EVERY_PAGE: u64 = 0x7fff_ffff_ffff_f000 | 3;
}

/// A unit.
#[derive(Debug)]
pub struct Unit {
    /// Its number.
    pub number: usize,
    /// Its functions' segment.
    pub segment: u16,
    flags: u8,
    /// Physical address of the commands; behind it a page whose first word the unit writes, and the event log.
    memory: u64,
    tail: u64,
    head: u64,
    ticket: u64,
}

impl Unit {
    /// Looks at the unit.
    pub fn find(number: usize, segment: u16, flags: u8, hardware: &impl Hardware) -> Result<Self, Error> {
        if hardware.read64(number, register::CONTROL) == u64::MAX {
            return Err(Error::Silent(number));
        }
        Ok(Self {
            number,
            segment,
            flags,
            memory: 0,
            tail: 0,
            head: 0,
            ticket: 0,
        })
    }

    /// Has the unit translate by the device table.
    pub fn start(&mut self, hardware: &mut impl Hardware, devices: u64) -> Result<(), Error> {
        let number = self.number;
        hardware.write64(number, register::CONTROL, 0);
        self.memory = hardware.take(2).ok_or(Error::NoMemory)?;
        let pages = (1u64 << DEVICE_TABLE_ORDER) - 1;
        hardware.write64(number, register::DEVICES, devices | pages);
        hardware.write64(number, register::COMMANDS, self.memory | LENGTH);
        hardware.write64(number, register::COMMAND_HEAD, 0);
        hardware.write64(number, register::COMMAND_TAIL, 0);
        self.reset_events(hardware);
        let features = hardware.read64(number, register::FEATURES);
        let on = self.control() & !control::EVENTS;
        hardware.write64(number, register::CONTROL, on);
        if features >> 6 & 1 != 0 {
            self.submit(hardware, &[[command::ALL, 0]])?;
        } else {
            for id in 0..=u64::from(u16::MAX) {
                let pages = [command::PAGES | id << 32, command::EVERY_PAGE];
                self.submit(hardware, &[[command::FUNCTION | id, 0], pages])?;
            }
        }
        hardware.write64(number, register::CONTROL, self.control());
        Ok(())
    }

    /// The control register (3.4.2): all on, and what the firmware wants of the links.
    fn control(&self) -> u64 {
        let flag = |bit: u8, to: u64| u64::from(self.flags >> bit & 1) << to;
        control::ENABLE | control::EVENTS | control::COMMANDS | flag(0, 1) | flag(1, 8) | flag(2, 9) | flag(3, 11) | flag(5, 10)
    }

    fn events(&self) -> u64 {
        self.memory + 2 * PAGE
    }

    /// Empties the log and has it begin anew (2.5.1).
    fn reset_events(&mut self, hardware: &mut impl Hardware) {
        let log = self.events();
        for word in (log..log + PAGE).step_by(8) {
            hardware.store(word, 0, true);
        }
        hardware.write64(self.number, register::EVENTS, log | LENGTH);
        hardware.write64(self.number, register::EVENT_HEAD, 0);
        hardware.write64(self.number, register::EVENT_TAIL, 0);
        self.head = 0;
        hardware.write(self.number, register::STATUS, OVERFLOW);
    }

    /// Has the unit carry out commands, and waits until it has.
    fn submit(&mut self, hardware: &mut impl Hardware, commands: &[[u64; 2]]) -> Result<(), Error> {
        let done = self.memory + PAGE;
        self.ticket = self.ticket.wrapping_add(1).max(1);
        hardware.store(done, 0, true);
        let last = [command::WAIT | 1 | done, self.ticket];
        for command in commands.iter().chain([&last]) {
            let place = self.memory + self.tail * 16;
            hardware.store(place, command[0], true);
            hardware.store(place + 8, command[1], true);
            self.tail = (self.tail + 1) % PLACES;
        }
        hardware.write64(self.number, register::COMMAND_TAIL, self.tail * 16);
        let ticket = self.ticket;
        wait(self.number, || hardware.load(done) == ticket)
    }

    /// A function's entry changed; the domain is the one that it was in.
    pub fn forget_function(&mut self, hardware: &mut impl Hardware, id: u16, domain: u16) -> Result<(), Error> {
        let pages = [command::PAGES | u64::from(domain) << 32, command::EVERY_PAGE];
        self.submit(hardware, &[[command::FUNCTION | u64::from(id), 0], pages])
    }

    /// A domain's tables changed.
    pub fn forget_domain(&mut self, hardware: &mut impl Hardware, domain: u16) -> Result<(), Error> {
        self.submit(hardware, &[[command::PAGES | u64::from(domain) << 32, command::EVERY_PAGE]])
    }

    /// What a function's entry says of interrupts, or its table of them, changed.
    pub fn forget_interrupts(&mut self, hardware: &mut impl Hardware, id: u16) -> Result<(), Error> {
        let id = u64::from(id);
        self.submit(hardware, &[[command::FUNCTION | id, 0], [command::INTERRUPTS | id, 0]])
    }

    /// Takes what is in the event log, and whether more was lost.
    pub fn faults(&mut self, hardware: &mut impl Hardware) -> (Vec<Fault>, bool) {
        let mut faults = Vec::new();
        // The tail register says how far the log goes, but an event may be seen late in memory: an entry is there when it has a code (2.5.1).
        for _ in 0..PLACES {
            let place = self.events() + self.head * 16;
            let (first, address) = (hardware.load(place), hardware.load(place + 8));
            let code = (first >> 60) as u8;
            if code == 0 {
                break;
            }
            hardware.store(place, 0, true);
            hardware.store(place + 8, 0, true);
            self.head = (self.head + 1) % PLACES;
            faults.push(self.fault(code, first, address));
        }
        if !faults.is_empty() {
            hardware.write64(self.number, register::EVENT_HEAD, self.head * 16);
        }
        let status = hardware.read(self.number, register::STATUS);
        let lost = status != u32::MAX && status & OVERFLOW != 0;
        if lost {
            let on = self.control();
            hardware.write64(self.number, register::CONTROL, on & !control::EVENTS);
            self.reset_events(hardware);
            hardware.write64(self.number, register::CONTROL, on);
        }
        (faults, lost)
    }

    fn fault(&self, code: u8, first: u64, address: u64) -> Fault {
        // 2.5.2 to 2.5.10: 1 illegal device table entry, 2 page fault, 3 and 4 hardware errors with a function, 5 to 8 without.
        let source = matches!(code, 1..=4).then_some(Source {
            segment: self.segment,
            id: first as u16,
        });
        let kind = match code {
            // Page fault: interrupt (bit 51), write (bit 53).
            2 if first >> 51 & 1 != 0 => FaultKind::Interrupt,
            2 if first >> 53 & 1 != 0 => FaultKind::Write,
            2 => FaultKind::Read,
            _ => FaultKind::Unknown,
        };
        Fault {
            source,
            address: Some(address & !3),
            kind,
            reason: code,
        }
    }
}

/// The device table of a segment.
#[derive(Debug)]
pub struct Devices {
    /// Segment.
    pub segment: u16,
    /// The table.
    pub table: u64,
    /// What a function that is in no domain gets: tables of this many levels that map nothing.
    nothing: (u64, u8),
}

/// Bits of an entry's first word.
mod entry {
    /// The entry is valid, and so is what it says of translation. Without the first, a function reaches everything.
    pub const VALID: u64 = 3;
    pub const LEVELS: u32 = 9;
    pub const READ_WRITE: u64 = 3 << 61;
    /// Third word: what it says of interrupts is valid. With nothing else there, all are refused.
    pub const INTERRUPTS: u64 = 1;
    pub const TABLE_LENGTH: u32 = 1;
    /// Those that are fixed are remapped.
    pub const REMAP: u64 = 2 << 60;
}

impl Devices {
    /// No function reaches anything; with `remaps`, nor does one raise an interrupt.
    pub fn new(segment: u16, nothing: (u64, u8), remaps: bool, hardware: &mut impl Hardware) -> Result<Self, Error> {
        let table = hardware.take(DEVICE_TABLE_ORDER).ok_or(Error::NoMemory)?;
        let devices = Self { segment, table, nothing };
        for id in 0..=u16::MAX {
            devices.set(hardware, Source { segment, id }, None);
            if remaps {
                hardware.store(table + u64::from(id) * ENTRY + 16, entry::INTERRUPTS, true);
            }
        }
        Ok(devices)
    }

    /// Says which table of interrupts a function has.
    pub fn set_interrupts(&self, hardware: &mut impl Hardware, source: Source, interrupts: u64) {
        let place = self.table + u64::from(source.id) * ENTRY + 16;
        let word = entry::INTERRUPTS | ENTRIES_LOG << entry::TABLE_LENGTH | interrupts | entry::REMAP;
        hardware.store(place, word, true);
    }

    /// Puts a function into a domain; `None`: it reaches nothing.
    pub fn set(&self, hardware: &mut impl Hardware, source: Source, domain: Option<(u16, u64, u8)>) {
        let place = self.table + u64::from(source.id) * ENTRY;
        let word = match domain {
            Some((_, tables, levels)) => entry::VALID | tables | u64::from(levels) << entry::LEVELS | entry::READ_WRITE,
            None => entry::VALID | self.nothing.0 | u64::from(self.nothing.1) << entry::LEVELS,
        };
        hardware.store(place + 8, domain.map_or(0, |(number, ..)| number.into()), true);
        hardware.store(place, word, true);
    }
}
