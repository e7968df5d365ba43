//! What a call is, apart from its content: how bytes travel, who calls, which capabilities go along.

use crate::Failure;
use core::fmt;
use tessera_abi::{Error, syscall::MAX_CAPS};

/// Why a call gave no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The kernel did not deliver it, or the server ended before it answered ([`Error::ServerDied`]).
    Kernel(Error),
    /// The server refused.
    Failed(Failure),
    /// The server's answer could not be decoded.
    BadReply,
    /// The request does not fit into a message.
    RequestTooLarge,
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Kernel(error)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(error) => formatter.write_str(error.text()),
            Self::Failed(failure) => failure.fmt(formatter),
            Self::BadReply => formatter.write_str("the server's answer makes no sense"),
            Self::RequestTooLarge => formatter.write_str("the request is too large for a message"),
        }
    }
}

/// What came back with a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Bytes of the reply.
    pub bytes: usize,
    /// Capabilities that were stored in the offered slots.
    pub caps: usize,
}

/// Empty consecutive slots of the caller's own capability table, the first of `N`, for capabilities that come with a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots<const N: usize>(pub u32);

/// Carries requests to one server. The runtime implements it over an Endpoint; tests implement it in memory.
pub trait Transport {
    /// Sends one request and waits for the reply.
    ///
    /// `encode` writes the request into the message buffer and returns its length; `decode` is given the reply. `send` are slots of capabilities to send along, `receive` the first of
    /// `receive_count` empty slots for capabilities in the reply.
    ///
    /// # Errors
    /// What `encode` answered, or [`CallError::Kernel`].
    fn exchange(
        &mut self,
        send: &[u32],
        receive: u32,
        receive_count: u32,
        encode: &mut dyn FnMut(&mut [u8]) -> Result<usize, CallError>,
        decode: &mut dyn FnMut(&[u8], Delivery),
    ) -> Result<(), CallError>;
}

/// The circumstances of a call, as a server's operation sees them.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// Badge of the capability that was called: who it is.
    pub badge: u64,
    /// Slot of the first capability that came with the request. The slots are the server's to empty (move or delete).
    pub first_cap: u32,
    /// How many came.
    pub caps: usize,
    give: [u32; MAX_CAPS],
    given: usize,
    deferred: bool,
}

impl Call {
    /// A call by `badge` that brought `caps` capabilities, stored from slot `first_cap` on.
    #[must_use]
    pub const fn new(badge: u64, first_cap: u32, caps: usize) -> Self {
        Self {
            badge,
            first_cap,
            caps,
            give: [0; MAX_CAPS],
            given: 0,
            deferred: false,
        }
    }

    /// The answer comes later: what the operation returns now is not sent. For servers with a loop of their own that keep the Reply.
    pub fn defer(&mut self) {
        self.deferred = true;
    }

    /// Whether the answer comes later.
    #[must_use]
    pub const fn is_deferred(&self) -> bool {
        self.deferred
    }

    /// The slot of capability `index` of those that came with the request.
    #[must_use]
    pub fn cap(&self, index: usize) -> Option<u32> {
        (index < self.caps).then(|| self.first_cap + index as u32)
    }

    /// Sends a copy of the capability in `slot` with the reply; false when the reply already has [`MAX_CAPS`].
    pub fn give(&mut self, slot: u32) -> bool {
        let Some(place) = self.give.get_mut(self.given) else { return false };
        *place = slot;
        self.given += 1;
        true
    }

    /// What the reply takes along.
    #[must_use]
    pub fn given(&self) -> &[u32] {
        self.give.get(..self.given).unwrap_or_default()
    }

    pub(crate) fn take_back(&mut self) {
        self.given = 0;
    }
}
