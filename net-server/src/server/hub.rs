//! Carries packets between guests and the first network card: a switch that learns.

use super::{
    card::Card,
    guests::{Guests, Nic},
    host_ports::HostPorts,
};
use alloc::{collections::BTreeMap, rc::Rc, vec::Vec};
use tessera_device::platform;
use tessera_net::{
    bounce::{Bounce, FRAME},
    guest::{Dropped, GuestPacket, Sent, Token},
    nic::Refused,
    offload,
    packet::Packet,
};

/// Packets of one queue in a turn.
const BUDGET: u32 = 64;
/// Most addresses.
const MOST: usize = 1024;
/// Frames for what the card cannot send by itself.
const FRAMES: usize = 128;
/// Milliseconds that a guest without buffers may keep others waiting.
const PATIENCE_MS: u64 = 10;
/// In a tag: it is the number of a frame of our own.
const BOUNCED: u32 = 1 << 31;

/// Where an address was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Guest(u64),
    Host(u64),
    Uplink,
}

/// Where a packet goes.
enum To {
    One(Port),
    All,
    Nowhere,
}

/// The guest's card that has an address.
fn named(nics: &[Rc<Nic>], mac: [u8; 6]) -> Option<u64> {
    let found = nics.iter().find(|nic| nic.device.mac() == mac);
    found.map(|nic| nic.number)
}

/// The switch.
pub struct Hub {
    table: BTreeMap<[u8; 6], Port>,
    held: Vec<Option<(Rc<Nic>, Token)>>,
    free: Vec<u32>,
    bounce: Bounce,
    scratch: offload::Scratch,
    nics: Vec<Rc<Nic>>,
    /// A guest waits for another's buffers, since then (milliseconds).
    waiting: Option<u64>,
    /// Ports of the host's servers.
    pub hosts: HostPorts,
}

impl Hub {
    /// Knows nobody. `None`: there is no memory.
    pub fn new() -> Option<Self> {
        Some(Self {
            table: BTreeMap::new(),
            held: Vec::new(),
            free: Vec::new(),
            bounce: Bounce::new(&platform::allocate(FRAMES * FRAME)?),
            scratch: offload::Scratch::default(),
            nics: Vec::new(),
            waiting: None,
            hosts: HostPorts::default(),
        })
    }

    fn learn(&mut self, from: Port, packet: &dyn Packet, known: impl FnOnce([u8; 6]) -> Option<u64>) -> To {
        let mut head = [0; 12];
        packet.copy_out(0, &mut head);
        let (mut to, mut source) = ([0; 6], [0; 6]);
        to.copy_from_slice(&head[..6]);
        source.copy_from_slice(&head[6..]);
        if source[0] & 1 == 0 && (self.table.len() < MOST || self.table.contains_key(&source)) {
            self.table.insert(source, from);
        }
        if to[0] & 1 != 0 {
            return To::All;
        }
        // Where a guest's card is need not be learned, which matters most after a predecessor's death: what is sent everywhere reaches some who answer for others.
        match self.table.get(&to).copied().or_else(|| known(to).map(Port::Guest)) {
            Some(known) if known == from => To::Nowhere,
            Some(known) => To::One(known),
            None => To::All,
        }
    }

    /// Whether some guest waits for another's buffers.
    pub const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Takes what guests send. True: there is more.
    pub fn turn(&mut self, guests: &Guests, cards: &mut [Card], now: u64) -> bool {
        let mut nics = core::mem::take(&mut self.nics);
        nics.clear();
        guests.each(|nic| nics.push(nic.clone()));
        let mut more = false;
        let since = self.waiting.take();
        for nic in &nics {
            more |= nic.device.transmit(BUDGET, &mut |packet, pair, token| {
                let from = Port::Guest(nic.number);
                let to = self.learn(from, packet, |to| named(&nics, to));
                match to {
                    To::Nowhere => Sent::Done,
                    To::One(Port::Guest(number)) => {
                        let found = nics.iter().find(|other| other.number == number);
                        let outcome = found.map(|other| other.device.receive(packet, None));
                        if outcome == Some(Err(Dropped::NoBuffers)) && since.is_none_or(|since| now - since < PATIENCE_MS) {
                            self.waiting = since.or(Some(now));
                            return Sent::Later;
                        }
                        Sent::Done
                    }
                    To::One(Port::Host(client)) => {
                        self.hosts.give(packet, &mut self.scratch, |port| port == client);
                        Sent::Done
                    }
                    To::One(Port::Uplink) => self.out(nic, packet, pair, token, cards),
                    To::All => {
                        self.hosts.give(packet, &mut self.scratch, |_| true);
                        for other in nics.iter().filter(|other| other.number != nic.number) {
                            let _ = other.device.receive(packet, None);
                        }
                        self.out(nic, packet, pair, token, cards)
                    }
                }
            });
        }
        more |= self.turn_hosts(&nics, cards);
        nics.clear();
        self.nics = nics;
        more
    }

