//! A PCI function of the host on the guest's bus.
//!
//! Its registers are the guest's: their pages are mapped where the guest puts the function's ranges, and it reaches them without an exit. Everything else is made up here, from what the host saw in configuration space when
//! the function was given:
//!
//! | | |
//! |---|---|
//! | identity, class, subsystem | the function's own |
//! | memory ranges | of the same lengths, below 4 GiB, 32 bits wide; page by page mapped, but for what follows |
//! | table of messages, pending bits (MSI-X) | a model; the pages with them are not mapped, and are zeros beside them |
//! | I/O ranges, expansion ROM, interrupt line | none |
//! | capabilities | MSI-X with as many vectors as the host has for it; a vendor's own, which cannot be written. Others, and those of extended configuration space (ATS, SR-IOV, PASID), are not there |
//! | command register | access to memory is the host's to give, and asked for; the rest is the model's |
//!
//! A vector's interrupt arrives as a bit of a vCPU thread's signals, as a virtio queue's does: the kernel turns it into the vector that the guest wrote into the table, or the model raises it.

use super::function::{Function, Space};
use super::msix::{self, MAX_VECTORS, Msix};
use crate::apic::{Interrupts, Kick, Message};
use crate::boot::layout;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

/// Places on the bus for such functions: what no device of the monitor's own uses.
pub const SLOTS: [u8; 4] = [25, 26, 27, 30];
/// First address for their ranges, until somebody puts them elsewhere.
const FIRST_ADDRESS: u32 = 0xe000_0000;
/// Where ranges end: the I/O APIC follows.
const LAST_ADDRESS: u64 = 0xfec0_0000;
const PAGE: u32 = 0x1000;
/// Command: accesses memory.
const BUS_MASTER: u32 = 4;
const VENDOR_CAPABILITY: u8 = 9;
const VIRTIO: u16 = 0x1af4;
/// Kind of a virtio capability: a window in configuration space to the ranges, which needs the device behind it.
const VIRTIO_WINDOW: u8 = 5;

/// What of a function is outside of the model.
pub trait Backing: fmt::Debug + Send {
    /// Shows the guest the pages of range `bar` at an address, or nowhere.
    fn place(&mut self, bar: u8, address: Option<u32>);
    /// Lets the function access memory, or not any more.
    fn bus_master(&mut self, may: bool);
    /// Has a vector's interrupt set its bit of the signals of vCPU `vcpu`'s thread.
    fn point(&mut self, vector: u16, vcpu: usize);
}

/// What the host knows of a function.
#[derive(Clone, Debug)]
pub struct Description {
    /// The first 256 bytes of configuration space.
    pub configuration: Vec<u8>,
    /// Its memory ranges: number of the base address register, and bytes that are given.
    pub ranges: Vec<(u8, u64)>,
    /// Interrupts that the host has for it.
    pub vectors: u16,
}

/// Part of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    /// Number of the base address register.
    pub bar: u8,
    /// First byte.
    pub start: u32,
    /// Bytes.
    pub length: u32,
}

impl Area {
    /// The pages that hold it: from this offset to that.
    #[must_use]
    pub const fn pages(&self) -> (u32, u32) {
        (
            self.start / PAGE * PAGE,
            (self.start.saturating_add(self.length)).next_multiple_of(PAGE),
        )
    }

    fn offset(&self, bar: u8, offset: u32, width: u8) -> Option<u32> {
        let inside = offset.checked_sub(self.start)?;
        (self.bar == bar && inside + u32::from(width) <= self.length).then_some(inside)
    }
}

/// The function.
#[derive(Debug)]
pub struct Passthrough {
    /// As it is after power-on.
    initial: Function,
    function: Function,
    bars: Vec<u8>,
    msix: Msix,
    table: Area,
    pending: Area,
    msix_register: usize,
    /// The bit of a vCPU thread's signals that stands for vector 0; the others follow.
    first_signal: u32,
    /// Where the guest sees each range.
    placed: [Option<u32>; 6],
    master: bool,
    /// vCPU whose thread each vector signals, and the vector that its bit is routed to there; 0: none, the model gets the bit.
    pointed: [usize; MAX_VECTORS],
    routed: [u8; MAX_VECTORS],
    backing: Box<dyn Backing>,
}

/// A word of configuration space.
fn word(bytes: &[u8], offset: usize) -> u32 {
    let word = bytes.get(offset..offset + 4).and_then(|bytes| bytes.try_into().ok());
    word.map_or(0, u32::from_le_bytes)
}

/// Capabilities: identity and offset. However they are linked, the list ends.
fn capabilities(bytes: &[u8]) -> impl Iterator<Item = (u8, usize)> + '_ {
    let listed = word(bytes, 4) >> 20 & 1 != 0;
    let mut next = if listed { word(bytes, 0x34) as usize & 0xfc } else { 0 };
    let mut left = 48;
    core::iter::from_fn(move || {
        left -= 1;
        if next < 0x40 || left == 0 {
            return None;
        }
        let (at, head) = (next, word(bytes, next));
        next = (head >> 8) as usize & 0xfc;
        Some((head as u8, at))
    })
}

