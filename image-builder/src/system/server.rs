//! `[[server]]`.

use super::Grant;
use crate::{
    reader::Reader,
    source::{Diagnostics, Located, Span},
    units,
};
use tessera_abi::object::{sched_context::NORMAL_WEIGHT, size::CNODE_MAX_BITS, thread::MAX_PRIORITY};
use tessera_manifest::Restart;

/// A server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where its table stands.
    pub span: Span,
    /// `name`.
    pub name: Located<String>,
    /// `program`: executable in the folder of programs. Default: the name.
    pub program: Located<String>,
    /// `per-vm`: instantiated for each virtual machine instead of at boot. Default no.
    pub per_vm: bool,
    /// `priority` of the first thread and upper bound for the others, 0 to 63.
    pub priority: Located<u8>,
    /// `weight` among its equals, 1 to 10000. Default 100.
    pub weight: u32,
    /// `budget` of processor time per period, such as "2 ms". Default none: unlimited.
    pub budget_us: Located<u64>,
    /// `period`, such as "10 ms". Default "10 ms".
    pub period_us: u64,
    /// `cpu` of the first thread. Default: init spreads them.
    pub cpu: Option<Located<u32>>,
    /// `fpu = false`: the first thread uses none. Default true.
    pub fpu: bool,
    /// `heap` in bytes. Default "256 KiB".
    pub heap: Located<u64>,
    /// `screen-heap` in bytes: the heap of instances whose machine has a display. Default as `heap`.
    pub screen_heap: Located<u64>,
    /// `stack` in bytes. Default "64 KiB".
    pub stack: Located<u64>,
    /// `memory` for kernel objects that the server makes by itself. Default "0 B".
    pub memory: Located<u64>,
    /// `vcpu-memory`: as much more of it for each virtual processor of the instance's machine. Default "0 B".
    pub vcpu_memory: Located<u64>,
    /// `device-memory`: the most that init lends the server for its devices to work in. Default "8 MiB" where it is granted PCI functions.
    pub device_memory: Located<u64>,
    /// `slots` of the capability table, a power of two. Default 256.
    pub slots: Located<u32>,
    /// `restart`: "always" or "never". Default "always".
    pub restart: Restart,
    /// `arguments`: words that the program understands.
    pub arguments: Vec<Located<String>>,
    /// `[server.grants]`.
    pub grants: Vec<Grant>,
}

impl Server {
    pub(super) fn from_reader(mut reader: Reader<'_>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let span = reader.span();
        let name = reader.require_text("name", "\"shell\"", diagnostics);
        if let Some(name) = &name {
            reader.rename(format!("server `{}`", name.value));
        }
        let program = reader.text("program", diagnostics);
        let priority = reader
            .require("priority", "40", diagnostics)
            .and_then(|node| crate::reader::number(node, "priority", 0..=i64::from(MAX_PRIORITY), diagnostics));
        let restart = reader.parsed(
            "restart",
            |text| match text {
                "always" => Ok(Restart::Always),
                "never" => Ok(Restart::Never),
                _ => Err("must be \"always\" or \"never\"".to_string()),
            },
            "always",
            diagnostics,
        );
        let mut bytes = |key, default: u64, diagnostics: &mut Diagnostics| {
            reader
                .parsed(key, units::pages, "64 KiB", diagnostics)
                .unwrap_or(Located::new(default, span))
        };
        let heap = bytes("heap", 256 << 10, diagnostics);
        let screen_heap = bytes("screen-heap", heap.value, diagnostics);
        let stack = bytes("stack", 64 << 10, diagnostics);
        let memory = bytes("memory", 0, diagnostics);
        let vcpu_memory = bytes("vcpu-memory", 0, diagnostics);
        let device_memory = reader.parsed("device-memory", units::pages, "8 MiB", diagnostics);
        let grants: Vec<Grant> = reader
            .entries("grants", diagnostics)
            .iter()
            .filter_map(|(name, node)| Grant::from_entry(name, node, diagnostics))
            .collect();
        let has_devices = grants.iter().any(|grant| matches!(grant.need, super::Need::Pci(_)));
        let slots = reader.number("slots", 32..=1 << CNODE_MAX_BITS, diagnostics);
        let slots = slots.map_or(Located::new(256, span), |slots| Located::new(narrow(slots.value), slots.span));
        let server = Self {
            span,
            per_vm: reader.boolean("per-vm", diagnostics).unwrap_or(false),
            weight: narrow(
                reader
                    .number("weight", 1..=10_000, diagnostics)
                    .map_or(NORMAL_WEIGHT.cast_signed(), |weight| weight.value),
            ),
            budget_us: reader
                .parsed("budget", units::microseconds, "2 ms", diagnostics)
                .unwrap_or(Located::new(0, span)),
            period_us: reader
                .parsed("period", units::microseconds, "10 ms", diagnostics)
                .map_or(10_000, |period| period.value),
            cpu: reader
                .number("cpu", 0..=(tessera_abi::MAX_CPUS as i64 - 1), diagnostics)
                .map(|cpu| Located::new(narrow(cpu.value), cpu.span)),
            fpu: reader.boolean("fpu", diagnostics).unwrap_or(true),
            heap,
            screen_heap,
            stack,
            memory,
            vcpu_memory,
            device_memory: device_memory.unwrap_or(Located::new(if has_devices { 8 << 20 } else { 0 }, span)),
            slots,
            restart: restart.map_or(Restart::Always, |restart| restart.value),
            arguments: reader.texts("arguments", diagnostics),
            grants,
            priority: priority.map_or(Located::new(0, span), |priority| {
                Located::new(u8::try_from(priority.value).unwrap_or(0), priority.span)
            }),
            program: program.or_else(|| name.clone()).unwrap_or_default(),
            name: name.clone().unwrap_or_default(),
        };
        reader.finish(diagnostics);
        name.map(|_| server)
    }
}

/// A number whose bounds were checked where it was read.
pub(super) fn narrow(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
