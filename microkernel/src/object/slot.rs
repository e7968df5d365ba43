//! Capability slots and the derivation tree.
//!
//! A slot is 64 bytes and stands in a CNode or inside an object that must hold a capability of its own (a thread its tables, a doorbell its
//! notification). Copies and objects made from an `Untyped` are descendants of what they came from, so revoking finds
//! everything, wherever it went, and no object keeps a pointer that revoking would miss.

use core::cell::Cell;

use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, Rights};

use crate::kref::Ref;

/// Slot is inside an object, whose header starts the page.
pub const FLAG_EMBEDDED: u16 = 1;
/// Memory capability: device memory, never zeroed, never made into kernel objects.
pub const FLAG_DEVICE: u16 = 2;
/// Frame: mapped in the space named by `space`.
pub const FLAG_MAPPED: u16 = 4;

/// What a capability says, without its place in the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cap {
    /// What it names.
    pub kind: ObjectKind,
    /// What its holder may do.
    pub rights: Rights,
    /// Flags above.
    pub flags: u16,
    /// Pages of memory, slots of a table, number of ports.
    pub extra: u32,
    /// Object's address, physical address, first port or table index.
    pub object: u64,
    /// Badge; bytes used of an Untyped; address at which a Frame is mapped.
    pub badge: u64,
    /// Frame: the space it is mapped in. Untyped: address up to which unused memory is zero.
    pub space: u64,
}

impl Cap {
    /// The empty capability.
    pub const NULL: Self = Self { kind: ObjectKind::Null, rights: Rights::empty(), flags: 0, extra: 0, object: 0, badge: 0, space: 0 };

    /// A capability with all rights to an object, or to something that there is once.
    pub const fn object(kind: ObjectKind, address: u64, extra: u32) -> Self {
        Self { kind, rights: Rights::all(), flags: 0, extra, object: address, badge: 0, space: 0 }
    }

    /// Whether the object starts with a [`super::Header`] that counts capabilities.
    pub const fn is_counted(&self) -> bool {
        matches!(
            self.kind,
            ObjectKind::CNode
                | ObjectKind::AddressSpace
                | ObjectKind::GuestSpace
                | ObjectKind::Thread
                | ObjectKind::SchedContext
                | ObjectKind::Endpoint
                | ObjectKind::Reply
                | ObjectKind::Notification
                | ObjectKind::Vcpu
        )
    }
}

/// A slot.
#[repr(C, align(64))]
#[derive(Default)]
pub struct Slot {
    kind: Cell<ObjectKind>,
    rights: Cell<u8>,
    flags: Cell<u16>,
    extra: Cell<u32>,
    object: Cell<u64>,
    badge: Cell<u64>,
    space: Cell<u64>,
    parent: Cell<Option<Ref<Slot>>>,
    child: Cell<Option<Ref<Slot>>>,
    next: Cell<Option<Ref<Slot>>>,
    previous: Cell<Option<Ref<Slot>>>,
}

const _: () = assert!(size_of::<Slot>() == tessera_abi::object::size::SLOT);

impl Slot {
    /// An empty slot. All-zero memory is one too.
    pub const fn new() -> Self {
        Self {
            kind: Cell::new(ObjectKind::Null),
            rights: Cell::new(0),
            flags: Cell::new(0),
            extra: Cell::new(0),
            object: Cell::new(0),
            badge: Cell::new(0),
            space: Cell::new(0),
            parent: Cell::new(None),
            child: Cell::new(None),
            next: Cell::new(None),
            previous: Cell::new(None),
        }
    }

    /// What is in it.
    #[inline(always)]
    pub fn kind(&self) -> ObjectKind {
        self.kind.get()
    }

