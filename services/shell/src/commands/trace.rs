//! `trace`: what the processors did.

use super::{Command, Context, Doing, Failure, number, shorten, words};
use crate::{
    chrome::{self, Names},
    format,
    host::Host,
    shared::TraceRing,
    suggest,
    terminal::Style,
};
use alloc::{
    borrow::ToOwned,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::time::Duration;
use tessera_abi::{
    MAX_CPUS,
    object::{ObjectKind, Rights},
    trace::{EVENTS, Event, NAMES, Record},
};

/// The command.
pub struct Trace;

/// How often `trace live` looks for new records.
const LIVE_PAUSE: Duration = Duration::from_millis(100);
/// Records that `trace show` shows if not told otherwise.
const SHOWN: u32 = 40;
/// Most records that `trace live` shows of one processor at a time; it says how many it left out.
const LIVE_MOST: u64 = 50;

impl Command for Trace {
    fn name(&self) -> &'static str {
        "trace"
    }

    fn summary(&self) -> &'static str {
        "record and show what the processors do"
    }

    fn usage(&self) -> &'static [&'static str] {
        &[
            "trace",
            "trace on [EVENT...]",
            "trace off",
            "trace show [RECORDS]",
            "trace live",
            "trace chrome",
        ]
    }

    fn help(&self) -> &'static str {
        "The kernel records events in a ring for each processor, which keeps the newest.\non: records the named events, or all but syscall, which would drown the others; events: switch, call, reply, signal, interrupt, vm-exit, vm-entry, fault, syscall. IPC is a little slower meanwhile, and `ipc` gets latencies.\noff: stops. What was recorded stays readable.\nshow: the newest records of all processors in the order of time.\nlive: goes on showing new ones until Ctrl-C or q; what comes too fast is left out.\nchrome: everything as a Chrome trace between two marker lines. Save what stands between them in a file and open it in chrome://tracing or ui.perfetto.dev."
    }

    fn complete(&self, _host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        match before {
            [] => words(&["on", "off", "show", "live", "chrome"]),
            ["on", ..] => words(&NAMES),
            _ => Vec::new(),
        }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] => {
                status(context);
                Ok(())
            }
            ["on", events @ ..] => on(context, events),
            ["off"] => {
                context.host.trace_mask(0).doing("switch tracing off")?;
                context.memory.trace_mask = 0;
                context
                    .out
                    .line(&format!("Tracing is off; {} records are kept.", format::count(kept(context.host))));
                Ok(())
            }
            ["show"] => paused(context, |context| show(context, SHOWN)),
            ["show", records] => {
                let records = number(self, "the number of records", records)?;
                paused(context, |context| show(context, records))
            }
            ["live"] => live(context),
            ["chrome"] => paused(context, chrome),
            [other, ..] => {
                let known = suggest::nearest(other, ["on", "off", "show", "live", "chrome"]);
                let what = format!("`trace` knows no `{}`", shorten(other));
                Err(known.map_or_else(
                    || Failure::usage(self, &*what),
                    |known| Failure::new(&*what, format!("Did you mean `trace {known}`?")),
                ))
            }
        }
    }
}

fn kept(host: &mut dyn Host) -> u64 {
    rings(host)
        .map(|(_, ring)| ring.written() - ring.oldest().min(ring.written()))
        .sum()
}

/// The rings that there are, with their processors.
fn rings(host: &dyn Host) -> impl Iterator<Item = (u32, TraceRing<'_>)> {
    (0..MAX_CPUS as u32).filter_map(|cpu| Some((cpu, host.trace_ring(cpu)?)))
}

