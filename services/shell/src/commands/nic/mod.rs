//! `nic`: the machine's network cards.

mod show;

use super::{Command, Context, Doing, Failure, shorten, words};
use crate::{
    format,
    host::Host,
    suggest,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_proto::network::{NicInfo, NicState};

/// The command.
pub struct Nic;

impl Command for Nic {
    fn name(&self) -> &'static str {
        "nic"
    }

    fn summary(&self) -> &'static str {
        "list network cards, look at one"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["nic list", "nic show NIC", "nic exercise NIC [COUNT]"]
    }

    fn help(&self) -> &'static str {
        "Lists the network cards of the machine with their address, state, link, and what they sent and received since the network server started.\nWith `show`, everything that is known of one: what it does by itself, and why packets were lost.\n`exercise` asks for COUNT addresses by DHCP and tells how many requests were answered since the server started; without COUNT it only tells. The system manifest has to allow it, which only tests do."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        match before {
            [] => words(&["list", "show", "exercise"]),
            ["show" | "exercise"] => host
                .nics()
                .map_or_else(|_| Vec::new(), |nics| nics.into_iter().map(|nic| nic.name).collect()),
            _ => Vec::new(),
        }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] | ["list"] => list(context),
            ["show", name] => {
                let nic = find(context, name)?;
                show::show(context, &nic);
                Ok(())
            }
            ["exercise", name] => exercise(context, name, 0),
            ["exercise", name, count] => exercise(context, name, super::number(self, "the number of requests", count)?),
            [other, ..] => Err(Failure::usage(self, format!("`nic {}` is no form of `nic`", shorten(other)))),
        }
    }
}

/// The card of that name.
fn find(context: &mut Context<'_>, name: &str) -> Result<NicInfo, Failure> {
    let nics = context.host.nics().doing("list network cards")?;
    let known = suggest::nearest(name, nics.iter().map(|nic| &*nic.name));
    let hint = known.map_or("`nic list` shows them.".into(), |known| format!("Did you mean `{known}`?"));
    nics.into_iter()
        .find(|nic| nic.name == name)
        .ok_or_else(|| Failure::new(format!("there is no network card `{}`", shorten(name)), hint))
}

/// A state in words, and how it is set off.
fn state(nic: &NicInfo) -> (&'static str, Style) {
    match nic.state {
        NicState::Ready => ("ready", Style::Good),
        NicState::Resetting => ("resetting", Style::Warning),
        NicState::Failed => ("failed", Style::Error),
        NicState::Gone => ("gone", Style::Error),
    }
}

/// A link in words.
fn link(nic: &NicInfo) -> String {
    match nic.link.up {
        false => "down".into(),
        true if nic.link.speed == 0 => "up".into(),
        true => {
            let duplex = if nic.link.full_duplex { "" } else { " half" };
            format!("{} Mb/s{duplex}", nic.link.speed)
        }
    }
}

fn list(context: &mut Context<'_>) -> Result<(), Failure> {
    let nics = context.host.nics().doing("list network cards")?;
    if nics.is_empty() {
        context.out.styled_line(Style::Faint, "There are no network cards.");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("NIC", Align::Left),
        ("STATE", Align::Left),
        ("LINK", Align::Left),
        ("MAC", Align::Left),
        ("RECEIVED", Align::Right),
        ("SENT", Align::Right),
        ("DRIVER", Align::Left),
        ("MODEL", Align::Flexible),
    ]);
    for nic in nics {
        let (text, style) = state(&nic);
        let style = match style {
            Style::Good if !nic.link.up => Style::Warning,
            Style::Good => Style::Plain,
            style => style,
        };
        let link = link(&nic);
        table.styled_row(
            style,
            [
                nic.name,
                text.into(),
                link,
                format::mac(nic.mac),
                nic.statistics.received.to_string(),
                nic.statistics.sent.to_string(),
                nic.driver,
                nic.model,
            ],
        );
    }
    table.print(&mut context.out);
    Ok(())
}

fn exercise(context: &mut Context<'_>, name: &str, rounds: u32) -> Result<(), Failure> {
    let nic = find(context, name)?;
    let done = context
        .host
        .nic_exercise(&nic.name, rounds)
        .doing(&format!("exercise {}", nic.name))?;
    let [a, b, c, d] = done.offered;
    context.out.line(&format!(
        "{} requests over {} so far, {} answered; offered last: {a}.{b}.{c}.{d}",
        done.sent, nic.name, done.answered
    ));
    Ok(())
}
