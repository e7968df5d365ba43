//! Notifications.

use crate::sys;
use tessera_abi::Error;
use tessera_manifest::slots;

capability! {
    /// A word of bits to signal and to wait for.
    Notification
}

impl Notification {
    /// The first thread's, bound to it.
    pub const FIRST: Self = Self::new(slots::NOTIFICATION);

    /// Sets the bits of this capability's badge.
    ///
    /// # Errors
    /// `NoRight`, `BadSlot`.
    #[inline(always)]
    pub fn signal(self) -> Result<(), Error> {
        sys::signal(self.slot())
    }

    /// Waits for bits and takes them all. The deadline is a TSC value.
    ///
    /// # Errors
    /// `TimedOut`, `Deleted`, `NoRight`.
    #[inline(always)]
    pub fn wait(self, deadline: Option<u64>) -> Result<u64, Error> {
        sys::wait(self.slot(), deadline)
    }

    /// Takes the bits if there are any.
    ///
    /// # Errors
    /// `WouldBlock`, `NoRight`.
    #[inline(always)]
    pub fn poll(self) -> Result<u64, Error> {
        sys::poll(self.slot())
    }
}
