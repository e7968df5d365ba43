//! Interrupts to user level: a table of vectors, each with the notification it signals.

use core::cell::Cell;

use tessera_abi::Error;

use super::slot::Slot;

/// Device vectors: 0x20 to 0xdf.
pub const VECTORS: usize = 0xc0;
/// `line` of a message-signalled interrupt.
pub const MSI: u64 = u64::MAX;

/// One vector.
pub struct Irq {
    /// The notification it signals.
    pub notification: Slot,
    /// Global system interrupt, or [`MSI`].
    pub line: Cell<u64>,
    /// Processor it goes to.
    pub cpu: Cell<u8>,
    /// It is masked until acknowledged.
    pub masked: Cell<bool>,
    /// Capabilities to it; 0: free.
    pub references: Cell<u32>,
    /// Interrupts so far.
    pub count: Cell<u64>,
}

/// All vectors.
pub struct IrqTable {
    entries: [Irq; VECTORS],
}

// SAFETY: an entry is changed in exclusive mode, or in shared mode by the one processor that its interrupt goes to; see `crate::lock`.
unsafe impl Sync for IrqTable {}

/// The one table.
pub static IRQS: IrqTable = IrqTable {
    entries: [const {
        Irq {
            notification: Slot::new(),
            line: Cell::new(0),
            cpu: Cell::new(0),
            masked: Cell::new(false),
            references: Cell::new(0),
            count: Cell::new(0),
        }
    }; VECTORS],
};

impl IrqTable {
    /// The entry of vector index `index` (0 is vector 0x20).
    pub fn get(&self, index: u64) -> Option<&Irq> {
        self.entries.get(usize::try_from(index).ok()?)
    }

    /// Takes a free vector for `line` on `cpu`; its first capability is the caller's to make.
    ///
    /// # Errors
    /// `BadState` if the line is taken already; `NoMemory` if no vector is free.
    pub fn claim(&self, line: u64, cpu: u8) -> Result<u64, Error> {
        if line != MSI && self.entries.iter().any(|e| e.references.get() != 0 && e.line.get() == line) {
            return Err(Error::BadState);
        }
        let index = self.entries.iter().position(|e| e.references.get() == 0).ok_or(Error::NoMemory)?;
        let entry = &self.entries[index];
        entry.notification.embed();
        entry.line.set(line);
        entry.cpu.set(cpu);
        entry.masked.set(false);
        entry.count.set(0);
        Ok(index as u64)
    }

    /// Counts capabilities to an entry.
    pub fn count(&self, index: u64, change: i32) -> Option<u32> {
        let references = &self.get(index)?.references;
        references.set(references.get().wrapping_add_signed(change));
        Some(references.get())
    }

    /// The entry in which a slot stands.
    pub fn owner(&self, slot: &Slot) -> Option<&Irq> {
        self.entries.iter().find(|e| core::ptr::eq(&e.notification, slot))
    }
}
