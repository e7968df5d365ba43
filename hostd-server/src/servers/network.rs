//! The network server: network cards, switches and port groups.

use super::{Answer, LIST, failed, server};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::net::{Ipv4Addr, Ipv6Addr};
use tessera_hostd::host::{InterfaceSpec, NicFacts, PortGroupSpec, SwitchSpec};
use tessera_proto::{
    CallError, collect,
    network::{Client, NicInfo, NicState},
    switch::{self, Group, GroupInfo, Security, Settings, SwitchInfo},
};
use tessera_rt::Connection;

/// How long it may take: a card that is slow to start, with others before it.
const PATIENCE: u64 = 30_000;
/// The port group of the host's own interface.
pub const MANAGEMENT: &str = "Management Network";

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

type Switches = switch::Client<Connection>;

/// The network server.
#[derive(Clone, Copy)]
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

    /// Does something with the switches; `what` says what for.
    fn ask<T>(self, what: &str, act: impl FnOnce(&mut Switches) -> Result<T, CallError>) -> Answer<T> {
        let mut client = switch::Client(server("net", PATIENCE)?);
        act(&mut client).map_err(|error| failed(what, &error))
    }

    fn all_switches(self) -> Answer<Vec<SwitchInfo>> {
        self.ask("The switches cannot be listed", |client| {
            collect(LIST, |first| client.switches(first))
        })
    }

    fn all_groups(self) -> Answer<Vec<GroupInfo>> {
        self.ask("The port groups cannot be listed", |client| {
            collect(LIST, |first| client.groups(first))
        })
    }

    /// Switches.
    pub fn switches(self) -> Answer<Vec<SwitchSpec>> {
        let spec = |info: SwitchInfo| SwitchSpec {
            name: info.settings.name,
            mtu: info.settings.mtu.into(),
            uplinks: info.uplinks,
        };
        Ok(self.all_switches()?.into_iter().map(spec).collect())
    }

    /// Makes a switch, or changes the one of that name; what hostd does not know of it stays.
    pub fn set_switch(self, spec: &SwitchSpec) -> Answer<()> {
        let known = self.all_switches()?.into_iter().find(|one| one.settings.name == spec.name);
        let (mut settings, linked) = match &known {
            Some(known) => (known.settings.clone(), known.uplinks.clone()),
            None => (Settings::new(&spec.name), Vec::new()),
        };
        settings.mtu = u16::try_from(spec.mtu).unwrap_or(u16::MAX);
        self.ask("The switch cannot be set", |client| {
            match known {
                Some(_) => client.change_switch(settings)?,
                None => client.create_switch(settings)?,
            }
            for gone in linked.iter().filter(|card| !spec.uplinks.contains(card)) {
                client.unlink(&spec.name, gone)?;
            }
            for new in spec.uplinks.iter().filter(|card| !linked.contains(card)) {
                client.link(&spec.name, new)?;
            }
            Ok(())
        })
    }

    /// Removes a switch.
    pub fn remove_switch(self, name: &str) -> Answer<()> {
        self.ask("The switch cannot be removed", |client| client.remove_switch(name))
    }

    /// Port groups.
    pub fn port_groups(self) -> Answer<Vec<PortGroupSpec>> {
        let spec = |info: GroupInfo| PortGroupSpec {
            name: info.group.name,
            switch: info.switch,
            vlan: info.group.vlan,
            promiscuous: info.security.promiscuous,
            mac_changes: info.security.mac_changes,
            forged_transmits: info.security.forged_transmits,
        };
        Ok(self.all_groups()?.into_iter().map(spec).collect())
    }

    /// Makes a port group, or changes the one of that name; what hostd does not know of it stays.
    pub fn set_port_group(self, spec: &PortGroupSpec) -> Answer<()> {
        let known = self.all_groups()?.into_iter().find(|one| one.group.name == spec.name);
        let security = Security {
            promiscuous: spec.promiscuous,
            forged_transmits: spec.forged_transmits,
            mac_changes: spec.mac_changes,
        };
        let group = Group {
            name: spec.name.clone(),
            vlan: spec.vlan,
            security: match &known {
                // It goes on with its switch's.
                Some(known) if known.group.security.is_none() && known.security == security => None,
                _ => Some(security),
            },
            shaping: known.as_ref().and_then(|known| known.group.shaping),
            teaming: known.as_ref().and_then(|known| known.group.teaming.clone()),
        };
        self.ask("The port group cannot be set", |client| match known {
            Some(_) => client.change_group(group),
            None => client.create_group(&spec.switch, group),
        })
    }

    /// Removes a port group.
    pub fn remove_port_group(self, name: &str) -> Answer<()> {
        self.ask("The port group cannot be removed", |client| client.remove_group(name))
    }
}
