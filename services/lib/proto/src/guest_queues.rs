//! Queues of a guest's device, as its VMM tells the server that serves them.

use crate::wire;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// A queue, as the guest's driver set it up (virtio 1.2, 4.1.4.3). Guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestQueue {
    /// Number.
    pub index: u16,
    /// Descriptors.
    pub size: u16,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
}

/// All queues of a device that are used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestQueues {
    /// The queues, each number once.
    #[serde(with = "wire::list")]
    pub queues: Vec<GuestQueue>,
}
