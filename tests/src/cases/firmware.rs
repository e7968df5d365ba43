//! Guests that begin with firmware: SeaBIOS and OVMF come up, and boot from a disk and from a CD-ROM.

use super::{
    Case,
    guest_ahci::on_ahci,
    guest_disk::{attach, device},
};
use crate::{
    Context, Outcome, Result,
    disks::Scratch,
    ensure,
    machine::{Bus, Disk, Iommu},
    medium,
    shell::Host,
    systems::{Guest, System},
};
use std::{fs, path::PathBuf, time::Duration};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "firmware/bios-cdrom",
        about: "SeaBIOS comes up in a guest and boots GRUB from the CD-ROM drive, and GRUB a Linux kernel, whose clock can be the event timer's, and whose panic is seen",
        minutes: 4,
        bochs: Some(5),
        run: |context| from_cdrom(context, "bios", "SeaBIOS \\(version"),
    },
    Case {
        name: "firmware/bios-disk",
        about: "SeaBIOS boots GRUB from a disk on virtio",
        minutes: 3,
        bochs: Some(5),
        run: |context| from_disk(context, "bios", "SeaBIOS \\(version", Controller::Virtio),
    },
    Case {
        name: "firmware/bios-ahci-disk",
        about: "SeaBIOS boots GRUB from a disk behind a SATA host adapter",
        minutes: 3,
        bochs: Some(9),
        run: |context| from_disk(context, "bios", "SeaBIOS \\(version", Controller::Ahci),
    },
    Case {
        name: "firmware/uefi-ahci-disk",
        about: "OVMF boots GRUB from a disk behind a SATA host adapter",
        minutes: 6,
        bochs: Some(9),
        run: |context| from_disk(context, "uefi", "BdsDxe: ", Controller::Ahci),
    },
    Case {
        name: "firmware/bios-passed-disk",
        about: "SeaBIOS boots GRUB from an NVMe controller of the host",
        minutes: 3,
        bochs: None,
        run: |context| from_disk(context, "bios", "SeaBIOS \\(version", Controller::Passed),
    },
    Case {
        name: "firmware/uefi-passed-disk",
        about: "OVMF boots GRUB from an NVMe controller of the host",
        minutes: 6,
        bochs: None,
        run: |context| from_disk(context, "uefi", "BdsDxe: ", Controller::Passed),
    },
    Case {
        name: "firmware/bios-alone",
        about: "SeaBIOS offers its menu in the order that was asked for, says that there is nothing to boot from, and comes up again when the machine is reset",
        minutes: 2,
        bochs: Some(3),
        run: bios_alone,
    },
    Case {
        name: "firmware/media",
        about: "a CD is put into the drive of a running machine, which boots from it after its next reset, and taken out again",
        minutes: 3,
        bochs: Some(2),
        run: media,
    },
    Case {
        name: "firmware/uefi-cdrom",
        about: "OVMF boots GRUB from the CD-ROM drive, and GRUB a Linux kernel, which sets a UEFI variable; it is there again after the guest switched itself off and the host's power failed",
        minutes: 9,
        bochs: Some(10),
        run: uefi_cdrom,
    },
];

/// Drivers that the guests load when they need them.
const MODULES: [&str; 3] = ["efivarfs", "pvpanic", "pvpanic-mmio"];

fn medium(context: &Context) -> Result<Result<PathBuf, String>> {
    medium::bootable(context, "cloud", &MODULES)
}

/// A system with firmware, which guests begin with.
fn system(context: &Context, firmware: &'static str) -> Result<Result<System, String>> {
    Ok(match context.guest_file(&format!("{firmware}/{firmware}.bin")) {
        Ok(path) => Ok(context.product()?.without_guests().file(firmware, &path)),
        Err(missing) => Err(missing),
    })
}

/// The system and the medium.
pub(super) fn with_medium(context: &Context, firmware: &'static str) -> Result<Result<(System, PathBuf), String>> {
    Ok(match (system(context, firmware)?, medium(context)?) {
        (Ok(system), Ok(medium)) => Ok((system, medium)),
        (Err(missing), _) | (_, Err(missing)) => Err(missing),
    })
}

pub(super) fn guest(firmware: &'static str) -> Guest {
    Guest {
        memory: 256,
        ..Guest::other("pc", firmware, "")
    }
}

/// GRUB and the kernel behind it.
fn reaches_user_land(host: &mut Host) -> Result<()> {
    host.serial().expect("GRUB-IS-HERE")?;
    host.serial().expect("Type commands")?;
    let tables = crate::linux::succeeds(host.serial(), "ls /sys/firmware/acpi/tables; cat /proc/interrupts")?;
    ensure!(
        tables.contains("DSDT") && tables.contains("FACP"),
        "the guest has no ACPI tables:\n{tables}"
    );
    host.leave_console()?;
    Ok(())
}

