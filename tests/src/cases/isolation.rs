//! Servers that try what they must not: they alone end, the log says why, everything else goes on.

use super::Case;
use crate::{
    Context, Outcome, Result, ensure, fail,
    shell::Host,
    systems::{Guest, Probe, System},
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "isolation/offences",
        about: "each offence ends the server that commits it, and the log says why",
        minutes: 2,
        bochs: Some(2),
        run: offences,
    },
    Case {
        name: "isolation/refusals",
        about: "forged slots, bad lengths, addresses and rights are refused",
        minutes: 1,
        bochs: Some(1),
        run: refusals,
    },
    Case {
        name: "isolation/spin",
        about: "a server that spins does not stop others of the same or higher priority",
        minutes: 2,
        bochs: Some(2),
        run: spin,
    },
    Case {
        name: "isolation/flood",
        about: "servers that flood init's endpoint do not keep others from it",
        minutes: 2,
        bochs: None,
        run: flood,
    },
    Case {
        name: "isolation/write-execute",
        about: "no page of kernel or server is writable and executable",
        minutes: 1,
        bochs: None,
        run: write_execute,
    },
];

/// What a server tries, and a word that the log must use about its end.
const OFFENCES: &[(&str, &str)] = &[
    ("read-kernel", "page fault"),
    ("read-physical-map", "page fault"),
    ("write-kernel", "page fault"),
    ("read-null", "page fault"),
    ("read-non-canonical", "general protection"),
    ("read-other-server", "page fault"),
    ("write-text", "page fault"),
    ("write-start-info", "page fault"),
    ("read-guard-page", "page fault"),
    ("execute-data", "page fault"),
    ("execute-stack", "page fault"),
    ("execute-kernel", "page fault"),
    ("jump-non-canonical", "general protection"),
    ("stack-overflow", "page fault"),
    ("divide-by-zero", "divide"),
    ("undefined-instruction", "invalid opcode"),
    ("breakpoint", "breakpoint"),
    ("software-interrupt", "general protection"),
    ("kernel-interrupt", "general protection"),
    ("port-in", "general protection"),
    ("port-out", "general protection"),
    ("cli", "general protection"),
    ("hlt", "general protection"),
    ("read-cr0", "general protection"),
    ("write-cr3", "general protection"),
    ("write-msr", "general protection"),
    ("load-idt", "general protection"),
    ("vmrun", ""),
    ("swapgs", "general protection"),
    ("sysretq", "general protection"),
    ("trap-flag", "debug"),
    ("panic", "on purpose"),
    ("exit", "on purpose"),
];

/// Reads verdicts of probes until `last` has come; fails on the first bad one.
pub(super) fn verdicts(host: &mut Host, last: &str) -> Result<usize> {
    let mut good = 0;
    loop {
        let groups = host.com2()?.expect_line(r"probe: (\S+) (ok|FAILED)(.*)$")?;
        if groups[2] == "FAILED" {
            fail!("{}:{}", groups[1], groups[3]);
        }
        good += 1;
        if groups[1] == last {
            return Ok(good);
        }
    }
}

/// The offender's name, within the bounds for names.
fn server_name(offence: &str) -> String {
    let mut name = format!("x-{offence}");
    name.truncate(20);
    name.trim_end_matches('-').to_owned()
}

fn offences(context: &Context) -> Result<Outcome> {
    let mut system = context
        .product()?
        .without_guests()
        .relay()
        .probe(Probe::new("keep-secret", "offend keep-secret"));
    for (name, _) in OFFENCES {
        system = system.probe(Probe::new(&server_name(name), &format!("offend {name}")));
    }
    let mut host = context.boot(&system.into(), |config| config.second_port = true)?;
    // The order in which they run is not fixed: each is looked for in everything that was logged.
    let mut missing: Vec<&(&str, &str)> = OFFENCES.iter().collect();
    while !missing.is_empty() {
        host.com2()?.expect_line("^log: .*")?;
        let all = host.com2()?.all();
        if let Some(line) = all.lines().find(|l| l.contains("FAILED")) {
            fail!("{line}");
        }
        missing.retain(|(name, word)| {
            let server = server_name(name);
            // The line that init logs about the end: not the probe's own announcement.
            !all.lines()
                .any(|l| l.contains(&server) && l.contains(word) && l.starts_with("log: init "))
        });
    }
    let ps = host.neat_command("ps")?;
    ensure!(ps.contains("shell") && ps.contains("keep-secret"), "`ps` after all offences:\n{ps}");
    let log = host.neat_command("log")?;
    ensure!(
        log.contains("x-exit") || log.contains("x-panic"),
        "the shell's log does not say why servers ended:\n{log}"
    );
    Ok(Outcome::Passed)
}

