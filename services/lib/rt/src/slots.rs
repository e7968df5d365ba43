//! Free slots of the server's own capability table.

use crate::{CNode, lock::Mutex, slot_table::SlotTable};
use tessera_abi::Error;

static TABLE: Mutex<Option<SlotTable>> = Mutex::new(None);

/// Says which slots are the server's own; the runtime does it at start.
pub fn init(first: u32, end: u32) {
    *TABLE.lock() = Some(SlotTable::new(first, end));
}

/// Takes a free slot.
///
/// # Errors
/// [`Error::NoMemory`] when all are used: the manifest's `slots` is too small.
pub fn take() -> Result<u32, Error> {
    take_range(1)
}

/// Takes `count` consecutive free slots and returns the first.
///
/// # Errors
/// As [`take`].
pub fn take_range(count: u32) -> Result<u32, Error> {
    TABLE.lock().as_mut().and_then(|table| table.take(count)).ok_or(Error::NoMemory)
}

/// Deletes the capability in a slot, if there is one, and gives the slot back.
pub fn free(slot: u32) {
    free_range(slot, 1);
}

/// As [`free`], for `count` consecutive slots.
pub fn free_range(slot: u32, count: u32) {
    for slot in slot..slot.saturating_add(count) {
        // An empty slot answers BadSlot, which is as good.
        let _ = CNode::OWN.delete(slot);
    }
    if let Some(table) = TABLE.lock().as_mut() {
        table.give(slot, count);
    }
}
