//! Carries packets between guests, the host's servers and network cards, as the switch decides.

use super::{
    captures::Captures,
    card::Card,
    fabric::{At, Fabric},
    guests::Nic,
    host_ports::HostPorts,
    vswitch::End,
};
use alloc::{rc::Rc, vec::Vec};
use tessera_device::platform;
use tessera_net::{
    bounce::{Bounce, FRAME},
    capture::Direction,
    guest::{Dropped, Sent, Token},
    nic::Refused,
    offload,
    packet::{Bytes, Offload, Packet},
    switch::{Drop, Head, Output, Outputs, Verdict},
    tag::{Tagged, retag},
};
use tessera_rt::time;

/// Packets of one queue in a turn.
const BUDGET: u32 = 64;
/// Frames for what the card cannot send by itself.
const FRAMES: usize = 128;
/// Nanoseconds that a guest without buffers may keep others waiting.
const PATIENCE: u64 = 10_000_000;
/// In a tag: it is the number of a frame of our own.
const BOUNCED: u32 = 1 << 31;

/// A packet on its way.
struct Packed<'a> {
    packet: &'a dyn Packet,
    head: Head,
    /// The pair of queues that it came from.
    pair: u8,
    /// Whose memory it lies in, where that may be kept until a card is done with it.
    owner: Option<(&'a Rc<Nic>, Token)>,
}

/// The data plane.
pub struct Hub {
    /// The switches.
    pub fabric: Fabric,
    outputs: Outputs,
    held: Vec<Option<(Rc<Nic>, Token)>>,
    free: Vec<u32>,
    bounce: Bounce,
    scratch: offload::Scratch,
    /// Nanoseconds, at the turn's begin.
    now: u64,
    /// A guest waits for another's buffers.
    waiting: bool,
    /// Somebody has to wait for its rate until then.
    due: Option<u64>,
    /// Captures.
    pub captures: Captures,
    /// Ports of the host's servers.
    pub hosts: HostPorts,
    /// Something may have changed at the ports of a switch.
    pub changed: bool,
}

/// Whether a packet stands for frames of at most `longest` bytes. What the sender says of its headers may be wrong by what fits into one.
fn is_cut(packet: &dyn Packet, longest: u32) -> bool {
    let cut = packet.offload().segmentation;
    cut.is_some_and(|cut| u32::from(cut.size) + u32::from(cut.header) <= longest)
}

/// Now.
pub fn nanoseconds() -> u64 {
    time::from_ticks(time::now(), 1_000_000_000, time::hz())
}

impl Hub {
    /// The switches that are configured. `None`: there is no memory.
    pub fn new(cards: &mut [Card]) -> Option<Self> {
        Some(Self {
            fabric: Fabric::new(cards, nanoseconds()),
            outputs: Outputs::new(),
            held: Vec::new(),
            free: Vec::new(),
            bounce: Bounce::new(&platform::allocate(FRAMES * FRAME)?),
            scratch: offload::Scratch::default(),
            now: nanoseconds(),
            waiting: false,
            due: None,
            captures: Captures::default(),
            hosts: HostPorts::default(),
            changed: true,
        })
    }

    /// Nanoseconds, at the begin of the turn.
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Nanoseconds until somebody who waits has to be asked again. `None`: nobody waits.
    pub fn wait(&self) -> Option<u64> {
        let patience = self.waiting.then_some(PATIENCE / 10);
        let rate = self.due.map(|due| due.saturating_sub(self.now));
        patience.into_iter().chain(rate).min()
    }

    /// Takes what guests and the host's servers send. True: there is more.
    pub fn turn(&mut self, cards: &mut [Card]) -> bool {
        self.now = nanoseconds();
        self.waiting = false;
        self.due = None;
        if core::mem::take(&mut self.changed) {
            self.fabric.follow(cards);
        }
        let mut more = false;
        self.fabric.waiting.retain(|waiting| {
            let Some(nic) = waiting.nic.upgrade() else { return false };
            more |= nic.device.transmit(BUDGET, self.now, &mut |_, _, _| Sent::Done);
            true
        });
        for switch in 0..self.fabric.switches.len() {
            more |= self.turn_switch(switch, cards);
        }
        more
    }

