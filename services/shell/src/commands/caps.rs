//! `caps`: what servers may reach.

use super::{Command, Context, Doing, Failure, server, server_names};
use crate::{
    format,
    host::Host,
    table::{Align, Table},
    terminal::{Style, clip},
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_abi::object::{ObjectKind, Rights};
use tessera_proto::supervisor::CapabilityInfo;

/// The command.
pub struct Caps;

impl Command for Caps {
    fn name(&self) -> &'static str {
        "caps"
    }

    fn summary(&self) -> &'static str {
        "list the capabilities of a server"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["caps", "caps SERVER"]
    }

    fn help(&self) -> &'static str {
        "Lists what a server may reach; without an argument, how many capabilities of which kinds each server has.\nRIGHTS: r read or inspect, w write or control, x execute, s send (call, signal), v receive or wait, g grant (capabilities may travel). BADGE is the badge of an endpoint or notification, the address of mapped memory or the first port; OBJECT identifies what the capability names: equal numbers are the same object."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        if before.is_empty() { server_names(host) } else { Vec::new() }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] => summary(context),
            [name] => one(context, name),
            _ => Err(Failure::usage(self, "`caps` takes one server")),
        }
    }
}

fn kind_name(kind: u8) -> &'static str {
    ObjectKind::from_u8(kind).map_or("unknown", ObjectKind::name)
}

/// Rights as letters in fixed places.
pub fn rights(bits: u8) -> String {
    let rights = Rights::from_bits_truncate(bits);
    [
        (Rights::READ, 'r'),
        (Rights::WRITE, 'w'),
        (Rights::EXECUTE, 'x'),
        (Rights::SEND, 's'),
        (Rights::RECEIVE, 'v'),
        (Rights::GRANT, 'g'),
    ]
    .into_iter()
    .map(|(right, letter)| if rights.contains(right) { letter } else { '-' })
    .collect()
}

fn badge(capability: &CapabilityInfo) -> String {
    match capability.badge {
        0 => String::new(),
        badge => format!("{badge:#x}"),
    }
}

/// An object's identity, as short as tells objects of one kind apart.
fn identity(object: u64) -> String {
    format!("{:x}", object & 0xff_ffff_ffff)
}

fn size(capability: &CapabilityInfo) -> String {
    match ObjectKind::from_u8(capability.kind) {
        Some(ObjectKind::Untyped | ObjectKind::Frame) => format::pages(capability.size),
        Some(ObjectKind::IoPorts) => format!("{} ports", capability.size),
        Some(ObjectKind::CNode) => format!("{} slots", capability.size),
        _ => String::new(),
    }
}

fn one(context: &mut Context<'_>, name: &str) -> Result<(), Failure> {
    let server = server(context, name)?;
    let capabilities = context.host.capabilities(server.id).doing("list its capabilities")?;
    let mut table = Table::new(&[
        ("SLOT", Align::Right),
        ("KIND", Align::Left),
        ("RIGHTS", Align::Left),
        ("BADGE", Align::Right),
        ("SIZE", Align::Right),
        ("OBJECT", Align::Right),
        ("NAME", Align::Flexible),
    ]);
    for capability in &capabilities {
        table.row([
            capability.slot.to_string(),
            kind_name(capability.kind).into(),
            rights(capability.rights),
            badge(capability),
            size(capability),
            identity(capability.object),
            capability.name.clone(),
        ]);
    }
    table.print(&mut context.out);
    context
        .out
        .styled_line(Style::Faint, &format!("{} capabilities", capabilities.len()));
    Ok(())
}

fn summary(context: &mut Context<'_>) -> Result<(), Failure> {
    let servers = context.host.servers().doing("list servers")?;
    context.out.styled_line(Style::Heading, "SERVER            CAPS  KINDS");
    for server in servers {
        // A server may end while the others are listed.
        let Ok(capabilities) = context.host.capabilities(server.id) else {
            continue;
        };
        let mut kinds: Vec<(u8, usize)> = Vec::new();
        for capability in &capabilities {
            match kinds.iter_mut().find(|(kind, _)| *kind == capability.kind) {
                Some((_, count)) => *count += 1,
                None => kinds.push((capability.kind, 1)),
            }
        }
        kinds.sort_unstable_by_key(|(_, count)| core::cmp::Reverse(*count));
        let kinds: Vec<String> = kinds
            .into_iter()
            .map(|(kind, count)| format!("{count} {}", kind_name(kind)))
            .collect();
        let line = format!("{:<16}  {:>4}  {}", clip(&server.name, 16), capabilities.len(), kinds.join(", "));
        context.out.prose(&line, 24);
    }
    Ok(())
}