    /// Takes what the host's servers send. True: there is more.
    fn turn_hosts(&mut self, nics: &[Rc<Nic>], cards: &mut [Card]) -> bool {
        let mut hosts = core::mem::take(&mut self.hosts.ports);
        let mut more = false;
        for index in 0..hosts.len() {
            let (before, rest) = hosts.split_at_mut(index);
            let Some((port, after)) = rest.split_first_mut() else { break };
            let client = port.client;
            let mut left = BUDGET;
            while left > 0 {
                let taken = port.take(|frame| {
                    let to = self.learn(Port::Host(client), frame, |to| named(nics, to));
                    for other in before.iter_mut().chain(after.iter_mut()) {
                        if matches!(to, To::All) || matches!(to, To::One(Port::Host(number)) if number == other.client) {
                            other.give(frame);
                        }
                    }
                    for nic in nics {
                        if matches!(to, To::All) || matches!(to, To::One(Port::Guest(number)) if number == nic.number) {
                            let _ = nic.device.receive(frame, None);
                        }
                    }
                    if matches!(to, To::All | To::One(Port::Uplink))
                        && let Some(card) = cards.first_mut()
                    {
                        // What finds no room is lost, as in any network.
                        let send = |copy: &dyn Packet, number: u32| card.transmit(0, copy, number | BOUNCED).is_ok();
                        let _ = self.bounce.copy(frame, send);
                    }
                });
                if !taken {
                    break;
                }
                left -= 1;
            }
            more |= left == 0;
        }
        self.hosts.ports = hosts;
        more
    }

    /// Tells the host's servers of what has come.
    pub fn settle(&mut self) {
        self.hosts.ports.iter_mut().for_each(super::host_ports::HostPort::settle);
    }

    /// Gives a guest's packet to the card.
    fn out(&mut self, nic: &Rc<Nic>, packet: &GuestPacket<'_>, pair: u8, token: Token, cards: &mut [Card]) -> Sent {
        let Some(card) = cards.first_mut() else { return Sent::Done };
        let tag = self.free.pop().unwrap_or_else(|| {
            self.held.push(None);
            self.held.len() as u32 - 1
        });
        match card.transmit(pair.into(), packet, tag) {
            Ok(()) => {
                self.held[tag as usize] = Some((nic.clone(), token));
                return Sent::Held;
            }
            Err(Refused::Full) => {
                self.free.push(tag);
                return Sent::Later;
            }
            Err(Refused::Unfit) => {
                let bounce = &mut self.bounce;
                let mut send = |frame: &dyn Packet| {
                    let sent = bounce.copy(frame, |copy, number| card.transmit(pair.into(), copy, number | BOUNCED).is_ok());
                    if sent { Ok(()) } else { Err(()) }
                };
                // What finds no room is lost, as in any network.
                let _ = offload::finish(packet, &mut self.scratch, &mut send);
            }
            Err(_) => {}
        }
        self.free.push(tag);
        Sent::Done
    }

    /// A card is done with a packet.
    pub fn sent(&mut self, tag: u32) {
        if tag & BOUNCED != 0 {
            self.bounce.free(tag & !BOUNCED);
        } else if let Some((nic, token)) = self.held.get_mut(tag as usize).and_then(Option::take) {
            nic.device.complete(token);
            self.free.push(tag);
        }
    }

    /// A packet came from outside.
    pub fn received(&mut self, packet: &dyn Packet, guests: &Guests) {
        let to = self.learn(Port::Uplink, packet, |to| {
            let mut found = None;
            guests.each(|nic| found = found.or((nic.device.mac() == to).then_some(nic.number)));
            found
        });
        if !matches!(to, To::Nowhere | To::One(Port::Guest(_))) {
            self.hosts.give(
                packet,
                &mut self.scratch,
                |client| !matches!(to, To::One(Port::Host(number)) if number != client),
            );
        }
        guests.each(|nic| {
            if matches!(to, To::All) || matches!(to, To::One(Port::Guest(number)) if number == nic.number) {
                let _ = nic.device.receive(packet, None);
            }
        });
    }
}
