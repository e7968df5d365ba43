//! Switches, port groups, network cards, the host's interfaces.

use super::{ListQuery, NoQuery, page, route};
use crate::{
    api::{
        Api, ApiError, Call, Needs,
        data::Networks,
        route::{Created, Json, Route},
    },
    host::{GroupPolicies, InterfaceSpec, PortGroupSpec, Security, SwitchPolicies, SwitchSpec},
    http::Method,
    model::{
        HostInterface, HostInterfacePatch, Page, PhysicalNic, PortGroup, PortGroupCreate, PortGroupPatch, PortMirror, PortSecurity,
        SwitchCreate, SwitchPatch, TrafficShaping, UplinkTeaming, VirtualSwitch, mirrors, text::Few,
    },
};
use alloc::{
    format,
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};

type Result<T> = core::result::Result<T, ApiError>;
const CONFIG: Needs = Needs::Privilege("Network.Config");
const READ: Needs = Needs::Privilege("System.Read");

pub(super) fn routes(all: &mut Vec<Route>) {
    all.extend([
        route(
            Method::Get,
            "/networks/switches",
            READ,
            "listSwitches",
            "Virtual switches",
            list_switches,
        ),
        route(
            Method::Post,
            "/networks/switches",
            CONFIG,
            "createSwitch",
            "Make a virtual switch",
            create_switch,
        ),
        route(
            Method::Get,
            "/networks/switches/{switch}",
            READ,
            "getSwitch",
            "A virtual switch",
            get_switch,
        ),
        route(
            Method::Patch,
            "/networks/switches/{switch}",
            CONFIG,
            "editSwitch",
            "Change a virtual switch",
            edit_switch,
        ),
        route(
            Method::Delete,
            "/networks/switches/{switch}",
            CONFIG,
            "deleteSwitch",
            "Remove a virtual switch",
            delete_switch,
        ),
        route(
            Method::Get,
            "/networks/port-groups",
            READ,
            "listPortGroups",
            "Port groups",
            list_groups,
        ),
        route(
            Method::Post,
            "/networks/port-groups",
            CONFIG,
            "createPortGroup",
            "Make a port group",
            create_group,
        ),
        route(
            Method::Get,
            "/networks/port-groups/{network}",
            READ,
            "getPortGroup",
            "A port group",
            get_group,
        ),
        route(
            Method::Patch,
            "/networks/port-groups/{network}",
            CONFIG,
            "editPortGroup",
            "Change a port group",
            edit_group,
        ),
        route(
            Method::Delete,
            "/networks/port-groups/{network}",
            CONFIG,
            "deletePortGroup",
            "Remove a port group",
            delete_group,
        ),
        route(
            Method::Get,
            "/networks/nics",
            READ,
            "listNics",
            "Network cards of the host",
            list_nics,
        ),
        route(
            Method::Get,
            "/networks/interfaces",
            READ,
            "listInterfaces",
            "The host's own interfaces",
            list_interfaces,
        ),
        route(
            Method::Patch,
            "/networks/interfaces/{interface}",
            CONFIG,
            "editInterface",
            "Change an interface of the host",
            edit_interface,
        ),
    ]);
}

/// Gives everything that the host names an identifier, and keeps new ones.
pub(super) async fn ids(call: &Call, kind: &str, names: impl Iterator<Item = String>) -> Result<Vec<String>> {
    let mut changes = Vec::new();
    let ids = names.map(|name| call.api.data.borrow_mut().id(kind, &name, &mut changes)).collect();
    if !changes.is_empty() {
        call.api.commit(changes).await?;
    }
    Ok(ids)
}

async fn switches(call: &Call) -> Result<Vec<VirtualSwitch>> {
    let found = call.api.host.switches().await?;
    let groups = groups(call).await?;
    let ids = ids(call, "switch", found.iter().map(|one| one.name.clone())).await?;
    Ok(found
        .into_iter()
        .zip(ids)
        .map(|(one, id)| {
            let used = groups
                .iter()
                .filter(|group| group.switch == id)
                .map(|group| group.vms.len() + group.host_interfaces.len())
                .sum::<usize>()
                + one.uplinks.len();
            let policies = one.policies.unwrap_or_default();
            VirtualSwitch {
                id,
                name: one.name,
                mtu: one.mtu,
                uplinks: one.uplinks,
                security: security(policies.security),
                shaping: policies.shaping.into(),
                teaming: policies.teaming.into(),
                mirrors: mirrors(&policies.mirrors),
                ports: 256,
                used_ports: u32::try_from(used).unwrap_or(256),
            }
        })
        .collect())
}