fn status(context: &mut Context<'_>) {
    let events: Vec<&str> = NAMES
        .iter()
        .enumerate()
        .filter(|(bit, _)| context.memory.trace_mask >> bit & 1 != 0)
        .map(|(_, name)| *name)
        .collect();
    if events.is_empty() {
        context.out.line("Tracing is off.");
    } else {
        context.out.prose(&format!("Tracing records {}.", events.join(", ")), 2);
    }
    let rings: Vec<(u32, u64, u64)> = rings(context.host)
        .map(|(cpu, ring)| (cpu, ring.written(), ring.capacity()))
        .collect();
    if rings.is_empty() {
        context.out.line("The trace rings were not granted to the shell.");
    }
    for (cpu, written, capacity) in rings {
        context.out.line(&format!(
            "processor {cpu}: {} records written, room for {}",
            format::count(written),
            format::count(capacity)
        ));
    }
}

fn on(context: &mut Context<'_>, events: &[&str]) -> Result<(), Failure> {
    let mut mask = 0;
    for event in events {
        let Some(bit) = NAMES.iter().position(|name| name == event) else {
            let what = format!("there is no event `{}`", shorten(event));
            let known = suggest::nearest(event, NAMES);
            return Err(Failure::new(
                what,
                known.map_or_else(
                    || format!("Events: {}", NAMES.join(", ")),
                    |known| format!("Did you mean `{known}`?"),
                ),
            ));
        };
        mask |= 1 << bit;
    }
    if mask == 0 {
        mask = ((1 << EVENTS) - 1) & !(1 << Event::Syscall as u64);
    }
    context.host.trace_mask(mask).doing("switch tracing on")?;
    context.memory.trace_mask = mask;
    context
        .out
        .line("Tracing is on; `trace show` and `trace live` show it, `trace off` ends it.");
    Ok(())
}

/// What threads, endpoints, notifications and virtual processors are called: the server they belong to, and the name of the grant where there is one.
fn names(host: &mut dyn Host) -> Names {
    let mut names: Names = Vec::new();
    let Ok(mut servers) = host.servers() else { return names };
    // init, number 0, holds everybody's: last, so that its view does not hide whose they are.
    servers.sort_by_key(|server| core::cmp::Reverse(server.id));
    for server in servers {
        for thread in host.threads(server.id).unwrap_or_default() {
            names.push((thread.object, server.name.clone()));
        }
        for capability in host.capabilities(server.id).unwrap_or_default() {
            let kind = ObjectKind::from_u8(capability.kind);
            if !matches!(kind, Some(ObjectKind::Endpoint | ObjectKind::Notification | ObjectKind::Vcpu))
                || names.iter().any(|(known, _)| *known == capability.object)
            {
                continue;
            }
            if kind == Some(ObjectKind::Endpoint) && !Rights::from_bits_truncate(capability.rights).contains(Rights::RECEIVE) {
                // An endpoint is named by who serves it; init's own, which all hold, by itself.
                if capability.name == "init" {
                    names.push((capability.object, "init".into()));
                }
                continue;
            }
            let own = if capability.name.is_empty() {
                kind.map_or("", ObjectKind::name).to_owned()
            } else {
                capability.name
            };
            names.push((capability.object, format!("{}:{own}", server.name)));
        }
    }
    names
}

fn line(names: &Names, cpu: u32, record: &Record, boot: u64, hz: u64) -> String {
    let event = usize::try_from(record.event)
        .ok()
        .and_then(|event| NAMES.get(event))
        .copied()
        .unwrap_or("unknown");
    let arguments: Vec<String> = chrome::describe(names, record)
        .into_iter()
        .map(|(key, value)| format!("{key} {value}"))
        .collect();
    format!(
        "{} cpu{cpu:<2} {event:<10} {}",
        format::stamp(record.tsc, boot, hz),
        arguments.join(", ")
    )
}

/// Keeps the kernel from recording while `work` reads: the shell's own questions would overwrite what it is to show.
fn paused(context: &mut Context<'_>, work: impl FnOnce(&mut Context<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    let mask = context.memory.trace_mask;
    if mask == 0 {
        return work(context);
    }
    context.host.trace_mask(0).doing("pause tracing")?;
    let outcome = work(context);
    context.host.trace_mask(mask).doing("resume tracing")?;
    outcome
}

