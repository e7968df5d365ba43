//! What is answered about switches, port groups and ports.

use super::{
    Server,
    fabric::At,
    hub::nanoseconds,
    vswitch::{End, Port, VSwitch},
};
use alloc::{format, string::String, vec::Vec};
use tessera_net::switch::{Drop, REASONS};
use tessera_proto::{
    Call, Failure, FailureKind, Page,
    switch::{self, AddressInfo, DropReason, Dropped, Group, GroupInfo, PortInfo, PortKind, Settings, SwitchInfo, TRUNK, Traffic},
};
use tessera_vswitch::{Network, Refused};

/// [`Drop`]'s reasons in their order.
const DROPS: [(Drop, DropReason); REASONS] = [
    (Drop::NoPort, DropReason::NoPort),
    (Drop::Blocked, DropReason::Blocked),
    (Drop::Forged, DropReason::Forged),
    (Drop::GroupSource, DropReason::GroupSource),
    (Drop::Tagged, DropReason::Tagged),
    (Drop::NoDestination, DropReason::NoDestination),
    (Drop::Hairpin, DropReason::Hairpin),
    (Drop::NoUplink, DropReason::NoUplink),
    (Drop::Reflected, DropReason::Reflected),
    (Drop::Shaped, DropReason::Shaped),
    (Drop::TooLong, DropReason::TooLong),
    (Drop::LinkDown, DropReason::LinkDown),
];

fn name_of(switch: &VSwitch, slot: u16) -> String {
    switch.port(slot).map_or_else(String::new, |port| port.name.clone())
}

impl Server {
    fn port_info(&self, at: At, switch: &VSwitch, port: &Port) -> PortInfo {
        let (kind, mac) = match &port.end {
            End::Guest { mac, .. } => (PortKind::Guest, *mac),
            End::Host { mac, .. } => (PortKind::Host, *mac),
            End::Uplink { place, .. } => (PortKind::Uplink, self.cards.get(*place).map_or([0; 6], |card| card.info().mac)),
        };
        let counters = switch.switch.counters(at.slot).copied().unwrap_or_default();
        let traffic = |(frames, bytes)| Traffic { frames, bytes };
        let uplink = switch.switch.uplink(at.slot, mac);
        PortInfo {
            name: port.name.clone(),
            kind,
            switch: switch.name.clone(),
            group: port.group.clone(),
            vlan: switch.switch.group(at.slot).map_or(TRUNK, |group| group.vlan),
            mac,
            link: switch.switch.is_up(at.slot),
            blocked: switch.switch.is_blocked(at.slot),
            uplink: uplink.map_or_else(String::new, |slot| name_of(switch, slot)),
            received: traffic(counters.received),
            sent: traffic(counters.sent),
            multicast: counters.group,
            dropped: DROPS
                .into_iter()
                .map(|(drop, reason)| Dropped {
                    reason,
                    frames: counters.drops[drop as usize],
                })
                .filter(|dropped| dropped.frames > 0)
                .collect(),
        }
    }

    fn change_network(&mut self, change: impl FnOnce(&mut Network) -> Result<(), Refused>) -> Result<(), Failure> {
        self.hub.fabric.change(&mut self.cards, nanoseconds(), change)
    }
}

impl switch::Server for Server {
    fn switches(&mut self, _call: &mut Call, first: u32) -> Result<Page<SwitchInfo>, Failure> {
        let fabric = &self.hub.fabric;
        let all = (0..).zip(&fabric.network().switches).skip(first as usize);
        let count = |name: &str| {
            let found = fabric.all().find(|(_, one)| one.name == name);
            found.map_or(0, |(_, one)| one.ports().count() as u32)
        };
        Ok(Page::fill(all.map(|(number, one)| {
            let info = SwitchInfo {
                uplinks: one.uplinks.clone().unwrap_or_default(),
                mirrors: one.mirrors.clone(),
                groups: one.groups.len() as u32,
                ports: count(&one.settings.name),
                settings: one.settings.clone(),
            };
            (number, info)
        })))
    }

