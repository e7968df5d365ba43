//! A virtual switch with who is at its ports.

use super::{card::Card, guests::Nic};
use alloc::{
    rc::{Rc, Weak},
    string::String,
    vec::Vec,
};
use tessera_net::switch::{Group, Slot, Switch, Team};
use tessera_vswitch as config;

/// Addresses that are learned behind a port which may send under foreign ones: few beside the table's places, so that no guest fills it.
const LEARN: u32 = 128;
/// Bytes of a frame beside its payload: header and tag (IEEE 802.3, 802.1Q).
const HEADER: u32 = 18;

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
    Host { place: usize, mac: [u8; 6] },
    /// A network card: where it stands among them.
    Uplink { place: usize, up: bool },
}

/// A port.
pub struct Port {
    /// Who is there.
    pub end: End,
    /// What it is called.
    pub name: String,
    /// Its port group; empty for an uplink.
    pub group: String,
}

/// A switch.
pub struct VSwitch {
    /// Its name.
    pub name: String,
    /// What decides.
    pub switch: Switch,
    /// Longest frame that it carries, in bytes.
    pub longest: u32,
    ports: Vec<Option<Port>>,
}

impl VSwitch {
    /// One without ports.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            switch: Switch::new(),
            longest: 0,
            ports: Vec::new(),
        }
    }

    /// All places, taken or not.
    pub fn slots(&self) -> core::ops::Range<Slot> {
        // No more than the switch has.
        0..self.ports.len() as Slot
    }

    /// All ports.
    pub fn ports(&self) -> impl Iterator<Item = (Slot, &Port)> {
        (0..).zip(&self.ports).filter_map(|(slot, port)| Some((slot, port.as_ref()?)))
    }

    /// The port at a place.
    pub fn port(&self, slot: Slot) -> Option<&Port> {
        self.ports.get(usize::from(slot))?.as_ref()
    }

    /// Who is there.
    pub fn end(&self, slot: Slot) -> Option<&End> {
        self.port(slot).map(|port| &port.end)
    }

    /// Who is there.
    pub fn end_mut(&mut self, slot: Slot) -> Option<&mut End> {
        self.ports.get_mut(usize::from(slot))?.as_mut().map(|port| &mut port.end)
    }

    /// Where the port of that name is.
    pub fn find(&self, name: &str) -> Option<Slot> {
        self.ports().find(|(_, port)| port.name == name).map(|(slot, _)| slot)
    }

    fn set(&mut self, slot: Slot, port: Option<Port>) {
        let place = usize::from(slot);
        if self.ports.len() <= place {
            self.ports.resize_with(place + 1, || None);
        }
        self.ports[place] = port;
    }

    /// Makes network cards that are there and named, and no others, its uplinks. Answers those that it lost, and those that it got with their places.
    fn follow_uplinks(&mut self, names: &[String], cards: &[Card]) -> (Vec<usize>, Vec<(usize, Slot)>) {
        let mut lost = Vec::new();
        for slot in self.slots() {
            if let Some(Port {
                end: End::Uplink { place, .. },
                name,
                ..
            }) = self.port(slot)
                && !names.contains(name)
            {
                lost.push(*place);
                self.disconnect(slot);
            }
        }
        let mut got = Vec::new();
        for name in names {
            let Some(place) = cards.iter().position(|card| card.name() == name) else {
                continue;
            };
            if self.find(name).is_none()
                && let Some(slot) = self.switch.add_uplink()
            {
                let end = End::Uplink { place, up: false };
                let (name, group) = (name.clone(), String::new());
                self.set(slot, Some(Port { end, name, group }));
                got.push((place, slot));
            }
        }
        (lost, got)
    }

    /// What a port group says of its ports.
    fn rules(&self, switch: &config::Switch, group: &config::Group) -> Group {
        let teaming = switch.teaming(group);
        let slots = |names: &[String]| names.iter().filter_map(|name| self.find(name)).collect::<Vec<_>>();
        let standby = slots(&teaming.standby);
        let active = if teaming.active.is_empty() {
            let all = slots(switch.uplinks.as_deref().unwrap_or_default());
            all.into_iter().filter(|slot| !standby.contains(slot)).collect()
        } else {
            slots(&teaming.active)
        };
        let shaping = switch.shaping(group);
        Group {
            vlan: group.vlan,
            policy: switch.security(group),
            team: Team {
                balance: teaming.balance,
                active,
                standby,
            },
            learn: LEARN,
            shape: (shaping.sent, shaping.received),
        }
    }

    /// Does what its configuration says. Answers network cards that it has no more as uplinks, and those that it has now.
    pub fn configure(&mut self, to: &config::Switch, cards: &[Card], now: u64) -> (Vec<usize>, Vec<(usize, Slot)>) {
        self.longest = u32::from(to.settings.mtu) + HEADER;
        let uplinks = self.follow_uplinks(to.uplinks.as_deref().unwrap_or_default(), cards);
        for group in &to.groups {
            let rules = self.rules(to, group);
            for slot in self.slots() {
                let member = self.port(slot).is_some_and(|port| port.group == group.name);
                if member && self.switch.group(slot) != Some(&rules) {
                    self.switch.set_group(slot, rules.clone(), now);
                }
            }
        }
        self.follow_mirrors(to);
        uplinks
    }

    /// Has the mirrors that are configured, as far as their ports are there.
    fn follow_mirrors(&mut self, to: &config::Switch) {
        for slot in self.slots() {
            let Some(port) = self.port(slot) else { continue };
            let mirror = to.mirrors.iter().find(|mirror| mirror.from == port.name);
            let watcher = mirror.and_then(|mirror| self.find(&mirror.to));
            self.switch.set_mirror(slot, watcher);
        }
    }

    /// Connects a port to a group of its configuration. `None`: there is no free port.
    pub fn connect(&mut self, port: Port, mac: [u8; 6], to: &config::Switch, group: &config::Group, now: u64) -> Option<Slot> {
        let rules = self.rules(to, group);
        let slot = self.switch.add_port(rules, mac, now)?;
        self.set(slot, Some(port));
        self.follow_mirrors(to);
        Some(slot)
    }

    /// Takes a port away.
    pub fn disconnect(&mut self, slot: Slot) {
        self.switch.remove(slot);
        self.set(slot, None);
    }

    /// Takes up what has changed at its ends: links, guests' addresses, machines that ended.
    pub fn follow(&mut self, cards: &[Card]) {
        for slot in self.slots() {
            match self.end_mut(slot) {
                Some(End::Guest { nic, mac, .. }) => match nic.upgrade() {
                    None => self.disconnect(slot),
                    Some(nic) if nic.device.mac() != *mac => {
                        *mac = nic.device.mac();
                        let mac = *mac;
                        self.switch.set_mac(slot, mac);
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

/// A guest's port.
pub fn guest(nic: &Rc<Nic>, name: String, mac: [u8; 6], group: &str) -> Port {
    Port {
        end: End::Guest {
            nic: Rc::downgrade(nic),
            mac,
            starved: None,
        },
        name,
        group: group.into(),
    }
}
