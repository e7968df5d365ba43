//! Trace records as a Chrome trace (the JSON "Trace Event Format", JSON object form), which `chrome://tracing`, Perfetto and Speedscope show.
//!
//! Processors are the "threads" of one process. What a processor runs becomes complete events from one switch to the next, time in a guest from entry to exit; everything else is an
//! instant. Lines are broken between JSON tokens, so that a terminal of 80 columns carries them unharmed.

use crate::terminal::COLUMNS;
use alloc::{format, string::String, vec::Vec};
use tessera_abi::trace::{Event, NAMES, Record};

/// Names objects, by their identity.
pub type Names = Vec<(u64, String)>;

/// What an object is called: its name, or its identity.
#[must_use]
pub fn name_of(names: &Names, object: u64) -> String {
    match names.iter().find(|(known, _)| *known == object) {
        Some((_, name)) => name.clone(),
        None if object == 0 => "idle".into(),
        None => format!("{object:x}"),
    }
}

/// Writes a trace, line by line.
pub struct Writer<'a> {
    emit: &'a mut dyn FnMut(&str),
    names: &'a Names,
    hz: u64,
    start: u64,
    line: String,
    first: bool,
}

/// What one processor is in the middle of.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    /// Running since, and what.
    running: Option<(u64, u64)>,
    /// In a guest since, and on which vCPU.
    guest: Option<(u64, u64)>,
}

/// A string as JSON.
fn quoted(text: &str) -> String {
    let mut json = String::from('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            character if character.is_control() => json.push_str(&format!("\\u{:04x}", character as u32)),
            character => json.push(character),
        }
    }
    json.push('"');
    json
}

impl<'a> Writer<'a> {
    /// Begins a trace. `emit` gets lines without their ends; times count from `start`.
    pub fn new(emit: &'a mut dyn FnMut(&str), names: &'a Names, hz: u64, start: u64) -> Self {
        let mut writer = Self {
            emit,
            names,
            hz: hz.max(1),
            start,
            line: String::new(),
            first: true,
        };
        writer.token("{\"displayTimeUnit\":\"ns\",");
        writer.token("\"traceEvents\":[");
        writer
    }

    fn token(&mut self, token: &str) {
        if self.line.len() + token.len() > COLUMNS && !self.line.is_empty() {
            (self.emit)(&self.line);
            self.line.clear();
        }
        self.line.push_str(token);
    }

    /// Microseconds with nanoseconds behind the point.
    fn time(&self, ticks: u64) -> String {
        let nanoseconds = crate::format::nanoseconds(ticks, self.hz);
        format!("{}.{:03}", nanoseconds / 1000, nanoseconds % 1000)
    }

    fn event(&mut self, name: &str, phase: char, cpu: usize, from: u64, until: Option<u64>, arguments: &[(&str, String)]) {
        let separator = if core::mem::take(&mut self.first) { "" } else { "," };
        self.token(&format!("{separator}{{\"name\":"));
        // A name longer than a line would break it: identities and server names are shorter, but nobody promised.
        self.token(&quoted(crate::terminal::clip(name, 40)));
        self.token(&format!(",\"ph\":\"{phase}\","));
        self.token(&format!("\"ts\":{},", self.time(from.saturating_sub(self.start))));
        if let Some(until) = until {
            self.token(&format!("\"dur\":{},", self.time(until.saturating_sub(from))));
        }
        if phase == 'i' {
            self.token("\"s\":\"t\",");
        }
        self.token(&format!("\"pid\":1,\"tid\":{cpu}"));
        for (index, (key, value)) in arguments.iter().enumerate() {
            self.token(if index == 0 { ",\"args\":{" } else { "," });
            self.token(&format!("\"{key}\":"));
            self.token(&quoted(crate::terminal::clip(value, 40)));
        }
        self.token(if arguments.is_empty() { "}" } else { "}}" });
    }

    /// Writes the records of one processor, in their order.
    pub fn processor(&mut self, cpu: usize, records: impl Iterator<Item = Record>) {
        let name = format!("processor {cpu}");
        self.event("thread_name", 'M', cpu, self.start, None, &[("name", name)]);
        let mut open = Open::default();
        let mut last = self.start;
        for record in records {
            last = last.max(record.tsc);
            self.record(cpu, &record, &mut open);
        }
        // What was still going on lasts to the last record.
        if let Some((since, vcpu)) = open.guest {
            self.guest(cpu, since, last, vcpu, "");
        }
        if let Some((since, thread)) = open.running {
            let name = name_of(self.names, thread);
            self.event(&name, 'X', cpu, since, Some(last), &[]);
        }
    }

    fn guest(&mut self, cpu: usize, since: u64, until: u64, vcpu: u64, exit: &str) {
        let vcpu = name_of(self.names, vcpu);
        self.event("guest", 'X', cpu, since, Some(until), &[("vcpu", vcpu), ("exit", exit.into())]);
    }

