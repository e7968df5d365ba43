//! The network server.

use super::{LIST, error};
use alloc::{format, vec, vec::Vec};
use tessera_hostd::host::{HostError, InterfaceSpec, NicFacts, PortGroupSpec, SwitchSpec};
use tessera_proto::{
    CallError, collect,
    network::{Client, NicInfo},
};
use tessera_rt::{Connection, Endpoint, require, time};

const PATIENCE_MS: u64 = 2000;
/// The one switch and its port groups.
const SWITCH: &str = "vSwitch0";
const GROUPS: [&str; 2] = ["VM Network", "Management Network"];

/// The cards.
pub fn nics() -> Result<Vec<NicInfo>, CallError> {
    let endpoint = Endpoint::new(require("net"));
    let mut client = Client(Connection::with_timeout(endpoint, time::milliseconds(PATIENCE_MS)));
    collect(LIST, |first| client.nics(first))
}

fn address([a, b, c, d, e, f]: [u8; 6]) -> alloc::string::String {
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// What is told of the cards.
pub fn facts() -> Result<Vec<NicFacts>, HostError> {
    let nics = nics().map_err(|failure| error("the network cards", failure))?;
    let fact = |nic: NicInfo| NicFacts {
        name: nic.name,
        driver: nic.driver,
        mac: address(nic.mac),
        link_up: nic.link.up,
        speed_mbps: nic.link.speed,
    };
    Ok(nics.into_iter().map(fact).collect())
}

/// The switches.
pub fn switches() -> Result<Vec<SwitchSpec>, HostError> {
    let nics = nics().map_err(|failure| error("the network cards", failure))?;
    Ok(vec![SwitchSpec {
        name: SWITCH.into(),
        mtu: 9000,
        uplinks: nics.into_iter().map(|nic| nic.name).collect(),
    }])
}

/// The port groups.
pub fn port_groups() -> Vec<PortGroupSpec> {
    let group = |name: &str| PortGroupSpec {
        name: name.into(),
        switch: SWITCH.into(),
        ..PortGroupSpec::default()
    };
    GROUPS.map(group).into()
}

/// The host's own interface, with the addresses that it has.
pub fn interface(mac: [u8; 6], ipv4: Option<(core::net::Ipv4Addr, u8)>, ipv6: Vec<core::net::Ipv6Addr>) -> InterfaceSpec {
    let mask = |prefix: u8| core::net::Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0));
    InterfaceSpec {
        name: "vmk0".into(),
        port_group: GROUPS[1].into(),
        mac: address(mac),
        dhcp: true,
        ipv4: ipv4.map(|(address, _)| format!("{address}")),
        netmask: ipv4.map(|(_, prefix)| format!("{}", mask(prefix))),
        gateway: None,
        ipv6: ipv6.iter().map(|address| format!("{address}")).collect(),
    }
}
