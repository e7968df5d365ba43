//! Guests' disks: virtio block devices whose queues the storage server serves from the guest's memory.

use super::Case;
use crate::{
    Context, Failure, Outcome, Result, ensure,
    linux::{PROMPT, succeeds},
    machine::{Bus, Config, Disk, Emulator, Iommu},
    shell::Host,
    systems::{Guest, System},
};
use std::{fs, path::PathBuf};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "guest-disk/read-and-write",
        about: "a guest finds its disk, reads back what it wrote, flushes, discards, and asks for the serial number",
        minutes: 3,
        bochs: Some(5),
        run: read_and_write,
    },
    Case {
        name: "guest-disk/memory-comes-back",
        about: "ending the storage server and the machine in any order gives all memory back to the page",
        minutes: 4,
        bochs: Some(5),
        run: memory_comes_back,
    },
    Case {
        name: "guest-disk/kill-storage-under-load",
        about: "Debian runs from its disk and verifies what it writes while the storage server is killed again and again",
        minutes: 8,
        bochs: Some(15),
        run: kill_under_load,
    },
    Case {
        name: "guest-disk/hostile-queues",
        about: "a guest that breaks every rule of its queues harms neither host nor neighbour, and its disk works after each reset",
        minutes: 4,
        bochs: Some(8),
        run: hostile_queues,
    },
];

/// Times that the storage server is killed under load; in a long run.
const KILLS: (usize, usize) = (10, 100);

/// A fresh file of zeros for a disk of the machine, as long as the test runs.
pub(super) fn empty_disk(context: &Context, mebibytes: u64) -> Result<PathBuf> {
    let path = context.environment.logs.join(format!("{}.disk", context.name.replace('/', "-")));
    let file = fs::File::create(&path)?;
    file.set_len(mebibytes << 20)?;
    Ok(path)
}

/// What the first disk of [`attach`] is called on the host.
pub(super) fn device_name(context: &Context) -> &'static str {
    match context.emulator {
        Emulator::Qemu => "virtio0",
        Emulator::Bochs => "ata1",
    }
}

/// The same in a guest's description.
pub(super) fn device(context: &Context) -> String {
    format!("{{ device = \"{}\", serial = \"ROOT-DISK\" }}", device_name(context))
}

/// Gives the machine a disk, on whatever its emulator has; what is written there may vanish with the machine.
pub(super) fn attach(config: &mut Config, path: &std::path::Path, vanishes: bool) {
    match config.emulator {
        Emulator::Qemu => add_disk(config, path, if vanishes { "on" } else { "off" }),
        Emulator::Bochs => {
            let mut disk = Disk::new(Bus::Ata, path, "IDE-1");
            disk.vanishes = vanishes;
            config.disks.push(disk);
        }
    }
}

/// Gives the machine a disk on virtio.
pub(super) fn add_disk(config: &mut Config, path: &std::path::Path, snapshot: &str) {
    config.extra.extend([
        "-drive".into(),
        format!(
            "file={},format=raw,if=none,id=data,discard=unmap,snapshot={snapshot}",
            path.display()
        ),
        "-device".into(),
        if config.iommu.is_some() {
            "virtio-blk-pci,drive=data,serial=HOST-DISK,disable-legacy=on,iommu_platform=on".into()
        } else {
            "virtio-blk-pci,drive=data,serial=HOST-DISK".into()
        },
    ]);
}

pub(super) fn with_disk_initramfs(context: &Context) -> Result<System, String> {
    let path = context.guest_file("initramfs-disk.cpio")?;
    let product = context.product().map_err(|error| error.to_string())?;
    Ok(product.without_machines().file("debian-disk-initramfs", &path))
}

