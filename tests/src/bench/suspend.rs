//! A machine with 256 MiB of RAM, most of it used, that is suspended and resumed: Tessera's into a file of a datastore on a disk, the peer's into the disk itself.

use super::{
    Figure, HOST_MEMORY,
    machines::figure,
    peer,
    storage::{Drive, touches},
};
use crate::{
    Context, Result,
    disks::Scratch,
    machine::{Config, Machine},
    shell::Host,
    systems::Guest,
};
use std::{thread, time::Duration};

/// A machine is suspended and resumed so often, and the median counts.
const RUNS: usize = 3;
/// RAM of the guest in MiB.
const GUEST_MEMORY: u32 = 256;
/// Has the guest use its memory, and what it says then.
const COMMAND_LINE: &str = "console=ttyS0 quiet rootfstype=ramfs guest.test=fill";
const FILLED: &str = "GUEST-TEST fill ended with 0";
/// The guest's RAM disk, out of build/guests.
const RAM_DISK: &str = "initramfs.cpio";
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
    (guest.memory, guest.command_line) = (GUEST_MEMORY, COMMAND_LINE.into());
    let system = context.product()?.without_machines().guest(&guest);
    let mut config = context.config(&system.into())?;
    counted(&mut config, disk);
    let mut host = Host::new(context.start(&config)?)?;
    host.serial().wait_at_most(PATIENCE);
    host.start_command("vm console pc")?;
    host.serial().expect(FILLED)?;
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

/// The peer's monitor writes and reads states by a program. What it wrote is on the disk when it ends, as Tessera's state is.
const SAVE: &str = "migrate \"exec:dd of=/dev/nvme0n1 bs=64k iflag=fullblock oflag=direct conv=fsync 2>/dev/null\"";
const LOAD: &str = "exec:dd if=/dev/nvme0n1 bs=64k iflag=direct 2>/dev/null";
/// The monitor's prompt.
const PROMPT: &str = "(qemu) ";

/// What the questions cost counts as the peer's: some 100,000 instructions each.
fn wait_until_running(machine: &mut Machine) -> Result<()> {
    loop {
        machine.serial.send_line("info status")?;
        let (status, _) = machine.serial.expect_any(&["VM status: running", "(inmigrate)"])?;
        machine.serial.expect(PROMPT)?;
        if status == 0 {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(500));
    }
}

fn of_peer(context: &Context, disk: &Scratch) -> Result<Found> {
    let script = format!(
        "ln -sf busybox /bin/sh\necho READY-TO-START\nbegin=\nwhile read line; do\n\
         {} -m {GUEST_MEMORY} -serial file:/dev/console -monitor stdio -kernel /vmlinuz -initrd /{RAM_DISK} -append '{COMMAND_LINE}' $begin ${{state:+\"$state\"}}\n\
         begin=-incoming state='{LOAD}'\necho READY-TO-START\ndone",
        peer::QEMU,
    );
    let host = peer::Host {
        modules: &[],
        guest: RAM_DISK,
        files: &[],
        script: &script,
    };
    let mut machine = peer::start(context, &host, |config| counted(config, disk))?;
    machine.serial.wait_at_most(PATIENCE);
    machine.serial.expect("READY-TO-START")?;
    machine.serial.send_line("")?;
    machine.serial.expect(FILLED)?;
    let mut found = Found::default();
    for _ in 0..RUNS {
        machine.serial.wait_at_most(PATIENCE);
        // It has nothing else to do.
        machine.serial.send_line("migrate_set_parameter max-bandwidth 10G")?;
        machine.serial.expect(PROMPT)?;
        let before = machine.counter()?.when_idle()?;
        machine.serial.send_line(SAVE)?;
        machine.serial.expect(PROMPT)?;
        machine.serial.send_line("quit")?;
        machine.serial.expect("READY-TO-START")?;
        found.0.push(machine.counter()?.when_idle()?.saturating_sub(before));
        let before = machine.counter()?.when_idle()?;
        machine.serial.wait_at_most(PATIENCE);
        machine.serial.send_line("")?;
        machine.serial.expect(PROMPT)?;
        wait_until_running(&mut machine)?;
        found.1.push(machine.counter()?.when_idle()?.saturating_sub(before));
    }
    Ok(found)
}

/// Both sides, or the one that is asked for.
pub fn measure(context: &Context, prefix: &str) -> Result<Vec<Figure>> {
    let folder = context.environment.root.join("build/test-images");
    let mut figures = Vec::new();
    for (side, measure) in [
        ("peer", of_peer as fn(&Context, &Scratch) -> Result<Found>),
        ("tessera", of_tessera),
    ] {
        if touches(&format!("suspend.{side}"), prefix) {
            let disk = Scratch::empty(&folder, "suspended", DISK)?;
            let (suspends, resumes) = measure(context, &disk)?;
            figures.push(figure(&format!("suspend.{side}.suspend"), suspends, "instructions"));
            figures.push(figure(&format!("suspend.{side}.resume"), resumes, "instructions"));
        }
    }
    Ok(figures)
}
