//! The conformance guest, bare on the emulator and in a virtual machine. It holds the processor against the architecture, so a verdict that differs is a
//! defect of one of the two.

use super::Case;
use crate::{
    Context, Failure, Outcome, Result,
    machine::{Config, Emulator},
    serial::Serial,
    systems::{Guest, System},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "conformance/1-processor",
        about: "the conformance guest says the same bare and in a machine with 1 vCPU",
        minutes: 2,
        bochs: Some(3),
        run: |c| compare(c, 1),
    },
    Case {
        name: "conformance/2-processors",
        about: "the conformance guest says the same bare and in a machine with 2 vCPUs",
        minutes: 2,
        bochs: Some(3),
        run: |c| compare(c, 2),
    },
];

/// Behaviours that QEMU's software emulation (looked at: 7.2) is known to get wrong, and how. The guest tests them all the same. In a virtual machine on it they
/// are as wrong, since there too the processor does them by itself.
const EMULATOR: &[(&str, &str)] = &[
    ("debug-general-detect", "DR7.GD does nothing"),
    ("debug-icebp", "INT1 raises #UD"),
    ("debug-instruction-breakpoint", "the flags on the stack have no RF"),
    ("debug-step-and-stack-switch", "STI holds a single step back"),
    ("exception-alignment", "#AC does not exist"),
    ("exception-not-present", "in long mode, error codes have vector * 16 instead of * 8"),
    (
        "exception-protection-of-gates",
        "in long mode, error codes have vector * 16 instead of * 8",
    ),
    (
        "exception-protection-of-registers",
        "reserved bits of control registers are let pass",
    ),
    ("exception-resume-flag", "the flags on the stack have no RF"),
    ("exception-stack", "addresses that are not canonical raise #GP on the stack too"),
    ("exception-undefined", "LOCK is let pass where it is not allowed"),
    ("exception-x87-and-sse", "unmasked SSE exceptions do not come"),
    ("msr-not-canonical", "addresses that are not canonical are let pass"),
    (
        "page-fault-error-codes",
        "with a reserved bit, the error code says that the page is absent",
    ),
    (
        "paging-large-pages",
        "with a reserved bit, the error code says that the page is absent",
    ),
    ("protected-mode-limits", "limits of segments are not looked at"),
];

/// As [`EMULATOR`], but in a virtual machine it is the monitor that does them.
const EMULATOR_BARE: &[(&str, &str)] = &[
    ("apic-disabled", "software disable does not mask the local vector table"),
    ("apic-errors", "vectors below 16 are sent and delivered without an error"),
    ("msr-apic-base", "reserved bits and modes are let pass"),
    ("msr-efer", "reserved bits are let pass"),
    ("msr-mtrr", "read-only registers and wrong memory types are let pass"),
    ("msr-pat", "wrong memory types are let pass"),
    ("msr-tsc", "RDMSR of the TSC reads 0"),
    ("msr-unknown", "unknown registers read 0"),
    ("nmi-shadow-of-mov-ss", "MOV SS does not hold an NMI back"),
];

/// Behaviours that a virtual machine on QEMU may get wrong because of it.
const EMULATOR_MACHINE: &[(&str, &str)] = &[
    ("interrupt-flag", "a host's interrupt that comes in the shadow of STI ends it"),
    ("interrupt-shadow-of-sti", "a host's interrupt that comes in the shadow ends it"),
];

/// Behaviours that a virtual machine on Bochs gets wrong because of it.
const BOCHS: &[(&str, &str)] = &[("debug-instruction-breakpoint", "the flags on the stack have no RF")];

/// What the guest said of each behaviour: `ok`, `absent …`, `FAILED …`.
type Verdicts = BTreeMap<String, String>;

