//! Debian's kernels in virtual machines, up to user land and back to the shell.

use super::Case;
use crate::{Context, Outcome, Result, ensure, initramfs, linux::succeeds, machine::Emulator, shell::Host, systems::Guest};
use std::fs;

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "guest/cloud-1-vcpu",
        about: "Debian's cloud kernel to user land, 1 vCPU",
        minutes: 3,
        bochs: Some(3),
        run: |c| to_user_land(c, "cloud", 1, 128),
    },
    Case {
        name: "guest/cloud-2-vcpus",
        about: "Debian's cloud kernel to user land, 2 vCPUs",
        minutes: 4,
        bochs: Some(3),
        run: |c| to_user_land(c, "cloud", 2, 256),
    },
    Case {
        name: "guest/cloud-4-vcpus",
        about: "Debian's cloud kernel to user land, 4 vCPUs",
        minutes: 5,
        bochs: Some(4),
        run: |c| to_user_land(c, "cloud", 4, 256),
    },
    Case {
        name: "guest/cloud-8-vcpus",
        about: "Debian's cloud kernel to user land, 8 vCPUs",
        minutes: 6,
        bochs: Some(6),
        run: |c| to_user_land(c, "cloud", 8, 256),
    },
    Case {
        name: "guest/generic-1-vcpu",
        about: "Debian's generic kernel to user land, 1 vCPU; on QEMU its watchdog resets it when nobody comes by",
        minutes: 5,
        bochs: Some(4),
        run: |c| match c.emulator {
            Emulator::Qemu => watchdog(c),
            Emulator::Bochs => to_user_land(c, "generic", 1, 256),
        },
    },
    Case {
        name: "guest/generic-2-vcpus",
        about: "Debian's generic kernel to user land, 2 vCPUs",
        minutes: 5,
        bochs: Some(4),
        run: |c| to_user_land(c, "generic", 2, 256),
    },
    Case {
        name: "guest/generic-4-vcpus",
        about: "Debian's generic kernel to user land, 4 vCPUs",
        minutes: 6,
        bochs: Some(5),
        run: |c| to_user_land(c, "generic", 4, 256),
    },
    Case {
        name: "guest/memory-72-mib",
        // Its header asks for 51.5 MiB from 16 MiB on, so that it boots in less nowhere.
        about: "Debian's kernel reaches user land in hardly more RAM than it asks for",
        minutes: 3,
        bochs: Some(3),
        run: |c| to_user_land(c, "cloud", 1, 72),
    },
    Case {
        name: "guest/memory-1-gib",
        about: "a guest with 1 GiB uses it, mapped by one page where the processor has such",
        minutes: 5,
        bochs: Some(6),
        run: |c| to_user_land(c, "cloud", 1, 1024),
    },
    Case {
        name: "guest/memory-2-gib",
        about: "a guest with 2 GiB uses it",
        minutes: 6,
        bochs: None,
        run: |c| to_user_land(c, "cloud", 1, 2048),
    },
    Case {
        name: "guest/console",
        about: "the console takes commands, Ctrl-] leaves it, poweroff ends the machine",
        minutes: 4,
        bochs: Some(4),
        run: console,
    },
    Case {
        name: "guest/clock",
        about: "time passes and sleepers wake on both vCPUs",
        minutes: 5,
        bochs: Some(3),
        run: clock,
    },
    Case {
        name: "guest/paravirtual",
        about: "Debian's drivers get entropy, use the paravirtual console, and give memory up and take it back",
        minutes: 3,
        bochs: Some(4),
        run: paravirtual,
    },
    Case {
        name: "guest/as-delivered",
        about: "the delivered image ends at the prompt with `debian` running",
        minutes: 4,
        bochs: Some(3),
        run: as_delivered,
    },
];

/// What `GUEST-UP` says.
fn reaches_user_land(host: &mut Host, vm: &str) -> Result<(u32, u64)> {
    host.console(vm, "GUEST-UP")?;
    let groups = host.serial().expect_line(r"cpus=(\d+) memory=(\d+)KiB")?;
    let number = |index: usize| groups.get(index).and_then(|g| g.parse().ok()).unwrap_or(0);
    Ok((number(1) as u32, number(2)))
}

