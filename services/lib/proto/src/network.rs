//! Network cards, as `net` serves them to the debug shell and to hostd.

use crate::{Page, declare::interface};
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// What a network card is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NicState {
    /// It serves.
    Ready,
    /// It is being reset.
    Resetting,
    /// It does not do what it is asked any more.
    Failed,
    /// It was taken away.
    Gone,
}

/// What is at the other end of a network card's cable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// There is somebody.
    pub up: bool,
    /// Megabits in a second; 0: unknown.
    pub speed: u32,
    /// Both ends may send at the same time.
    pub full_duplex: bool,
}

/// What a network card has done since the server started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicStatistics {
    /// Packets received. One may be several frames of the cable.
    pub received: u64,
    /// Bytes of them.
    pub received_bytes: u64,
    /// Frames that the card had to drop, since no memory was free.
    pub received_missed: u64,
    /// Frames that arrived broken.
    pub received_errors: u64,
    /// Packets sent. One may be several frames of the cable.
    pub sent: u64,
    /// Bytes of them.
    pub sent_bytes: u64,
    /// Packets that were not taken, since the queues were full.
    pub sent_full: u64,
    /// Packets that were lost in a reset, or since the card is gone.
    pub sent_errors: u64,
    /// Interrupts, or looks where there are none.
    pub interrupts: u64,
    /// Resets.
    pub resets: u64,
    /// Times that the link changed.
    pub link_changes: u64,
}

/// What a network card does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicOffloads {
    /// Fills in checksums of TCP and UDP.
    pub checksum: bool,
    /// Cuts TCP over IPv4.
    pub tcp4: bool,
    /// Cuts TCP over IPv6.
    pub tcp6: bool,
    /// Cuts UDP.
    pub udp: bool,
    /// Says of what arrives that its checksums are right.
    pub verifies: bool,
    /// Joins what arrives into larger packets.
    pub joins: bool,
    /// Puts VLAN tags in.
    pub vlan: bool,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicInfo {
    /// Name, such as `nic0`.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Model.
    pub model: String,
    /// PCI function.
    pub address: String,
    /// Its address on the network.
    pub mac: [u8; 6],
    /// State.
    pub state: NicState,
    /// The link.
    pub link: Link,
    /// Bytes of the longest packet that it takes and gives, without the frame's header; those that are cut or joined may be longer.
    pub mtu: u32,
    /// Pairs of queues.
    pub queues: u16,
    /// What it does by itself.
    pub offloads: NicOffloads,
    /// It takes whatever arrives.
    pub promiscuous: bool,
    /// Statistics.
    pub statistics: NicStatistics,
    /// The last error; empty if there was none.
    pub last_error: String,
}

/// How far [`Server::exercise`] came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exercise {
    /// Requests that were sent.
    pub sent: u32,
    /// Of these, the answered ones.
    pub answered: u32,
    /// The address that was offered last.
    pub offered: [u8; 4],
}

interface! {
    /// The network cards of the machine.
    network = 10;

    /// Network cards, from the `first`th on.
    0 idempotent fn nics(first: u32) -> Page<NicInfo>;
    /// Sends another `rounds` requests for an address (DHCP, RFC 2131) on a card, one after the other, and answers how far it came. Only where the manifest allows the server to
    /// speak for itself.
    1 once fn exercise(nic: &'a str, rounds: u32) -> Exercise;
}