async fn groups(call: &Call) -> Result<Vec<PortGroup>> {
    let found = call.api.host.port_groups().await?;
    let interfaces = call.api.host.interfaces().await?;
    let own = ids(call, "network", found.iter().map(|one| one.name.clone())).await?;
    let switches = ids(call, "switch", found.iter().map(|one| one.switch.clone())).await?;
    let data = call.api.data.borrow();
    Ok(found
        .into_iter()
        .zip(own.into_iter().zip(switches))
        .map(|(one, (id, switch))| PortGroup {
            vms: data
                .vms
                .values()
                .filter(|vm| vm.config.nics.iter().any(|nic| nic.network == id))
                .map(|vm| vm.id.clone())
                .collect(),
            host_interfaces: interfaces
                .iter()
                .filter(|interface| interface.port_group == one.name)
                .map(|interface| interface.name.clone())
                .collect(),
            id,
            switch,
            vlan: one.vlan.into(),
            security: PortSecurity {
                promiscuous: one.promiscuous,
                mac_changes: one.mac_changes,
                forged_transmits: one.forged_transmits,
            },
            shaping: one.policies.as_ref().and_then(|own| own.shaping).map(Into::into),
            teaming: one.policies.and_then(|own| own.teaming).map(Into::into),
            name: one.name,
        })
        .collect())
}

fn security(one: Security) -> PortSecurity {
    PortSecurity {
        promiscuous: one.promiscuous,
        mac_changes: one.mac_changes,
        forged_transmits: one.forged_transmits,
    }
}

fn to_security(one: &PortSecurity) -> Security {
    Security {
        promiscuous: one.promiscuous,
        mac_changes: one.mac_changes,
        forged_transmits: one.forged_transmits,
    }
}

/// An order of uplinks has only those of the switch, and each once.
fn check_teaming(teaming: &UplinkTeaming, uplinks: &[String]) -> Result<()> {
    let all: Vec<&str> = teaming.active.0.iter().chain(&teaming.standby.0).map(|name| &**name).collect();
    for (place, name) in all.iter().enumerate() {
        if all[..place].contains(name) {
            return Err(ApiError::invalid(format!("{name} stands twice among active and standby uplinks")));
        }
        if !uplinks.iter().any(|uplink| uplink == name) {
            return Err(ApiError::conflict(format!("{name} is no uplink of the switch")));
        }
    }
    Ok(())
}

/// A peak is not below the average.
fn check_shaping(shaping: &TrafficShaping) -> Result<()> {
    for limit in [&shaping.sent, &shaping.received].into_iter().flatten() {
        if limit.peak.get() < limit.average.get() {
            return Err(ApiError::invalid("The peak of a limit is below its average"));
        }
    }
    Ok(())
}

/// Keeps the host's switches and port groups as they are now, and that one of them was removed.
async fn keep_networks(call: &Call, removed: Option<&str>) -> Result<()> {
    let (switches, groups) = (call.api.host.switches().await?, call.api.host.port_groups().await?);
    let before = call.api.data.borrow().settings.networks.clone().unwrap_or_default();
    let there = |name: &str| switches.iter().any(|one| one.name == name) || groups.iter().any(|one| one.name == name);
    let mut gone = before.removed;
    gone.extend(removed.map(Into::into));
    gone.retain(|name| !there(name));
    gone.sort();
    gone.dedup();
    let networks = Networks {
        switches,
        groups,
        removed: gone,
    };
    let changes = {
        let mut data = call.api.data.borrow_mut();
        data.settings.networks = Some(networks);
        data.keep_settings()
    };
    Ok(call.api.commit(changes).await?)
}