    /// Whether nothing is in it.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.kind.get() == ObjectKind::Null
    }

    /// Rights of what is in it.
    #[inline(always)]
    pub fn rights(&self) -> Rights {
        // Slots are only written from `Rights`.
        Rights::from_bits_retain(self.rights.get())
    }

    /// Whether it holds a `kind` with at least `rights`: the check of the fast path.
    #[inline(always)]
    pub fn is(&self, kind: ObjectKind, rights: Rights) -> bool {
        self.kind.get() == kind && self.rights.get() & rights.bits() == rights.bits()
    }

    /// Object field.
    #[inline(always)]
    pub fn object(&self) -> u64 {
        self.object.get()
    }

    /// Badge field.
    #[inline(always)]
    pub fn badge(&self) -> u64 {
        self.badge.get()
    }

    /// Whether it stands inside an object.
    pub fn is_embedded(&self) -> bool {
        self.flags.get() & FLAG_EMBEDDED != 0
    }

    /// The capability in it.
    pub fn cap(&self) -> Cap {
        Cap {
            kind: self.kind.get(),
            rights: self.rights(),
            flags: self.flags.get() & !FLAG_EMBEDDED,
            extra: self.extra.get(),
            object: self.object.get(),
            badge: self.badge.get(),
            space: self.space.get(),
        }
    }

    /// Checks kind and rights together.
    ///
    /// # Errors
    /// `BadSlot` if empty, `WrongKind`, `NoRight`.
    pub fn require(&self, kind: ObjectKind, rights: Rights) -> Result<&Self, Error> {
        if self.kind.get() != kind {
            return Err(if self.is_empty() { Error::BadSlot } else { Error::WrongKind });
        }
        if self.rights.get() & rights.bits() != rights.bits() {
            return Err(Error::NoRight);
        }
        Ok(self)
    }

    /// Changes the badge field: bytes used of an Untyped.
    pub fn set_badge(&self, badge: u64) {
        self.badge.set(badge);
    }

    /// Address up to which the unused memory of an Untyped is zero, from its first unused byte on. Not above that: nothing is known.
    pub fn zeroed_until(&self) -> u64 {
        self.space.get()
    }

    /// Sets [`Slot::zeroed_until`].
    pub fn set_zeroed_until(&self, address: u64) {
        self.space.set(address);
    }

    /// Notes where a Frame is mapped, or (`None`) that it is not.
    pub fn set_mapping(&self, mapping: Option<(u64, u64)>) {
        let (space, address) = mapping.unwrap_or((0, 0));
        self.space.set(space);
        self.badge.set(address);
        let flags = self.flags.get() & !FLAG_MAPPED;
        self.flags.set(if mapping.is_some() { flags | FLAG_MAPPED } else { flags });
    }

    /// Marks a slot that stands inside an object; done once, when the object is made.
    pub fn embed(&self) {
        self.flags.set(FLAG_EMBEDDED);
    }

    /// A slot that was derived from this one, if there is any.
    pub fn child(&self) -> Option<Ref<Slot>> {
        self.child.get()
    }

    fn write(&self, cap: &Cap) {
        self.kind.set(cap.kind);
        self.rights.set(cap.rights.bits());
        self.flags.set(cap.flags & !FLAG_EMBEDDED | self.flags.get() & FLAG_EMBEDDED);
        self.extra.set(cap.extra);
        self.object.set(cap.object);
        self.badge.set(cap.badge);
        self.space.set(cap.space);
    }

    /// Puts a capability into an empty slot as a child of `parent` (or as a root).
    ///
    /// # Errors
    /// `SlotOccupied`.
    pub fn insert(&self, cap: &Cap, parent: Option<&Slot>) -> Result<(), Error> {
        if !self.is_empty() {
            return Err(Error::SlotOccupied);
        }
        self.write(cap);
        self.link_under(parent);
        Ok(())
    }

    fn link_under(&self, parent: Option<&Slot>) {
        let me = Ref::from(self);
        self.previous.set(None);
        self.parent.set(parent.map(Ref::from));
        let next = parent.and_then(|p| p.child.replace(Some(me)));
        self.next.set(next);
        if let Some(next) = next {
            next.previous.set(Some(me));
        }
    }

    /// Makes whoever comes before this slot (or is its parent) name `following`, and whoever comes after it name `preceding`.
    fn refer(&self, following: Option<Ref<Slot>>, preceding: Option<Ref<Slot>>) {
        match (self.previous.get(), self.parent.get()) {
            (Some(previous), _) => previous.next.set(following),
            (None, Some(parent)) => parent.child.set(following),
            (None, None) => {}
        }
        if let Some(next) = self.next.get() {
            next.previous.set(preceding);
        }
    }

    fn unlink(&self) {
        self.refer(self.next.get(), self.previous.get());
        self.previous.set(None);
        self.next.set(None);
        self.parent.set(None);
    }

    /// Empties the slot and hands out what was in it. Its children become its parent's.
    pub fn remove(&self) -> Cap {
        let cap = self.cap();
        let parent = self.parent.get();
        while let Some(child) = self.child.get() {
            child.unlink();
            child.link_under(parent.as_deref());
        }
        self.unlink();
        self.write(&Cap::NULL);
        cap
    }

    /// Moves the capability, with its place in the tree, into an empty slot.
    ///
    /// # Errors
    /// `SlotOccupied`; `BadSlot` if there is nothing to move.
    pub fn move_to(&self, destination: &Slot) -> Result<(), Error> {
        if self.is_empty() {
            return Err(Error::BadSlot);
        }
        if !destination.is_empty() {
            return Err(Error::SlotOccupied);
        }
        destination.write(&self.cap());
        let me = Ref::from(destination);
        destination.parent.set(self.parent.take());
        destination.previous.set(self.previous.take());
        destination.next.set(self.next.take());
        destination.child.set(self.child.take());
        destination.refer(Some(me), Some(me));
        let mut child = destination.child.get();
        while let Some(c) = child {
            c.parent.set(Some(me));
            child = c.next.get();
        }
        self.write(&Cap::NULL);
        Ok(())
    }

    /// The deepest first descendant: what revoking deletes next. `None` if there are no descendants.
    pub fn leaf(&self) -> Option<Ref<Slot>> {
        let mut leaf = self.child.get()?;
        while let Some(deeper) = leaf.child.get() {
            leaf = deeper;
        }
        Some(leaf)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn descends_from(slot: &Slot, other: &Slot) -> bool {
        core::iter::successors(slot.parent.get(), |at| at.parent.get()).any(|at| core::ptr::eq(at.as_ptr(), other))
    }

    fn memory(pages: u32) -> Cap {
        Cap { kind: ObjectKind::Frame, rights: Rights::all(), flags: 0, extra: pages, object: 0x1000, badge: 0, space: 0 }
    }

    /// The tree as a plain list of parents, to compare with.
    #[derive(Clone, Debug, Default)]
    struct Model {
        parent: Vec<Option<Option<usize>>>,
    }

    #[derive(Clone, Debug)]
    enum Step {
        Derive(usize, usize),
        Remove(usize),
        Move(usize, usize),
        Revoke(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let slot = 0..12_usize;
        prop_oneof![
            4 => (slot.clone(), slot.clone()).prop_map(|(a, b)| Step::Derive(a, b)),
            1 => slot.clone().prop_map(Step::Remove),
            1 => (slot.clone(), slot.clone()).prop_map(|(a, b)| Step::Move(a, b)),
            1 => slot.prop_map(Step::Revoke),
        ]
    }

    fn check(slots: &[Slot], model: &Model) {
        for (i, slot) in slots.iter().enumerate() {
            assert_eq!(slot.is_empty(), model.parent[i].is_none(), "slot {i}");
            let parent = slot.parent.get().map(|p| slots.iter().position(|s| core::ptr::eq(s, p.as_ptr())).unwrap());
            assert_eq!(parent, model.parent[i].flatten(), "parent of {i}");
            // Every sibling list is doubly linked and names its parent.
            let mut child = slot.child();
            let mut previous: Option<Ref<Slot>> = None;
            let mut count = 0;
            while let Some(c) = child {
                assert_eq!(c.previous.get(), previous);
                assert_eq!(c.parent.get(), Some(Ref::from(slot)));
                previous = Some(c);
                child = c.next.get();
                count += 1;
            }
            assert_eq!(count, model.parent.iter().filter(|p| **p == Some(Some(i))).count(), "children of {i}");
        }
    }

    proptest! {
        #[test]
        fn tree_matches_a_list_of_parents(steps in proptest::collection::vec(step(), 1..200)) {
            let slots: Vec<Slot> = (0..12).map(|_| Slot::new()).collect();
            let mut model = Model { parent: std::vec![None; 12] };
            slots[0].insert(&memory(1), None).unwrap();
            model.parent[0] = Some(None);
            for step in steps {
                match step {
                    Step::Derive(from, to) => {
                        let expected = model.parent[from].is_some() && model.parent[to].is_none();
                        let done = !slots[from].is_empty() && slots[to].insert(&slots[from].cap(), Some(&slots[from])).is_ok();
                        prop_assert_eq!(done, expected);
                        if done { model.parent[to] = Some(Some(from)); }
                    }
                    Step::Remove(at) => {
                        if model.parent[at].is_some() {
                            slots[at].remove();
                            let up = model.parent[at].take().flatten();
                            for p in &mut model.parent { if *p == Some(Some(at)) { *p = Some(up); } }
                        }
                    }
                    Step::Move(from, to) => {
                        let expected = model.parent[from].is_some() && model.parent[to].is_none();
                        prop_assert_eq!(slots[from].move_to(&slots[to]).is_ok(), expected);
                        if expected {
                            model.parent[to] = model.parent[from].take();
                            for p in &mut model.parent { if *p == Some(Some(from)) { *p = Some(Some(to)); } }
                        }
                    }
                    Step::Revoke(at) => {
                        while let Some(leaf) = slots[at].leaf() {
                            prop_assert!(descends_from(&leaf, &slots[at]));
                            leaf.remove();
                        }
                        loop {
                            let doomed: Vec<usize> = (0..12).filter(|&i| {
                                let mut up = model.parent[i].flatten();
                                while let Some(u) = up { if u == at { return true; } up = model.parent[u].flatten(); }
                                false
                            }).collect();
                            if doomed.is_empty() { break; }
                            for d in doomed { model.parent[d] = None; }
                        }
                    }
                }
                check(&slots, &model);
            }
        }
    }

    #[test]
    fn an_occupied_slot_is_refused() {
        let a = Slot::new();
        let b = Slot::new();
        a.insert(&memory(1), None).unwrap();
        b.insert(&memory(2), None).unwrap();
        assert_eq!(b.insert(&memory(1), Some(&a)), Err(Error::SlotOccupied));
        assert_eq!(a.move_to(&b), Err(Error::SlotOccupied));
        assert_eq!(b.cap().extra, 2);
    }

    #[test]
    fn rights_are_checked_with_the_kind() {
        let a = Slot::new();
        assert_eq!(a.require(ObjectKind::Frame, Rights::READ).err(), Some(Error::BadSlot));
        a.insert(&Cap { rights: Rights::READ, ..memory(1) }, None).unwrap();
        assert!(a.require(ObjectKind::Frame, Rights::READ).is_ok());
        assert_eq!(a.require(ObjectKind::Frame, Rights::WRITE).err(), Some(Error::NoRight));
        assert_eq!(a.require(ObjectKind::Thread, Rights::READ).err(), Some(Error::WrongKind));
    }
}
