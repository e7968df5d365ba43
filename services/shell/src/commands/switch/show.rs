//! What `switch` shows.

use crate::{
    commands::{Context, Doing, Failure},
    format,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_proto::switch::{GroupInfo, Limits, Security, Shaping, SwitchInfo, TRUNK, Teaming};

/// A virtual network's number.
pub fn vlan(number: u16) -> String {
    match number {
        0 => "-".into(),
        TRUNK => "trunk".into(),
        number => number.to_string(),
    }
}

fn security(security: Security) -> String {
    let all = [
        (security.promiscuous, "promiscuous"),
        (security.forged_transmits, "forged transmits"),
        (security.mac_changes, "MAC changes"),
    ];
    let allowed: Vec<&str> = all.into_iter().filter(|(allowed, _)| *allowed).map(|(_, name)| name).collect();
    if allowed.is_empty() {
        "nothing allowed".into()
    } else {
        allowed.join(", ")
    }
}

fn limits(limits: Option<Limits>) -> String {
    limits.map_or("no limit".into(), |limits| {
        let kbit = |rate: u64| rate / 1000;
        let (average, peak) = (kbit(limits.average), kbit(limits.peak));
        format!("{average} kbit/s, peak {peak} kbit/s, burst {}", format::bytes(limits.burst))
    })
}

fn teaming(teaming: &Teaming) -> String {
    let names = |names: &[String], none: &str| if names.is_empty() { none.into() } else { names.join(" ") };
    format!(
        "by {}; active: {}; standby: {}",
        teaming.balance.name(),
        names(&teaming.active, "all others"),
        names(&teaming.standby, "none")
    )
}

/// `switch list`.
pub fn list(context: &mut Context<'_>) -> Result<(), Failure> {
    let switches = context.host.switches().doing("list switches")?;
    if switches.is_empty() {
        context.out.styled_line(Style::Faint, "There are no switches.");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("SWITCH", Align::Flexible),
        ("MTU", Align::Right),
        ("GROUPS", Align::Right),
        ("PORTS", Align::Right),
        ("UPLINKS", Align::Flexible),
    ]);
    for switch in switches {
        table.row([
            switch.settings.name,
            switch.settings.mtu.to_string(),
            switch.groups.to_string(),
            switch.ports.to_string(),
            switch.uplinks.join(" "),
        ]);
    }
    table.print(&mut context.out);
    Ok(())
}

/// `switch groups`.
pub fn groups(context: &mut Context<'_>) -> Result<(), Failure> {
    let groups = context.host.port_groups().doing("list port groups")?;
    if groups.is_empty() {
        context.out.styled_line(Style::Faint, "There are no port groups.");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("PORT GROUP", Align::Flexible),
        ("SWITCH", Align::Flexible),
        ("VLAN", Align::Right),
        ("PORTS", Align::Right),
        ("ALLOWED", Align::Flexible),
    ]);
    for group in groups {
        table.row([
            group.group.name,
            group.switch,
            vlan(group.group.vlan),
            group.ports.to_string(),
            security(group.security),
        ]);
    }
    table.print(&mut context.out);
    Ok(())
}

fn both(context: &mut Context<'_>, shaping: Shaping) {
    context.out.prose(&format!("  sent         {}", limits(shaping.sent)), 15);
    context.out.prose(&format!("  received     {}", limits(shaping.received)), 15);
}

fn group(context: &mut Context<'_>, info: &GroupInfo) {
    let group = &info.group;
    context.out.styled_line(Style::Heading, &group.name);
    context
        .out
        .line(&format!("  VLAN         {}, ports: {}", vlan(group.vlan), info.ports));
    if let Some(own) = group.security {
        context.out.prose(&format!("  allowed      {}", security(own)), 15);
    }
    if let Some(own) = group.shaping {
        both(context, own);
    }
    if let Some(own) = &group.teaming {
        context.out.prose(&format!("  teaming      {}", teaming(own)), 15);
    }
}

/// `switch show`.
pub fn show(context: &mut Context<'_>, switch: &SwitchInfo) -> Result<(), Failure> {
    let groups = context.host.port_groups().doing("list port groups")?;
    let settings = &switch.settings;
    context.out.styled_line(Style::Heading, &settings.name);
    context.out.line(&format!("  MTU          {}", settings.mtu));
    context.out.prose(&format!("  uplinks      {}", switch.uplinks.join(" ")), 15);
    context.out.prose(&format!("  allowed      {}", security(settings.security)), 15);
    both(context, settings.shaping);
    context.out.prose(&format!("  teaming      {}", teaming(&settings.teaming)), 15);
    for mirror in &switch.mirrors {
        context.out.prose(&format!("  mirror       {} to {}", mirror.from, mirror.to), 15);
    }
    for info in groups.iter().filter(|info| info.switch == settings.name) {
        group(context, info);
    }
    Ok(())
}

/// `switch addresses`.
pub fn addresses(context: &mut Context<'_>, switch: &SwitchInfo) -> Result<(), Failure> {
    let all = context.host.addresses(&switch.settings.name).doing("list addresses")?;
    if all.is_empty() {
        context.out.styled_line(Style::Faint, "It knows no addresses.");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("ADDRESS", Align::Left),
        ("VLAN", Align::Right),
        ("PORT", Align::Flexible),
        ("SEEN", Align::Right),
    ]);
    for one in all {
        let seen = one.age_ms.map_or("its own".into(), |age| format!("{} s ago", age / 1000));
        table.row([format::mac(one.mac), vlan(one.vlan), one.port, seen]);
    }
    table.print(&mut context.out);
    Ok(())
}
