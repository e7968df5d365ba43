//! Switches, port groups, ports, cards, and the host's own interfaces.

use alloc::{string::String, vec::Vec};
use tessera_vswitch::{Mirror, Security, Shaping, Teaming};

/// A virtual switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SwitchSpec {
    /// Name.
    pub name: String,
    /// Largest packet.
    pub mtu: u32,
    /// Network cards of the host that are its uplinks.
    pub uplinks: Vec<String>,
    /// The rest of what it says; what is set without stays as it is.
    #[serde(default)]
    pub policies: Option<SwitchPolicies>,
}

/// What a switch says about the ports of its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SwitchPolicies {
    /// What they may do.
    pub security: Security,
    /// Their limits.
    pub shaping: Shaping,
    /// Their uplinks.
    pub teaming: Teaming,
    /// Ports that are watched.
    pub mirrors: Vec<Mirror>,
}

/// What a port group has of its own; `None`: its switch's.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GroupPolicies {
    /// Limits of its ports.
    pub shaping: Option<Shaping>,
    /// Their uplinks.
    pub teaming: Option<Teaming>,
}

/// A port group.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PortGroupSpec {
    /// Name.
    pub name: String,
    /// Its switch.
    pub switch: String,
    /// VLAN; 0: untagged, 4095: all, tagged.
    pub vlan: u16,
    /// Its ports see everything.
    pub promiscuous: bool,
    /// Guests may change their address.
    pub mac_changes: bool,
    /// Guests may send from others' addresses.
    pub forged_transmits: bool,
    /// The rest of what it says; what is set without stays as it is.
    #[serde(default)]
    pub policies: Option<GroupPolicies>,
}

/// A port of a switch.
#[derive(Clone, Debug, Default)]
pub struct PortFacts {
    /// Name.
    pub name: String,
    /// Who is there.
    pub kind: PortKind,
    /// The switch.
    pub switch: String,
    /// The port group; an uplink has none.
    pub group: Option<String>,
    /// VLAN; 0: untagged, 4095: all, tagged.
    pub vlan: u16,
    /// The address in use.
    pub mac: String,
    /// Link.
    pub link_up: bool,
    /// Nothing goes in or out: it uses an address that it must not have.
    pub blocked: bool,
    /// The uplink that it uses now.
    pub uplink: Option<String>,
    /// Frames and bytes that came from it.
    pub received: (u64, u64),
    /// Frames and bytes that it was given.
    pub sent: (u64, u64),
    /// Frames for many, of both.
    pub multicast: u64,
    /// Names of the reasons why frames were dropped, the same in words, and how many.
    pub dropped: Vec<(String, String, u64)>,
}

/// Who is at a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortKind {
    /// A machine.
    #[default]
    Machine,
    /// A server of the host.
    Host,
    /// A network card of the host.
    Uplink,
}

/// A recording of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureFacts {
    /// Number.
    pub id: u32,
    /// The port.
    pub port: String,
    /// Bytes of each frame that are kept.
    pub snap: u32,
    /// Bytes that wait to be read.
    pub waiting: u32,
    /// Frames that were recorded.
    pub frames: u64,
    /// Frames that found no room.
    pub lost: u64,
    /// It goes on.
    pub running: bool,
}

/// A network card of the host.
#[derive(Clone, Debug, Default)]
pub struct NicFacts {
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Address.
    pub mac: String,
    /// Link.
    pub link_up: bool,
    /// Speed in Mbit/s; 0 unknown.
    pub speed_mbps: u32,
}

/// The host's own network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// Name, such as `vmk0`.
    pub name: String,
    /// Port group.
    pub port_group: String,
    /// Address.
    pub mac: String,
    /// Gets its addresses by DHCP.
    pub dhcp: bool,
    /// IPv4 address: set, or got.
    pub ipv4: Option<String>,
    /// Its network mask.
    pub netmask: Option<String>,
    /// Router.
    pub gateway: Option<String>,
    /// IPv6 addresses.
    pub ipv6: Vec<String>,
}

/// Names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsSpec {
    /// The host's name.
    pub host_name: String,
    /// Its domain.
    pub domain: String,
    /// Servers, as addresses.
    pub servers: Vec<String>,
    /// Domains that are tried.
    pub search: Vec<String>,
    /// Servers and domains come by DHCP.
    pub dhcp: bool,
}
