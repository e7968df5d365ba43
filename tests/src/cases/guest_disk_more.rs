//! Guests' disks in particular places: a partition, several queues, a datastore that gets full.

use super::{
    Case,
    guest_disk::{attach, device, device_name, with_disk_initramfs},
};
use crate::{
    Context, Failure, Outcome, Result,
    disks::Scratch,
    ensure,
    linux::{PROMPT, succeeds},
    machine::Disk,
    systems::Guest,
};
use std::fs;

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "guest-disk/partition",
        about: "a guest gets a partition of a disk, reaches all of it and nothing beside it",
        minutes: 2,
        bochs: Some(2),
        run: partition,
    },
    Case {
        name: "guest-disk/4-queues",
        about: "a guest with 4 processors uses 4 queues, verifies what it writes by all of them, also while the storage server is killed",
        minutes: 5,
        bochs: Some(11),
        run: queues,
    },
    Case {
        name: "datastore/full",
        about: "a guest that fills a datastore pauses, the log says that it is nearly full and why the guest waits, and it goes on when there is space again",
        minutes: 3,
        bochs: Some(6),
        run: full,
    },
];

/// Where the second partition of a disk image begins and ends, in bytes (UEFI 2.10, 5.3.3).
fn second_partition(image: &[u8]) -> Result<(usize, usize)> {
    let number = |at: usize| {
        let bytes = image.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| u64::from_le_bytes(bytes) as usize)
    };
    let entry = 2 * 512 + 128;
    match (number(entry + 32), number(entry + 40)) {
        (Some(first), Some(last)) if first > 2 && last > first && (last + 1) * 512 < image.len() => Ok((first * 512, (last + 1) * 512)),
        _ => Err(Failure::new("the image of a system has no second partition")),
    }
}

fn partition(context: &Context) -> Result<Outcome> {
    let system = match with_disk_initramfs(context) {
        Ok(system) => system,
        Err(missing) => return Outcome::skip(missing),
    };
    // An image of the system has a partition table.
    let image = context.environment.images.get(&context.product()?.without_guests().into())?;
    let disk = Scratch::copy(&context.environment.logs, context.name, &image)?;
    let path = disk.path().to_path_buf();
    let before = fs::read(&path)?;
    let (start, end) = second_partition(&before)?;
    let sectors = (end - start) / 512;
    let disk_name = device_name(context);
    let mut guest = Guest::debian_on_disk("guest", "/sbin/init");
    guest.disks = vec![format!("{{ device = \"{disk_name}\", partition = 2 }}")];
    let mut host = context.boot(&system.guest(&guest).into(), |config| attach(config, &path, false))?;
    host.console("guest", "Type commands")?;
    let size = succeeds(host.serial(), "blockdev --getsz /dev/vda")?;
    ensure!(
        size.lines().any(|line| line.trim() == sectors.to_string()),
        "the guest sees a disk of {size} sectors, not {sectors}"
    );
    // Up to its end, behind which there is nothing.
    succeeds(
        host.serial(),
        "tr '\\0' x < /dev/zero 2>/dev/null | dd of=/dev/vda bs=64k iflag=fullblock 2>/dev/null; sync; test $(tr -d x < /dev/vda | wc -c) = 0",
    )?;
    host.leave_console()?;
    // Whoever would get the whole disk would get the partition too.
    host.neat_command(&format!("vm create other 64M image:debian-kernel disk device:{disk_name}"))?;
    host.command("vm start other")?;
    let log = host.poll_command("log -n 20", |text| text.contains("in use"))?;
    ensure!(log.contains("guest"), "the log does not say who uses the disk:\n{log}");
    drop(host);
    let after = fs::read(&path)?;
    ensure!(
        after[start..end].iter().all(|byte| *byte == b'x'),
        "not all of the partition was written"
    );
    ensure!(
        after[..start] == before[..start] && after[end..] == before[end..],
        "something beside the partition was written"
    );
    Ok(Outcome::Passed)
}

