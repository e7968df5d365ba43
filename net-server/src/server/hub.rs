//! Carries packets between guests, the host's servers and network cards, as the switch decides.

use super::{
    card::Card,
    guests::Nic,
    host_ports::{Frame, HostPorts},
    vswitch::{End, VSwitch},
};
use alloc::{
    rc::{Rc, Weak},
    vec::Vec,
};
use tessera_device::platform;
use tessera_net::{
    bounce::{Bounce, FRAME},
    guest::{Dropped, Sent, Token},
    nic::Refused,
    offload,
    packet::{Offload, Packet},
    switch::{Head, Output, Outputs, Slot, Verdict},
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
    /// The switch.
    pub vswitch: VSwitch,
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
    /// Guests' cards without a port: what they send is lost, but what their drivers ask for is still done.
    pub unconnected: Vec<Weak<Nic>>,
    /// Ports of the host's servers.
    pub hosts: HostPorts,
}

/// Now.
pub fn nanoseconds() -> u64 {
    time::from_ticks(time::now(), 1_000_000_000, time::hz())
}

impl Hub {
    /// A switch with all cards as uplinks. `None`: there is no memory.
    pub fn new(cards: &mut [Card]) -> Option<Self> {
        Some(Self {
            vswitch: VSwitch::new(cards),
            outputs: Outputs::new(),
            held: Vec::new(),
            free: Vec::new(),
            bounce: Bounce::new(&platform::allocate(FRAMES * FRAME)?),
            scratch: offload::Scratch::default(),
            now: nanoseconds(),
            waiting: false,
            due: None,
            unconnected: Vec::new(),
            hosts: HostPorts::default(),
        })
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
        self.vswitch.follow(cards);
        let mut more = false;
        self.unconnected.retain(|nic| {
            let Some(nic) = nic.upgrade() else { return false };
            more |= nic.device.transmit(BUDGET, &mut |_, _, _| Sent::Done);
            true
        });
        for from in self.vswitch.slots() {
            match self.vswitch.end(from) {
                Some(End::Guest { nic, .. }) => {
                    let Some(nic) = nic.upgrade() else { continue };
                    more |= nic.device.transmit(BUDGET, &mut |packet, pair, token| {
                        let owner = Some((&nic, token));
                        self.forward(from, packet, None, (pair, owner), cards)
                    });
                }
                Some(End::Host { place }) => {
                    let place = *place;
                    more |= self.turn_host(from, place, cards);
                }
                Some(End::Uplink { .. }) | None => {}
            }
        }
        more
    }

    /// Takes what one of the host's servers sends. True: there is more.
    fn turn_host(&mut self, from: Slot, place: usize, cards: &mut [Card]) -> bool {
        for _ in 0..BUDGET {
            let Some(port) = self.hosts.ports.get_mut(place) else {
                return false;
            };
            let Some(taken) = port.take() else { return false };
            let sent = self.forward(from, &Frame(taken.bytes()), None, (0, None), cards);
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
        from: Slot,
        packet: &dyn Packet,
        vlan: Option<u16>,
        (pair, owner): (u8, Option<(&Rc<Nic>, Token)>),
        cards: &mut [Card],
    ) -> Sent {
        let Some(head) = Head::read(packet, vlan) else { return Sent::Done };
        let mut outputs = core::mem::take(&mut self.outputs);
        let sent = match self.vswitch.switch.forward(self.now, from, &head, &mut outputs) {
            Verdict::Dropped(_) => Sent::Done,
            Verdict::Wait(until) => {
                self.due = Some(self.due.map_or(until, |due| due.min(until)));
                Sent::Later
            }
            Verdict::Forward => {
                let packed = Packed { packet, head, pair, owner };
                let sent = self.give_all(&outputs, &packed, cards);
                if sent == Sent::Later {
                    self.vswitch.switch.take_back(from, &head, &outputs);
                }
                sent
            }
        };
        self.outputs = outputs;
        sent
    }

    fn give_all(&mut self, outputs: &[Output], packed: &Packed<'_>, cards: &mut [Card]) -> Sent {
        let mut sent = Sent::Done;
        for (place, output) in outputs.iter().enumerate() {
            // Only the first may say that it is to wait: it is the one that the packet is for, and nobody has got it yet.
            match self.give(*output, packed, place == 0, cards) {
                Sent::Later if place == 0 => return Sent::Later,
                Sent::Held => sent = Sent::Held,
                Sent::Later | Sent::Done => {}
            }
        }
        sent
    }

    fn give(&mut self, output: Output, packed: &Packed<'_>, first: bool, cards: &mut [Card]) -> Sent {
        let &Packed { packet, head, .. } = packed;
        let tags = (head.tag, head.inside);
        match self.vswitch.end_mut(output.port) {
            Some(End::Guest { nic, starved, .. }) => {
                let Some(nic) = nic.upgrade() else { return Sent::Done };
                // What makes no sense is lost, as in any network.
                let outcome = retag(packet, tags, output.tag, |packet, vlan| nic.device.receive(packet, vlan));
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
            Some(End::Host { place }) => {
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
    pub fn received(&mut self, uplink: Slot, packet: &dyn Packet, vlan: Option<u16>) {
        // Nothing goes from an uplink to an uplink.
        self.forward(uplink, packet, vlan, (0, None), &mut []);
    }
}
