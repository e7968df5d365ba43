//! `disk`: the machine's disks.

mod read;
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
use tessera_proto::storage::{DiskInfo, DiskState};

/// The command.
pub struct Disk;

impl Command for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    fn summary(&self) -> &'static str {
        "list disks, look at one, its events, its sectors"
    }

    fn usage(&self) -> &'static [&'static str] {
        &[
            "disk list",
            "disk show DISK",
            "disk events DISK",
            "disk read DISK SECTOR [COUNT]",
            "disk exercise DISK SECTOR COUNT [SEED]",
        ]
    }

    fn help(&self) -> &'static str {
        "Lists the disks of the machine with model, size, state, temperature and errors since the storage server started.\nWith `show`, everything that a disk tells of itself, what it has done, and its partitions. With `events`, what happened to a disk lately, in seconds since the machine started: its state, what it warns of, what failed. With `read`, sectors as hexadecimal numbers and characters.\n`exercise` DESTROYS what is on the sectors: it fills them with a pattern and reads them back. The system manifest has to allow it, which only tests do."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        match before {
            [] => words(&["list", "show", "events", "read", "exercise"]),
            ["show" | "events" | "read" | "exercise"] => host
                .disks()
                .map_or_else(|_| Vec::new(), |disks| disks.into_iter().map(|disk| disk.name).collect()),
            _ => Vec::new(),
        }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] | ["list"] => list(context),
            ["show", name] => {
                let disk = find(context, name)?;
                show::show(context, &disk)
            }
            ["events", name] => {
                let disk = find(context, name)?;
                events(context, &disk)
            }
            ["read", name, sector, rest @ ..] if rest.len() < 2 => {
                let sector = number(self, "the sector", sector)?;
                let count = rest.first().map_or(Ok(1), |count| number(self, "the number of sectors", count))?;
                let disk = find(context, name)?;
                read::read(context, &disk, sector, count)
            }
            ["exercise", name, sector, count] => exercise(self, context, name, sector, count, "0"),
            ["exercise", name, sector, count, seed] => exercise(self, context, name, sector, count, seed),
            [other, ..] => Err(Failure::usage(self, format!("`disk {}` is no form of `disk`", shorten(other)))),
        }
    }
}

/// A number in an argument.
fn number(command: &dyn Command, what: &str, word: &str) -> Result<u64, Failure> {
    let parsed = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.map_err(|_| Failure::usage(command, format!("{what} must be a number, not `{}`", shorten(word))))
}

/// The disk of that name.
fn find(context: &mut Context<'_>, name: &str) -> Result<DiskInfo, Failure> {
    let disks = context.host.disks().doing("list disks")?;
    let known = suggest::nearest(name, disks.iter().map(|disk| &*disk.name));
    let hint = known.map_or("`disk list` shows them.".into(), |known| format!("Did you mean `{known}`?"));
    disks
        .into_iter()
        .find(|disk| disk.name == name)
        .ok_or_else(|| Failure::new(format!("there is no disk `{}`", shorten(name)), hint))
}

/// A state in words, and how it is set off.
fn state(disk: &DiskInfo) -> (&'static str, Style) {
    match disk.state {
        DiskState::Ready if disk.health.failing == Some(true) => ("failing", Style::Error),
        DiskState::Ready => ("ready", Style::Good),
        DiskState::Empty => ("empty", Style::Faint),
        DiskState::Resetting => ("resetting", Style::Warning),
        DiskState::Failed => ("failed", Style::Error),
        DiskState::Gone => ("gone", Style::Error),
    }
}

fn events(context: &mut Context<'_>, disk: &DiskInfo) -> Result<(), Failure> {
    let events = context.host.disk_events(&disk.name).doing("list the disk's events")?;
    if events.is_empty() {
        context.out.styled_line(Style::Faint, "Nothing happened to it.");
        return Ok(());
    }
    for event in events {
        let at = format!("{:>6}.{:03}", event.at / 1000, event.at % 1000);
        context.out.prose(&format!("{at}  {}", event.text), at.len() + 2);
    }
    Ok(())
}

fn list(context: &mut Context<'_>) -> Result<(), Failure> {
    let disks = context.host.disks().doing("list disks")?;
    if disks.is_empty() {
        context.out.styled_line(Style::Faint, "There are no disks.");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("DISK", Align::Left),
        ("STATE", Align::Left),
        ("SIZE", Align::Right),
        ("SECTOR", Align::Right),
        ("TEMP", Align::Right),
        ("ERRORS", Align::Right),
        ("MODEL", Align::Flexible),
        ("SERIAL", Align::Flexible),
    ]);
    for disk in disks {
        let (text, style) = state(&disk);
        let style = if style == Style::Good { Style::Plain } else { style };
        table.styled_row(
            style,
            [
                disk.name,
                text.into(),
                format::bytes(disk.sectors.saturating_mul(disk.sector_size.into())),
                disk.sector_size.to_string(),
                disk.health.temperature.map_or(String::new(), |degrees| format!("{degrees} C")),
                disk.statistics.errors.to_string(),
                disk.model,
                disk.serial,
            ],
        );
    }
    table.print(&mut context.out);
    Ok(())
}

fn exercise(command: &dyn Command, context: &mut Context<'_>, name: &str, sector: &str, count: &str, seed: &str) -> Result<(), Failure> {
    let (sector, seed) = (number(command, "the sector", sector)?, number(command, "the seed", seed)?);
    let count = super::number(command, "the number of sectors", count)?;
    let disk = find(context, name)?;
    context
        .host
        .disk_exercise(&disk.name, sector, count, seed)
        .doing(&format!("exercise {}", disk.name))?;
    context
        .out
        .line(&format!("{count} sectors of {} were written and read back.", disk.name));
    Ok(())
}
