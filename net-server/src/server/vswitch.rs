//! A virtual switch with who is at its ports.

use super::{card::Card, guests::Nic};
use alloc::{
    rc::{Rc, Weak},
    string::{String, ToString},
    vec::Vec,
};
use tessera_net::switch::{Group, Slot, Switch, Team};
use tessera_proto::{Failure, FailureKind};

/// Port groups that there are without anybody making them: for guests, and for the host's servers.
const GROUPS: [&str; 2] = ["VM Network", "Management Network"];

/// Who is at a port.
pub enum End {
    /// A guest's card. Whoever ends the machine must not wait for this.
    Guest {
        nic: Weak<Nic>,
        mac: [u8; 6],
        /// Since then it has had no buffers for what was sent to it, in nanoseconds.
        starved: Option<u64>,
    },
    /// A server of the host: where its port stands among theirs.
    Host { place: usize },
    /// A network card: where it stands among them.
    Uplink { place: usize, up: bool },
}

/// A port group.
pub struct PortGroup {
    /// Name.
    pub name: String,
    /// What it says of its ports.
    pub group: Group,
}

/// A switch.
pub struct VSwitch {
    /// What decides.
    pub switch: Switch,
    /// Who is at each place.
    ends: Vec<Option<End>>,
    groups: Vec<PortGroup>,
}

impl VSwitch {
    /// One with all cards as uplinks.
    pub fn new(cards: &mut [Card]) -> Self {
        let mut new = Self {
            switch: Switch::new(),
            ends: Vec::new(),
            groups: Vec::new(),
        };
        let mut active = Vec::new();
        for (place, card) in cards.iter_mut().enumerate() {
            if let Some(slot) = new.switch.add_uplink() {
                new.set_end(slot, Some(End::Uplink { place, up: false }));
                card.connect(slot);
                active.push(slot);
            }
        }
        new.groups.extend(GROUPS.map(|name| PortGroup {
            name: name.into(),
            group: Group {
                team: Team {
                    active: active.clone(),
                    ..Team::default()
                },
                ..Group::default()
            },
        }));
        new
    }

    /// All places, taken or not.
    pub fn slots(&self) -> core::ops::Range<Slot> {
        // No more than the switch has.
        0..self.ends.len() as Slot
    }

    /// Who is there.
    pub fn end(&self, slot: Slot) -> Option<&End> {
        self.ends.get(usize::from(slot))?.as_ref()
    }

    /// Who is there.
    pub fn end_mut(&mut self, slot: Slot) -> Option<&mut End> {
        self.ends.get_mut(usize::from(slot))?.as_mut()
    }

    fn set_end(&mut self, slot: Slot, end: Option<End>) {
        let place = usize::from(slot);
        if self.ends.len() <= place {
            self.ends.resize_with(place + 1, || None);
        }
        self.ends[place] = end;
    }

    /// The port group with a name.
    ///
    /// # Errors
    /// There is none; says which there are.
    pub fn group(&self, name: &str) -> Result<&PortGroup, Failure> {
        let found = self.groups.iter().find(|group| group.name == name);
        found.ok_or_else(|| {
            let names: Vec<_> = self.groups.iter().map(|group| group.name.as_str()).collect();
            let text = format_args!("there is no port group `{name}`: there are `{}`", names.join("`, `")).to_string();
            Failure::new(FailureKind::NotFound, text)
        })
    }

    fn connect(&mut self, name: &str, mac: [u8; 6], end: End, now: u64) -> Result<Slot, Failure> {
        let group = self.group(name)?.group.clone();
        let slot = self.switch.add_port(group, mac, now);
        let slot = slot.ok_or(Failure::new(FailureKind::Exhausted, "the switch has no free port"))?;
        self.set_end(slot, Some(end));
        Ok(slot)
    }

    /// Connects a guest's card, which has this configured address.
    ///
    /// # Errors
    /// There is no such port group, or no free port.
    pub fn connect_guest(&mut self, nic: &Rc<Nic>, mac: [u8; 6], group: &str, now: u64) -> Result<(), Failure> {
        let end = End::Guest {
            nic: Rc::downgrade(nic),
            mac,
            starved: None,
        };
        self.connect(group, mac, end, now).map(|_| ())
    }

    /// Connects a server of the host.
    ///
    /// # Errors
    /// There is no such port group, or no free port.
    pub fn connect_host(&mut self, place: usize, mac: [u8; 6], group: &str, now: u64) -> Result<Slot, Failure> {
        self.connect(group, mac, End::Host { place }, now)
    }

    /// Moves a port to a port group.
    ///
    /// # Errors
    /// There is no such port group.
    pub fn regroup(&mut self, slot: Slot, name: &str, now: u64) -> Result<(), Failure> {
        let group = self.group(name)?.group.clone();
        self.switch.set_group(slot, group, now);
        Ok(())
    }

    /// Takes a port away.
    pub fn disconnect(&mut self, slot: Slot) {
        self.switch.remove(slot);
        self.set_end(slot, None);
    }

    /// Takes up what has changed at its ends: links, guests' addresses, machines that ended.
    pub fn follow(&mut self, cards: &[Card]) {
        for slot in self.slots() {
            match self.ends.get_mut(usize::from(slot)).and_then(Option::as_mut) {
                Some(End::Guest { nic, mac, .. }) => match nic.upgrade() {
                    None => self.disconnect(slot),
                    Some(nic) if nic.device.mac() != *mac => {
                        *mac = nic.device.mac();
                        self.switch.set_mac(slot, *mac);
                    }
                    Some(_) => {}
                },
                Some(End::Uplink { place, up }) => {
                    let link = cards.get(*place).is_some_and(Card::is_up);
                    if link != *up {
                        *up = link;
                        self.switch.set_link(slot, link);
                    }
                }
                Some(End::Host { .. }) | None => {}
            }
        }
    }
}
