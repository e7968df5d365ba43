//! A machine with an IOMMU of either kind. It remembers what it has looked up until it is told to forget, as hardware does, and sees nothing that was not flushed to it.

mod amd;
mod vtd;

use std::collections::{BTreeMap, BTreeSet};
use tessera_iommu::{Description, Hardware, Kind, Source, UnitDescription};

const PAGE: u64 = 4096;

/// What an access came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Refused,
}

/// Memory as a unit sees it.
#[derive(Default)]
pub struct Memory {
    /// Words as the processors see them.
    words: BTreeMap<u64, u64>,
    /// Words that got past the caches.
    visible: BTreeMap<u64, u64>,
    taken: BTreeSet<u64>,
    next: u64,
    /// Pages that may still be taken.
    pub left: u64,
    /// How far behind its address the memory lies that a function reaches.
    pub displaced: u64,
}

impl Memory {
    /// What a unit reads. It must not be led to memory that was given back.
    fn fetch(&self, address: u64) -> u64 {
        assert!(
            self.taken.contains(&(address & !0xfff)),
            "the unit reads {address:#x}, which is not its own"
        );
        self.visible.get(&address).copied().unwrap_or(0)
    }

    /// What a unit writes.
    fn put(&mut self, address: u64, word: u64) {
        assert!(
            self.taken.contains(&(address & !0xfff)),
            "the unit writes {address:#x}, which is not its own"
        );
        self.words.insert(address, word);
        self.visible.insert(address, word);
    }
}

enum Unit {
    Vtd(vtd::Unit),
    Amd(amd::Unit),
}

/// The machine.
pub struct Machine {
    pub memory: Memory,
    unit: Unit,
    /// The unit looks into the processors' caches.
    coherent: bool,
    /// The unit answers no more.
    pub silent: bool,
}

impl Machine {
    pub fn new(kind: Kind, coherent: bool, levels: u8) -> Self {
        Self {
            memory: Memory {
                next: 0x10_0000,
                left: 1 << 20,
                ..Memory::default()
            },
            unit: match kind {
                Kind::Vtd => Unit::Vtd(vtd::Unit::new(coherent, levels)),
                Kind::Amd => Unit::Amd(amd::Unit::default()),
            },
            coherent,
            silent: false,
        }
    }

    pub fn description(&self) -> Description {
        Description {
            kind: match self.unit {
                Unit::Vtd(_) => Kind::Vtd,
                Unit::Amd(_) => Kind::Amd,
            },
            units: vec![UnitDescription {
                base: 0xfed0_0000,
                segment: 0,
                function: None,
                flags: 0,
            }],
            reserved: vec![],
            aliases: vec![],
            remaps: true,
            controllers: vec![],
        }
    }

    /// A function accesses memory.
    pub fn access(&mut self, source: Source, address: u64, write: bool) -> Outcome {
        match &mut self.unit {
            Unit::Vtd(unit) => unit.access(&mut self.memory, source.id, address, write),
            Unit::Amd(unit) => unit.access(&mut self.memory, source.id, address, write),
        }
    }

    /// A function writes a message. Answers which vector comes to which local APIC; `None`: it was refused.
    pub fn interrupt(&mut self, source: Source, address: u64, data: u32) -> Option<(u8, u32)> {
        match &mut self.unit {
            Unit::Vtd(unit) => unit.interrupt(&self.memory, source.id, address, data),
            Unit::Amd(unit) => unit.interrupt(&self.memory, source.id, address, data),
        }
    }

    pub fn pages_taken(&self) -> usize {
        self.memory.taken.len()
    }
}

impl Hardware for Machine {
    fn take(&mut self, order: u32) -> Option<u64> {
        let pages = 1u64 << order;
        self.memory.left = self.memory.left.checked_sub(pages)?;
        let base = self.memory.next.next_multiple_of(pages * PAGE);
        self.memory.next = base + pages * PAGE;
        self.memory.taken.extend((base..self.memory.next).step_by(PAGE as usize));
        Some(base)
    }

    fn give(&mut self, page: u64) {
        assert!(self.memory.taken.remove(&page), "{page:#x} is given back and was not taken");
        self.memory.left += 1;
    }

    fn load(&self, address: u64) -> u64 {
        self.memory.words.get(&address).copied().unwrap_or(0)
    }

    fn store(&mut self, address: u64, word: u64, flush: bool) {
        assert!(
            self.memory.taken.contains(&(address & !0xfff)),
            "{address:#x} is written and was not taken"
        );
        self.memory.words.insert(address, word);
        if flush || self.coherent {
            self.memory.visible.insert(address, word);
        }
    }

    fn read(&self, _unit: usize, offset: u64) -> u32 {
        match &self.unit {
            Unit::Vtd(unit) => unit.read(offset),
            Unit::Amd(unit) => unit.read(offset),
        }
    }

    fn write(&mut self, _unit: usize, offset: u64, value: u32) {
        if self.silent {
            return;
        }
        match &mut self.unit {
            Unit::Vtd(unit) => unit.write(&mut self.memory, offset, value),
            Unit::Amd(unit) => unit.write(&mut self.memory, offset, value),
        }
    }
}
