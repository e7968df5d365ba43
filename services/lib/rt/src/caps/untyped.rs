//! Memory that objects are made of.

use super::{CNode, Endpoint, Frame, Notification, Reply, ask, order};
use crate::slots;
use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, untyped};
use tessera_manifest::slots as fixed;

capability! {
    /// Memory that objects can be made of.
    Untyped
}

/// How much is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UntypedStatus {
    /// Physical address.
    pub base: u64,
    /// Pages.
    pub pages: u64,
    /// Bytes used.
    pub used: u64,
    /// Device memory.
    pub device: bool,
    /// Bytes behind the used ones that are known to be zero.
    pub zeroed: u64,
}

impl Untyped {
    /// The server's own.
    pub const OWN: Self = Self::new(fixed::UNTYPED);

    /// Makes `count` objects in consecutive slots of `table`, from slot `to` on. `size` is in the kind's unit, see [`untyped::RETYPE`].
    ///
    /// # Errors
    /// `NoMemory`, `SlotOccupied`, `BadArgument`.
    pub fn retype(self, kind: ObjectKind, size: u64, table: CNode, to: u32, count: u32) -> Result<(), Error> {
        loop {
            match self.retype_step(kind, size, table, to, count) {
                // Zeroing much memory goes in portions.
                Err(Error::Again) => {}
                other => return other,
            }
        }
    }

    /// As [`Self::retype`], but returns between the portions in which the kernel zeroes long memory, so that the caller can look after other things.
    ///
    /// # Errors
    /// `Again`: there is more to zero. Otherwise as [`Self::retype`].
    pub fn retype_step(self, kind: ObjectKind, size: u64, table: CNode, to: u32, count: u32) -> Result<(), Error> {
        let place = if table == CNode::OWN { 0 } else { table.slot() };
        let words = [kind as u64, size, place.into(), to.into(), count.into()];
        order(self.slot(), untyped::RETYPE, &words)
    }

    /// Makes an object in a fresh slot and returns the slot.
    ///
    /// # Errors
    /// `NoMemory`: too little memory or no slot left.
    pub fn make(self, kind: ObjectKind, size: u64) -> Result<u32, Error> {
        let slot = slots::take()?;
        self.retype(kind, size, CNode::OWN, slot, 1).inspect_err(|_| slots::free(slot))?;
        Ok(slot)
    }

    /// Makes zeroed memory.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn frame(self, pages: u64) -> Result<Frame, Error> {
        self.make(ObjectKind::Frame, pages).map(Frame::new)
    }

    /// Makes an endpoint.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn endpoint(self) -> Result<Endpoint, Error> {
        self.make(ObjectKind::Endpoint, 0).map(Endpoint::new)
    }

    /// Makes a notification.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn notification(self) -> Result<Notification, Error> {
        self.make(ObjectKind::Notification, 0).map(Notification::new)
    }

    /// Makes a reply object.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn reply(self) -> Result<Reply, Error> {
        self.make(ObjectKind::Reply, 0).map(Reply::new)
    }

    /// Device memory only: a frame of `pages` pages, `offset` bytes from the start.
    ///
    /// # Errors
    /// `BadArgument`, `SlotOccupied`.
    pub fn frame_at(self, offset: u64, pages: u64, table: CNode, to: u32) -> Result<Frame, Error> {
        let place = if table == CNode::OWN { 0 } else { table.slot() };
        order(self.slot(), untyped::FRAME_AT, &[offset, pages, place.into(), to.into()])?;
        Ok(Frame::new(to))
    }

    /// Zeroes the next portion of what is unused, so that nobody waits for that later. Device memory stays as it is.
    ///
    /// # Errors
    /// `Again`: there is more to zero. `BadSlot`, `WrongKind`.
    pub fn zero_ahead(self) -> Result<(), Error> {
        order(self.slot(), untyped::ZERO_AHEAD, &[])
    }

    /// How much is left.
    ///
    /// # Errors
    /// `BadSlot`, `WrongKind`.
    pub fn info(self) -> Result<UntypedStatus, Error> {
        let [base, pages, used, device, zeroed, _] = ask(self.slot(), untyped::INFO, &[])?;
        Ok(UntypedStatus {
            base,
            pages,
            used,
            device: device != 0,
            zeroed,
        })
    }
}