/// Starts Debian's kernel up to the shell of the RAM disk, with the drivers loaded and a disk that holds no file system.
fn boot_to_shell(context: &Context, iommu: Option<Iommu>, change: impl FnOnce(&mut Guest)) -> Result<Result<(Host, PathBuf), String>> {
    let system = match with_disk_initramfs(context) {
        Ok(system) => system,
        Err(missing) => return Ok(Err(missing)),
    };
    let path = empty_disk(context, 64)?;
    let mut guest = Guest::debian_on_disk("guest", "/sbin/init");
    guest.disks = vec![device(context)];
    change(&mut guest);
    let mut host = context.boot(&system.guest(&guest).into(), |config| {
        config.iommu = iommu;
        attach(config, &path, false);
    })?;
    host.console("guest", "Type commands")?;
    succeeds(host.serial(), "test -b /dev/vda")?;
    Ok(Ok((host, path)))
}

fn read_and_write(context: &Context) -> Result<Outcome> {
    read_and_write_behind(context, None)
}

/// Behind an IOMMU, or none.
pub(super) fn read_and_write_behind(context: &Context, iommu: Option<Iommu>) -> Result<Outcome> {
    let (mut host, path) = match boot_to_shell(context, iommu, |_| ())? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let size = succeeds(host.serial(), "blockdev --getsize64 /dev/vda")?;
    ensure!(size.contains("67108864"), "the guest sees a disk of {size}");
    let serial = succeeds(host.serial(), "cat /sys/block/vda/serial")?;
    ensure!(serial.contains("ROOT-DISK"), "the guest sees the serial number {serial}");
    if context.emulator == Emulator::Qemu {
        succeeds(host.serial(), "test $(cat /sys/block/vda/queue/discard_max_bytes) -gt 0")?;
    }
    // 4 MiB of chance, at an odd place, past the page cache on the way back.
    succeeds(host.serial(), "dd if=/dev/urandom of=/p bs=64k count=64")?;
    succeeds(host.serial(), "dd if=/p of=/dev/vda bs=4k seek=777 conv=fsync")?;
    succeeds(host.serial(), "echo 3 > /proc/sys/vm/drop_caches")?;
    succeeds(host.serial(), "dd if=/dev/vda bs=4k skip=777 count=1024 of=/q && busybox cmp /p /q")?;
    let sum = succeeds(host.serial(), "busybox sha256sum /p")?;
    let interrupts = succeeds(host.serial(), "grep virtio /proc/interrupts")?;
    ensure!(interrupts.contains("MSI"), "the disk does not interrupt by messages:\n{interrupts}");
    host.leave_console()?;
    if iommu.is_some() {
        // The guest's RAM is reached as long as it is lent.
        let domains = host.command("iommu")?;
        ensure!(
            domains.contains("256.0 MiB") || domains.contains("256 MiB"),
            "the guest's RAM is in no domain:\n{domains}"
        );
        let faults = host.command("iommu faults")?;
        ensure!(faults.contains("No device was refused anything"), "{faults}");
    }
    let exits = host.neat_command("vm exits guest")?;
    ensure!(exits.contains("oorbell"), "`vm exits` does not tell of doorbells:\n{exits}");
    host.serial().send_line("vm console guest")?;
    host.serial().send_line("poweroff -f")?;
    host.serial().expect(crate::shell::PROMPT)?;
    host.poll_command("vm list", |text| !text.contains("running"))?;
    if iommu.is_some() {
        host.poll_command("iommu", |text| !text.contains("256"))?;
    }
    drop(host);
    // It is on the host's disk where the guest put it.
    let bytes = fs::read(&path)?;
    let written = &bytes[777 * 4096..777 * 4096 + (4 << 20)];
    let digest = sha256(written)?;
    ensure!(sum.contains(&digest), "the disk holds {digest}, the guest wrote {sum}");
    ensure!(bytes[..777 * 4096].iter().all(|byte| *byte == 0), "something else was written");
    fs::remove_file(path)?;
    Ok(Outcome::Passed)
}

/// The digest, by the tool of the developer's machine.
fn sha256(bytes: &[u8]) -> Result<String> {
    let path = std::env::temp_dir().join(format!("tessera-{}-digest", std::process::id()));
    fs::write(&path, bytes)?;
    let output = std::process::Command::new("sha256sum").arg(&path).output()?;
    fs::remove_file(&path)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace()
        .next()
        .map(str::to_owned)
        .ok_or_else(|| Failure::new("sha256sum says nothing"))
}

