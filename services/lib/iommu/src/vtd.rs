//! A unit of VT-d: registers (11.4), root and context tables (9.1, 9.3), the invalidation queue (6.5.2), fault records (7.2.1).

use crate::remapping::{ENTRIES_LOG, Table};
use crate::{Error, Fault, FaultKind, Hardware, Source, hardware::wait, tables::PAGE};
use alloc::vec::Vec;

mod register {
    pub const CAPABILITIES: u64 = 0x08;
    pub const EXTENDED: u64 = 0x10;
    pub const COMMAND: u64 = 0x18;
    pub const STATUS: u64 = 0x1c;
    pub const ROOT: u64 = 0x20;
    pub const FAULT_STATUS: u64 = 0x34;
    pub const FAULT_CONTROL: u64 = 0x38;
    pub const PROTECTED: u64 = 0x64;
    pub const QUEUE_TAIL: u64 = 0x88;
    pub const QUEUE: u64 = 0x90;
    pub const INTERRUPTS: u64 = 0xb8;
}

/// Bits of the command and status registers.
mod command {
    pub const TRANSLATE: u32 = 1 << 31;
    pub const SET_ROOT: u32 = 1 << 30;
    pub const FLUSH_WRITES: u32 = 1 << 27;
    pub const QUEUE: u32 = 1 << 26;
    pub const INTERRUPTS: u32 = 1 << 25;
    pub const SET_INTERRUPTS: u32 = 1 << 24;
    /// Those that stay as they are; the others are done once. Bit 23, which lets interrupts through as they are without remapping, is not kept.
    pub const LASTING: u32 = 0x967f_ffff;
}

/// Descriptors of the queue, a page of them.
const DESCRIPTORS: u64 = PAGE / 16;
/// Most fault records that are looked at in one go.
const MOST_FAULTS: u64 = 16;

/// What a unit can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abilities {
    /// It takes tables of 3 levels, of 4 levels.
    pub levels: [bool; 2],
    /// Highest level at which memory may stand.
    pub large: u8,
    /// It looks into the processors' caches.
    pub coherent: bool,
    /// Domains that it knows.
    pub domains: u32,
    /// It remaps interrupts; to local APICs of 32 bits too.
    pub remaps: [bool; 2],
}

/// A unit.
#[derive(Debug)]
pub struct Unit {
    /// Its number.
    pub number: usize,
    /// Its functions' segment.
    pub segment: u16,
    capabilities: u64,
    /// Physical address of the queue; behind it a page whose first word the unit writes.
    queue: u64,
    tail: u64,
    /// What the unit wrote last to say that it is done.
    ticket: u32,
}

impl Unit {
    /// Looks at the unit.
    pub fn find(number: usize, segment: u16, hardware: &impl Hardware) -> Result<(Self, Abilities), Error> {
        let capabilities = hardware.read64(number, register::CAPABILITIES);
        let extended = hardware.read64(number, register::EXTENDED);
        if capabilities == u64::MAX || capabilities == 0 {
            return Err(Error::Silent(number));
        }
        if extended & 2 == 0 {
            return Err(Error::Lacks(number, "invalidation queue"));
        }
        let abilities = Abilities {
            levels: [capabilities >> 9 & 1 != 0, capabilities >> 10 & 1 != 0],
            large: match capabilities >> 34 & 3 {
                3 => 3,
                1 => 2,
                _ => 1,
            },
            coherent: extended & 1 != 0,
            domains: 1 << (4 + 2 * (capabilities & 7)),
            remaps: [extended >> 3 & 1 != 0, extended >> 3 & 3 == 3],
        };
        let unit = Self {
            number,
            segment,
            capabilities,
            queue: 0,
            tail: 0,
            ticket: 0,
        };
        Ok((unit, abilities))
    }

    /// Gives a command and waits until the status shows it.
    fn command(&self, hardware: &mut impl Hardware, bit: u32, on: bool) -> Result<(), Error> {
        let lasting = hardware.read(self.number, register::STATUS) & command::LASTING;
        let value = if on { lasting | bit } else { lasting & !bit };
        hardware.write(self.number, register::COMMAND, value);
        wait(self.number, || (hardware.read(self.number, register::STATUS) & bit != 0) == on)
    }

