//! A machine with 256 MiB of RAM, most of it used, that is suspended into a datastore and resumed.

use super::{Figure, HOST_MEMORY, machines::figure, storage::Drive};
use crate::{Context, Result, disks::Scratch, ensure, linux, machine::Config, shell::Host, systems::Guest};
use std::time::Duration;

/// A machine is suspended and resumed so often, and the median counts.
const RUNS: usize = 3;
/// RAM of the guest in MiB.
const GUEST_MEMORY: u32 = 256;
/// Has the guest use its memory.
const FILL: &str = "yes Tessera | head -c 160000000 > /fill && echo filled";
/// Bytes of the disk that takes the state.
const DISK: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(300);

fn counted(config: &mut Config, disk: &Scratch) {
    (config.cpus, config.memory, config.counted) = (1, HOST_MEMORY, true);
    Drive::raw(disk.path()).attach(config);
}

/// Instructions of each suspend and of each resume.
type Found = (Vec<u64>, Vec<u64>);

fn of_tessera(context: &Context, disk: &Scratch) -> Result<Found> {
    let images = &context.environment.images;
    images.datastore(&["create", &disk.path().display().to_string(), "--label", "main"])?;
    let mut guest = Guest::debian("pc", "");
    (guest.memory, guest.command_line) = (GUEST_MEMORY, linux::PLAIN.into());
    let system = context.product()?.without_machines().guest(&guest);
    let mut config = context.config(&system.into())?;
    counted(&mut config, disk);
    let mut host = Host::new(context.start(&config)?)?;
    host.serial().wait_at_most(PATIENCE);
    host.start_command("vm console pc")?;
    host.serial().expect("Type commands")?;
    let output = linux::succeeds(host.serial(), FILL)?;
    ensure!(output.contains("filled"), "the guest's memory is not filled:\n{output}");
    host.leave_console()?;
    let mut found = Found::default();
    for _ in 0..RUNS {
        for (kind, command, state) in [
            (&mut found.0, "vm suspend pc main", "suspended"),
            (&mut found.1, "vm resume pc", "running"),
        ] {
            let before = host.machine.counter()?.when_idle()?;
            host.machine.serial.wait_at_most(PATIENCE);
            host.neat_command(command)?;
            kind.push(host.machine.counter()?.when_idle()?.saturating_sub(before));
            host.machine.serial.wait_at_most(PATIENCE);
            host.poll_command("vm list", |text| text.contains(state))?;
        }
    }
    Ok(found)
}

/// Measures both.
pub fn measure(context: &Context, _: &str) -> Result<Vec<Figure>> {
    let folder = context.environment.root.join("build/test-images");
    let disk = Scratch::empty(&folder, "suspended", DISK)?;
    let (suspends, resumes) = of_tessera(context, &disk)?;
    Ok(vec![
        figure("suspend.tessera.suspend", suspends, "instructions"),
        figure("suspend.tessera.resume", resumes, "instructions"),
    ])
}