fn memory_comes_back(context: &Context) -> Result<Outcome> {
    memory_comes_back_behind(context, None)
}

/// Behind an IOMMU, or none.
pub(super) fn memory_comes_back_behind(context: &Context, iommu: Option<Iommu>) -> Result<Outcome> {
    let (mut host, path) = match boot_to_shell(context, iommu, |guest| guest.vcpus = 2)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    host.leave_console()?;
    host.command("vm stop guest")?;
    host.poll_command("vm list", |text| !text.contains("running"))?;
    let before = host.free_pages()?;
    for end in [
        &["vm stop guest"][..],
        &["kill vmm.guest"],
        &["kill storage", "vm stop guest"],
        &["vm stop guest", "kill storage"],
        &["kill storage", "kill vmm.guest", "kill storage"],
    ] {
        host.neat_command("vm start guest")?;
        host.console("guest", "Type commands")?;
        host.serial()
            .send_line("dd if=/dev/zero of=/dev/vda bs=64k & dd if=/dev/vda of=/dev/null bs=4k & echo under\"\" way")?;
        host.serial().expect("under way")?;
        host.leave_console()?;
        for command in end {
            host.command(command)?;
        }
        host.poll_command("vm list", |text| !text.contains("running"))?;
        host.wait_until_runs("storage")?;
        // What was in flight comes to its end first.
        host.wait_for_free(before)?;
    }
    let faults = host.command("iommu faults")?;
    ensure!(faults.contains("No device was refused anything"), "{faults}");
    fs::remove_file(path)?;
    Ok(Outcome::Passed)
}

fn kill_under_load(context: &Context) -> Result<Outcome> {
    let (system, image) = match (with_disk_initramfs(context), context.guest_file("debian/disk.img")) {
        (Ok(system), Ok(image)) => (system, image),
        (Err(missing), _) | (_, Err(missing)) => return Outcome::skip(missing),
    };
    let mut debian = Guest::debian_on_disk("guest", "/usr/local/sbin/plain-init");
    debian.disks = vec![device(context)];
    let mut host = context.boot(&system.guest(&debian).into(), |config| attach(config, &image, true))?;
    host.console("guest", PROMPT)?;
    begin_load(&mut host)?;
    kill_storage(context, &mut host, "/dev/vda")?;
    end_load(&mut host)?;
    host.neat_command("log")?;
    Ok(Outcome::Passed)
}

/// Has Debian, at whose prompt this is, verify what it writes until it is told to stop, and leaves its console.
pub(super) fn begin_load(host: &mut Host) -> Result<()> {
    let job = "fio --name=load --filename=/root/load --size=16M --rw=randrw --bsrange=512-64k --direct=1 --ioengine=libaio --iodepth=16 \
               --verify=crc32c --verify_fatal=1 --verify_backlog=64 --fsync=32";
    host.serial().send_line(&format!("{job} --create_only=1 && echo laid\"\" out"))?;
    host.serial().expect("laid out")?;
    host.serial().send_line(&format!(
        "(until test -e /tmp/stop; do {job} --time_based --runtime=20 --output=/tmp/fio.log || {{ echo fio\"\" ended $?; cat /tmp/fio.log; }} >> /tmp/bad; \
         done) & sleep 5; echo load\"\" runs"
    ))?;
    host.serial().expect("load runs")?;
    host.serial().expect(PROMPT)?;
    host.leave_console()?;
    Ok(())
}

/// Kills the storage server again and again while the machine `guest` reads and writes that disk.
pub(super) fn kill_storage(context: &Context, host: &mut Host, disk: &str) -> Result<()> {
    let kills = if context.environment.long { KILLS.1 } else { KILLS.0 };
    for round in 0..kills {
        host.neat_command("kill storage")?;
        host.wait_until_runs("storage")?;
        // The guest is at work again: its disk is read past the cache. The number tells it from what is in the scrollback.
        host.start_command("vm console guest")?;
        let read = format!("dd if={disk} of=/dev/null bs=4k count=1 iflag=direct 2>/dev/null");
        host.serial().send_line(&format!("{read} && echo alive $((1000 + {round}))"))?;
        host.serial().expect(&format!("alive {}", 1000 + round))?;
        host.leave_console()?;
    }
    Ok(())
}

