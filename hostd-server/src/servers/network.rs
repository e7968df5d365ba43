//! The network server: network cards, switches and port groups.

use super::{Answer, LIST, failed, server};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::net::{Ipv4Addr, Ipv6Addr};
use tessera_hostd::host::{
    CaptureFacts, GroupPolicies, InterfaceSpec, NicFacts, PortFacts, PortGroupSpec, PortKind, SwitchPolicies, SwitchSpec,
};
use tessera_proto::{
    CallError,
    capture::{self, CaptureInfo, MAX_ROOM},
    collect,
    network::{Client, NicInfo, NicState},
    switch::{self, Group, GroupInfo, PortInfo, Security, Settings, SwitchInfo},
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
type Captures = capture::Client<Connection>;

/// The network server.
#[derive(Clone, Copy)]
pub struct Network;

impl Network {
    pub fn cards(self) -> Answer<Vec<NicInfo>> {
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
            policies: Some(SwitchPolicies {
                security: info.settings.security,
                shaping: info.settings.shaping,
                teaming: info.settings.teaming,
                mirrors: info.mirrors,
            }),
        };
        Ok(self.all_switches()?.into_iter().map(spec).collect())
    }

    /// Makes a switch, or changes the one of that name; what nothing is said about stays.
    pub fn set_switch(self, spec: &SwitchSpec) -> Answer<()> {
        let known = self.all_switches()?.into_iter().find(|one| one.settings.name == spec.name);
        let (mut settings, linked, mirrors) = match &known {
            Some(known) => (known.settings.clone(), known.uplinks.clone(), known.mirrors.clone()),
            None => (Settings::new(&spec.name), Vec::new(), Vec::new()),
        };
        settings.mtu = u16::try_from(spec.mtu).unwrap_or(u16::MAX);
        self.ask("The switch cannot be set", |client| {
            if known.is_none() {
                client.create_switch(settings.clone())?;
            }
            for new in spec.uplinks.iter().filter(|card| !linked.contains(card)) {
                client.link(&spec.name, new)?;
            }
            // Orders of uplinks name those that are there, and forget those that go.
            if let Some(policies) = &spec.policies {
                (settings.security, settings.shaping) = (policies.security, policies.shaping);
                settings.teaming = policies.teaming.clone();
            }
            client.change_switch(settings)?;
            for gone in linked.iter().filter(|card| !spec.uplinks.contains(card)) {
                client.unlink(&spec.name, gone)?;
            }
            let Some(policies) = &spec.policies else { return Ok(()) };
            for old in mirrors.iter().filter(|old| policies.mirrors.iter().all(|new| new.from != old.from)) {
                client.mirror(&spec.name, &old.from, None)?;
            }
            for new in policies.mirrors.iter().filter(|new| !mirrors.contains(new)) {
                client.mirror(&spec.name, &new.from, Some(&new.to))?;
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
            policies: Some(GroupPolicies {
                shaping: info.group.shaping,
                teaming: info.group.teaming,
            }),
        };
        Ok(self.all_groups()?.into_iter().map(spec).collect())
    }

    /// Makes a port group, or changes the one of that name; what nothing is said about stays.
    pub fn set_port_group(self, spec: &PortGroupSpec) -> Answer<()> {
        let known = self.all_groups()?.into_iter().find(|one| one.group.name == spec.name);
        let security = Security {
            promiscuous: spec.promiscuous,
            forged_transmits: spec.forged_transmits,
            mac_changes: spec.mac_changes,
        };
        let before = || {
            known.as_ref().map(|known| GroupPolicies {
                shaping: known.group.shaping,
                teaming: known.group.teaming.clone(),
            })
        };
        let own = spec.policies.clone().or_else(before).unwrap_or_default();
        let group = Group {
            name: spec.name.clone(),
            vlan: spec.vlan,
            security: match &known {
                // It goes on with its switch's.
                Some(known) if known.group.security.is_none() && known.security == security => None,
                _ => Some(security),
            },
            shaping: own.shaping,
            teaming: own.teaming,
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

    /// Ports of all switches.
    pub fn ports(self) -> Answer<Vec<PortFacts>> {
        let named = |name: String| Some(name).filter(|name| !name.is_empty());
        let facts = |info: PortInfo| PortFacts {
            name: info.name,
            kind: match info.kind {
                switch::PortKind::Guest => PortKind::Machine,
                switch::PortKind::Host => PortKind::Host,
                switch::PortKind::Uplink => PortKind::Uplink,
            },
            switch: info.switch,
            group: named(info.group),
            vlan: info.vlan,
            mac: mac(info.mac),
            link_up: info.link,
            blocked: info.blocked,
            uplink: named(info.uplink),
            received: (info.received.frames, info.received.bytes),
            sent: (info.sent.frames, info.sent.bytes),
            multicast: info.multicast,
            dropped: info
                .dropped
                .into_iter()
                .map(|one| (reason(one.reason), one.reason.text().into(), one.frames))
                .collect(),
        };
        let all = self.ask("The ports cannot be listed", |client| collect(LIST, |first| client.ports(first)))?;
        Ok(all.into_iter().map(facts).collect())
    }

    /// Does something with captures; `what` says what for.
    fn record<T>(self, what: &str, act: impl FnOnce(&mut Captures) -> Result<T, CallError>) -> Answer<T> {
        let mut client = capture::Client(server("net", PATIENCE)?);
        act(&mut client).map_err(|error| failed(what, &error))
    }

    /// Captures.
    pub fn captures(self) -> Answer<Vec<CaptureFacts>> {
        let facts = |info: CaptureInfo| CaptureFacts {
            id: info.id,
            port: info.port,
            snap: info.snap,
            waiting: info.waiting,
            frames: info.frames,
            lost: info.lost,
            running: info.running,
        };
        let all = self.record("Captures cannot be listed", |client| collect(LIST, |first| client.captures(first)))?;
        Ok(all.into_iter().map(facts).collect())
    }

    /// Begins one.
    pub fn start_capture(self, port: &str, snap: u32) -> Answer<u32> {
        self.record("The port cannot be captured", |client| client.start(port, snap, 0))
    }

    /// What there is of its file from a byte on.
    pub fn read_capture(self, id: u32, from: u64) -> Answer<Vec<u8>> {
        self.record("The capture cannot be read", |client| {
            // The first one makes room; those after it can be asked for again if the answer gets lost.
            let mut bytes = client.read(id, from)?.bytes;
            while !bytes.is_empty() && bytes.len() < MAX_ROOM as usize {
                let more = client.peek(id, from + bytes.len() as u64)?.bytes;
                if more.is_empty() {
                    break;
                }
                bytes.extend(more);
            }
            Ok(bytes)
        })
    }

    /// Ends one.
    pub fn stop_capture(self, id: u32) -> Answer<()> {
        self.record("The capture cannot be ended", |client| client.stop(id))
    }

    /// Forgets one.
    pub fn remove_capture(self, id: u32) -> Answer<()> {
        self.record("The capture cannot be removed", |client| client.remove(id))
    }
}

/// A reason's name, as the API has names: `NoUplink` is `noUplink`.
fn reason(reason: switch::DropReason) -> String {
    let mut name = format!("{reason:?}");
    if let Some(first) = name.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    name
}
