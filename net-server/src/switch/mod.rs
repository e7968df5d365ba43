//! A virtual switch, as far as it decides: which ports a frame goes to, with which tag, or why to none. It never holds a frame, reaches no device, and allocates nothing for a frame.
//!
//! ```text
//!   from a port:   limits of its rate -> its own address? -> its virtual network -> known address: that port
//!                                                                                  unknown:       the port's uplink
//!                                                                                  for many:      the network's ports, and the uplink
//!   from an uplink: one of ours come back? -> known address: that port; unknown: nobody but who listens to everything
//! ```
//!
//! Ports' own addresses are known from their configuration, so nothing that is sent can take them away. Others are learned only behind ports that may send under foreign addresses, a
//! limited number behind each. What is unknown goes outside and never to other guests: a full table blinds nobody. Frames never go from an uplink to an uplink, so there are no loops.

mod head;
mod shaping;
mod table;

pub use head::Head;
pub use shaping::Shaper;
pub use tessera_vswitch::{Balance, Limits, Security, TRUNK};

use alloc::{boxed::Box, vec::Vec};
use table::{Table, key};

/// A place for a port in a switch.
pub type Slot = u16;

/// Bits of a tag that are the network's number.
const NUMBER: u16 = 0xfff;

/// The uplinks of ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Team {
    /// How one is chosen.
    pub balance: Balance,
    /// Those in use.
    pub active: Vec<Slot>,
    /// Used in their order while no active one works.
    pub standby: Vec<Slot>,
}

/// What a port's group says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Number of the virtual network: 0 none, 1 to 4094, or [`TRUNK`].
    pub vlan: u16,
    /// What it may do.
    pub policy: Security,
    /// Its uplinks.
    pub team: Team,
    /// Addresses that are learned behind it, where it may send under foreign ones.
    pub learn: u32,
    /// Limits of what it sends, and of what it is given.
    pub shape: (Option<Limits>, Option<Limits>),
}

/// Why a frame did not go anywhere, or not to a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Drop {
    /// There is no such port.
    NoPort,
    /// The port has taken an address that it must not have.
    Blocked,
    /// The sender's address is not the port's.
    Forged,
    /// The sender's address is one for many.
    GroupSource,
    /// It has a tag that its port group does not carry.
    Tagged,
    /// Nobody is known there.
    NoDestination,
    /// It goes back to where it came from.
    Hairpin,
    /// No uplink works.
    NoUplink,
    /// One of ours, which the network outside sent back.
    Reflected,
    /// Beyond the port's rate.
    Shaped,
    /// Longer than the switch carries.
    TooLong,
    /// The port's link is down.
    LinkDown,
}

/// Number of [`Drop`]'s reasons.
pub const REASONS: usize = Drop::LinkDown as usize + 1;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to the outputs.
    Forward,
    /// It goes nowhere.
    Dropped(Drop),
    /// Not before that time, in nanoseconds: it stays where it is.
    Wait(u64),
}

/// A port that gets a frame, and the tag that the frame has there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Output {
    /// The port.
    pub port: Slot,
    /// With this tag.
    pub tag: Option<u16>,
    /// A copy for who watches.
    pub mirror: bool,
}

/// Where the switch says who gets a frame; used again for each.
pub type Outputs = Vec<Output>;

/// What a port has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came from it, and their bytes.
    pub received: (u64, u64),
    /// Frames that it was to be given, and their bytes.
    pub sent: (u64, u64),
    /// Of both, those for many.
    pub group: u64,
    /// Frames that were dropped, by reason.
    pub drops: [u64; REASONS],
}

#[derive(Debug)]
enum Kind {
    Uplink {
        up: bool,
    },
    Port {
        group: Group,
        /// Configured, and in use.
        mac: [u8; 6],
        current: [u8; 6],
        /// Its link is up.
        connected: bool,
        mirror: Option<Slot>,
        shapers: Box<(Option<Shaper>, Option<Shaper>)>,
    },
}

#[derive(Debug)]
struct Port {
    kind: Kind,
    counters: Counters,
}

