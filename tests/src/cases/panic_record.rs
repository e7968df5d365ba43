//! A kernel panic leaves a record, and the shell prints it after the restart.

use super::Case;
use crate::{Context, Outcome, Result, ensure, image::Spec, shell::Host, systems::Probe};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "panic/record-survives",
    about: "the panic record is printed after the restart",
    minutes: 2,
    bochs: None,
    run: survives,
}];

fn survives(context: &Context) -> Result<Outcome> {
    // The probe panics the kernel when a byte comes in on its port.
    let probe = Probe::new("panic", "panic").reports().grant("trace = \"trace\"");
    let mut spec: Spec = context.product()?.without_guests().probe(probe).into();
    spec.command_line = Some("panic=reboot".into());
    let mut config = context.config(&spec)?;
    (config.restarts, config.second_port) = (true, true);
    let machine = crate::machine::Machine::start(&config, &context.environment.logs, context.deadline)?;
    let mut host = Host::new(machine)?;
    host.com2()?.expect("probe: panic waits")?;
    host.com2()?.send(b"x")?;
    host.serial().expect("kernel panic on processor")?;
    host.serial().expect("restarting")?;
    let next = host.serial().expect(crate::shell::PROMPT)?;
    ensure!(
        next.contains("kernel panic on processor"),
        "nothing about the panic was printed after the restart:\n{next}"
    );
    Ok(Outcome::Passed)
}
