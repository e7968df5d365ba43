//! Virtual switches, as `net` serves them to the debug shell and to hostd. Changes outlive the network server, but not the host: who manages the host keeps them.
//!
//! Ports are named after who is there: `MACHINE.N` for network card `N` of a virtual machine, `host-N` for the server with that number, and an uplink is called as its network card.

use crate::{Page, declare::interface, wire};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};
pub use tessera_vswitch::{Balance, Group, Limits, MAX_NAME, MTU, Mirror, Security, Settings, Shaping, TRUNK, Teaming};

/// A switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchInfo {
    /// Its settings.
    pub settings: Settings,
    /// Network cards that are its uplinks, also those that are not there.
    #[serde(with = "wire::list")]
    pub uplinks: Vec<String>,
    /// Its mirrors.
    #[serde(with = "wire::list")]
    pub mirrors: Vec<Mirror>,
    /// Port groups.
    pub groups: u32,
    /// Ports, uplinks among them.
    pub ports: u32,
}

/// A port group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Its switch.
    pub switch: String,
    /// What it says.
    pub group: Group,
    /// What holds for its ports, its own or the switch's.
    pub security: Security,
    /// The same of their limits.
    pub shaping: Shaping,
    /// The same of their uplinks.
    pub teaming: Teaming,
    /// Ports that are connected.
    pub ports: u32,
}

/// Who is at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortKind {
    /// A virtual machine.
    Guest,
    /// A server of the host.
    Host,
    /// A network card of the host.
    Uplink,
}

/// Why frames were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropReason {
    /// The port had been taken away.
    NoPort,
    /// The sender has taken an address that it must not have.
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

impl DropReason {
    /// In words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoPort => "from a port that was taken away",
            Self::Blocked => "under an address that the port must not take",
            Self::Forged => "from another address than the port's",
            Self::GroupSource => "from an address for many",
            Self::Tagged => "with a VLAN tag that the port group does not carry",
            Self::NoDestination => "to an address that nobody has",
            Self::Hairpin => "to where they came from",
            Self::NoUplink => "since no uplink works",
            Self::Reflected => "of our own, sent back from outside",
            Self::Shaped => "beyond the port's rate",
            Self::TooLong => "longer than the switch's MTU",
            Self::LinkDown => "while the port's link is down",
        }
    }
}

/// Frames, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames. One may be cut into several on the cable.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

/// Frames that were dropped for a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Why.
    pub reason: DropReason,
    /// How many.
    pub frames: u64,
}

/// A port. Counters are since it was connected, or the network server started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortInfo {
    /// Name.
    pub name: String,
    /// Who is there.
    pub kind: PortKind,
    /// The switch.
    pub switch: String,
    /// The port group; empty for an uplink.
    pub group: String,
    /// The virtual network: 0 none, [`TRUNK`] all.
    pub vlan: u16,
    /// The address in use.
    pub mac: [u8; 6],
    /// The link is up.
    pub link: bool,
    /// It uses an address that it must not have: nothing goes in or out.
    pub blocked: bool,
    /// The uplink that it uses now; empty: none.
    pub uplink: String,
    /// What came from it.
    pub received: Traffic,
    /// What it was given.
    pub sent: Traffic,
    /// Frames for many, of both.
    pub multicast: u64,
    /// What was dropped; reasons without frames are left out.
    #[serde(with = "wire::list")]
    pub dropped: Vec<Dropped>,
}

/// Where a switch knows an address to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressInfo {
    /// The address.
    pub mac: [u8; 6],
    /// In this virtual network; a port's own is in all that it carries ([`TRUNK`]).
    pub vlan: u16,
    /// The port.
    pub port: String,
    /// Milliseconds since it was seen; `None`: it is the port's own.
    pub age_ms: Option<u64>,
}

interface! {
    /// Virtual switches, their port groups and ports.
    switch = 12;

    /// Switches, from the `first`th on.
    0 idempotent fn switches(first: u32) -> Page<SwitchInfo>;
    /// Port groups of all switches, from the `first`th on.
    1 idempotent fn groups(first: u32) -> Page<GroupInfo>;
    /// Ports of all switches, from the `first`th on.
    2 idempotent fn ports(first: u32) -> Page<PortInfo>;
    /// Addresses that a switch knows, from the `first`th on.
    3 idempotent fn addresses(switch: &'a str, first: u32) -> Page<AddressInfo>;
    /// Makes a switch without uplinks and port groups.
    4 once fn create_switch(settings: Settings) -> ();
    /// Changes the settings of the switch of that name.
    5 idempotent fn change_switch(settings: Settings) -> ();
    /// Removes a switch that has no port groups.
    6 once fn remove_switch(switch: &'a str) -> ();
    /// Adds a port group to a switch. Cards of running machines that were waiting for it are connected.
    7 once fn create_group(switch: &'a str, group: Group) -> ();
    /// Changes the port group of that name, for all ports that are connected.
    8 idempotent fn change_group(group: Group) -> ();
    /// Removes a port group that nobody is connected to.
    9 once fn remove_group(group: &'a str) -> ();
    /// Makes a network card an uplink of a switch.
    10 idempotent fn link(switch: &'a str, nic: &'a str) -> ();
    /// Takes an uplink from a switch.
    11 once fn unlink(switch: &'a str, nic: &'a str) -> ();
    /// Has what a port sends and is given copied to another port of the switch; `None`: not any more. Neither has to be there yet.
    12 idempotent fn mirror(switch: &'a str, from: &'a str, to: Option<&'a str>) -> ();
    /// Takes the link of a guest's port down or up, until the machine ends. Its guest is told.
    13 idempotent fn set_link(port: &'a str, up: bool) -> ();
}
