//! Address spaces of processes and of guests.

use super::{Notification, ask, order};
use crate::message::Message;
use tessera_abi::Error;
use tessera_abi::object::{Rights, space};
use tessera_abi::syscall::REGISTER_BYTES;
use tessera_manifest::slots;

capability! {
    /// A user address space with its pool of page tables.
    AddressSpace
}

capability! {
    /// Nested page tables of a virtual machine, with its doorbells.
    GuestSpace
}

/// The page tables of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceStatus {
    /// Pages of the pool.
    pub pool: u64,
    /// Of these in use.
    pub used: u64,
    /// The space's number.
    pub number: u64,
}

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Physical address.
    pub physical: u64,
    /// Rights of the mapping.
    pub rights: Rights,
    /// Size of the page in bytes.
    pub page_size: u64,
}

fn info(slot: u32) -> Result<SpaceStatus, Error> {
    ask(slot, space::INFO, &[]).map(|words| SpaceStatus {
        pool: words[0],
        used: words[1],
        number: words[2],
    })
}

fn lookup(slot: u32, address: u64) -> Result<Translation, Error> {
    let [physical, rights, page_size, ..] = ask(slot, space::LOOKUP, &[address])?;
    Ok(Translation {
        physical,
        rights: Rights::from_bits_truncate(rights as u8),
        page_size,
    })
}

impl AddressSpace {
    /// The server's own.
    pub const OWN: Self = Self::new(slots::ADDRESS_SPACE);

    /// Its page tables.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn info(self) -> Result<SpaceStatus, Error> {
        info(self.slot())
    }

    /// Where an address leads.
    ///
    /// # Errors
    /// `NotMapped`, `NoRight`.
    pub fn lookup(self, address: u64) -> Result<Translation, Error> {
        lookup(self.slot(), address)
    }
}

/// What a guest writes to, to ring a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// An I/O port.
    Port(u16),
    /// A guest-physical address.
    Address(u64),
}

impl Doorbell {
    const fn words(self) -> [u64; 2] {
        match self {
            Self::Port(port) => [0, port as u64],
            Self::Address(address) => [1, address],
        }
    }
}

impl GuestSpace {
    /// Its page tables.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn info(self) -> Result<SpaceStatus, Error> {
        info(self.slot())
    }

    /// Where a guest-physical address leads.
    ///
    /// # Errors
    /// `NotMapped`, `NoRight`.
    pub fn lookup(self, address: u64) -> Result<Translation, Error> {
        lookup(self.slot(), address)
    }

    /// Signals `notification` with its badge whenever a guest writes there, `length` bytes wide (0: any width).
    ///
    /// # Errors
    /// `NoMemory` (too many), `AlreadyMapped`, `BadArgument`.
    pub fn doorbell(self, place: Doorbell, length: u64, notification: Notification) -> Result<(), Error> {
        let [kind, place] = place.words();
        order(self.slot(), space::DOORBELL, &[kind, place, length, notification.slot().into()])
    }

    /// Which of up to [`space::MAX_TAKEN`] pages from `address` on the guest wrote, or (`accessed`) touched at all, since this was last asked, and forgets it: a bit each, the lowest first.
    ///
    /// # Errors
    /// `Unsupported` where the processors record nothing, `BadArgument`.
    pub fn take_flags(self, address: u64, pages: u64, accessed: bool) -> Result<[u8; space::MAX_TAKEN as usize / 8], Error> {
        let mut message = Message::take();
        order(self.slot(), space::TAKE_FLAGS, &[address, pages, u64::from(accessed)])?;
        let mut bitmap = [0; space::MAX_TAKEN as usize / 8];
        let length = bitmap.len();
        bitmap.copy_from_slice(&message.bytes()[REGISTER_BYTES..REGISTER_BYTES + length]);
        Ok(bitmap)
    }

    /// Removes a doorbell.
    ///
    /// # Errors
    /// `NotMapped` if there is none.
    pub fn remove_doorbell(self, place: Doorbell) -> Result<(), Error> {
        order(self.slot(), space::DOORBELL_REMOVE, &place.words())
    }
}