/// The event timer drives the clock, and the kernel's panic is known outside.
fn timer_and_panic(host: &mut Host) -> Result<()> {
    const CLOCKS: &str = "/sys/devices/system/clocksource/clocksource0";
    host.start_command("vm console pc")?;
    // What it said before is still there.
    host.serial().expect("END-OF 0")?;
    let steps = format!(
        "cat {CLOCKS}/available_clocksource && echo hpet > {CLOCKS}/current_clocksource && sleep 1 && cat {CLOCKS}/current_clocksource"
    );
    let clocks = crate::linux::succeeds(host.serial(), &steps)?;
    ensure!(
        clocks.trim_end().ends_with("hpet"),
        "the event timer is no source of the guest's clock:\n{clocks}"
    );
    crate::linux::succeeds(host.serial(), "insmod /modules/pvpanic.ko && insmod /modules/pvpanic-mmio.ko")?;
    host.serial().send_line("echo c > /proc/sysrq-trigger")?;
    host.leave_console()?;
    let info = host.poll_command("vm info pc", |text| text.contains("panics"))?;
    ensure!(info.contains("1 panics"), "the panic is not known:\n{info}");
    Ok(())
}

fn from_cdrom(context: &Context, firmware: &'static str, sign: &str) -> Result<Outcome> {
    let (system, medium) = match with_medium(context, firmware)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let system = system.file("medium", &medium);
    let mut guest = guest(firmware);
    guest.cdrom = Some("medium");
    let mut host = context.boot(&system.guest(&guest).into(), |_| ())?;
    host.neat_command("vm start pc")?;
    host.start_command("vm console pc")?;
    host.serial().expect_line(sign)?;
    reaches_user_land(&mut host)?;
    timer_and_panic(&mut host)?;
    fs::remove_file(medium)?;
    Ok(Outcome::Passed)
}

/// The variable that the guest sets, and what its system has before its value: that it stays, and when it can be read.
const VARIABLE: &str = "/sys/firmware/efi/efivars/Tessera-6a0e0f4e-0f0a-4d4e-9d6c-2f6b1c1d1e1f";
const ATTRIBUTES: &str = r"\007\000\000\000";

fn uefi_cdrom(context: &Context) -> Result<Outcome> {
    let (system, medium) = match with_medium(context, "uefi")? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let store = Scratch::empty(&context.environment.logs, context.name, 128 << 20)?;
    let store_path = store.path().display().to_string();
    context.environment.images.datastore(&["create", &store_path, "--label", "main"])?;
    let mut guest = guest("uefi");
    guest.cdrom = Some("medium");
    guest.more.push("variables = \"main:pc.variables\"".into());
    let system = system.file("medium", &medium).guest(&guest).into();
    for round in 0..2 {
        let mut host = context.boot(&system, |config| {
            config.disks.push(Disk::usual(context.emulator, store.path(), "STORE"))
        })?;
        host.neat_command("vm start pc")?;
        host.start_command("vm console pc")?;
        host.serial().expect_line("BdsDxe: ")?;
        host.serial().expect("GRUB-IS-HERE")?;
        host.serial().expect("Type commands")?;
        let mount = "insmod /modules/efivarfs.ko && mount -t efivarfs none /sys/firmware/efi/efivars";
        crate::linux::succeeds(host.serial(), mount)?;
        if round == 0 {
            let set = format!("printf '{ATTRIBUTES}it stays' > {VARIABLE}");
            crate::linux::succeeds(host.serial(), &set)?;
            // Its power fails a moment after the write: the guest went on when that was kept.
            host.leave_console()?;
            host.neat_command("vm stop pc")?;
            // The datastore is made safe when all of the machine is taken apart.
            std::thread::sleep(Duration::from_secs(2));
        } else {
            let found = crate::linux::succeeds(host.serial(), &format!("cat {VARIABLE}"))?;
            ensure!(found.contains("it stays"), "the variable is gone:\n{found}");
            host.leave_console()?;
            suspended_with_flash(&mut host)?;
        }
        // The host's power fails.
    }
    fs::remove_file(medium)?;
    Ok(Outcome::Passed)
}

/// A machine with UEFI is suspended and goes on, and its flash memory with it.
fn suspended_with_flash(host: &mut Host) -> Result<()> {
    host.neat_command("vm suspend pc main")?;
    host.poll_command("vm list", |text| text.contains("suspended"))?;
    host.neat_command("vm resume pc")?;
    // What is typed before is for a serial port that is still to get its state.
    host.poll_command("log -n 20", |text| text.contains("goes on where it was suspended"))?;
    host.start_command("vm console pc")?;
    let another = VARIABLE.replace("Tessera-", "Another-");
    let set = format!("printf '{ATTRIBUTES}it is new' > {another} && cat {another} {VARIABLE}");
    let found = super::guest_net::after_scrollback(host, &set)?;
    ensure!(
        found.contains("it is new") && found.contains("it stays"),
        "variables cannot be set any more:\n{found}"
    );
    host.leave_console()?;
    Ok(())
}

