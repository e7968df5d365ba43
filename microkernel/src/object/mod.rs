//! Kernel objects, one file each, and what they share: the header that counts capabilities, and the way an object ends.

pub mod cnode;
pub mod endpoint;
pub mod irq;
pub mod notification;
pub mod page_tables;
pub mod reply;
pub mod sched_context;
pub mod slot;
pub mod space;
pub mod thread;
pub mod vcpu;

#[cfg(target_os = "none")]
pub mod destroy;

use core::cell::Cell;

use tessera_abi::object::ObjectKind;

use crate::kref::Ref;
use slot::Cap;

/// First bytes of every object that capabilities are counted for. Read as a [`slot::Slot`] it is an empty one, which is what a capability table's slot 0 must be.
#[repr(C)]
#[derive(Default)]
pub struct Header {
    zero: u32,
    /// Capabilities to the object.
    pub references: Cell<u32>,
    /// What it is.
    pub kind: ObjectKind,
    /// Next of the objects that wait for their end.
    pub next: Cell<Option<Ref<Header>>>,
}

impl Header {
    /// For a new object, to which its maker will hand out one capability.
    pub const fn new(kind: ObjectKind) -> Self {
        Self { zero: 0, references: Cell::new(0), kind, next: Cell::new(None) }
    }
}

const _: () = assert!(size_of::<Header>() == 24);

/// Counts one capability more (`change` 1) or less (-1) to the object of `cap`, if it is of a counted kind. Returns what is left.
pub fn count(cap: &Cap, change: i32) -> Option<u32> {
    if cap.kind == ObjectKind::Irq {
        return irq::IRQS.count(cap.object, change);
    }
    if !cap.is_counted() {
        return None;
    }
    // SAFETY: a counted capability names a live object, which starts with its header.
    let header: Ref<Header> = unsafe { Ref::new(cap.object as *mut Header) };
    let left = header.references.get().wrapping_add_signed(change);
    header.references.set(left);
    Some(left)
}