    fn record(&mut self, cpu: usize, record: &Record, open: &mut Open) {
        let object = |identity| name_of(self.names, identity);
        let arguments = match record.event {
            event if event == Event::Switch as u64 => {
                // Object 0 is the idle loop, which leaves a gap.
                let next = (record.b != 0).then_some((record.tsc, record.b));
                if let Some((since, thread)) = core::mem::replace(&mut open.running, next) {
                    let name = object(thread);
                    self.event(&name, 'X', cpu, since, Some(record.tsc), &[]);
                }
                return;
            }
            event if event == Event::VmEntry as u64 => {
                open.guest = Some((record.tsc, record.a));
                return;
            }
            event if event == Event::VmExit as u64 => {
                let exit = exit_name(record.b);
                match open.guest.take() {
                    Some((since, vcpu)) => self.guest(cpu, since, record.tsc, vcpu, exit),
                    None => self.event("vm-exit", 'i', cpu, record.tsc, None, &[("exit", exit.into())]),
                }
                return;
            }
            _ => describe(self.names, record),
        };
        let name = usize::try_from(record.event)
            .ok()
            .and_then(|event| NAMES.get(event))
            .copied()
            .unwrap_or("unknown");
        self.event(name, 'i', cpu, record.tsc, None, &arguments);
    }

    /// Ends the trace.
    pub fn finish(mut self) {
        self.token("]}");
        (self.emit)(&self.line);
    }
}

/// Name of a VM exit.
#[must_use]
pub fn exit_name(reason: u64) -> &'static str {
    u32::try_from(reason)
        .ok()
        .and_then(tessera_abi::vcpu::ExitReason::from_u32)
        .map_or("unknown", tessera_abi::vcpu::ExitReason::name)
}

/// What a record's arguments mean, by name.
#[must_use]
pub fn describe(names: &Names, record: &Record) -> Vec<(&'static str, String)> {
    let object = |identity| name_of(names, identity);
    let Record { event, a, b, .. } = *record;
    let is = |kind: Event| event == kind as u64;
    if is(Event::Switch) {
        alloc::vec![("from", object(a)), ("to", object(b))]
    } else if is(Event::Call) {
        alloc::vec![("caller", object(a)), ("endpoint", object(b))]
    } else if is(Event::Reply) {
        alloc::vec![("from", object(a)), ("to", object(b))]
    } else if is(Event::Signal) {
        alloc::vec![("notification", object(a)), ("bits", format!("{b:#x}"))]
    } else if is(Event::Interrupt) {
        alloc::vec![("vector", format!("{a:#x}")), ("during", object(b))]
    } else if is(Event::VmExit) {
        alloc::vec![("vcpu", object(a)), ("exit", exit_name(b).into())]
    } else if is(Event::VmEntry) {
        alloc::vec![("vcpu", object(a)), ("rip", format!("{b:#x}"))]
    } else if is(Event::Fault) {
        let name = tessera_abi::fault::vector_name(b as u8);
        alloc::vec![("thread", object(a)), ("fault", name.into()), ("address", format!("{:#x}", b >> 8))]
    } else if is(Event::Syscall) {
        alloc::vec![
            ("thread", object(a)),
            ("number", format!("{}", b & 0xff)),
            ("operation", format!("{}", b >> 8))
        ]
    } else {
        alloc::vec![("a", format!("{a:#x}")), ("b", format!("{b:#x}"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn write(records: &[Record], names: &Names) -> Vec<String> {
        let mut lines = Vec::new();
        let mut emit = |line: &str| lines.push(line.to_owned());
        let mut writer = Writer::new(&mut emit, names, 1_000_000_000, 1000);
        writer.processor(0, records.iter().copied());
        writer.processor(1, core::iter::empty());
        writer.finish();
        lines
    }

    #[test]
    fn switches_and_guests_become_slices() {
        let record = |tsc, event: Event, a, b| Record {
            tsc,
            event: event as u64,
            a,
            b,
        };
        let records = [
            record(2000, Event::Switch, 0, 7),
            record(2500, Event::VmEntry, 9, 0x1000),
            record(3500, Event::VmExit, 9, 5),
            record(4000, Event::Switch, 7, 0),
            record(6000, Event::Call, 7, 8),
        ];
        let names = vec![(7, "vmm.\"x\"".to_owned())];
        let json: serde_json::Value = serde_json::from_str(&write(&records, &names).join("\n")).unwrap();
        let events = json["traceEvents"].as_array().unwrap();
        assert_eq!(
            events[1],
            serde_json::json!({
                "name": "guest", "ph": "X", "ts": 1.5, "dur": 1.0, "pid": 1, "tid": 0, "args": {"vcpu": "9", "exit": "HLT"}
            })
        );
        assert_eq!(events[2]["name"], "vmm.\"x\"");
        assert_eq!(events[2]["dur"], 2.0);
        assert_eq!(events[3]["args"]["caller"], "vmm.\"x\"");
        // Nothing stands for idle time: the other processor's name follows.
        assert_eq!(events[4]["ph"], "M");
        assert_eq!(events.len(), 5);
    }

    proptest! {
        #[test]
        fn any_records_give_valid_json_in_narrow_lines(
            records in proptest::collection::vec((any::<u64>(), 0u64..12, any::<u64>(), any::<u64>()), 0..60),
            names in proptest::collection::vec((any::<u64>(), "\\PC{0,60}|[\"\\\\\n\t]{0,5}"), 0..4)
        ) {
            let records: Vec<Record> = records.into_iter().map(|(tsc, event, a, b)| Record { tsc, event, a, b }).collect();
            let lines = write(&records, &names);
            for line in &lines {
                prop_assert!(line.chars().count() <= COLUMNS);
            }
            let json: serde_json::Value = serde_json::from_str(&lines.join("\n")).unwrap();
            prop_assert!(json["traceEvents"].as_array().unwrap().len() >= 2);
        }
    }
}