    /// Has the unit translate by the root table, and remap interrupts by the other, if there is one.
    pub fn start(&mut self, hardware: &mut impl Hardware, root: u64, interrupts: Option<&Table>) -> Result<(), Error> {
        let status = hardware.read(self.number, register::STATUS);
        // What the firmware left on.
        for bit in [command::TRANSLATE, command::INTERRUPTS, command::QUEUE] {
            if status & bit != 0 {
                self.command(hardware, bit, false)?;
            }
        }
        self.queue = hardware.take(1).ok_or(Error::NoMemory)?;
        hardware.write64(self.number, register::ROOT, root);
        self.flush_writes(hardware)?;
        self.command(hardware, command::SET_ROOT, true)?;
        hardware.write64(self.number, register::QUEUE_TAIL, 0);
        hardware.write64(self.number, register::QUEUE, self.queue);
        self.command(hardware, command::QUEUE, true)?;
        // All contexts, all translations.
        self.submit(hardware, &[[1 | 1 << 4, 0], [2 | 1 << 4 | 3 << 6, 0]])?;
        // Faults are looked for, not announced: a device that makes them without end cannot keep anybody busy.
        hardware.write(self.number, register::FAULT_CONTROL, 1 << 31);
        self.faults(hardware);
        if self.capabilities >> 5 & 3 != 0 {
            // The ranges that the firmware closed for the time before the tables.
            hardware.write(self.number, register::PROTECTED, 0);
        }
        if let Some(table) = interrupts {
            let extended = u64::from(table.wide) << 11;
            hardware.write64(self.number, register::INTERRUPTS, table.page | extended | (ENTRIES_LOG - 1));
            self.command(hardware, command::SET_INTERRUPTS, true)?;
            // All entries.
            self.submit(hardware, &[[4, 0]])?;
            self.command(hardware, command::INTERRUPTS, true)?;
        }
        self.command(hardware, command::TRANSLATE, true)
    }

    /// An entry of the table of interrupts changed.
    pub fn forget_interrupt(&mut self, hardware: &mut impl Hardware, vector: u8) -> Result<(), Error> {
        self.flush_writes(hardware)?;
        self.submit(hardware, &[[4 | 1 << 4 | u64::from(vector) << 32, 0]])
    }

    /// Some old units have stores to tables wait in buffers of their own (CAP.RWBF).
    fn flush_writes(&self, hardware: &mut impl Hardware) -> Result<(), Error> {
        if self.capabilities >> 4 & 1 == 0 {
            return Ok(());
        }
        let lasting = hardware.read(self.number, register::STATUS) & command::LASTING;
        hardware.write(self.number, register::COMMAND, lasting | command::FLUSH_WRITES);
        wait(self.number, || {
            hardware.read(self.number, register::STATUS) & command::FLUSH_WRITES == 0
        })
    }

    /// Has the unit carry out descriptors, and waits until it has.
    fn submit(&mut self, hardware: &mut impl Hardware, descriptors: &[[u64; 2]]) -> Result<(), Error> {
        let done = self.queue + PAGE;
        self.ticket = self.ticket.wrapping_add(1).max(1);
        hardware.store(done, 0, true);
        // 6.5.2.8: writes the ticket when all before it is done.
        let last = [5 | 1 << 5 | u64::from(self.ticket) << 32, done];
        for descriptor in descriptors.iter().chain([&last]) {
            let place = self.queue + self.tail * 16;
            hardware.store(place, descriptor[0], true);
            hardware.store(place + 8, descriptor[1], true);
            self.tail = (self.tail + 1) % DESCRIPTORS;
        }
        hardware.write64(self.number, register::QUEUE_TAIL, self.tail * 16);
        let ticket = self.ticket;
        wait(self.number, || hardware.load(done) as u32 == ticket)
    }