/// The area of a table, out of its word in the capability.
const fn area(word: u32, length: u32) -> Area {
    Area {
        bar: (word & 7) as u8,
        start: word & !7,
        length,
    }
}

/// The areas of the table of messages and of the pending bits that a function's guest is shown, and where the capability is; `None`: it has none.
fn areas(description: &Description) -> Option<(usize, Area, Area)> {
    let bytes = &description.configuration;
    let (_, at) = capabilities(bytes).find(|(kind, at)| *kind == msix::CAPABILITY && *at <= 0xf4)?;
    // The real tables are as long as the function has vectors: what lies behind those that are shown is not mapped either.
    let vectors = (word(bytes, at) >> 16 & 0x7ff) + 1;
    let (table, pending) = (word(bytes, at + 4), word(bytes, at + 8));
    Some((at, area(table, vectors * 16), area(pending, vectors.div_ceil(64) * 8)))
}

/// What is not to be mapped of a function's ranges.
#[must_use]
pub fn hidden(description: &Description) -> Vec<Area> {
    areas(description)
        .map(|(_, table, pending)| [table, pending].into())
        .unwrap_or_default()
}

impl Passthrough {
    /// Function 0 of device `slot`, whose vectors have the bits from `first_signal` on. `address` is where the next range belongs.
    ///
    /// # Errors
    /// It cannot be shown to a guest: why.
    pub fn new(
        slot: u8,
        first_signal: u32,
        address: &mut u32,
        description: &Description,
        backing: Box<dyn Backing>,
    ) -> Result<Self, &'static str> {
        let bytes = &description.configuration;
        let (at, table, pending) = areas(description).ok_or("it has no table of messages")?;
        let vectors = description.vectors.min(MAX_VECTORS as u16);
        if vectors == 0 {
            return Err("the host has no interrupt for it");
        }
        let identity = word(bytes, 0);
        let mut function = Function::new(slot, identity as u16, (identity >> 16) as u16, word(bytes, 8));
        let subsystem = word(bytes, 0x2c);
        function.set_subsystem(subsystem as u16, (subsystem >> 16) as u16);
        let mut bars = Vec::new();
        for (bar, length) in &description.ranges {
            // Several parts of one range tell of its end.
            let length = u32::try_from(*length)
                .ok()
                .filter(|length| *length <= 1 << 30)
                .ok_or("a range is too long")?;
            let length = length.max(PAGE).next_power_of_two();
            let begin = address
                .checked_next_multiple_of(length)
                .ok_or("its ranges do not fit below 4 GiB")?;
            let end = u64::from(begin) + u64::from(length);
            if *bar > 5 || bars.contains(bar) || end > LAST_ADDRESS {
                return Err("its ranges do not fit below 4 GiB");
            }
            *address = end as u32;
            function.set_range(usize::from(*bar), Space::Memory, length, begin);
            bars.push(*bar);
        }
        for (kind, at) in capabilities(bytes) {
            let length = usize::from((word(bytes, at) >> 16) as u8);
            let window = identity as u16 == VIRTIO && (word(bytes, at) >> 24) as u8 == VIRTIO_WINDOW;
            if kind == VENDOR_CAPABILITY && !window && length > 2 {
                let content = bytes
                    .get(at + 2..at + length)
                    .ok_or("a capability is longer than configuration space")?;
                function.add_capability(kind, content, &[]).ok_or("its capabilities do not fit")?;
            }
        }
        let mut content = [0; 10];
        content[..2].copy_from_slice(&(vectors - 1).to_le_bytes());
        content[2..].copy_from_slice(bytes.get(at + 4..at + 12).ok_or("its table of messages is nowhere")?);
        let capability = function
            .add_capability(msix::CAPABILITY, &content, &msix::WRITABLE)
            .ok_or("its capabilities do not fit")?;
        Ok(Self {
            initial: function.clone(),
            function,
            bars,
            msix: Msix::new(vectors),
            table,
            pending,
            msix_register: usize::from(capability) / 4,
            first_signal,
            placed: [None; 6],
            master: false,
            pointed: [0; MAX_VECTORS],
            routed: [0; MAX_VECTORS],
            backing,
        })
    }

    /// Where ranges begin to be placed.
    #[must_use]
    pub const fn first_address() -> u32 {
        FIRST_ADDRESS
    }

    /// Device number on its bus.
    #[must_use]
    pub const fn slot(&self) -> u8 {
        self.function.slot()
    }

    /// Interrupts that it has.
    #[must_use]
    pub const fn vectors(&self) -> u16 {
        self.msix.count()
    }

    /// Power-on state. The function itself is reset by others.
    pub fn reset(&mut self) {
        self.function = self.initial.clone();
        self.msix = Msix::new(self.msix.count());
        // The inboxes are cleared with the machine, and routes with them.
        self.routed = [0; MAX_VECTORS];
        self.settle();
    }

    /// Has the outside follow the registers.
    fn settle(&mut self) {
        let master = self.function.read(1) & BUS_MASTER != 0;
        if master != self.master {
            self.master = master;
            self.backing.bus_master(master);
        }
        let mut wanted = self.placed;
        for bar in &self.bars {
            let number = usize::from(*bar);
            let fits = |start: &u32| {
                let end = u64::from(*start) + u64::from(self.function.length(number));
                u64::from(*start) >= layout::DEVICES && end <= LAST_ADDRESS
            };
            wanted[number] = self.function.range(number, Space::Memory).filter(fits);
        }
        // What moves goes first: one range may come to where another was.
        for (bar, (wanted, placed)) in (0..).zip(wanted.iter().zip(&self.placed)) {
            if placed.is_some() && wanted != placed {
                self.backing.place(bar, None);
            }
        }
        for (bar, (wanted, placed)) in (0..).zip(wanted.iter().zip(&self.placed)) {
            if wanted.is_some() && wanted != placed {
                self.backing.place(bar, *wanted);
            }
        }
        self.placed = wanted;
    }

    /// Reads a register of configuration space.
    #[must_use]
    pub const fn config_read(&self, register: usize) -> u32 {
        self.function.read(register)
    }

    /// Writes a register of configuration space.
    pub fn config_write<K: Kick>(&mut self, register: usize, mask: u32, value: u32, to: &Interrupts<K>) {
        self.function.write(register, mask, value);
        if register == self.msix_register {
            let control = (self.function.read(register) >> 16) as u16;
            self.msix.set_control(control, &mut |message| to.send(&message, None));
            self.reroute(to);
        }
        if register == 1 || (4..10).contains(&register) {
            self.settle();
        }
    }

    /// The range in which an access lies that came here, and the offset there.
    fn at(&self, address: u64, width: u8) -> Option<(u8, u32)> {
        let mut bars = self.bars.iter();
        bars.find_map(|bar| Some((*bar, self.function.offset(usize::from(*bar), Space::Memory, address, width)?)))
    }

    /// Reads where nothing is mapped: the tables, and zeros beside them. `None`: none of its ranges is there.
    #[must_use]
    pub fn range_read(&self, address: u64, width: u8) -> Option<u64> {
        let (bar, offset) = self.at(address, width)?;
        Some(if let Some(offset) = self.table.offset(bar, offset, width) {
            self.msix.read_table_bytes(offset, width)
        } else if let Some(offset) = self.pending.offset(bar, offset, width) {
            self.msix.read_pending_bytes(offset, width)
        } else {
            0
        })
    }

    /// Writes there; false: none of its ranges is there.
    pub fn range_write<K: Kick>(&mut self, address: u64, width: u8, value: u64, to: &Interrupts<K>) -> bool {
        let Some((bar, offset)) = self.at(address, width) else {
            return false;
        };
        if let Some(offset) = self.table.offset(bar, offset, width) {
            let mut send = |message: Message| to.send(&message, None);
            if self.msix.write_table_bytes(offset, width, value, &mut send) {
                self.reroute(to);
            }
        }
        true
    }

    /// Has each vector signal the thread of the vCPU that it is for, and its bit routed to the guest's vector there, or to the model.
    fn reroute<K: Kick>(&mut self, to: &Interrupts<K>) {
        for vector in 0..self.msix.count() {
            let (number, bit) = (usize::from(vector), self.first_signal + u32::from(vector));
            let (target, wanted) = self.msix.route(vector, to).unwrap_or((self.pointed[number], 0));
            if self.pointed[number] != target {
                if core::mem::take(&mut self.routed[number]) != 0 {
                    to.set_route(self.pointed[number], bit, 0);
                }
                self.backing.point(vector, target);
                self.pointed[number] = target;
            }
            if core::mem::replace(&mut self.routed[number], wanted) != wanted {
                to.set_route(target, bit, wanted);
            }
        }
    }

    /// The vector that a bit stands for.
    #[must_use]
    pub fn vector_of(&self, bit: u32) -> Option<u16> {
        let vector = bit.checked_sub(self.first_signal)? as u16;
        (vector < self.msix.count()).then_some(vector)
    }

    /// A vector's interrupt came, and its bit was not routed. `from` is the vCPU whose thread this is.
    pub fn interrupt<K: Kick>(&mut self, vector: u16, to: &Interrupts<K>, from: Option<usize>) {
        self.msix.raise(vector, &mut |message| to.send(&message, from));
    }
}

#[cfg(test)]
#[path = "passthrough_tests.rs"]
mod tests;
