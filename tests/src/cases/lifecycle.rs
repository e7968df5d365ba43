//! Servers are killed and come back; machines are started and stopped and leave nothing behind.

use super::Case;
use crate::{
    Context, Outcome, Result, ensure,
    systems::{Guest, Probe},
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "lifecycle/kill-servers",
        about: "a killed server is restarted, a killed VMM ends its machine alone",
        minutes: 4,
        bochs: Some(4),
        run: kill,
    },
    Case {
        name: "lifecycle/start-stop-1000",
        about: "1,000 starts and stops of a machine give all memory back",
        minutes: 10,
        bochs: Some(20),
        run: start_stop,
    },
    Case {
        name: "lifecycle/zeroed-ahead",
        about: "free memory is zeroed while nothing else is done, and what a machine leaves again",
        minutes: 4,
        bochs: None,
        run: zeroed_ahead,
    },
];

fn zeroed_ahead(context: &Context) -> Result<Outcome> {
    let system = context.product()?.without_machines().guest(&Guest {
        autostart: false,
        ..Guest::debian("one", "")
    });
    let mut host = context.boot(&system.into(), |config| config.memory = 512)?;
    host.wait_until_zeroed()?;
    for _ in 0..2 {
        host.neat_command("vm start one")?;
        host.console("one", "GUEST-UP")?;
        host.leave_console()?;
        host.neat_command("vm stop one")?;
        host.poll_command("vm list", |text| text.contains("stopped"))?;
        host.wait_until_zeroed()?;
    }
    Ok(Outcome::Passed)
}

fn kill(context: &Context) -> Result<Outcome> {
    let system = context
        .product()?
        .without_machines()
        .guest(&Guest::debian("one", ""))
        .guest(&Guest {
            autostart: false,
            ..Guest::debian("two", "")
        })
        .probe(
            Probe::new("relay", "relay")
                .restarted()
                .priority(46)
                .reports()
                .grant("supervisor = { use = \"init\" }"),
        );
    let mut host = context.boot(&system.into(), |config| config.second_port = true)?;
    host.console("one", "GUEST-UP")?;
    host.leave_console()?;
    let before = host.free_pages()?;

    // An ordinary server comes back.
    host.neat_command("kill relay")?;
    host.com2()?.expect("relay")?;
    let ps = host.poll_command("ps", |text| text.lines().any(|l| l.contains("relay") && l.contains("running")))?;
    ensure!(ps.contains("shell"), "`ps`:\n{ps}");

    // A console server comes back, and the guest behind it goes on.
    host.neat_command("kill vmx.one")?;
    host.poll_command("ps", |text| text.lines().any(|l| l.contains("vmx.one") && l.contains("running")))?;
    host.start_command("vm console one")?;
    host.serial().send_line("echo still $((20 + 1)) here")?;
    host.serial().expect("still 21 here")?;
    host.leave_console()?;

    // The shell comes back itself.
    host.serial().send(b"kill shell\r")?;
    host.serial().expect("kill shell")?;
    host.serial().expect(crate::shell::PROMPT)?;
    host.neat_command("ps")?;

    // A killed VMM ends its machine, not the other, and leaves nothing.
    host.neat_command("vm start two")?;
    host.console("two", "GUEST-UP")?;
    host.leave_console()?;
    host.neat_command("kill vmm.two")?;
    let list = host.poll_command("vm list", |text| text.lines().any(|l| l.contains("two") && !l.contains("running")))?;
    ensure!(
        list.lines().any(|l| l.contains("one") && l.contains("running")),
        "the other machine ended too:\n{list}"
    );
    host.wait_for_free(before)?;
    host.start_command("vm console one")?;
    host.serial().send_line("echo still $((20 + 2)) here")?;
    host.serial().expect("still 22 here")?;
    Ok(Outcome::Passed)
}

fn start_stop(context: &Context) -> Result<Outcome> {
    let Ok(path) = context.guest_file("bare-guest") else {
        return Outcome::skip("build/guests/bare-guest is missing: run `make guests`");
    };
    let probe = Probe::new("lifecycle", "lifecycle none 1000")
        .reports()
        .grant("supervisor = { use = \"init\" }")
        .grant("vm_manager = { use = \"init\" }");
    let system = context
        .product()?
        .without_guests()
        .file("bare-guest", &path)
        .guest(&Guest::bare("none"))
        .probe(probe);
    let mut host = context.boot(&system.into(), |config| config.second_port = true)?;
    let groups = host.com2()?.expect_line("probe: lifecycle (ok|FAILED.*)")?;
    ensure!(groups[1] == "ok", "{}", groups[1]);
    host.neat_command("vm list")?;
    Ok(Outcome::Passed)
}