    /// Takes what is sent at the ports of a switch. True: there is more.
    fn turn_switch(&mut self, switch: usize, cards: &mut [Card]) -> bool {
        let mut more = false;
        let slots = self.fabric.get(switch).map_or(0..0, super::vswitch::VSwitch::slots);
        for slot in slots {
            let from = At { switch, slot };
            match self.fabric.get(switch).and_then(|one| one.end(slot)) {
                Some(End::Guest { nic, .. }) => {
                    let Some(nic) = nic.upgrade() else { continue };
                    more |= nic.device.transmit(BUDGET, self.now, &mut |packet, pair, token| {
                        let owner = Some((&nic, token));
                        self.forward(from, packet, None, (pair, owner), cards)
                    });
                }
                Some(End::Host { place, .. }) => {
                    let place = *place;
                    more |= self.turn_host(from, place, cards);
                }
                Some(End::Uplink { .. }) | None => {}
            }
        }
        more
    }

    /// Takes what one of the host's servers sends. True: there is more.
    fn turn_host(&mut self, from: At, place: usize, cards: &mut [Card]) -> bool {
        for _ in 0..BUDGET {
            let Some(port) = self.hosts.ports.get_mut(place) else {
                return false;
            };
            let Some(taken) = port.take() else { return false };
            let sent = self.forward(from, &Bytes::plain(taken.bytes()), None, (0, None), cards);
            if let Some(port) = self.hosts.ports.get_mut(place) {
                port.put_back(taken, sent == Sent::Later);
            }
            if sent == Sent::Later {
                return false;
            }
        }
        true
    }

    /// Has the switch decide, and gives a packet to those who are to get it.
    fn forward(
        &mut self,
        from: At,
        packet: &dyn Packet,
        vlan: Option<u16>,
        (pair, owner): (u8, Option<(&Rc<Nic>, Token)>),
        cards: &mut [Card],
    ) -> Sent {
        let Some(head) = Head::read(packet, vlan) else { return Sent::Done };
        let Some(switch) = self.fabric.get_mut(from.switch) else {
            return Sent::Done;
        };
        if head.length > switch.longest && !is_cut(packet, switch.longest) {
            switch.switch.count_drop(from.slot, Drop::TooLong, &head);
            return Sent::Done;
        }
        let mut outputs = core::mem::take(&mut self.outputs);
        let verdict = switch.switch.forward(self.now, from.slot, &head, &mut outputs);
        let sent = match verdict {
            Verdict::Dropped(_) => Sent::Done,
            Verdict::Wait(until) => {
                self.due = Some(self.due.map_or(until, |due| due.min(until)));
                Sent::Later
            }
            Verdict::Forward => {
                let packed = Packed { packet, head, pair, owner };
                let sent = self.give_all(from.switch, &outputs, &packed, cards);
                if sent == Sent::Later
                    && let Some(switch) = self.fabric.get_mut(from.switch)
                {
                    switch.switch.take_back(from.slot, &head, &outputs);
                }
                sent
            }
        };
        if !self.captures.is_empty() && sent != Sent::Later {
            self.capture(from, packet, &head, &outputs);
        }
        self.outputs = outputs;
        sent
    }

    /// Tells captures of a frame that came from a port, and went to others.
    fn capture(&mut self, from: At, packet: &dyn Packet, head: &Head, outputs: &[Output]) {
        let Some(switch) = self.fabric.get(from.switch) else { return };
        let captures = &mut self.captures;
        let tags = (head.tag, head.inside);
        let ends = outputs.iter().map(|output| (output.port, output.tag, false));
        for (slot, tag, sender) in core::iter::once((from.slot, head.tag, true)).chain(ends) {
            let Some(port) = switch.port(slot) else { continue };
            // An uplink's owner is the network outside.
            let direction = if sender { Direction::Outbound } else { Direction::Inbound };
            retag(packet, tags, tag, |packet, vlan| match vlan {
                Some(tag) => captures.add(&port.name, &Tagged(packet, tag), direction),
                None => captures.add(&port.name, packet, direction),
            });
        }
    }