/// A switch.
#[derive(Debug)]
pub struct Switch {
    ports: Vec<Option<Port>>,
    /// Ports' own addresses, sorted, with their places.
    own: Vec<([u8; 6], Slot)>,
    learned: Table,
}

/// The network of a frame from a port of this group; `None`: the group does not carry it.
const fn network(vlan: u16, tag: Option<u16>) -> Option<u16> {
    let number = match tag {
        Some(tag) => tag & NUMBER,
        None => 0,
    };
    match (vlan, number) {
        (TRUNK, TRUNK) => None,
        (TRUNK, number) => Some(number),
        // A tag with number 0 carries a priority only (IEEE 802.1Q, table 9-2).
        (vlan, 0) => Some(vlan),
        _ => None,
    }
}

impl Switch {
    /// One without ports.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ports: Vec::new(),
            own: Vec::new(),
            learned: Table::new(),
        }
    }

    fn place(&mut self, kind: Kind) -> Option<Slot> {
        let port = Some(Port {
            kind,
            counters: Counters::default(),
        });
        if let Some(free) = self.ports.iter().position(Option::is_none) {
            self.ports[free] = port;
            return Slot::try_from(free).ok();
        }
        let slot = Slot::try_from(self.ports.len()).ok()?;
        self.ports.push(port);
        Some(slot)
    }

    /// Adds an uplink whose link is down. `None`: there are 65,536 ports.
    pub fn add_uplink(&mut self) -> Option<Slot> {
        self.place(Kind::Uplink { up: false })
    }

    /// Adds a port with its configured address. `None`: there are 65,536 ports.
    pub fn add_port(&mut self, group: Group, mac: [u8; 6], now: u64) -> Option<Slot> {
        let shapers = shapers(&group, now);
        let slot = self.place(Kind::Port {
            group,
            mac,
            current: mac,
            connected: true,
            mirror: None,
            shapers,
        });
        self.index();
        slot
    }

    /// Takes a port or an uplink away.
    pub fn remove(&mut self, slot: Slot) {
        if let Some(place) = self.ports.get_mut(usize::from(slot)) {
            *place = None;
        }
        // What is put in this place is somebody else.
        for port in self.ports.iter_mut().flatten() {
            if let Kind::Port { group, mirror, .. } = &mut port.kind {
                group.team.active.retain(|uplink| *uplink != slot);
                group.team.standby.retain(|uplink| *uplink != slot);
                if *mirror == Some(slot) {
                    *mirror = None;
                }
            }
        }
        self.learned.forget(slot);
        self.index();
    }

    /// An uplink's link came or went.
    pub fn set_link(&mut self, slot: Slot, link: bool) {
        if let Some(Some(Port {
            kind: Kind::Uplink { up }, ..
        })) = self.ports.get_mut(usize::from(slot))
        {
            *up = link;
        }
    }

    /// Changes what a port's group says.
    pub fn set_group(&mut self, slot: Slot, to: Group, now: u64) {
        if let Some(Some(Port {
            kind: Kind::Port { group, shapers: old, .. },
            ..
        })) = self.ports.get_mut(usize::from(slot))
        {
            if group.shape != to.shape {
                *old = shapers(&to, now);
            }
            *group = to;
            // What was learned may be of another virtual network, or not be allowed any more.
            self.learned.forget(slot);
        }
        // It may have, or have no more, an address that it must not have.
        self.index();
    }

    /// The port's owner uses this address.
    pub fn set_mac(&mut self, slot: Slot, to: [u8; 6]) {
        if let Some(Some(Port {
            kind: Kind::Port { current, .. },
            ..
        })) = self.ports.get_mut(usize::from(slot))
        {
            *current = to;
        }
        self.index();
    }

    /// Takes a port's link down or up: nothing goes in or out while it is down.
    pub fn set_connected(&mut self, slot: Slot, to: bool) {
        if let Some(Some(Port {
            kind: Kind::Port { connected, .. },
            ..
        })) = self.ports.get_mut(usize::from(slot))
        {
            *connected = to;
        }
        self.index();
    }

    /// Counts a frame from a port that is not even asked about.
    pub fn count_drop(&mut self, slot: Slot, reason: Drop, head: &Head) {
        if let Some(Some(port)) = self.ports.get_mut(usize::from(slot)) {
            port.counters.drops[reason as usize] += 1;
            port.counters.received.0 += 1;
            port.counters.received.1 += u64::from(head.length);
        }
    }

    /// Has what a port sends and is given copied to another port; uplinks cannot watch.
    pub fn set_mirror(&mut self, slot: Slot, to: Option<Slot>) {
        let to = to.filter(|to| *to != slot && matches!(self.port(*to), Some(Kind::Port { .. })));
        if let Some(Some(Port {
            kind: Kind::Port { mirror, .. },
            ..
        })) = self.ports.get_mut(usize::from(slot))
        {
            *mirror = to;
        }
    }

    /// What a port has done.
    #[must_use]
    pub fn counters(&self, slot: Slot) -> Option<&Counters> {
        self.ports.get(usize::from(slot))?.as_ref().map(|port| &port.counters)
    }

    /// Whether the port has an address that it must not have: nothing goes in or out.
    #[must_use]
    pub fn is_blocked(&self, slot: Slot) -> bool {
        self.port(slot).is_some_and(foreign)
    }

    /// Whether the port's link is up.
    #[must_use]
    pub fn is_up(&self, slot: Slot) -> bool {
        match self.port(slot) {
            Some(Kind::Uplink { up }) => *up,
            Some(Kind::Port { connected, .. }) => *connected,
            None => false,
        }
    }

    /// What the group of a port says; `None`: there is no such port, or it is an uplink.
    #[must_use]
    pub fn group(&self, slot: Slot) -> Option<&Group> {
        match self.port(slot)? {
            Kind::Port { group, .. } => Some(group),
            Kind::Uplink { .. } => None,
        }
    }

    /// Addresses that were learned: address, virtual network, port, and nanoseconds since each was seen.
    pub fn learned(&self, now: u64) -> impl Iterator<Item = ([u8; 6], u16, Slot, u64)> {
        self.learned.all(now)
    }

    /// Ports' own addresses.
    pub fn own(&self) -> impl Iterator<Item = ([u8; 6], Slot)> {
        self.own.iter().copied()
    }

    fn port(&self, slot: Slot) -> Option<&Kind> {
        self.ports.get(usize::from(slot))?.as_ref().map(|port| &port.kind)
    }

    fn index(&mut self) {
        self.own.clear();
        for (slot, port) in (0..).zip(&self.ports) {
            if let Some(Port {
                kind: kind @ Kind::Port { current, .. },
                ..
            }) = port
                && !blocked(kind)
            {
                self.own.push((*current, slot));
            }
        }
        self.own.sort_unstable();
    }

    fn works(&self, slot: Slot) -> bool {
        matches!(self.port(slot), Some(Kind::Uplink { up: true }))
    }

    /// The uplink of what a port sends from an address.
    #[must_use]
    pub fn uplink(&self, slot: Slot, source: [u8; 6]) -> Option<Slot> {
        let Kind::Port {
            group: Group { team, .. }, ..
        } = self.port(slot)?
        else {
            return None;
        };
        let working = || team.active.iter().copied().filter(|uplink| self.works(*uplink));
        let count = working().count();
        if count == 0 {
            return team.standby.iter().copied().find(|uplink| self.works(*uplink));
        }
        let number = match team.balance {
            Balance::Port => usize::from(slot),
            Balance::SourceMac => usize::from(source[4]) << 8 | usize::from(source[5]),
            Balance::Order => 0,
        };
        working().nth(number % count)
    }

    /// The port with an address in a virtual network.
    fn find(&self, mac: [u8; 6], vlan: u16, now: u64) -> Option<Slot> {
        let from = self.own.partition_point(|(own, _)| *own < mac);
        let mut own = self.own[from..].iter().take_while(|(own, _)| *own == mac);
        let carries = |slot: Slot| matches!(self.port(slot), Some(Kind::Port { group, .. }) if group.vlan == vlan || group.vlan == TRUNK);
        own.find(|(_, slot)| carries(*slot))
            .map(|(_, slot)| *slot)
            .or_else(|| self.learned.find(key(mac, vlan), now).filter(|slot| carries(*slot)))
    }

    /// Says where a frame goes that came from a port at a time in nanoseconds. `outputs` is empty afterwards unless it is forwarded.
    pub fn forward(&mut self, now: u64, from: Slot, head: &Head, outputs: &mut Outputs) -> Verdict {
        outputs.clear();
        let verdict = self.decide(now, from, head, outputs);
        if let Some(Some(port)) = self.ports.get_mut(usize::from(from)) {
            match verdict {
                Verdict::Wait(_) => return verdict,
                Verdict::Dropped(reason) => port.counters.drops[reason as usize] += 1,
                Verdict::Forward => {}
            }
            port.counters.received.0 += 1;
            port.counters.received.1 += u64::from(head.length);
            port.counters.group += u64::from(head.is_group());
        }
        outputs.retain(|output| {
            self.ports[usize::from(output.port)]
                .as_mut()
                .is_some_and(|port| give(port, now, head))
        });
        verdict
    }

    /// A frame that was to be forwarded stays with its sender, since who was to get it has no room yet: as if it had never been offered.
    pub fn take_back(&mut self, from: Slot, head: &Head, outputs: &[Output]) {
        let length = u64::from(head.length);
        let group = u64::from(head.is_group());
        let senders = core::iter::once((from, true));
        for (slot, sender) in senders.chain(outputs.iter().map(|output| (output.port, false))) {
            let Some(Some(port)) = self.ports.get_mut(usize::from(slot)) else {
                continue;
            };
            let counters = &mut port.counters;
            let place = if sender { &mut counters.received } else { &mut counters.sent };
            *place = (place.0.saturating_sub(1), place.1.saturating_sub(length));
            counters.group = counters.group.saturating_sub(group);
            if let Kind::Port { shapers, .. } = &mut port.kind
                && let Some(shaper) = if sender { &mut shapers.0 } else { &mut shapers.1 }
            {
                shaper.put_back(head.length);
            }
        }
    }

    fn decide(&mut self, now: u64, from: Slot, head: &Head, outputs: &mut Outputs) -> Verdict {
        let Some(Some(port)) = self.ports.get_mut(usize::from(from)) else {
            return Verdict::Dropped(Drop::NoPort);
        };
        if head.source[0] & 1 != 0 {
            return Verdict::Dropped(Drop::GroupSource);
        }
        let (vlan, uplink) = match &mut port.kind {
            Kind::Uplink { .. } => {
                let Some(vlan) = network(TRUNK, head.tag) else {
                    return Verdict::Dropped(Drop::Tagged);
                };
                if self.find(head.source, vlan, now).is_some() {
                    return Verdict::Dropped(Drop::Reflected);
                }
                (vlan, true)
            }
            Kind::Port { connected: false, .. } => return Verdict::Dropped(Drop::LinkDown),
            kind if blocked(kind) => return Verdict::Dropped(Drop::Blocked),
            Kind::Port {
                group, current, shapers, ..
            } => {
                let foreign = head.source != *current;
                if foreign && !group.policy.forged_transmits {
                    return Verdict::Dropped(Drop::Forged);
                }
                let Some(vlan) = network(group.vlan, head.tag) else {
                    return Verdict::Dropped(Drop::Tagged);
                };
                if let Some(shaper) = &mut shapers.0
                    && let Err(later) = shaper.pass(now, head.length)
                {
                    return Verdict::Wait(later);
                }
                let limit = group.learn;
                // What is some port's own is not learned elsewhere.
                if foreign && self.own.binary_search_by_key(&head.source, |(own, _)| *own).is_err() {
                    self.learned.learn(key(head.source, vlan), from, limit, now);
                }
                (vlan, false)
            }
        };
        let priority = head.tag.unwrap_or(0) & !NUMBER;
        let reason = self.route(now, from, head, (vlan, uplink), outputs);
        self.mirrors(from, head, outputs);
        for output in outputs.iter_mut().filter(|output| !output.mirror) {
            let tagged = match self.port(output.port) {
                Some(Kind::Port { group, .. }) => group.vlan == TRUNK && vlan != 0,
                _ => vlan != 0,
            };
            output.tag = tagged.then_some(vlan | priority);
        }
        match reason {
            Some(reason) if outputs.is_empty() => Verdict::Dropped(reason),
            _ => Verdict::Forward,
        }
    }

    /// Adds the ports that get a frame of a virtual network. Answers why not all, or none, do.
    fn route(&self, now: u64, from: Slot, head: &Head, (vlan, from_uplink): (u16, bool), outputs: &mut Outputs) -> Option<Drop> {
        let mut reason = None;
        let known = if head.is_group() {
            None
        } else {
            self.find(head.destination, vlan, now)
        };
        match known {
            Some(port) if port == from => reason = Some(Drop::Hairpin),
            Some(port) => add(outputs, port),
            None if from_uplink => reason = Some(Drop::NoDestination),
            None => match self.uplink(from, head.source) {
                Some(uplink) => add(outputs, uplink),
                None => reason = Some(Drop::NoUplink),
            },
        }
        for (slot, port) in (0..).zip(&self.ports) {
            let Some(Port {
                kind: kind @ Kind::Port { group, mac, .. },
                ..
            }) = port
            else {
                continue;
            };
            let listens = head.is_group() || group.policy.promiscuous;
            if !listens || slot == from || known == Some(slot) || blocked(kind) || group.vlan != vlan && group.vlan != TRUNK {
                continue;
            }
            // With several uplinks a frame for many arrives through each; a port takes it from its own.
            if from_uplink && self.uplink(slot, *mac) != Some(from) {
                continue;
            }
            add(outputs, slot);
        }
        reason
    }

    /// Adds copies for who watches the sender, and who watches a receiver.
    fn mirrors(&self, from: Slot, head: &Head, outputs: &mut Outputs) {
        let end = outputs.len();
        for place in 0..=end {
            let watched = if place == end { from } else { outputs[place].port };
            if let Some(Kind::Port { mirror: Some(to), .. }) = self.port(watched)
                && *to != from
                && !outputs[end..].iter().any(|output| output.port == *to)
            {
                outputs.push(Output {
                    port: *to,
                    tag: head.tag,
                    mirror: true,
                });
            }
        }
    }
}