/// At the start: makes the host's switches and port groups what was kept. What cannot be done stays as it is, and is told.
pub(in crate::api) async fn apply_networks(api: &Rc<Api>) {
    let Some(kept) = api.data.borrow().settings.networks.clone() else {
        return;
    };
    let host = &api.host;
    let tell = |what: &str, name: &str, error: &crate::host::HostError| {
        host.announce(&format!("{what} {name} is not as it was kept: {}", error.message))
    };
    let (Ok(switches), Ok(groups)) = (host.switches().await, host.port_groups().await) else {
        return host.announce("The network server does not answer: switches are as the image has them");
    };
    // First what is to go: it may hold uplinks that others are to have.
    for old in groups.iter().filter(|old| kept.removed.contains(&old.name)) {
        if let Err(error) = host.remove_port_group(&old.name).await {
            tell("Port group", &old.name, &error);
        }
    }
    for old in &switches {
        let new = kept.switches.iter().find(|switch| switch.name == old.name);
        let result = match new {
            None if kept.removed.contains(&old.name) => host.remove_switch(&old.name).await,
            None => continue,
            Some(new) => {
                let uplinks = old.uplinks.iter().filter(|uplink| new.uplinks.contains(uplink)).cloned().collect();
                // An order of uplinks may name some that are not there yet.
                let less = SwitchSpec {
                    uplinks,
                    policies: None,
                    ..new.clone()
                };
                host.set_switch(&old.name, &less).await
            }
        };
        if let Err(error) = result {
            tell("Switch", &old.name, &error);
        }
    }
    for switch in &kept.switches {
        if let Err(error) = host.set_switch(&switch.name, switch).await {
            tell("Switch", &switch.name, &error);
        }
    }
    for group in &kept.groups {
        if let Err(error) = host.set_port_group(&group.name, group).await {
            tell("Port group", &group.name, &error);
        }
    }
}