    fn give_all(&mut self, switch: usize, outputs: &[Output], packed: &Packed<'_>, cards: &mut [Card]) -> Sent {
        let mut sent = Sent::Done;
        for (place, output) in outputs.iter().enumerate() {
            // Only the first may say that it is to wait: it is the one that the packet is for, and nobody has got it yet.
            match self.give(switch, *output, packed, place == 0, cards) {
                Sent::Later if place == 0 => return Sent::Later,
                Sent::Held => sent = Sent::Held,
                Sent::Later | Sent::Done => {}
            }
        }
        sent
    }

    fn give(&mut self, switch: usize, output: Output, packed: &Packed<'_>, first: bool, cards: &mut [Card]) -> Sent {
        let &Packed { packet, head, .. } = packed;
        let tags = (head.tag, head.inside);
        match self.fabric.get_mut(switch).and_then(|one| one.end_mut(output.port)) {
            Some(End::Guest { nic, starved, .. }) => {
                let Some(nic) = nic.upgrade() else { return Sent::Done };
                // What makes no sense is lost, as in any network.
                let outcome = retag(packet, tags, output.tag, |packet, vlan| {
                    nic.device.receive_for(packet, vlan, head.destination, output.tag)
                });
                match outcome {
                    Some(Err(Dropped::NoBuffers)) if first && !head.is_group() => {
                        let since = *starved.get_or_insert(self.now);
                        if self.now.saturating_sub(since) < PATIENCE {
                            self.waiting = true;
                            return Sent::Later;
                        }
                    }
                    Some(Ok(())) => *starved = None,
                    _ => {}
                }
                Sent::Done
            }
            Some(End::Host { place, .. }) => {
                if let Some(port) = self.hosts.ports.get_mut(*place) {
                    let scratch = &mut self.scratch;
                    retag(packet, tags, output.tag, |packet, vlan| {
                        offload::finish(packet, scratch, &mut |frame| {
                            match vlan {
                                Some(tag) => port.give(&Tagged(frame, tag)),
                                None => port.give(frame),
                            }
                            Ok::<(), ()>(())
                        })
                    });
                }
                Sent::Done
            }
            Some(End::Uplink { place, .. }) => match cards.get_mut(*place) {
                Some(card) => self.out(output.tag, packed, card),
                None => Sent::Done,
            },
            None => Sent::Done,
        }
    }

    /// Gives a packet to a card.
    fn out(&mut self, tag: Option<u16>, packed: &Packed<'_>, card: &mut Card) -> Sent {
        let Packed { packet, head, pair, owner } = *packed;
        let pair = pair.into();
        let unchanged = !head.inside || head.tag == tag;
        if unchanged && let Some((nic, token)) = owner {
            let number = self.free.pop().unwrap_or_else(|| {
                self.held.push(None);
                self.held.len() as u32 - 1
            });
            let beside = if head.inside { None } else { tag };
            let outcome = card.transmit(pair, packet, beside, number);
            if outcome.is_ok() {
                self.held[number as usize] = Some((nic.clone(), token));
                return Sent::Held;
            }
            self.free.push(number);
            match outcome {
                Err(Refused::Full) => return Sent::Later,
                Err(Refused::Unfit) => {}
                _ => return Sent::Done,
            }
        }
        let Self { bounce, scratch, .. } = self;
        retag(packet, (head.tag, head.inside), tag, |packet, vlan| {
            let mut send = |frame: &dyn Packet| {
                let sent = bounce.copy(frame, |copy, number| card.transmit(pair, copy, vlan, number | BOUNCED).is_ok());
                if sent { Ok(()) } else { Err(()) }
            };
            // What finds no room is lost, as in any network.
            let Offload {
                checksum: None,
                segmentation: None,
                ..
            } = packet.offload()
            else {
                let _ = offload::finish(packet, scratch, &mut send);
                return;
            };
            let _ = send(packet);
        });
        Sent::Done
    }

    /// Tells the host's servers of what has come.
    pub fn settle(&mut self) {
        self.hosts.ports.iter_mut().for_each(super::host_ports::HostPort::settle);
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
    pub fn received(&mut self, uplink: At, packet: &dyn Packet, vlan: Option<u16>) {
        // Nothing goes from an uplink to an uplink.
        self.forward(uplink, packet, vlan, (0, None), &mut []);
    }
}