fn shapers(group: &Group, now: u64) -> Box<(Option<Shaper>, Option<Shaper>)> {
    let make = |limits: Option<Limits>| limits.map(|limits| Shaper::new(limits, now));
    Box::new((make(group.shape.0), make(group.shape.1)))
}

/// Nothing goes in or out.
fn blocked(kind: &Kind) -> bool {
    matches!(kind, Kind::Port { connected: false, .. }) || foreign(kind)
}

/// It has an address that it must not have.
fn foreign(kind: &Kind) -> bool {
    matches!(kind, Kind::Port { group, mac, current, .. } if mac != current && !group.policy.mac_changes)
}

fn add(outputs: &mut Outputs, port: Slot) {
    outputs.push(Output {
        port,
        tag: None,
        mirror: false,
    });
}

/// Counts a frame that a port is given; false: it is beyond the port's rate.
fn give(port: &mut Port, now: u64, head: &Head) -> bool {
    if let Kind::Port { shapers, .. } = &mut port.kind
        && let Some(shaper) = &mut shapers.1
        && shaper.pass(now, head.length).is_err()
    {
        port.counters.drops[Drop::Shaped as usize] += 1;
        return false;
    }
    port.counters.sent.0 += 1;
    port.counters.sent.1 += u64::from(head.length);
    port.counters.group += u64::from(head.is_group());
    true
}

#[cfg(test)]
mod tests;