async fn list_switches(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<VirtualSwitch>>> {
    Ok(page(switches(&call).await?, &query))
}

async fn switch_of(call: &Call, id: &str) -> Result<VirtualSwitch> {
    switches(call)
        .await?
        .into_iter()
        .find(|one| one.id == id)
        .ok_or_else(|| ApiError::not_found(format!("There is no switch {}", id.escape_default())))
}

async fn get_switch(call: Call, _: NoQuery, (): ()) -> Result<Json<VirtualSwitch>> {
    Ok(Json(switch_of(&call, call.parameter("switch")).await?))
}

async fn check_uplinks(call: &Call, wanted: &[String], switch: &str) -> Result<()> {
    let nics = call.api.host.nics().await?;
    let others = call.api.host.switches().await?;
    for name in wanted {
        if !nics.iter().any(|nic| nic.name == *name) {
            return Err(ApiError::not_found(format!("There is no network card {name}")));
        }
        if let Some(other) = others.iter().find(|other| other.name != switch && other.uplinks.contains(name)) {
            return Err(ApiError::conflict(format!("{name} is an uplink of {}", other.name)));
        }
    }
    Ok(())
}

fn names(list: Option<Few<crate::model::text::Id, 8>>) -> Option<Vec<String>> {
    list.map(|list| list.0.into_iter().map(|name| name.into_string()).collect())
}

/// What a switch had, with what is said anew. Orders of uplinks forget those that it does not have any more.
fn policies(
    mut old: SwitchPolicies,
    security: Option<PortSecurity>,
    shaping: Option<TrafficShaping>,
    teaming: Option<UplinkTeaming>,
    mirrors: Option<Few<PortMirror, 16>>,
    uplinks: &[String],
) -> Result<SwitchPolicies> {
    if let Some(new) = security {
        old.security = to_security(&new);
    }
    if let Some(new) = shaping {
        check_shaping(&new)?;
        old.shaping = new.into();
    }
    match teaming {
        Some(new) => {
            check_teaming(&new, uplinks)?;
            old.teaming = new.into();
        }
        None => {
            old.teaming.active.retain(|name| uplinks.contains(name));
            old.teaming.standby.retain(|name| uplinks.contains(name));
        }
    }
    if let Some(new) = mirrors {
        for (place, mirror) in new.0.iter().enumerate() {
            if mirror.from == mirror.to || new.0[..place].iter().any(|other| other.from == mirror.from) {
                return Err(ApiError::invalid(format!("{} is mirrored to itself, or twice", &*mirror.from)));
            }
        }
        old.mirrors = new.0.into_iter().map(Into::into).collect();
    }
    Ok(old)
}

async fn create_switch(call: Call, _: NoQuery, Json(made): Json<SwitchCreate>) -> Result<Created<VirtualSwitch>> {
    let uplinks = names(made.uplinks).unwrap_or_default();
    let policies = policies(
        SwitchPolicies::default(),
        made.security,
        made.shaping,
        made.teaming,
        made.mirrors,
        &uplinks,
    )?;
    let spec = SwitchSpec {
        name: made.name.to_string(),
        mtu: made.mtu.map_or(1500, |mtu| mtu.get32()),
        uplinks,
        policies: Some(policies),
    };
    if switches(&call).await?.iter().any(|one| one.name == spec.name) {
        return Err(ApiError::conflict(format!("There is a switch {} already", spec.name)));
    }
    check_uplinks(&call, &spec.uplinks, &spec.name).await?;
    call.api.host.set_switch(&spec.name, &spec).await?;
    keep_networks(&call, None).await?;
    let found = switches(&call)
        .await?
        .into_iter()
        .find(|one| one.name == spec.name)
        .ok_or_else(|| ApiError::not_found("The switch was removed meanwhile"))?;
    call.api.tell("network", &found.id, "created");
    Ok(Created(found))
}

async fn edit_switch(call: Call, _: NoQuery, Json(change): Json<SwitchPatch>) -> Result<Json<VirtualSwitch>> {
    let old = switch_of(&call, call.parameter("switch")).await?;
    let known = call.api.host.switches().await?.into_iter().find(|one| one.name == old.name);
    let before = known.and_then(|known| known.policies).unwrap_or_default();
    let uplinks = names(change.uplinks).unwrap_or(old.uplinks);
    let policies = policies(before, change.security, change.shaping, change.teaming, change.mirrors, &uplinks)?;
    let spec = SwitchSpec {
        mtu: change.mtu.map_or(old.mtu, |mtu| mtu.get32()),
        uplinks,
        name: old.name,
        policies: Some(policies),
    };
    check_uplinks(&call, &spec.uplinks, &spec.name).await?;
    call.api.host.set_switch(&spec.name, &spec).await?;
    keep_networks(&call, None).await?;
    call.api.tell("network", &old.id, "updated");
    Ok(Json(switch_of(&call, &old.id).await?))
}

async fn delete_switch(call: Call, _: NoQuery, (): ()) -> Result<()> {
    let old = switch_of(&call, call.parameter("switch")).await?;
    if groups(&call).await?.iter().any(|group| group.switch == old.id) {
        return Err(ApiError::conflict(format!("{} has port groups", old.name)));
    }
    call.api.host.remove_switch(&old.name).await?;
    keep_networks(&call, Some(&old.name)).await?;
    call.api.tell("network", &old.id, "removed");
    Ok(())
}

async fn list_groups(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<PortGroup>>> {
    let all = groups(&call).await?;
    Ok(page(
        all.into_iter().filter(|group| call.may("System.Read", &group.id)).collect(),
        &query,
    ))
}

async fn group_of(call: &Call) -> Result<PortGroup> {
    let id = call.parameter("network");
    groups(call)
        .await?
        .into_iter()
        .find(|one| one.id == id)
        .ok_or_else(|| ApiError::not_found(format!("There is no port group {}", id.escape_default())))
}

async fn get_group(call: Call, _: NoQuery, (): ()) -> Result<Json<PortGroup>> {
    Ok(Json(group_of(&call).await?))
}

fn group_spec(
    name: &str,
    switch: &VirtualSwitch,
    vlan: u32,
    security: &PortSecurity,
    shaping: Option<TrafficShaping>,
    teaming: Option<UplinkTeaming>,
) -> Result<PortGroupSpec> {
    if let Some(shaping) = &shaping {
        check_shaping(shaping)?;
    }
    if let Some(teaming) = &teaming {
        check_teaming(teaming, &switch.uplinks)?;
    }
    Ok(PortGroupSpec {
        name: name.into(),
        switch: switch.name.clone(),
        policies: Some(GroupPolicies {
            shaping: shaping.map(Into::into),
            teaming: teaming.map(Into::into),
        }),
        vlan: u16::try_from(vlan).unwrap_or(0),
        promiscuous: security.promiscuous,
        mac_changes: security.mac_changes,
        forged_transmits: security.forged_transmits,
    })
}

async fn create_group(call: Call, _: NoQuery, Json(made): Json<PortGroupCreate>) -> Result<Created<PortGroup>> {
    let switch = switch_of(&call, &made.switch).await?;
    if groups(&call).await?.iter().any(|one| one.name == *made.name) {
        return Err(ApiError::conflict(format!("There is a port group {} already", &*made.name)));
    }
    let security = made.security.unwrap_or(PortSecurity {
        promiscuous: false,
        mac_changes: false,
        forged_transmits: false,
    });
    let vlan = made.vlan.map_or(0, |vlan| vlan.get32());
    let spec = group_spec(&made.name, &switch, vlan, &security, made.shaping, made.teaming)?;
    call.api.host.set_port_group(&spec.name, &spec).await?;
    keep_networks(&call, None).await?;
    let found = groups(&call)
        .await?
        .into_iter()
        .find(|one| one.name == spec.name)
        .ok_or_else(|| ApiError::not_found("The port group was removed meanwhile"))?;
    call.api.tell("network", &found.id, "created");
    Ok(Created(found))
}

async fn edit_group(call: Call, _: NoQuery, Json(change): Json<PortGroupPatch>) -> Result<Json<PortGroup>> {
    let old = group_of(&call).await?;
    let switch = switch_of(&call, &old.switch).await?;
    let spec = group_spec(
        &old.name,
        &switch,
        change.vlan.map_or(old.vlan, |vlan| vlan.get32()),
        &change.security.unwrap_or(old.security),
        change.shaping.unwrap_or(old.shaping),
        change.teaming.unwrap_or(old.teaming),
    )?;
    call.api.host.set_port_group(&old.name, &spec).await?;
    keep_networks(&call, None).await?;
    call.api.tell("network", &old.id, "updated");
    Ok(Json(group_of(&call).await?))
}

async fn delete_group(call: Call, _: NoQuery, (): ()) -> Result<()> {
    let old = group_of(&call).await?;
    if !old.vms.is_empty() || !old.host_interfaces.is_empty() {
        return Err(ApiError::conflict(format!("Machines or interfaces are connected to {}", old.name)));
    }
    call.api.host.remove_port_group(&old.name).await?;
    keep_networks(&call, Some(&old.name)).await?;
    call.api.tell("network", &old.id, "removed");
    Ok(())
}

async fn list_nics(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<PhysicalNic>>> {
    let switches = switches(&call).await?;
    let nics = call.api.host.nics().await?.into_iter().map(|nic| PhysicalNic {
        switch: switches
            .iter()
            .find(|one| one.uplinks.contains(&nic.name))
            .map(|one| one.id.clone()),
        id: nic.name.clone(),
        name: nic.name,
        driver: nic.driver,
        mac: nic.mac,
        link_up: nic.link_up,
        speed_mbps: nic.speed_mbps,
    });
    Ok(page(nics.collect(), &query))
}

async fn interface_shown(call: &Call, one: InterfaceSpec) -> Result<HostInterface> {
    let group = ids(call, "network", core::iter::once(one.port_group))
        .await?
        .pop()
        .unwrap_or_default();
    Ok(HostInterface {
        id: one.name.clone(),
        name: one.name,
        port_group: group,
        mac: one.mac,
        dhcp: one.dhcp,
        ipv4: one.ipv4,
        netmask: one.netmask,
        gateway: one.gateway,
        ipv6: one.ipv6,
    })
}

async fn list_interfaces(call: Call, query: ListQuery, (): ()) -> Result<Json<Page<HostInterface>>> {
    let mut items = Vec::new();
    for one in call.api.host.interfaces().await? {
        items.push(interface_shown(&call, one).await?);
    }
    Ok(page(items, &query))
}

async fn edit_interface(call: Call, _: NoQuery, Json(change): Json<HostInterfacePatch>) -> Result<Json<HostInterface>> {
    let id = call.parameter("interface");
    let all = call.api.host.interfaces().await?;
    let mut spec = all
        .into_iter()
        .find(|one| one.name == id)
        .ok_or_else(|| ApiError::not_found(format!("The host has no interface {}", id.escape_default())))?;
    if let Some(group) = &change.port_group {
        spec.port_group = call
            .api
            .data
            .borrow()
            .name("network", group)
            .ok_or_else(|| ApiError::not_found(format!("There is no port group {}", &**group)))?;
    }
    spec.dhcp = change.dhcp.unwrap_or(spec.dhcp);
    for (field, given) in [
        (&mut spec.ipv4, change.ipv4),
        (&mut spec.netmask, change.netmask),
        (&mut spec.gateway, change.gateway),
    ] {
        if let Some(given) = given {
            *field = Some(given.into_string());
        }
    }
    spec.ipv6.retain(|address| address.contains('/'));
    if let Some(given) = change.ipv6 {
        spec.ipv6 = given.0.into_iter().map(|address| address.into_string()).collect();
    }
    if !spec.dhcp && (spec.ipv4.is_none() || spec.netmask.is_none()) {
        return Err(ApiError::invalid("Without DHCP an interface needs an address and a network mask"));
    }
    call.api.host.set_interface(&spec).await?;
    call.api.tell("network", id, "updated");
    Ok(Json(interface_shown(&call, spec).await?))
}