/// Reads to the end of a run.
fn verdicts(serial: &mut Serial) -> Result<Verdicts> {
    let mut verdicts = Verdicts::new();
    loop {
        let line = serial.expect_line(r"CONF (\S+)(?: (.*?))?\s*$")?;
        let (name, rest) = (&line[1], &line[2]);
        match name.as_str() {
            "begin" => (),
            "end" => {
                // What is said in the end is what was said before.
                let count = |word: &str| verdicts.values().filter(|verdict| verdict.starts_with(word)).count();
                let counted = format!("{} passed {} failed", count("ok"), count("FAILED"));
                if *rest != counted {
                    return Err(Failure::new(format!("the guest counted '{rest}', but its lines say '{counted}'")));
                }
                return Ok(verdicts);
            }
            "panic" | "unexpected" => return Err(Failure::new(format!("the guest ended early: {name} {rest}"))),
            _ => {
                verdicts.insert(name.clone(), rest.clone());
            }
        }
    }
}

fn bare(context: &Context, path: &Path, cpus: u32) -> Result<Verdicts> {
    let mut config = Config::new(&format!("{}-bare", context.name), Emulator::Qemu, path);
    (config.cpus, config.memory) = (cpus, 256);
    let mut machine = context.start(&config)?;
    verdicts(&mut machine.serial)
}

fn virtualised(context: &Context, path: &Path, cpus: u32) -> Result<Verdicts> {
    let mut guest = Guest::other("conformance", "conformance-guest", "");
    guest.vcpus = cpus;
    let system: System = context.product()?.without_guests().file("conformance-guest", path).guest(&guest);
    let mut host = context.boot(&system.into(), |_| ())?;
    host.neat_command("vm start conformance")?;
    host.start_command("vm console conformance")?;
    verdicts(host.serial())
}

fn compare(context: &Context, cpus: u32) -> Result<Outcome> {
    let path = match context.guest_file("conformance-guest") {
        Ok(path) => path,
        Err(missing) => return Outcome::skip(missing),
    };
    let bare = bare(context, &path, cpus)?;
    let virtualised = virtualised(context, &path, cpus)?;
    let (mut wrong, mut report) = (0, String::new());
    let names: BTreeSet<&String> = bare.keys().chain(virtualised.keys()).collect();
    for name in names {
        let (one, other) = (bare.get(name), virtualised.get(name));
        if first_word(one) == first_word(other) && !failed(one) {
            continue;
        }
        let known = |list: &[(&str, &'static str)]| list.iter().find(|(known, _)| known == name).map(|&(_, reason)| reason);
        let bare_reason = known(EMULATOR).or(known(EMULATOR_BARE));
        // The machine may be on another emulator than the guest that runs bare.
        let machine_reason = match context.emulator {
            Emulator::Qemu => known(EMULATOR).or(known(EMULATOR_MACHINE)),
            Emulator::Bochs => known(BOCHS),
        };
        let excused = (!failed(one) || bare_reason.is_some()) && (!failed(other) || machine_reason.is_some());
        // Writing to a String does not fail.
        let _ = writeln!(
            report,
            "{}{name}: bare {}; in a machine {}{}",
            if excused { "" } else { "WRONG " },
            one.map_or("nothing", String::as_str),
            other.map_or("nothing", String::as_str),
            machine_reason
                .or(bare_reason)
                .map_or(String::new(), |reason| format!("; known: {reason}"))
        );
        wrong += u32::from(!excused);
    }
    // For people who want to see the differences that are known.
    std::fs::write(
        context
            .environment
            .logs
            .join(format!("{}.differences", context.name.replace('/', "-"))),
        &report,
    )?;
    if wrong == 0 {
        return Ok(Outcome::Passed);
    }
    Err(Failure::new(format!("{wrong} verdicts are wrong, for no known reason\n{report}")))
}

fn failed(verdict: Option<&String>) -> bool {
    verdict.is_none_or(|verdict| verdict.starts_with("FAILED"))
}

fn first_word(verdict: Option<&String>) -> &str {
    verdict.map_or("nothing", |verdict| verdict.split(' ').next().unwrap_or_default())
}
