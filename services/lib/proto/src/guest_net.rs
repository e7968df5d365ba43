//! A virtual machine's network cards, as its VMM reaches them. The VMM emulates the register file of a virtio network device; the queues behind it are served directly from the guest's memory.

use crate::{declare::interface, guest_queues::GuestQueues};
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// Most pairs of queues, one to receive and one to transmit, of one card.
pub const MAX_PAIRS: usize = 4;
/// Most queues of one card: the pairs, and the one for control.
pub const MAX_QUEUES: usize = 2 * MAX_PAIRS + 1;

/// What a network card is to its guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestNicInfo {
    /// Its address.
    pub mac: [u8; 6],
    /// Most bytes of a frame's payload.
    pub mtu: u16,
    /// Whether the link is up.
    pub link: bool,
    /// Speed of the link in Mbit/s; 0: not known.
    pub speed: u32,
    /// Pairs of queues that may be used.
    pub pairs: u16,
}

/// Something that a guest has to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuestNetEvent {
    /// The card's status, which may have changed (virtio 1.2, 5.1.4).
    Status {
        /// Number of the card.
        nic: u32,
        /// The link is up.
        link: bool,
        /// The guest is to tell the network where it is, and has not done so yet.
        announce: bool,
    },
    /// The guest's driver broke a rule: the card does nothing more until it is reset.
    Broken {
        /// Number of the card.
        nic: u32,
        /// Which rule.
        reason: String,
    },
}

interface! {
    /// A virtual machine's network cards, for its VMM; each call is about the caller's own machine.
    guest_net = 11;

    /// What a network card is.
    0 idempotent fn describe(nic: u32) -> GuestNicInfo;
    /// Has a Notification signalled whenever a queue wants an interrupt; replaces an earlier one. Good until the card is reset.
    1 idempotent fn interrupt(nic: u32, queue: u16) takes 1 -> ();
    /// Serves the queues of a card, with the features that driver and device agreed on. `pairs`: how many pairs of queues the card has, which says where the control queue is. `resume`: they were served before, by a
    /// server that ended; what was in flight is done again. Gives the Notification to signal when there is something in a queue.
    2 once fn attach(nic: u32, features: u64, pairs: u16, queues: GuestQueues, resume: bool) gives 1 -> ();
    /// Stops serving a card. Answers when nothing is in flight any more.
    3 idempotent fn reset(nic: u32) -> ();
    /// Waits until there is something to tell.
    4 once fn watch() -> GuestNetEvent;
}