/// Has the load end: nothing that was read was wrong, and the guest's kernel saw no error.
pub(super) fn end_load(host: &mut Host) -> Result<()> {
    host.start_command("vm console guest")?;
    host.serial()
        .send_line("touch /tmp/stop; wait; cat /tmp/bad; grep -E 'err=|verify' /tmp/fio.log; echo report\"\" over")?;
    let report = host.serial().expect("report over")?;
    ensure!(
        !report.contains("fio ended") && report.contains("err= 0"),
        "fio in the guest says:\n{report}"
    );
    host.serial()
        .send_line("dmesg | grep -ciE 'error|remount' ; echo counted\"\" them")?;
    let errors = host.serial().expect("counted them")?;
    ensure!(
        errors.lines().any(|line| line.trim() == "0"),
        "the guest's kernel saw errors: {errors}"
    );
    host.leave_console()?;
    Ok(())
}

fn hostile_queues(context: &Context) -> Result<Outcome> {
    let (system, bare) = match (with_disk_initramfs(context), context.guest_file("bare-guest")) {
        (Ok(system), Ok(bare)) => (system, bare),
        (Err(missing), _) | (_, Err(missing)) => return Outcome::skip(missing),
    };
    let mut neighbour = Guest::debian_on_disk("neighbour", "/sbin/init");
    neighbour.disks = vec![device(context)];
    let mut hostile = Guest::bare("virtio");
    let second = match context.emulator {
        Emulator::Qemu => "virtio1",
        Emulator::Bochs => "ata2",
    };
    hostile.disks = vec![format!("{{ device = \"{second}\" }}")];
    let system = system.file("bare-guest", &bare).guest(&neighbour).guest(&hostile);
    let (path, other) = (empty_disk(context, 64)?, empty_disk(context, 64)?.with_extension("other"));
    fs::File::create(&other)?.set_len(8 << 20)?;
    let mut host = context.boot(&system.into(), |config| {
        config.cpus = 1;
        attach(config, &path, false);
        match context.emulator {
            Emulator::Qemu => config.extra.extend([
                "-drive".into(),
                format!("file={},format=raw,if=none,id=other", other.display()),
                "-device".into(),
                "virtio-blk-pci,drive=other".into(),
            ]),
            Emulator::Bochs => config.disks.push(Disk::new(Bus::Ata, &other, "IDE-2")),
        }
    })?;
    host.console("neighbour", "Type commands")?;
    succeeds(host.serial(), "dd if=/dev/urandom of=/p bs=64k count=16")?;
    let work = "(while dd if=/p of=/dev/vda bs=4k conv=fsync && echo 3 > /proc/sys/vm/drop_caches && dd if=/dev/vda bs=4k count=256 of=/q && \
                busybox cmp /p /q; do :; done 2>/dev/null; echo neighbour\"\" failed) &";
    host.serial().send_line(work)?;
    host.leave_console()?;
    host.neat_command("vm start virtio")?;
    host.start_command("vm console virtio")?;
    let groups = host.serial().expect_line("BARE virtio end (.*)$")?;
    ensure!(groups[1].trim() == "ok", "in the hostile guest: {}", groups[1]);
    host.leave_console()?;
    let ps = host.neat_command("ps")?;
    ensure!(
        ps.lines().any(|line| line.contains("storage") && line.contains("running")),
        "`ps` says:\n{ps}"
    );
    let log = host.command("log")?;
    ensure!(!log.contains("storage (server 2) "), "the storage server ended:\n{log}");
    host.start_command("vm console neighbour")?;
    host.serial().send_line("jobs; echo still at\"\" it")?;
    let jobs = host.serial().expect("still at it")?;
    ensure!(
        !jobs.contains("neighbour failed") && jobs.contains("Running"),
        "the neighbour: {jobs}"
    );
    fs::remove_file(path)?;
    fs::remove_file(other)?;
    Ok(Outcome::Passed)
}
