//! Guests that do everything a guest can do to its host: the machine may end, the host and the other machines go on.

use super::Case;
use crate::{
    Context, Outcome, Result, ensure,
    shell::Host,
    systems::{Guest, System},
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "hostile/triple-fault",
        about: "a guest that triple-faults ends with a report",
        minutes: 1,
        bochs: Some(1),
        run: |c| ends_with_report(c, "triple-fault"),
    },
    Case {
        name: "hostile/execute-hole",
        about: "a guest that jumps out of its memory ends with a report",
        minutes: 1,
        bochs: Some(1),
        run: |c| ends_with_report(c, "execute-hole"),
    },
    Case {
        name: "hostile/page-table-hole",
        about: "a guest with page tables out of its memory ends with a report",
        minutes: 1,
        bochs: Some(1),
        run: |c| ends_with_report(c, "page-table-hole"),
    },
    Case {
        name: "hostile/instructions",
        about: "a guest executes every privileged instruction",
        minutes: 1,
        bochs: Some(1),
        run: |c| comes_to_its_end(c, "privileged"),
    },
    Case {
        name: "hostile/wrecks",
        about: "guests bring their processors into states that make no sense",
        minutes: 2,
        bochs: Some(3),
        run: wrecks,
    },
    Case {
        name: "hostile/hypercalls",
        about: "a guest makes every hypercall",
        minutes: 1,
        bochs: Some(1),
        run: |c| comes_to_its_end(c, "hypercalls"),
    },
    Case {
        name: "hostile/msrs",
        about: "a guest reads and writes every MSR",
        minutes: 3,
        bochs: Some(2),
        run: |c| comes_to_its_end(c, "msr"),
    },
    Case {
        name: "hostile/ports",
        about: "a guest walks all of port space",
        minutes: 3,
        bochs: Some(2),
        run: |c| comes_to_its_end(c, "ports"),
    },
    Case {
        name: "hostile/memory",
        about: "a guest walks physical memory",
        minutes: 3,
        bochs: Some(2),
        run: |c| comes_to_its_end(c, "memory"),
    },
    Case {
        name: "hostile/interrupt-controllers",
        about: "a guest writes noise to its interrupt controllers",
        minutes: 3,
        bochs: Some(2),
        run: |c| comes_to_its_end(c, "apic"),
    },
];

/// A host with the hostile guest, not started, and a quiet one beside it.
fn boot(context: &Context, test: &str) -> Result<Result<Host, String>> {
    let path = match context.guest_file("bare-guest") {
        Ok(path) => path,
        Err(missing) => return Ok(Err(missing)),
    };
    let mut neighbour = Guest::bare("none");
    (neighbour.name, neighbour.autostart) = ("neighbour".into(), true);
    let system: System = context
        .product()?
        .without_guests()
        .file("bare-guest", &path)
        .guest(&Guest::bare(test))
        .guest(&neighbour);
    let mut host = context.boot(&system.into(), |_| ())?;
    host.neat_command(&format!("vm start {test}"))?;
    Ok(Ok(host))
}

/// The host answers, and the neighbour still runs.
fn host_is_well(host: &mut Host) -> Result<()> {
    let list = host.neat_command("vm list")?;
    ensure!(
        list.lines().any(|l| l.contains("neighbour") && l.contains("running")),
        "the neighbour does not run any more:\n{list}"
    );
    host.neat_command("ps")?;
    host.neat_command("mem")?;
    Ok(())
}

fn comes_to_its_end(context: &Context, test: &str) -> Result<Outcome> {
    let mut host = match boot(context, test)? {
        Ok(host) => host,
        Err(missing) => return Outcome::skip(missing),
    };
    let text = host.console(test, &format!("BARE {test} end"))?;
    ensure!(
        !text.contains("BARE panic") && !text.contains("unexpected exception"),
        "in the guest: {text}"
    );
    host.leave_console()?;
    host_is_well(&mut host)?;
    host.neat_command(&format!("vm stop {test}"))?;
    host_is_well(&mut host)?;
    Ok(Outcome::Passed)
}

fn ends_with_report(context: &Context, test: &str) -> Result<Outcome> {
    let mut host = match boot(context, test)? {
        Ok(host) => host,
        Err(missing) => return Outcome::skip(missing),
    };
    // Its VMM stays, so that the registers can be looked at; its processor does not run any more.
    host.poll_command(&format!("vm regs {test}"), |text| text.contains("stopped") && text.contains("rip"))?;
    // The report goes to the log line by line, after the processor stopped.
    host.poll_command("log", |log| log.contains("rip") || log.contains("RIP"))?;
    // The supervisor hears of it from the VMM's other thread, after the report.
    host.poll_command("vm list", |list| list.lines().any(|l| l.contains(test) && l.contains("failed")))?;
    host_is_well(&mut host)?;
    Ok(Outcome::Passed)
}

/// Instructions of the bare guest's list `WRECKS`.
const WRECKS: usize = 16;

/// One machine for each, one after the other. What becomes of them is theirs; the host goes on.
fn wrecks(context: &Context) -> Result<Outcome> {
    let path = match context.guest_file("bare-guest") {
        Ok(path) => path,
        Err(missing) => return Outcome::skip(missing),
    };
    let mut neighbour = Guest::bare("none");
    (neighbour.name, neighbour.autostart) = ("neighbour".into(), true);
    let mut system: System = context.product()?.without_guests().file("bare-guest", &path).guest(&neighbour);
    for number in 0..WRECKS {
        system = system.guest(&Guest::bare(&format!("wreck-{number}")));
    }
    let mut host = context.boot(&system.into(), |_| ())?;
    for number in 0..WRECKS {
        let name = format!("wreck-{number}");
        host.neat_command(&format!("vm start {name}"))?;
        host.console(&name, "BARE wreck next")?;
        host.leave_console()?;
        host.neat_command(&format!("vm exits {name}"))?;
        host_is_well(&mut host)?;
        host.neat_command(&format!("vm stop {name}"))?;
    }
    host_is_well(&mut host)?;
    Ok(Outcome::Passed)
}