fn show(context: &mut Context<'_>, count: u32) -> Result<(), Failure> {
    let system = context.host.system().doing("read about the system")?;
    let names = names(context.host);
    let mut records: Vec<(u32, Record)> = Vec::new();
    for (cpu, ring) in rings(context.host) {
        let first = ring.oldest().max(ring.written().saturating_sub(count.into()));
        records.extend((first..ring.written()).filter_map(|index| Some((cpu, ring.record(index)?))));
    }
    records.sort_by_key(|(_, record)| record.tsc);
    records.drain(..records.len().saturating_sub(count as usize));
    if records.is_empty() {
        context.out.line("Nothing has been recorded; `trace on` starts.");
    }
    for (cpu, record) in records {
        context.out.line(&line(&names, cpu, &record, system.boot_tsc, system.tsc_hz));
        if context.out.interrupted() {
            break;
        }
    }
    Ok(())
}

fn live(context: &mut Context<'_>) -> Result<(), Failure> {
    let system = context.host.system().doing("read about the system")?;
    if context.memory.trace_mask == 0 {
        return Err(Failure::new("tracing is off", "`trace on` starts it."));
    }
    let names = names(context.host);
    let mut positions: Vec<(u32, u64)> = rings(context.host).map(|(cpu, ring)| (cpu, ring.written())).collect();
    context.out.styled_line(Style::Faint, "(Ctrl-C or q ends)");
    loop {
        let mut records: Vec<(u32, Record)> = Vec::new();
        let mut skipped = 0;
        for (cpu, position) in &mut positions {
            let Some(ring) = context.host.trace_ring(*cpu) else { continue };
            let written = ring.written();
            let first = (*position).max(ring.oldest()).max(written.saturating_sub(LIVE_MOST));
            skipped += first.saturating_sub(*position);
            records.extend((first..written).filter_map(|index| Some((*cpu, ring.record(index)?))));
            *position = written;
        }
        records.sort_by_key(|(_, record)| record.tsc);
        if skipped > 0 {
            context
                .out
                .styled_line(Style::Faint, &format!("({} records left out)", format::count(skipped)));
        }
        for (cpu, record) in records {
            context.out.line(&line(&names, cpu, &record, system.boot_tsc, system.tsc_hz));
        }
        if context.out.interrupted() {
            return Ok(());
        }
        context.out.terminal().wait(Some(LIVE_PAUSE));
    }
}

fn chrome(context: &mut Context<'_>) -> Result<(), Failure> {
    let system = context.host.system().doing("read about the system")?;
    let names = names(context.host);
    context.out.text("-----BEGIN CHROME TRACE-----\n");
    let cpus: Vec<u32> = rings(context.host).map(|(cpu, _)| cpu).collect();
    let mut given_up = false;
    {
        let Context { host, out, .. } = context;
        let start = rings(*host)
            .filter_map(|(_, ring)| ring.record(ring.oldest()))
            .map(|record| record.tsc)
            .min();
        let mut emit = |line: &str| {
            // Once given up, the rest is not sent; what was sent is no valid trace then, and the last line says so.
            if !given_up {
                out.text(line);
                out.text("\n");
                given_up = out.interrupted();
            }
        };
        let mut writer = chrome::Writer::new(&mut emit, &names, system.tsc_hz, start.unwrap_or(system.boot_tsc));
        for cpu in cpus {
            let Some(ring) = host.trace_ring(cpu) else { continue };
            writer.processor(cpu as usize, (ring.oldest()..ring.written()).filter_map(|index| ring.record(index)));
        }
        writer.finish();
    }
    context.out.text("-----END CHROME TRACE-----\n");
    if given_up {
        return Err(Failure::new(
            "the trace was given up; what was printed is incomplete",
            "trace chrome".to_string(),
        ));
    }
    Ok(())
}