fn queues(context: &Context) -> Result<Outcome> {
    let (system, image) = match (with_disk_initramfs(context), context.guest_file("debian/disk.img")) {
        (Ok(system), Ok(image)) => (system, image),
        (Err(missing), _) | (_, Err(missing)) => return Outcome::skip(missing),
    };
    let mut debian = Guest::debian_on_disk("guest", "/usr/local/sbin/plain-init");
    debian.vcpus = 4;
    debian.disks = vec![device(context)];
    let mut host = context.boot(&system.guest(&debian).into(), |config| {
        config.cpus = 1;
        attach(config, &image, true);
    })?;
    host.console("guest", PROMPT)?;
    let count = succeeds(host.serial(), "ls /sys/block/vda/mq | tr '\\n' ' '")?;
    ensure!(count.contains("0 1 2 3"), "the guest has the queues {count}");
    let job = "fio --name=load --directory=/root --size=4M --numjobs=4 --cpus_allowed=0-3 --cpus_allowed_policy=split --rw=randrw --bsrange=512-16k --direct=1 \
               --ioengine=libaio --iodepth=8 --verify=crc32c --verify_fatal=1 --verify_backlog=64 --fsync=64 --time_based --runtime=25 --output=/tmp/fio.log";
    host.serial()
        .send_line(&format!("({job}; echo fio ended \"\"$? > /tmp/end) & sleep 8; echo load\"\" runs"))?;
    host.serial().expect("load runs")?;
    host.serial().expect(PROMPT)?;
    host.leave_console()?;
    for _ in 0..2 {
        host.neat_command("kill storage")?;
        host.wait_until_runs("storage")?;
    }
    host.start_command("vm console guest")?;
    // Behind what the scrollback repeats.
    host.serial().send_line("echo from\"\" here")?;
    host.serial().expect("from here")?;
    let report = succeeds(host.serial(), "wait; cat /tmp/end; grep err= /tmp/fio.log")?;
    ensure!(
        report.contains("fio ended 0") && report.matches("err= 0").count() == 4,
        "fio in the guest says:\n{report}"
    );
    Ok(Outcome::Passed)
}

fn full(context: &Context) -> Result<Outcome> {
    let system = match with_disk_initramfs(context) {
        Ok(system) => system,
        Err(missing) => return Outcome::skip(missing),
    };
    let scratch = Scratch::empty(&context.environment.logs, context.name, 80 << 20)?;
    let filler = Scratch::empty(&context.environment.logs, "datastore/full-filler", 32 << 20)?;
    fs::write(filler.path(), vec![0x55; 32 << 20])?;
    let (path, filler) = (scratch.path().display().to_string(), filler.path().display().to_string());
    let images = &context.environment.images;
    images.datastore(&["create", &path, "--label", "main"])?;
    images.datastore(&["disk-create", &path, "data", "--size", "64M"])?;
    images.datastore(&["write", &path, "filler", &filler])?;
    let mut guest = Guest::debian_on_disk("guest", "/sbin/init");
    guest.disks = vec!["{ store = \"main\", disk = \"data\" }".into()];
    let mut host = context.boot(&system.guest(&guest).into(), |config| {
        config.disks.push(Disk::usual(context.emulator, scratch.path(), "STORE"));
    })?;
    host.console("guest", "Type commands")?;
    host.serial()
        .send_line("(tr '\\0' y < /dev/zero | dd of=/dev/vda bs=1M count=64 iflag=fullblock conv=fsync; echo dd \"\"ended $?) &")?;
    host.leave_console()?;
    let log = host.poll_command("log -n 30", |text| text.contains("waits for space"))?;
    ensure!(log.contains("data in datastore main waits for space"), "the log says:\n{log}");
    // It is looked for every few seconds.
    host.poll_command("log -n 30", |text| text.contains("datastore main is nearly full"))?;
    // The guest is at work and its disk waits: neither an error nor an end.
    host.start_command("vm console guest")?;
    succeeds(host.serial(), "sleep 2; jobs | grep -q Running && ! dmesg | grep -i 'i/o error'")?;
    host.leave_console()?;
    let removed = host.neat_command("datastore remove main filler")?;
    host.start_command("vm console guest")?;
    let end = host.serial().expect_line(r"^dd ended (\d+)$")?;
    ensure!(end[1] == "0", "dd ended with {} after `datastore remove` said: {removed}", end[1]);
    succeeds(
        host.serial(),
        "echo 3 > /proc/sys/vm/drop_caches; test $(tr -d y < /dev/vda | wc -c) = 0 && ! dmesg | grep -i 'i/o error'",
    )?;
    drop(host);
    images.datastore(&["check", &path])?;
    Ok(Outcome::Passed)
}
