//! Capability tables.

use super::{ask, order};
use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, Rights, cnode};
use tessera_manifest::slots;

capability! {
    /// A capability table.
    CNode
}

/// What stands in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Kind; [`ObjectKind::Null`] if the kernel's is unknown here.
    pub kind: ObjectKind,
    /// Rights.
    pub rights: Rights,
    /// Badge, mapped address or first port.
    pub badge: u64,
    /// The object's identity.
    pub object: u64,
    /// Pages, ports or slots.
    pub size: u64,
    /// Capabilities to the object.
    pub copies: u64,
}

impl CNode {
    /// The server's own table.
    pub const OWN: Self = Self::new(slots::CNODE);

    /// Copies the capability in slot `from` of table `table` into this table as its descendant, with at most `rights`. A `badge` other than 0 marks an unbadged Endpoint
    /// or Notification.
    ///
    /// # Errors
    /// `BadSlot`, `SlotOccupied`, `BadArgument` (already badged), `NoRight`.
    pub fn copy(self, to: u32, table: Self, from: u32, rights: Rights, badge: u64) -> Result<(), Error> {
        let table = if table == Self::OWN { 0 } else { table.slot() };
        order(
            self.slot(),
            cnode::COPY,
            &[to.into(), from.into(), rights.bits().into(), badge, table.into()],
        )
    }

    /// Moves a capability of table `table` into this table.
    ///
    /// # Errors
    /// `BadSlot`, `SlotOccupied`, `NoRight`.
    pub fn take(self, to: u32, table: Self, from: u32) -> Result<(), Error> {
        let table = if table == Self::OWN { 0 } else { table.slot() };
        order(self.slot(), cnode::MOVE, &[to.into(), from.into(), 0, 0, table.into()])
    }

    /// Deletes one capability.
    ///
    /// # Errors
    /// `BadSlot` if the slot is empty.
    pub fn delete(self, slot: u32) -> Result<(), Error> {
        loop {
            match order(self.slot(), cnode::DELETE, &[slot.into()]) {
                Err(Error::Again) => {}
                other => return other,
            }
        }
    }

    /// Deletes all descendants of a capability, however long that takes.
    ///
    /// # Errors
    /// `BadSlot` if the slot is empty.
    pub fn revoke(self, slot: u32) -> Result<(), Error> {
        loop {
            match order(self.slot(), cnode::REVOKE, &[slot.into()]) {
                Err(Error::Again) => {}
                other => return other,
            }
        }
    }

    /// Describes a capability.
    ///
    /// # Errors
    /// `BadSlot` if the slot is empty.
    pub fn describe(self, slot: u32) -> Result<Description, Error> {
        let [kind, rights, badge, object, size, copies] = ask(self.slot(), cnode::DESCRIBE, &[slot.into()])?;
        Ok(Description {
            kind: u8::try_from(kind).ok().and_then(ObjectKind::from_u8).unwrap_or(ObjectKind::Null),
            rights: Rights::from_bits_truncate(rights as u8),
            badge,
            object,
            size,
            copies,
        })
    }

    /// The first occupied slot from `slot` on; the table's size if there is none.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn next_used(self, slot: u32) -> Result<u32, Error> {
        ask(self.slot(), cnode::NEXT_USED, &[slot.into()]).map(|words| words[0] as u32)
    }

    /// Number of slots.
    ///
    /// # Errors
    /// `BadSlot`, `WrongKind`.
    pub fn slots(self) -> Result<u32, Error> {
        ask(self.slot(), cnode::INFO, &[]).map(|words| words[0] as u32)
    }
}
