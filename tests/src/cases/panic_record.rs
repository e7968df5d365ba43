//! A kernel panic leaves a record, and the shell prints it after the restart.

use super::Case;
use crate::{Context, Outcome, Result, ensure, image::Spec, shell::Host, systems::Probe};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "panic/record-survives",
    about: "the panic record is printed after the restart",
    minutes: 2,
    run: survives,
}];

fn survives(context: &Context) -> Result<Outcome> {
    // The probe panics the kernel at each start: after the second boot's banner the test is over.
    let probe = Probe::new("panic", "panic")
        .priority(10)
        .cpu(0)
        .reports()
        .grant("trace = \"trace\"");
    let mut spec: Spec = context.product()?.without_guests().probe(probe).into();
    spec.command_line = Some("panic=reboot".into());
    let mut config = context.config(&spec)?;
    (config.restarts, config.second_port) = (true, true);
    let mut machine = crate::machine::Machine::start(&config, &context.environment.logs, context.deadline)?;
    machine.com2()?.expect("probe: panic next")?;
    // The second boot.
    machine.com2()?.expect("probe: panic next")?;
    let host = Host::new(machine)?;
    let text = host.machine.serial.all();
    ensure!(
        text.to_lowercase().contains("panic"),
        "nothing about the panic was printed:\n{text}"
    );
    Ok(Outcome::Passed)
}