    fn groups(&mut self, _call: &mut Call, first: u32) -> Result<Page<GroupInfo>, Failure> {
        let fabric = &self.hub.fabric;
        let all = fabric.network().switches.iter();
        let all = all.flat_map(|one| one.groups.iter().map(move |group| (one, group)));
        Ok(Page::fill((0..).zip(all).skip(first as usize).map(|(number, (one, group))| {
            let info = GroupInfo {
                switch: one.settings.name.clone(),
                security: one.security(group),
                shaping: one.shaping(group),
                teaming: one.teaming(group).clone(),
                ports: fabric.members(&group.name).len() as u32,
                group: group.clone(),
            };
            (number, info)
        })))
    }

    fn ports(&mut self, _call: &mut Call, first: u32) -> Result<Page<PortInfo>, Failure> {
        let all = self.hub.fabric.all();
        let all = all.flat_map(|(switch, one)| one.ports().map(move |(slot, port)| (At { switch, slot }, one, port)));
        let shown = (0..).zip(all).skip(first as usize);
        Ok(Page::fill(
            shown.map(|(number, (at, one, port))| (number, self.port_info(at, one, port))),
        ))
    }

    fn addresses(&mut self, _call: &mut Call, switch: &str, first: u32) -> Result<Page<AddressInfo>, Failure> {
        let mut all = self.hub.fabric.all();
        let found = all.find(|(_, one)| one.name == switch);
        let (_, one) = found.ok_or_else(|| Failure::new(FailureKind::NotFound, format!("there is no switch `{switch}`")))?;
        let own = one.switch.own().map(|(mac, slot)| AddressInfo {
            mac,
            vlan: one.switch.group(slot).map_or(TRUNK, |group| group.vlan),
            port: name_of(one, slot),
            age_ms: None,
        });
        let learned = one.switch.learned(nanoseconds()).map(|(mac, vlan, slot, age)| AddressInfo {
            mac,
            vlan,
            port: name_of(one, slot),
            age_ms: Some(age / 1_000_000),
        });
        Ok(Page::fill((0..).zip(own.chain(learned)).skip(first as usize)))
    }

    fn create_switch(&mut self, _call: &mut Call, settings: Settings) -> Result<(), Failure> {
        self.change_network(|network| network.create_switch(settings))
    }

    fn change_switch(&mut self, _call: &mut Call, settings: Settings) -> Result<(), Failure> {
        self.change_network(|network| network.change_switch(settings))
    }

    fn remove_switch(&mut self, _call: &mut Call, switch: &str) -> Result<(), Failure> {
        self.change_network(|network| network.remove_switch(switch))
    }

    fn create_group(&mut self, _call: &mut Call, switch: &str, group: Group) -> Result<(), Failure> {
        self.change_network(|network| network.create_group(switch, group))
    }

    fn change_group(&mut self, _call: &mut Call, group: Group) -> Result<(), Failure> {
        self.change_network(|network| network.change_group(group))
    }

    fn remove_group(&mut self, _call: &mut Call, group: &str) -> Result<(), Failure> {
        let members: Vec<_> = self.hub.fabric.members(group);
        if !members.is_empty() {
            let text = format!(
                "port group `{group}` is in use by {}: connect them elsewhere first",
                members.join(", ")
            );
            return Err(Failure::new(FailureKind::BadState, text));
        }
        self.change_network(|network| network.remove_group(group))
    }

    fn link(&mut self, _call: &mut Call, switch: &str, nic: &str) -> Result<(), Failure> {
        if !self.cards.iter().any(|card| card.name() == nic) {
            let text = format!("there is no network card `{nic}`: `nic list` shows all");
            return Err(Failure::new(FailureKind::NotFound, text));
        }
        self.change_network(|network| network.link(switch, nic))
    }

    fn unlink(&mut self, _call: &mut Call, switch: &str, nic: &str) -> Result<(), Failure> {
        self.change_network(|network| network.unlink(switch, nic))
    }

    fn mirror(&mut self, _call: &mut Call, switch: &str, from: &str, to: Option<&str>) -> Result<(), Failure> {
        self.change_network(|network| network.mirror(switch, from, to))
    }

    fn set_link(&mut self, _call: &mut Call, port: &str, up: bool) -> Result<(), Failure> {
        self.hub.fabric.set_link(port, up)
    }
}