fn to_user_land(context: &Context, kernel: &str, vcpus: u32, memory: u32) -> Result<Outcome> {
    let path = match context.guest_file(&format!("{kernel}/vmlinuz")) {
        Ok(path) => path,
        Err(missing) => return Outcome::skip(missing),
    };
    let test = match context.emulator {
        _ if memory < 1024 => "",
        Emulator::Qemu => "memory",
        Emulator::Bochs => "memory-sampled",
    };
    let mut guest = Guest::debian("guest", test);
    (guest.vcpus, guest.memory, guest.kernel) = (vcpus, memory, "tested-kernel");
    let system = context.product()?.without_machines().file("tested-kernel", &path).guest(&guest);
    // Enough that a whole GiB, aligned to its size, is free beside firmware and system.
    let host_memory = if memory >= 1024 { memory + 1536 } else { 1024 };
    let mut host = context.boot(&system.into(), |config| config.memory = host_memory)?;
    let (cpus, seen) = reaches_user_land(&mut host, "guest")?;
    ensure!(cpus == vcpus, "the guest sees {cpus} processors instead of {vcpus}");
    let share = if memory < 128 { 4 } else { 6 };
    let (least, most) = (u64::from(memory) * 1024 * share / 10, u64::from(memory) * 1024);
    ensure!((least..=most).contains(&seen), "the guest sees {seen} KiB of {memory} MiB");
    if memory >= 1024 {
        let result = host.serial().expect_line("GUEST-MEMORY (.*)$")?;
        ensure!(result[1].starts_with("ok"), "memory test in the guest: {}", result[1]);
    }
    host.leave_console()?;
    host.neat_command("vm exits guest")?;
    host.neat_command("vm regs guest")?;
    if memory >= 1024 {
        let mapped = host.neat_command("vm memory guest")?;
        let features = host.command("cpu")?;
        let offered = features.lines().any(|line| line.contains("1-GiB pages") && line.contains("used"));
        ensure!(
            offered != mapped.contains("mapped by     0 x 1 GiB"),
            "the processor's features, and what its nested page tables have:\n{features}\n{mapped}"
        );
    }
    Ok(Outcome::Passed)
}

fn watchdog(context: &Context) -> Result<Outcome> {
    let files = ["generic/vmlinuz", "generic/modules", "initramfs.cpio"].map(|file| context.guest_file(file));
    let [Ok(kernel), Ok(modules), Ok(first)] = files else {
        return Outcome::skip(files.into_iter().find_map(std::result::Result::err).unwrap_or_default());
    };
    let disk = context.environment.logs.join(format!("{}.cpio", context.name.replace('/', "-")));
    let drivers = initramfs::modules(&modules, &["watchdog", "i6300esb"])?;
    fs::write(&disk, [fs::read(first)?, drivers].concat())?;
    let mut guest = Guest::debian("guest", "");
    (guest.memory, guest.kernel, guest.initramfs) = (256, "tested-kernel", Some("tested-disk"));
    guest.more.push("watchdog = \"reset\"".into());
    let system = context
        .product()?
        .without_machines()
        .file("tested-kernel", &kernel)
        .file("tested-disk", &disk);
    let mut host = context.boot(&system.guest(&guest).into(), |_| ())?;
    reaches_user_land(&mut host, "guest")?;
    succeeds(
        host.serial(),
        "insmod /modules/watchdog.ko && insmod /modules/i6300esb.ko heartbeat=4",
    )?;
    // It runs from the moment somebody opens it.
    host.serial().send_line("exec 9>/dev/watchdog; sleep 1000")?;
    host.serial().expect("GUEST-UP")?;
    host.leave_console()?;
    let info = host.neat_command("vm info guest")?;
    ensure!(
        info.contains("1 resets") && info.contains("1 times late at its watchdog"),
        "the guest was not reset by its watchdog:\n{info}"
    );
    fs::remove_file(disk)?;
    Ok(Outcome::Passed)
}

fn console(context: &Context) -> Result<Outcome> {
    let system = context.product()?.without_machines().guest(&Guest::debian("guest", ""));
    let mut host = context.boot(&system.into(), |_| ())?;
    reaches_user_land(&mut host, "guest")?;
    host.serial().send_line("echo sum $((40 + 2))")?;
    host.serial().expect("sum 42")?;
    host.leave_console()?;
    // What was printed meanwhile is in the scrollback.
    host.console("guest", "sum 42")?;
    host.serial().send_line("seq 1 2000 | tail -1; echo end of $((1000 + 999))")?;
    host.serial().expect("2000")?;
    host.serial().expect("end of 1999")?;
    host.serial().send_line("poweroff -f")?;
    // The console closes by itself when its machine ends.
    host.serial().expect(crate::shell::PROMPT)?;
    let list = host.poll_command("vm list", |text| !text.contains("running"))?;
    ensure!(list.contains("stopped"), "after poweroff: {list}");
    host.neat_command("vm start guest")?;
    host.poll_command("vm list", |text| text.contains("running"))?;
    reaches_user_land(&mut host, "guest")?;
    host.leave_console()?;
    Ok(Outcome::Passed)
}

