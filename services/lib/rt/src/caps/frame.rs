//! Memory that can be mapped.

use super::{AddressSpace, CNode, GuestSpace, ask, order};
use tessera_abi::Error;
use tessera_abi::object::{Rights, frame};

capability! {
    /// Pages that can be mapped. A capability is mapped once at a time; copy it to map the pages twice.
    Frame
}

/// Where a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameStatus {
    /// Physical address.
    pub physical: u64,
    /// Pages.
    pub pages: u64,
    /// Mapped address, or 0.
    pub mapped: u64,
}

impl Frame {
    /// Maps all of it. `flags` are those of [`tessera_abi::object::frame`], or 0.
    ///
    /// # Errors
    /// `NoRight`, `AlreadyMapped`, `BadArgument`, `NoMemory` (page tables), `WriteExecute`.
    pub fn map(self, space: AddressSpace, address: u64, rights: Rights, flags: u64) -> Result<(), Error> {
        order(
            self.slot(),
            frame::MAP,
            &[space.slot().into(), address, u64::from(rights.bits()) | flags],
        )
    }

    /// Maps all of it into a guest's memory at a guest-physical address.
    ///
    /// # Errors
    /// As [`Frame::map`].
    pub fn map_guest(self, space: GuestSpace, address: u64, rights: Rights, flags: u64) -> Result<(), Error> {
        order(
            self.slot(),
            frame::MAP,
            &[space.slot().into(), address, u64::from(rights.bits()) | flags],
        )
    }

    /// Takes the mapping back.
    ///
    /// # Errors
    /// `NotMapped`.
    pub fn unmap(self) -> Result<(), Error> {
        order(self.slot(), frame::UNMAP, &[])
    }

    /// Derives a capability to `pages` pages from the `first`th on, in slot `to` of `table`, with at most `rights`.
    ///
    /// # Errors
    /// `BadArgument`, `SlotOccupied`.
    pub fn slice(self, first: u64, pages: u64, table: CNode, to: u32, rights: Rights) -> Result<Self, Error> {
        let place = if table == CNode::OWN { 0 } else { table.slot() };
        order(
            self.slot(),
            frame::SLICE,
            &[first, pages, place.into(), to.into(), rights.bits().into()],
        )?;
        Ok(Self::new(to))
    }

    /// Where it is.
    ///
    /// # Errors
    /// `BadSlot`, `WrongKind`.
    pub fn info(self) -> Result<FrameStatus, Error> {
        let [physical, pages, mapped, ..] = ask(self.slot(), frame::INFO, &[])?;
        Ok(FrameStatus { physical, pages, mapped })
    }
}