/// What a guest's disk is behind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Controller {
    Virtio,
    Ahci,
    /// NVMe: the host's own.
    Passed,
}

fn from_disk(context: &Context, firmware: &'static str, banner: &str, controller: Controller) -> Result<Outcome> {
    let (system, medium) = match with_medium(context, firmware)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let mut guest = guest(firmware);
    match controller {
        Controller::Virtio => guest.disks.push(device(context)),
        Controller::Ahci => {
            guest.disks.push(on_ahci(&device(context)));
            guest.more.push("boot-order = [\"disk\"]".into());
        }
        Controller::Passed => guest.more.push("passthrough = [{ pci = \"storage\" }]".into()),
    }
    let mut host = context.boot(&system.guest(&guest).into(), |config| {
        if controller == Controller::Passed {
            config.iommu = Some(Iommu::VtdWide);
            let mut disk = Disk::new(Bus::Nvme, &medium, "PASSED");
            disk.vanishes = true;
            config.disks.push(disk);
        } else {
            attach(config, &medium, true);
        }
    })?;
    host.neat_command("vm start pc")?;
    host.start_command("vm console pc")?;
    host.serial().expect_line(banner)?;
    reaches_user_land(&mut host)?;
    host.leave_console()?;
    // A reset begins with an adapter that has forgotten everything.
    host.neat_command("vm reset pc")?;
    host.start_command("vm console pc")?;
    for _ in 0..2 {
        host.serial().expect("Type commands")?;
    }
    fs::remove_file(medium)?;
    Ok(Outcome::Passed)
}

fn media(context: &Context) -> Result<Outcome> {
    let (system, medium) = match with_medium(context, "bios")? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let store = Scratch::empty(&context.environment.logs, context.name, 128 << 20)?;
    let (store_path, medium_path) = (store.path().display().to_string(), medium.display().to_string());
    let images = &context.environment.images;
    images.datastore(&["create", &store_path, "--label", "main"])?;
    images.datastore(&["write", "--quiet", &store_path, "one.iso", &medium_path])?;
    let mut host = context.boot(&system.guest(&guest("bios")).into(), |config| {
        config.disks.push(Disk::usual(context.emulator, store.path(), "STORE"));
    })?;
    host.neat_command("vm start pc")?;
    host.start_command("vm console pc")?;
    host.serial().expect("No bootable device")?;
    host.leave_console()?;
    let output = host.neat_command("vm media pc insert main:two.iso")?;
    ensure!(
        !output.contains("is in the drive"),
        "a file that is not there is in the drive: {output}"
    );
    host.neat_command("vm media pc insert main:one.iso")?;
    let output = host.neat_command("vm media pc")?;
    ensure!(
        output.contains("main:one.iso") && output.contains("in the drive"),
        "the drive says: {output}"
    );
    host.neat_command("vm reset pc")?;
    host.start_command("vm console pc")?;
    host.serial().expect("GRUB-IS-HERE")?;
    host.leave_console()?;
    host.neat_command("vm media pc eject")?;
    host.neat_command("vm reset pc")?;
    // What it said before is still there.
    host.start_command("vm console pc")?;
    for _ in 0..2 {
        host.serial().expect("No bootable device")?;
    }
    host.leave_console()?;
    fs::remove_file(medium)?;
    Ok(Outcome::Passed)
}

fn bios_alone(context: &Context) -> Result<Outcome> {
    let system = match system(context, "bios")? {
        Ok(system) => system,
        Err(missing) => return Outcome::skip(missing),
    };
    let empty = Scratch::empty(&context.environment.logs, context.name, 1 << 20)?;
    let mut guest = guest("bios");
    guest.disks.push(device(context));
    guest.more.push("boot-order = [\"cdrom\", \"disk\"]\nboot-menu = \"3 s\"".into());
    let mut host = context.boot(&system.guest(&guest).into(), |config| attach(config, empty.path(), true))?;
    host.neat_command("vm start pc")?;
    for round in 0..2 {
        host.start_command("vm console pc")?;
        host.serial().expect_line("SeaBIOS \\(version")?;
        if round == 0 {
            host.serial().expect("Press ESC for boot menu")?;
            host.serial().send(b"\x1b")?;
            host.serial().expect("Select boot device")?;
            let first = host.serial().expect("2. Virtio disk")?;
            ensure!(
                first.contains("1. DVD/CD"),
                "the menu does not begin with the CD-ROM drive: {first}"
            );
            host.serial().send(b"1")?;
        }
        host.serial().expect("No bootable device")?;
        host.leave_console()?;
        host.neat_command("vm reset pc")?;
    }
    Ok(Outcome::Passed)
}