fn clock(context: &Context) -> Result<Outcome> {
    let mut guest = Guest::debian("guest", "clock");
    guest.vcpus = 2;
    let mut host = context.boot(&context.product()?.without_machines().guest(&guest).into(), |_| ())?;
    let text = host.console("guest", "GUEST-CLOCK done")?;
    ensure!(
        text.contains("GUEST-CLOCK cpu 0 ok") && text.contains("GUEST-CLOCK cpu 1 ok"),
        "in the guest: {text}"
    );
    Ok(Outcome::Passed)
}

fn paravirtual(context: &Context) -> Result<Outcome> {
    let path = match context.guest_file("initramfs-net.cpio") {
        Ok(path) => path,
        Err(missing) => return Outcome::skip(missing),
    };
    let mut guest = Guest::debian("guest", "");
    guest.initramfs = Some("drivers");
    let system = context.product()?.without_machines().file("drivers", &path).guest(&guest);
    let mut host = context.boot(&system.into(), |config| config.cpus = 1)?;
    let before = host.neat_command("vm memory guest")?;
    ensure!(before.contains("no balloon driver"), "before its driver is there: {before}");
    reaches_user_land(&mut host, "guest")?;
    let modules = "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio-rng virtio_console virtio_balloon";
    succeeds(
        host.serial(),
        &format!("for m in {modules}; do insmod /modules/$m.ko || break; done"),
    )?;
    // Sixteen bytes that are not all the same, twice not the same.
    succeeds(
        host.serial(),
        "a=$(head -c 16 /dev/hwrng | hexdump -C | head -1); b=$(head -c 16 /dev/hwrng | hexdump -C | head -1); echo $a; [ -n \"$a\" ] && [ \"$a\" != \"$b\" ]",
    )?;
    host.serial()
        // Opened once: what is typed while nobody has it open is lost.
        .send_line("exec 3<>/dev/hvc0; stty -echo <&3; echo \"to the \"port >&3; read line <&3; exec 3>&-; echo \"read <$line>\"")?;
    host.serial().expect("to the port")?;
    host.serial().send_line("typed for the port")?;
    host.serial().expect("read <typed for the port>")?;
    host.leave_console()?;
    // The guest is asked every ten seconds.
    let told = host.poll_command("vm memory guest", |text| text.contains("available"))?;
    ensure!(told.contains("guest's total"), "the guest tells: {told}");
    // The scrollback has earlier answers.
    let free = |host: &mut Host, mark: &str| -> Result<u64> {
        host.start_command("vm console guest")?;
        host.serial()
            .send_line(&format!("echo {mark} $(awk '/^MemFree/ {{ print $2 }}' /proc/meminfo)KiB."))?;
        let groups = host.serial().expect_line(&format!(r"{mark} (\d+)KiB\."))?;
        host.leave_console()?;
        Ok(groups[1].parse().unwrap_or(0))
    };
    let all = free(&mut host, "first")?;
    host.neat_command("vm memory guest 32")?;
    host.poll_command("vm memory guest", |text| text.contains("32 MiB of 32 MiB"))?;
    let less = free(&mut host, "second")?;
    ensure!(
        less + 28 * 1024 < all,
        "with 32 MiB given up the guest has {less} KiB free, before {all} KiB"
    );
    host.neat_command("vm memory guest 0")?;
    host.poll_command("vm memory guest", |text| text.contains("does without  0"))?;
    let again = free(&mut host, "third")?;
    ensure!(again > less + 28 * 1024, "taken back: {again} KiB free, before {less} KiB");
    let refused = host.command("vm memory guest 100000")?;
    ensure!(refused.contains("the machine has 128 MiB"), "more than there is: {refused}");
    // A machine that is reset has its drivers' devices anew.
    host.neat_command("vm reset guest")?;
    reaches_user_land(&mut host, "guest")?;
    succeeds(
        host.serial(),
        &format!("for m in {modules}; do insmod /modules/$m.ko || break; done; head -c 4 /dev/hwrng | hexdump -C"),
    )?;
    host.leave_console()?;
    Ok(Outcome::Passed)
}

fn as_delivered(context: &Context) -> Result<Outcome> {
    let mut host = context.boot(&context.product()?.into(), |_| ())?;
    let list = host.neat_command("vm list")?;
    ensure!(
        list.lines().any(|l| l.contains("debian") && l.contains("running")),
        "`vm list` says:\n{list}"
    );
    reaches_user_land(&mut host, "debian")?;
    host.serial().send_line("uname -s -m")?;
    host.serial().expect("Linux x86_64")?;
    host.leave_console()?;
    Ok(Outcome::Passed)
}
