//! Capability tables: an array of slots. The header stands in the place of slot 0, and reads as an empty slot.

use core::cell::Cell;

use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, Rights};

use super::Header;
use super::slot::{Cap, FLAG_MAPPED, Slot};

/// Start of the object.
#[repr(C, align(64))]
pub struct CNode {
    /// Header.
    pub header: Header,
    /// Number of slots.
    pub slots: Cell<u32>,
    /// How far its end has come.
    pub progress: Cell<u32>,
}

const _: () = assert!(size_of::<CNode>() == size_of::<Slot>());

impl CNode {
    /// A table of `slots` slots, its own place among them; the others are zeroed memory behind it.
    pub const fn new(slots: u32) -> Self {
        Self { header: Header::new(ObjectKind::CNode), slots: Cell::new(slots), progress: Cell::new(0) }
    }

    /// Where slot 0 would stand.
    pub fn first(&self) -> *const Slot {
        core::ptr::from_ref(self).cast()
    }

    /// A slot other than 0.
    ///
    /// # Errors
    /// `BadSlot`.
    pub fn slot(&self, index: u64) -> Result<&Slot, Error> {
        if index == 0 || index >= u64::from(self.slots.get()) {
            return Err(Error::BadSlot);
        }
        // SAFETY: the object has room for `slots` slots, of which the header takes the first.
        Ok(unsafe { &*self.first().add(index as usize) })
    }
}

/// Whether copies of a capability may exist. Memory that objects are made of has one owner.
pub fn is_copyable(slot: &Slot) -> bool {
    !matches!(slot.kind(), ObjectKind::Null | ObjectKind::Untyped)
}

/// Copies what is in `source` to `target`, as its descendant, with at most `rights`, and with `badge` if that is not 0.
///
/// # Errors
/// `BadSlot` (nothing there), `WrongKind` (no copies of this kind, no badges of this kind), `BadArgument` (has a badge), `SlotOccupied`.
pub fn copy(source: &Slot, target: &Slot, rights: Rights, badge: u64) -> Result<(), Error> {
    if source.is_empty() {
        return Err(Error::BadSlot);
    }
    if !is_copyable(source) {
        return Err(Error::WrongKind);
    }
    let mut cap: Cap = source.cap();
    cap.rights &= rights;
    if badge != 0 {
        if !matches!(cap.kind, ObjectKind::Endpoint | ObjectKind::Notification) {
            return Err(Error::WrongKind);
        }
        if cap.badge != 0 {
            return Err(Error::BadArgument);
        }
        cap.badge = badge;
    }
    if cap.kind == ObjectKind::Frame {
        // Every capability to a frame is mapped by itself.
        cap.flags &= !FLAG_MAPPED;
        cap.badge = 0;
        cap.space = 0;
    }
    target.insert(&cap, Some(source))?;
    super::count(&cap, 1);
    Ok(())
}
