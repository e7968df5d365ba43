//! `port`: who is connected to virtual switches.

use super::{Command, Context, Doing, Failure, shorten, words};
use crate::{
    format,
    host::{Host, NetworkChange},
    suggest,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_proto::switch::{PortInfo, PortKind, TRUNK, Traffic};

/// The command.
pub struct Port;

impl Command for Port {
    fn name(&self) -> &'static str {
        "port"
    }

    fn summary(&self) -> &'static str {
        "list ports of virtual switches, look at one"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["port [list]", "port show PORT", "port link PORT up|down"]
    }

    fn help(&self) -> &'static str {
        "Lists the ports of virtual switches: `MACHINE.N` is network card N of a virtual machine, `host-N` a server of the host, and an uplink is called as its network card. RECEIVED is what came from the port, SENT what it was given, since it was connected or the network server started.\nWith `show`, everything that is known of one, with the reasons for which frames were dropped.\n`link` takes the link of a virtual machine's card down or up, until the machine ends, as if its cable were pulled."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        match before {
            [] => words(&["list", "show", "link"]),
            ["show" | "link"] => names(host),
            ["link", _] => words(&["up", "down"]),
            _ => Vec::new(),
        }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match *arguments {
            [] | ["list"] => list(context),
            ["show", name] => {
                let port = find(context, name)?;
                show(context, &port);
                Ok(())
            }
            ["link", name, way @ ("up" | "down")] => {
                let port = find(context, name)?;
                let change = NetworkChange::PortLink {
                    port: &port.name,
                    up: way == "up",
                };
                let doing = change.doing();
                context.host.network_change(change).doing(doing)?;
                context.out.line(&format!("The link of {} is {way}.", port.name));
                Ok(())
            }
            [other, ..] => Err(Failure::usage(self, format!("`port {}` is no form of `port`", shorten(other)))),
        }
    }
}

/// Names of all ports.
pub fn names(host: &mut dyn Host) -> Vec<String> {
    host.ports().unwrap_or_default().into_iter().map(|port| port.name).collect()
}

/// The port of that name.
pub fn find(context: &mut Context<'_>, name: &str) -> Result<PortInfo, Failure> {
    let all = context.host.ports().doing("list ports")?;
    let known = suggest::nearest(name, all.iter().map(|port| &*port.name));
    let hint = known.map_or("`port list` shows them.".into(), |known| format!("Did you mean `{known}`?"));
    all.into_iter()
        .find(|port| port.name == name)
        .ok_or_else(|| Failure::new(format!("there is no port `{}`", shorten(name)), hint))
}

fn vlan(number: u16) -> String {
    match number {
        0 => "-".into(),
        TRUNK => "trunk".into(),
        number => number.to_string(),
    }
}

fn state(port: &PortInfo) -> (&'static str, Style) {
    match (port.link, port.blocked) {
        (_, true) => ("blocked", Style::Error),
        (false, _) => ("down", Style::Warning),
        (true, false) => ("up", Style::Plain),
    }
}

fn dropped(port: &PortInfo) -> u64 {
    port.dropped.iter().fold(0, |sum, one| one.frames.saturating_add(sum))
}

fn list(context: &mut Context<'_>) -> Result<(), Failure> {
    let ports = context.host.ports().doing("list ports")?;
    if ports.is_empty() {
        context.out.styled_line(Style::Faint, "There are no ports.");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("PORT", Align::Flexible),
        ("LINK", Align::Left),
        ("VLAN", Align::Right),
        ("RECEIVED", Align::Right),
        ("SENT", Align::Right),
        ("DROPPED", Align::Right),
        ("PORT GROUP", Align::Flexible),
        ("SWITCH", Align::Flexible),
    ]);
    for port in ports {
        let (text, style) = state(&port);
        let lost = dropped(&port);
        table.styled_row(
            style,
            [
                port.name,
                text.into(),
                vlan(port.vlan),
                format::count(port.received.frames),
                format::count(port.sent.frames),
                format::count(lost),
                if port.kind == PortKind::Uplink {
                    "(uplink)".into()
                } else {
                    port.group
                },
                port.switch,
            ],
        );
    }
    table.print(&mut context.out);
    Ok(())
}

fn show(context: &mut Context<'_>, port: &PortInfo) {
    let out = &mut context.out;
    out.styled_line(Style::Heading, &port.name);
    let who = match port.kind {
        PortKind::Guest => "a virtual machine",
        PortKind::Host => "a server of the host",
        PortKind::Uplink => "a network card",
    };
    out.line(&format!("  who          {who}, {}", format::mac(port.mac)));
    let (text, style) = state(port);
    out.styled_line(style, &format!("  link         {text}"));
    out.prose(&format!("  switch       {}", port.switch), 15);
    if port.kind != PortKind::Uplink {
        out.prose(&format!("  port group   {}, VLAN {}", port.group, vlan(port.vlan)), 15);
        let uplink = if port.uplink.is_empty() { "none works" } else { &port.uplink };
        out.line(&format!("  uplink       {uplink}"));
    }
    let traffic = |traffic: Traffic| format!("{} in {} frames", format::bytes(traffic.bytes), format::count(traffic.frames));
    out.line(&format!("  received     {}", traffic(port.received)));
    out.line(&format!("  sent         {}", traffic(port.sent)));
    out.line(&format!("  for many     {} frames", format::count(port.multicast)));
    for one in &port.dropped {
        let line = format!("  dropped      {} {}", format::count(one.frames), one.reason.text());
        out.styled_line(Style::Warning, &line);
    }
}
