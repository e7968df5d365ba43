//! `disk show`.

use super::state;
use crate::{
    commands::{Context, Failure},
    format,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_proto::storage::{DiskInfo, DiskState};

/// Shows everything about a disk.
pub fn show(context: &mut Context<'_>, disk: &DiskInfo) -> Result<(), Failure> {
    let (text, style) = state(disk);
    let out = &mut context.out;
    out.styled_line(Style::Heading, &disk.name);
    out.styled_line(style, &format!("  state        {text}"));
    for (what, value) in [("model", &disk.model), ("serial", &disk.serial), ("firmware", &disk.firmware)] {
        if !value.is_empty() {
            out.prose(&format!("  {what:<11}  {value}"), 15);
        }
    }
    out.line(&format!(
        "  driver       {} at {}, queues: {}",
        disk.driver, disk.address, disk.queues
    ));
    out.line(&format!(
        "  size         {}, {} sectors of {} bytes",
        format::bytes(disk.sectors.saturating_mul(disk.sector_size.into())),
        format::count(disk.sectors),
        disk.sector_size
    ));
    let abilities = [
        (disk.read_only, "read-only"),
        (disk.write_cache, "write cache"),
        (disk.discard, "discard"),
    ];
    let abilities: Vec<&str> = abilities.into_iter().filter(|(has, _)| *has).map(|(_, name)| name).collect();
    if !abilities.is_empty() {
        out.line(&format!("  has          {}", abilities.join(", ")));
    }
    health(context, disk);
    statistics(context, disk);
    if matches!(disk.state, DiskState::Ready) {
        partitions(context, disk);
    }
    Ok(())
}

fn health(context: &mut Context<'_>, disk: &DiskInfo) {
    let health = &disk.health;
    let parts = [
        health.temperature.map(|degrees| format!("{degrees} degrees Celsius")),
        health.used_percent.map(|used| format!("{used} % of its life used")),
        health.power_on_hours.map(|hours| format!("{hours} hours on")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        context.out.prose(&format!("  condition    {}", parts.join(", ")), 15);
    }
    if health.failing == Some(true) {
        context
            .out
            .styled_line(Style::Error, "  It warns that it is failing: replace it while it can be read.");
    }
}

fn statistics(context: &mut Context<'_>, disk: &DiskInfo) {
    let statistics = &disk.statistics;
    context.out.line(&format!(
        "  read         {} in {} requests",
        format::bytes(statistics.read_bytes),
        format::count(statistics.reads)
    ));
    context.out.line(&format!(
        "  written      {} in {} requests, {} flushes",
        format::bytes(statistics.written_bytes),
        format::count(statistics.writes),
        format::count(statistics.flushes)
    ));
    let style = if statistics.errors > 0 { Style::Warning } else { Style::Plain };
    context.out.styled_line(
        style,
        &format!(
            "  errors       {}, of the medium {}, timeouts {}, resets {}",
            statistics.errors, statistics.media_errors, statistics.timeouts, statistics.resets
        ),
    );
    if !disk.last_error.is_empty() {
        context.out.prose(&format!("  last error   {}", disk.last_error), 15);
    }
}

fn partitions(context: &mut Context<'_>, disk: &DiskInfo) {
    let partitions = match context.host.partitions(&disk.name) {
        Ok(partitions) => partitions,
        Err(error) => {
            context.out.prose(&format!("  partitions   cannot be read: {error}"), 15);
            return;
        }
    };
    if partitions.is_empty() {
        context.out.styled_line(Style::Faint, "  no partitions");
        return;
    }
    let mut table = Table::new(&[
        ("PARTITION", Align::Right),
        ("FIRST", Align::Right),
        ("SIZE", Align::Right),
        ("TYPE", Align::Flexible),
        ("NAME", Align::Flexible),
    ]);
    for partition in partitions {
        table.row([
            partition.number.to_string(),
            partition.first.to_string(),
            format::bytes(partition.sectors.saturating_mul(disk.sector_size.into())),
            partition.kind,
            partition.name,
        ]);
    }
    table.print(&mut context.out);
}
