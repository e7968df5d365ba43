//! The network server: network cards. Its switch cannot be asked or changed by messages, so what it has is told as it is built in.

use super::{Answer, LIST, failed, server};
use alloc::{
    format,
    string::{String, ToString},
    vec,
    vec::Vec,
};
use core::net::{Ipv4Addr, Ipv6Addr};
use tessera_hostd::host::{InterfaceSpec, NicFacts, PortGroupSpec, SwitchSpec};
use tessera_proto::{
    collect,
    network::{Client, NicInfo, NicState},
};

/// How long it may take: a card that is slow to start, with others before it.
const PATIENCE: u64 = 30_000;
/// The switch that there is.
const SWITCH: &str = "vSwitch0";
/// Why it cannot be changed.
pub const FIXED: &str = "Switches and port groups of this host cannot be changed while it runs";

/// The port group of the host's own interface.
pub const MANAGEMENT: &str = "Management Network";

fn port_group(name: &str) -> PortGroupSpec {
    PortGroupSpec {
        name: name.into(),
        switch: SWITCH.into(),
        ..PortGroupSpec::default()
    }
}

/// Port groups.
pub fn port_groups() -> Vec<PortGroupSpec> {
    vec![port_group("VM Network"), port_group(MANAGEMENT)]
}

/// An address as people write it.
fn mac(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// The host's own interface, with the addresses that it has.
pub fn interface(address: [u8; 6], ipv4: Option<(Ipv4Addr, u8)>, ipv6: &[Ipv6Addr]) -> InterfaceSpec {
    let mask = |prefix: u8| Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0));
    InterfaceSpec {
        name: "vmk0".into(),
        port_group: MANAGEMENT.into(),
        mac: mac(address),
        dhcp: true,
        ipv4: ipv4.map(|(address, _)| address.to_string()),
        netmask: ipv4.map(|(_, prefix)| mask(prefix).to_string()),
        gateway: None,
        ipv6: ipv6.iter().map(ToString::to_string).collect(),
    }
}

/// The network server.
pub struct Network;

impl Network {
    fn cards(self) -> Answer<Vec<NicInfo>> {
        let mut client = Client(server("net", PATIENCE)?);
        collect(LIST, |first| client.nics(first)).map_err(|error| failed("The network cards cannot be listed", &error))
    }

    pub fn nics(self) -> Answer<Vec<NicFacts>> {
        let facts = |card: NicInfo| NicFacts {
            name: card.name,
            driver: card.driver,
            mac: mac(card.mac),
            link_up: card.link.up && card.state == NicState::Ready,
            speed_mbps: card.link.speed,
        };
        Ok(self.cards()?.into_iter().map(facts).collect())
    }

    /// Bytes received and sent by all cards.
    pub fn transferred(self) -> Answer<(u64, u64)> {
        let sum = |(received, sent): (u64, u64), card: &NicInfo| {
            let counted = &card.statistics;
            (
                received.saturating_add(counted.received_bytes),
                sent.saturating_add(counted.sent_bytes),
            )
        };
        Ok(self.cards()?.iter().fold((0, 0), sum))
    }

    pub fn switches(self) -> Answer<Vec<SwitchSpec>> {
        let cards = self.cards()?;
        Ok(vec![SwitchSpec {
            name: SWITCH.into(),
            mtu: cards.iter().map(|card| card.mtu).min().unwrap_or(1500),
            uplinks: cards.into_iter().map(|card| card.name).collect(),
        }])
    }
}
