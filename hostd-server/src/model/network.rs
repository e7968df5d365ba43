//! Networks.
use super::{
    PortMirror, TrafficShaping, UplinkTeaming,
    text::{Few, Id, Ipv4, Ipv6Network, Name, Ranged},
};
use alloc::{string::String, vec::Vec};

/// Largest packet.
pub type Mtu = Ranged<1280, 9000>;
/// VLAN; 0: none, 4095: all.
pub type Vlan = Ranged<0, 4095>;

model! {
    /// A virtual switch.
    pub struct VirtualSwitch {
        /// Identifier.
        pub id: String,
        /// Name.
        pub name: String,
        /// Largest packet.
        pub mtu: u32,
        /// Network cards of the host.
        pub uplinks: Vec<String>,
        /// What ports may do, where their group says nothing else.
        pub security: PortSecurity,
        /// Limits of each port, where its group says nothing else.
        pub shaping: TrafficShaping,
        /// How uplinks are used, where a group says nothing else.
        pub teaming: UplinkTeaming,
        /// Ports that are watched.
        pub mirrors: Vec<PortMirror>,
        /// Ports it can have.
        pub ports: u32,
        /// Ports in use.
        pub used_ports: u32,
    }

    /// A switch to make.
    pub struct SwitchCreate {
        /// Name.
        pub name: Name,
        /// Largest packet.
        pub mtu: Option<Mtu>,
        /// Uplinks.
        pub uplinks: Option<Few<Id, 8>>,
        /// What ports may do, where their group says nothing else.
        pub security: Option<PortSecurity>,
        /// Limits of each port, where its group says nothing else.
        pub shaping: Option<TrafficShaping>,
        /// How uplinks are used, where a group says nothing else.
        pub teaming: Option<UplinkTeaming>,
        /// Ports that are watched.
        pub mirrors: Option<Few<PortMirror, 16>>,
    }

    /// A change of a switch.
    pub struct SwitchPatch {
        /// Largest packet.
        pub mtu: Option<Mtu>,
        /// Uplinks.
        pub uplinks: Option<Few<Id, 8>>,
        /// What ports may do, where their group says nothing else.
        pub security: Option<PortSecurity>,
        /// Limits of each port, where its group says nothing else.
        pub shaping: Option<TrafficShaping>,
        /// How uplinks are used, where a group says nothing else.
        pub teaming: Option<UplinkTeaming>,
        /// Ports that are watched.
        pub mirrors: Option<Few<PortMirror, 16>>,
    }

    /// What ports of a group may do.
    pub struct PortSecurity {
        /// See everything.
        pub promiscuous: bool,
        /// Change their address.
        pub mac_changes: bool,
        /// Send from others' addresses.
        pub forged_transmits: bool,
    }

    /// A port group.
    pub struct PortGroup {
        /// Identifier.
        pub id: String,
        /// Name.
        pub name: String,
        /// Its switch.
        pub switch: String,
        /// VLAN.
        pub vlan: u32,
        /// Security.
        pub security: PortSecurity,
        /// Limits of its own; null: the switch's hold.
        pub shaping: Option<TrafficShaping>,
        /// Uplinks of its own; null: the switch's.
        pub teaming: Option<UplinkTeaming>,
        /// Machines on it.
        pub vms: Vec<String>,
        /// The host's interfaces on it.
        pub host_interfaces: Vec<String>,
    }

    /// A port group to make.
    pub struct PortGroupCreate {
        /// Name.
        pub name: Name,
        /// Its switch.
        pub switch: Id,
        /// VLAN.
        pub vlan: Option<Vlan>,
        /// Security.
        pub security: Option<PortSecurity>,
        /// Limits of its own; null: the switch's hold.
        pub shaping: Option<TrafficShaping>,
        /// Uplinks of its own; null: the switch's.
        pub teaming: Option<UplinkTeaming>,
    }

    /// A change of a port group.
    pub struct PortGroupPatch {
        /// VLAN.
        pub vlan: Option<Vlan>,
        /// Security.
        pub security: Option<PortSecurity>,
        /// Limits of its own; null: the switch's hold from now on.
        #[serde(default, deserialize_with = "super::text::given", skip_serializing_if = "Option::is_none")]
        pub shaping: Option<Option<TrafficShaping>>,
        /// Uplinks of its own; null: the switch's from now on.
        #[serde(default, deserialize_with = "super::text::given", skip_serializing_if = "Option::is_none")]
        pub teaming: Option<Option<UplinkTeaming>>,
    }

    /// A network card of the host.
    pub struct PhysicalNic {
        /// Identifier.
        pub id: String,
        /// Name.
        pub name: String,
        /// Driver.
        pub driver: String,
        /// Address.
        pub mac: String,
        /// Link.
        pub link_up: bool,
        /// Speed.
        pub speed_mbps: u32,
        /// The switch it is an uplink of.
        pub switch: Option<String>,
    }

    /// An interface of the host itself.
    pub struct HostInterface {
        /// Identifier.
        pub id: String,
        /// Name.
        pub name: String,
        /// Port group.
        pub port_group: String,
        /// Address.
        pub mac: String,
        /// By DHCP.
        pub dhcp: bool,
        /// IPv4 address.
        pub ipv4: Option<String>,
        /// Network mask.
        pub netmask: Option<String>,
        /// Router.
        pub gateway: Option<String>,
        /// IPv6 addresses.
        pub ipv6: Vec<String>,
    }

    /// A change of an interface.
    pub struct HostInterfacePatch {
        /// Port group.
        pub port_group: Option<Id>,
        /// By DHCP.
        pub dhcp: Option<bool>,
        /// IPv4 address.
        pub ipv4: Option<Ipv4>,
        /// Network mask.
        pub netmask: Option<Ipv4>,
        /// Router.
        pub gateway: Option<Ipv4>,
        /// IPv6 addresses by hand, such as `2001:db8::5/64`; those that the host makes itself stay.
        pub ipv6: Option<Few<Ipv6Network, 4>>,
    }
}
