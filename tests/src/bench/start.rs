//! From a machine's start until its guest's first program runs, Tessera's beside the peer's: the same kernel and RAM disk, given directly and from GRUB on a disk under SeaBIOS and under OVMF.

use super::{
    Figure, Goal, HOST_MEMORY,
    machines::figure,
    peer,
    storage::{Drive, touches},
};
use crate::{
    Context, Failure, Result,
    machine::{Config, Machine},
    medium,
    shell::Host,
    systems::Guest,
};
use std::{path::Path, time::Duration};

/// Each start is measured so often, and the median counts.
const RUNS: usize = 3;
/// RAM of the guest in MiB.
const GUEST_MEMORY: u32 = 256;
/// What a start may cost of what it costs the peer, in percent.
const SHARE: u64 = 70;
/// What the guest's first program says.
const SIGN: &str = "GUEST-UP ";
/// The guest's RAM disk, out of build/guests.
const RAM_DISK: &str = "initramfs.cpio";
const PATIENCE: Duration = Duration::from_secs(600);

/// How a guest begins.
struct Way {
    name: &'static str,
    firmware: Option<&'static str>,
}

const WAYS: [Way; 3] = [
    Way {
        name: "direct",
        firmware: None,
    },
    Way {
        name: "bios",
        firmware: Some("bios"),
    },
    Way {
        name: "uefi",
        firmware: Some("uefi"),
    },
];

fn counted(config: &mut Config, medium: &Path) {
    (config.cpus, config.memory, config.counted) = (1, HOST_MEMORY, true);
    Drive::raw(medium).attach(config);
}

fn of_tessera(context: &Context, way: &Way, medium: &Path) -> Result<Vec<u64>> {
    let product = context.product()?;
    let (system, mut guest) = match way.firmware {
        None => (product.without_machines(), Guest::debian("pc", "")),
        Some(firmware) => {
            let file = context.guest_file(&format!("{firmware}/{firmware}.bin")).map_err(Failure)?;
            (product.without_guests().file(firmware, &file), Guest::other("pc", firmware, ""))
        }
    };
    (guest.memory, guest.autostart) = (GUEST_MEMORY, false);
    if way.firmware.is_none() {
        guest.command_line = "console=ttyS0 quiet".into();
    }
    guest.disks.push("{ device = \"nvme0\" }".into());
    let mut config = context.config(&system.guest(&guest).into())?;
    counted(&mut config, medium);
    let mut host = Host::new(context.start(&config)?)?;
    let mut found = Vec::new();
    for _ in 0..RUNS {
        host.wait_until_zeroed()?;
        let before = host.machine.counter()?.when_idle()?;
        host.machine.counter()?.keep(&format!("start.tessera.{}-begin", way.name))?;
        host.machine.serial.wait_at_most(PATIENCE);
        host.neat_command("vm start pc")?;
        host.start_command("vm console pc")?;
        host.serial().expect(SIGN)?;
        found.push(host.machine.counter()?.instructions()?.saturating_sub(before));
        host.machine.counter()?.keep(&format!("start.tessera.{}-end", way.name))?;
        host.leave_console()?;
        host.neat_command("vm stop pc")?;
        host.poll_command("vm list", |text| text.contains("stopped"))?;
    }
    Ok(found)
}

fn of_peer(context: &Context, way: &Way, medium: &Path) -> Result<Vec<u64>> {
    let begins = match way.firmware {
        None => format!("-kernel /vmlinuz -initrd /{RAM_DISK} -append 'console=ttyS0 quiet'"),
        Some("bios") => String::new(),
        Some(firmware) => format!("-bios /{firmware}.bin"),
    };
    let script = format!(
        "echo READY-TO-START\nwhile read line; do\n{} -m {GUEST_MEMORY} -serial stdio -object iothread,id=io \
         -drive file=/dev/nvme0n1,format=raw,if=none,id=disk,cache=none,aio=native -device virtio-blk-pci,drive=disk,iothread=io {begins}\necho READY-TO-START\ndone",
        peer::QEMU
    );
    let file = match way.firmware {
        Some(firmware) => Some((
            format!("{firmware}.bin"),
            context.guest_file(&format!("{firmware}/{firmware}.bin")).map_err(Failure)?,
        )),
        None => None,
    };
    let host = peer::Host {
        modules: &[],
        guest: RAM_DISK,
        files: file.as_slice(),
        script: &script,
    };
    let mut machine: Machine = peer::start(context, &host, |config| counted(config, medium))?;
    let mut found = Vec::new();
    machine.serial.wait_at_most(PATIENCE);
    machine.serial.expect("READY-TO-START")?;
    for _ in 0..RUNS {
        let before = machine.counter()?.when_idle()?;
        machine.serial.wait_at_most(PATIENCE);
        machine.serial.send_line("")?;
        machine.serial.expect(SIGN)?;
        found.push(machine.counter()?.instructions()?.saturating_sub(before));
        machine.serial.expect("Type commands")?;
        machine.serial.send_line("poweroff -f")?;
        machine.serial.expect("READY-TO-START")?;
    }
    Ok(found)
}

/// Both sides, or the one that is asked for; goals are known when both are.
pub fn measure(context: &Context, prefix: &str) -> Result<Vec<Figure>> {
    let medium = medium::bootable(context, "cloud", &[])?.map_err(Failure)?;
    let mut figures: Vec<Figure> = Vec::new();
    for way in &WAYS {
        let name = |side: &str| format!("start.{side}.{}", way.name);
        if touches(&name("peer"), prefix) {
            figures.push(figure(&name("peer"), of_peer(context, way, &medium)?, "instructions"));
        }
        if touches(&name("tessera"), prefix) {
            let mut ours = figure(&name("tessera"), of_tessera(context, way, &medium)?, "instructions");
            let peer = figures.last().filter(|last| last.name == name("peer"));
            ours.goal = peer.map(|peer| Goal::AtMost(peer.median * SHARE / 100));
            figures.push(ours);
        }
    }
    std::fs::remove_file(medium)?;
    Ok(figures)
}
