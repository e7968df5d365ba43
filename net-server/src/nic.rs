//! What a driver offers: a network card with its queues.
//!
//! ```text
//!  transmit(queue, packet, vlan, tag)  physical segments go to the card as they are       sink.sent(tag): the memory is free again
//!  flush()                             one doorbell for all of them                            ^
//!  poll(budget, sink) <--- interrupt ------------------------------------------------------- card
//!                                                                                              v
//!                                      the card's memory is its own again afterwards      sink.received(packet, vlan)
//! ```
//!
//! Nothing here waits, and nothing is allocated for a packet. While [`Nic::poll`] finds work, interrupts stay off; [`Nic::listen`] turns them on when there is none.

use crate::packet::Packet;
use alloc::string::String;
use tessera_proto::network::{Link, NicOffloads, NicState, NicStatistics};

/// Why a packet was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full: offer it again when something was sent.
    Full,
    /// The card cannot do this one by itself (too many pieces, an offload that it lacks or cannot do there): copy it, finish it in software, and offer it again.
    Unfit,
    /// It can never be sent: longer than the card takes, shorter than a header, or nowhere that devices reach.
    Impossible,
    /// The card is being reset or gone.
    Down,
}

/// What a card is and can do; does not change while it is [`NicState::Ready`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Model.
    pub model: String,
    /// The card's own address.
    pub mac: [u8; 6],
    /// Longest payload of a frame, in bytes, both ways.
    pub mtu: u32,
    /// Pieces of memory of one packet.
    pub segments: usize,
    /// Queues to send, as many as to receive.
    pub queues: u16,
    /// What it does by itself.
    pub offloads: NicOffloads,
}

/// Which frames a card is to receive, beside broadcasts and its own address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter<'a> {
    /// All.
    pub promiscuous: bool,
    /// All multicasts.
    pub multicast: bool,
    /// Those to one of these addresses. A card that cannot hold so many receives more than was asked for.
    pub addresses: &'a [[u8; 6]],
}

/// Where a driver says what happened.
pub trait Sink {
    /// The card is done with a packet's memory.
    fn sent(&mut self, tag: u32);
    /// A packet arrived. It is there until this returns; `vlan` is the tag (priority, DEI, number; IEEE 802.1Q, 9.6) that was taken out of it.
    fn received(&mut self, packet: &dyn Packet, vlan: Option<u16>);
}

/// How far a driver came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The budget was used up, and there may be more.
    pub more: bool,
    /// State, link or capabilities changed.
    pub changed: bool,
}

/// A network card under its driver. None of this waits.
pub trait Nic {
    /// The driver's name.
    fn driver(&self) -> &'static str;

    /// What it is and can do.
    fn capabilities(&self) -> &Capabilities;

    /// State.
    fn state(&self) -> NicState;

    /// The link.
    fn link(&self) -> Link;

    /// What it has done.
    fn statistics(&self) -> NicStatistics;

    /// Receives these frames from now on. Kept over resets.
    fn filter(&mut self, filter: &Filter<'_>);

    /// Gives a packet to a queue, modulo the number of queues; the card may look at it only after [`Self::flush`]. With `vlan`, that tag is put in. `tag` comes back through
    /// [`Sink::sent`], once, whatever happens; the card reads the packet's memory until then.
    ///
    /// # Errors
    /// See [`Refused`]; the tag does not come back then.
    fn transmit(&mut self, queue: u16, packet: &dyn Packet, vlan: Option<u16>, tag: u32) -> Result<(), Refused>;

    /// Tells the card of what was given to it.
    fn flush(&mut self);

    /// Works off what the card has done, receiving at most `budget` packets. Called after an interrupt, and as long as there is more.
    fn poll(&mut self, budget: u32, sink: &mut dyn Sink) -> Progress;

    /// Has the card interrupt at the next thing that happens. Answers whether something has happened already: poll then.
    fn listen(&mut self) -> bool;

    /// Looks after what takes too long, goes on with a reset, notices that the card is gone, looks at the link. Called every [`WATCH_MS`] milliseconds.
    fn watch(&mut self, now: u64, sink: &mut dyn Sink) -> Progress;

    /// Whether it raises interrupts; if not, it is polled.
    fn has_interrupts(&self) -> bool;

    /// The last error; empty if there was none.
    fn last_error(&self) -> &str;
}

/// Milliseconds between two calls of [`Nic::watch`].
pub const WATCH_MS: u64 = 250;
/// Milliseconds that sending may take while the link is up.
pub const SEND_MS: u64 = 5_000;