fn refusals(context: &Context) -> Result<Outcome> {
    let probe = Probe::new("refuse", "refuse").memory("40 MiB").reports();
    let system = context.product()?.without_guests().probe(probe);
    let mut host = context.boot(&system.into(), |config| config.second_port = true)?;
    let count = verdicts(&mut host, "refuse")?;
    ensure!(count > 10, "only {count} checks ran");
    host.neat_command("ps")?;
    Ok(Outcome::Passed)
}

fn spin(context: &Context) -> Result<Outcome> {
    let mut system = context
        .product()?
        .without_guests()
        .probe(Probe::new("worker", "refuse").cpu(0).reports());
    for number in 0..3 {
        system = system.probe(Probe::new(&format!("spin-{number}"), "offend spin").cpu(0));
    }
    let mut host = context.boot(&system.into(), |config| {
        config.second_port = true;
        config.cpus = 1;
    })?;
    verdicts(&mut host, "refuse")?;
    for _ in 0..5 {
        host.neat_command("ps")?;
    }
    host.neat_command("kill spin-0")?;
    let ps = host.poll_command("ps", |text| text.lines().any(|l| l.contains("spin-0") && l.contains("ended")))?;
    ensure!(ps.contains("spin-1"), "`ps`:\n{ps}");
    Ok(Outcome::Passed)
}

fn flood(context: &Context) -> Result<Outcome> {
    let mut system: System = context.product()?.without_guests();
    for number in 0..4 {
        system = system.probe(Probe::new(&format!("flood-{number}"), "offend flood"));
    }
    let mut host = context.boot(&system.into(), |_| ())?;
    for _ in 0..10 {
        host.neat_command("ps")?;
        host.neat_command("mem")?;
    }
    for number in 0..4 {
        host.neat_command(&format!("kill flood-{number}"))?;
    }
    host.poll_command("ps", |text| {
        (0..4).all(|n| text.lines().any(|l| l.contains(&format!("flood-{n}")) && l.contains("ended")))
    })?;
    Ok(Outcome::Passed)
}

fn write_execute(context: &Context) -> Result<Outcome> {
    let probe = Probe::new("wx", "wx").reports().grant("trace = \"trace\"");
    // With a machine, so that its monitor and its console are there.
    let system = context.product()?.without_machines().guest(&Guest::debian("one", "")).probe(probe);
    let mut host = context.boot(&system.into(), |config| config.second_port = true)?;
    ensure!(verdicts(&mut host, "wx-server")? == 2, "a check is missing");
    host.poll_command("vm list", |text| text.lines().any(|l| l.contains("one") && l.contains("running")))?;
    let check = host.neat_command("mem check")?;
    for name in ["kernel", "init", "shell", "wx", "vmm.one", "vmx.one"] {
        let row = check.lines().find(|line| line.split_whitespace().next() == Some(name));
        let Some(row) = row else {
            fail!("`mem check` leaves out {name}:\n{check}")
        };
        let numbers: Vec<&str> = row.split_whitespace().skip(1).collect();
        ensure!(
            numbers.first().is_some_and(|pages| *pages != "0") && numbers.get(1) == Some(&"0"),
            "`mem check`:\n{check}"
        );
    }
    ensure!(check.contains("No page is writable and executable."), "`mem check`:\n{check}");
    Ok(Outcome::Passed)
}
