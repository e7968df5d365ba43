//! What virtual switches are told: uplinks, port groups, policies, limits. The manifest, messages, the network server and management mean the same types, and what is wrong with them is said in one place.
//!
//! A switch has settings for all its port groups; a group may have its own instead (`Some`).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bounded;
mod change;
mod check;

pub use change::Refused;

use alloc::{string::String, vec, vec::Vec};
use serde::{Deserialize, Serialize};

/// The number of a port group that carries every virtual network, tags and all.
pub const TRUNK: u16 = 4095;
/// Smallest and largest payload of a frame, in bytes.
pub const MTU: core::ops::RangeInclusive<u16> = 1280..=9000;
/// Most switches.
pub const MAX_SWITCHES: usize = 16;
/// Most port groups of all switches.
pub const MAX_GROUPS: usize = 128;
/// Most uplinks of a switch.
pub const MAX_UPLINKS: usize = 16;
/// Most mirrors of a switch.
pub const MAX_MIRRORS: usize = 16;
/// Longest name, in bytes.
pub const MAX_NAME: usize = 64;

/// The address of a machine's card that was given none: locally administered (IEEE 802, 8.4), made of the machine's name and the card's number.
#[must_use]
pub fn station_address(machine: &str, card: usize) -> [u8; 6] {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in machine.bytes().chain([b'/', card as u8]) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let [a, b, c, d, ..] = hash.to_be_bytes();
    [0x02, 0x54, a, b, c, d]
}

/// What ports may do; all refused by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// See all frames of their virtual network.
    pub promiscuous: bool,
    /// Send under another address than their own.
    pub forged_transmits: bool,
    /// Take another address than the configured one.
    pub mac_changes: bool,
}

/// A limit of a port's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bits in a second, in the long run.
    pub average: u64,
    /// Bits in a second, while a burst lasts; not below the average.
    pub peak: u64,
    /// Bytes that may go beyond the average at once.
    pub burst: u64,
}

/// Limits of a port, each way as its owner sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shaping {
    /// Of what it sends.
    pub sent: Option<Limits>,
    /// Of what it is given.
    pub received: Option<Limits>,
}

/// How an uplink is chosen among those that work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Balance {
    /// By the port.
    #[default]
    Port,
    /// By the sender's address.
    SourceMac,
    /// The first that works, in their order.
    Order,
}

impl Balance {
    /// All ways.
    pub const ALL: [Self; 3] = [Self::Port, Self::SourceMac, Self::Order];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::SourceMac => "source-mac",
            Self::Order => "order",
        }
    }
}

/// How uplinks share the work, and stand in for each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Teaming {
    /// How one is chosen.
    pub balance: Balance,
    /// Uplinks in use; empty: all that are not on standby.
    #[serde(deserialize_with = "bounded::uplinks")]
    pub active: Vec<String>,
    /// Used in their order while no active one works.
    #[serde(deserialize_with = "bounded::uplinks")]
    pub standby: Vec<String>,
}

/// What a switch says of all its port groups, and of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Name, unique.
    pub name: String,
    /// Longest payload of a frame, in bytes.
    pub mtu: u16,
    /// What ports may do.
    pub security: Security,
    /// Limits.
    pub shaping: Shaping,
    /// Uplinks' order.
    pub teaming: Teaming,
}

impl Settings {
    /// A switch of that name with nothing said about it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            mtu: *MTU.end(),
            security: Security::default(),
            shaping: Shaping::default(),
            teaming: Teaming::default(),
        }
    }
}

/// A port group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Name, unique among all switches.
    pub name: String,
    /// Number of its virtual network: 0 none, 1 to 4094, or [`TRUNK`].
    pub vlan: u16,
    /// What its ports may do, where it is not what the switch says.
    pub security: Option<Security>,
    /// Their limits.
    pub shaping: Option<Shaping>,
    /// Their uplinks; those that it does not name are not used.
    pub teaming: Option<Teaming>,
}

/// Copies of what a port sends and is given go to another port of the same switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// The port that is watched.
    pub from: String,
    /// The port that gets the copies.
    pub to: String,
}

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// Settings.
    pub settings: Settings,
    /// Network cards that are its uplinks; `None`: all that no other switch names.
    pub uplinks: Option<Vec<String>>,
    /// Its port groups.
    pub groups: Vec<Group>,
    /// Its mirrors.
    pub mirrors: Vec<Mirror>,
}

/// All switches of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The switches.
    pub switches: Vec<Switch>,
}

impl Default for Network {
    /// One switch with all cards, and port groups for guests and for the host's servers.
    fn default() -> Self {
        let group = |name: &str| Group {
            name: name.into(),
            ..Group::default()
        };
        Self {
            switches: vec![Switch {
                settings: Settings::new("vSwitch0"),
                uplinks: None,
                groups: vec![group("VM Network"), group("Management Network")],
                mirrors: Vec::new(),
            }],
        }
    }
}

impl Switch {
    /// Security of a group's ports.
    #[must_use]
    pub fn security(&self, group: &Group) -> Security {
        group.security.unwrap_or(self.settings.security)
    }

    /// Limits of a group's ports.
    #[must_use]
    pub fn shaping(&self, group: &Group) -> Shaping {
        group.shaping.unwrap_or(self.settings.shaping)
    }

    /// Teaming of a group's ports.
    #[must_use]
    pub fn teaming<'a>(&'a self, group: &'a Group) -> &'a Teaming {
        group.teaming.as_ref().unwrap_or(&self.settings.teaming)
    }
}

impl Network {
    /// Gives a switch that names no uplinks those cards that no other one names.
    pub fn resolve(&mut self, cards: &[String]) {
        let named: Vec<String> = self.switches.iter().filter_map(|switch| switch.uplinks.clone()).flatten().collect();
        let mut free: Vec<String> = cards.iter().filter(|card| !named.contains(card)).cloned().collect();
        for switch in &mut self.switches {
            if switch.uplinks.is_none() {
                let mut uplinks = core::mem::take(&mut free);
                uplinks.truncate(MAX_UPLINKS);
                switch.uplinks = Some(uplinks);
            }
        }
    }

    /// The switch and the group of a name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<(&Switch, &Group)> {
        let mut all = self
            .switches
            .iter()
            .flat_map(|switch| switch.groups.iter().map(move |group| (switch, group)));
        all.find(|(_, group)| group.name == name)
    }
}

/// What a network server leaves to its successor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The switches.
    pub network: Network,
    /// Cards of virtual machines whose link was taken down: number of the machine's start, and of the card.
    pub down: Vec<(u64, u32)>,
}

impl State {
    /// Bytes to be kept. `None`: memory is used up.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(self).ok()
    }

    /// What was kept; `None` if the bytes are not exactly one, or make no sense.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match postcard::take_from_bytes::<Self>(bytes) {
            Ok((state, [])) => state.network.check().is_ok().then_some(state),
            _ => None,
        }
    }
}