    /// A function's context changed; the domain is the one that it was in.
    pub fn forget_function(&mut self, hardware: &mut impl Hardware, id: u16, domain: u16) -> Result<(), Error> {
        self.flush_writes(hardware)?;
        let domain = u64::from(domain) << 16;
        let context = [1 | 3 << 4 | domain | u64::from(id) << 32, 0];
        self.submit(hardware, &[context, [2 | 2 << 4 | 3 << 6 | domain, 0]])
    }

    /// A domain's tables changed. What was on its way is done afterwards.
    pub fn forget_domain(&mut self, hardware: &mut impl Hardware, domain: u16) -> Result<(), Error> {
        self.flush_writes(hardware)?;
        self.submit(hardware, &[[2 | 2 << 4 | 3 << 6 | u64::from(domain) << 16, 0]])
    }

    /// Takes the fault records, and whether more were lost.
    pub fn faults(&mut self, hardware: &mut impl Hardware) -> (Vec<Fault>, bool) {
        let mut faults = Vec::new();
        let first = (self.capabilities >> 24 & 0x3ff) * 16;
        let records = (self.capabilities >> 40 & 0xff) + 1;
        for record in 0..records.min(MOST_FAULTS) {
            let place = first + record * 16;
            let high = hardware.read64(self.number, place + 8);
            if high >> 63 == 0 || high == u64::MAX {
                continue;
            }
            let reason = (high >> 32) as u8;
            let kind = match (reason, high >> 62 & 1) {
                // 7.1.3: interrupt remapping.
                (0x20..=0x2f, _) => FaultKind::Interrupt,
                (_, 0) => FaultKind::Write,
                _ => FaultKind::Read,
            };
            faults.push(Fault {
                source: Some(Source {
                    segment: self.segment,
                    id: high as u16,
                }),
                address: Some(match (kind, hardware.read64(self.number, place)) {
                    // What names the entry: its number stands in the upper 16 bits (11.4.14).
                    (FaultKind::Interrupt, low) => crate::remapping::address((low >> 48) as u16),
                    (_, low) => low & !0xfff,
                }),
                kind,
                reason,
            });
            hardware.write(self.number, place + 12, 1 << 31);
        }
        let status = hardware.read(self.number, register::FAULT_STATUS);
        let lost = status != u32::MAX && status & 1 != 0;
        if lost {
            hardware.write(self.number, register::FAULT_STATUS, 1);
        }
        (faults, lost)
    }
}

/// The root table of a segment, and its context tables.
#[derive(Debug)]
pub struct Roots {
    /// Segment.
    pub segment: u16,
    /// The root table.
    pub root: u64,
}

impl Roots {
    /// No function reaches anything.
    pub fn new(segment: u16, hardware: &mut impl Hardware) -> Result<Self, Error> {
        let root = hardware.take(0).ok_or(Error::NoMemory)?;
        for place in (root..root + PAGE).step_by(8) {
            hardware.store(place, 0, true);
        }
        Ok(Self { segment, root })
    }

    /// Where a function's context is; its table is made if it is not there.
    fn context(&self, hardware: &mut impl Hardware, source: Source) -> Result<u64, Error> {
        let place = self.root + u64::from(source.bus()) * 16;
        let mut entry = hardware.load(place);
        if entry & 1 == 0 {
            let table = hardware.take(0).ok_or(Error::NoMemory)?;
            for word in (table..table + PAGE).step_by(8) {
                hardware.store(word, 0, true);
            }
            entry = table | 1;
            hardware.store(place, entry, true);
        }
        Ok((entry & !0xfff) + u64::from(source.place()) * 16)
    }

    /// Puts a function into a domain; `None`: it reaches nothing.
    pub fn set(&self, hardware: &mut impl Hardware, source: Source, domain: Option<(u16, u64, u8)>) -> Result<(), Error> {
        let place = self.context(hardware, source)?;
        match domain {
            Some((number, tables, levels)) => {
                hardware.store(place + 8, u64::from(number) << 8 | (u64::from(levels) - 2), true);
                hardware.store(place, tables | 1, true);
            }
            None => hardware.store(place, 0, true),
        }
        Ok(())
    }
}
