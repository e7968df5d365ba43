//! Power cuts of the whole machine: QEMU is killed while a guest writes to its virtual disk.

use super::{Case, datastore::debian_in_store};
use crate::{
    Context, Failure, Outcome, Result,
    disks::Scratch,
    ensure,
    linux::{PROMPT, succeeds},
    machine::{Bus, Disk},
    shell::Host,
};
use std::{path::Path, process::Command};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "datastore/power-cuts",
    about: "Debian boots from a datastore on NVMe, AHCI and virtio; the power goes under fio, and file systems and everything flushed are whole",
    minutes: 6,
    bochs: None,
    run: power_cuts,
}];

/// Times that the power goes; in a long run.
const CUTS: (usize, usize) = (3, 20);
/// What the machine has its disk at, one after the other.
const BUSES: [(Bus, &str); 3] = [(Bus::Nvme, "nvme0"), (Bus::Ahci, "ahci"), (Bus::Virtio, "virtio0")];
/// A file that is written whole, and then here and there without end. Blocks of it tell what they are.
const FIO: &str = "fio --name=load --filename=/root/load --size=16M --bs=4k --direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c";

fn power_cuts(context: &Context) -> Result<Outcome> {
    let (system, store) = match debian_in_store(context)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let boot = |bus| {
        context.boot(&system.clone().into(), |config| {
            config.disks.push(Disk::new(bus, store.path(), "STORE"))
        })
    };
    let cuts = if context.environment.long { CUTS.1 } else { CUTS.0 };
    // Numbers of files that were flushed, each of which says its number.
    let mut flushed = 0;
    for cut in 0..cuts {
        let (bus, name) = BUSES[cut % BUSES.len()];
        let during = |failure: Failure| Failure::new(format!("before power cut {cut}, on {name}: {failure}"));
        let mut host = boot(bus)?;
        host.console("debian", PROMPT).map_err(during)?;
        verify(&mut host, flushed).map_err(during)?;
        flushed = load(&mut host, flushed, cut).map_err(during)?;
        // The machine ends here, with everything that was on its way.
        drop(host);
        inspect(context, &store).map_err(|failure| Failure::new(format!("after power cut {cut}, on {name}: {failure}")))?;
    }
    let mut host = boot(BUSES[0].0)?;
    host.console("debian", PROMPT)?;
    verify(&mut host, flushed)?;
    let list = host.leave_console().and_then(|_| host.neat_command("datastore list"))?;
    ensure!(list.contains("main"), "`datastore list` says:\n{list}");
    Ok(Outcome::Passed)
}

/// Everything that was flushed is there, and whatever `fio` wrote is whole.
fn verify(host: &mut Host, flushed: u32) -> Result<()> {
    if flushed == 0 {
        return Ok(());
    }
    succeeds(
        host.serial(),
        &format!("for i in $(seq {flushed}); do test $(cat /root/flushed/$i) = $i || echo $i is \"\"lost; done"),
    )
    .and_then(|text| {
        if text.contains("is lost") {
            Err(Failure::new(text))
        } else {
            Ok(())
        }
    })?;
    succeeds(
        host.serial(),
        &format!("{FIO} --rw=read --verify_fatal=1 --output=/tmp/fio.log || {{ cat /tmp/fio.log; false; }}"),
    )?;
    Ok(())
}

/// Writes until a few more files were flushed; gives the last one's number.
fn load(host: &mut Host, flushed: u32, cut: usize) -> Result<u32> {
    if flushed == 0 {
        succeeds(
            host.serial(),
            &format!("mkdir -p /root/flushed && {FIO} --rw=write --do_verify=0 --end_fsync=1 --output=/tmp/fio.log && sync"),
        )?;
    }
    let job =
        format!("{FIO} --rw=randwrite --verify_backlog=64 --verify_fatal=1 --fsync=32 --time_based --runtime=1000 --output=/tmp/fio.log");
    host.serial()
        .send_line(&format!("({job}; echo fio \"\"ended; cat /tmp/fio.log) & sleep 1"))?;
    host.serial().fatal("fio ended");
    host.serial().expect(PROMPT)?;
    // New files beside it, so that blocks are given out all the time; old ones go, so that some come back.
    host.serial().send_line(&format!(
        "i={flushed}; while :; do i=$((i+1)); echo $i > /root/flushed/$i; dd if=/dev/urandom of=/root/new$((i%8)) bs=64k count=$((i%16+1)) 2>/dev/null; \
         sync; echo flushed \"\"$i; done"
    ))?;
    let mut last = flushed;
    // Another number in each round, so that the power does not always go at the same place.
    for _ in 0..3 + cut * 7 % 5 {
        last = host
            .serial()
            .expect_line(r"^flushed (\d+)$")?
            .swap_remove(1)
            .parse()
            .unwrap_or(last);
    }
    Ok(last)
}

/// What the tools of the developer's machine say of datastore and file system.
fn inspect(context: &Context, store: &Scratch) -> Result<()> {
    let path = store.path().display().to_string();
    let images = &context.environment.images;
    images.datastore(&["check", &path])?;
    let disk = Scratch::empty(&context.environment.logs, &format!("{}-exported", context.name), 0)?;
    images.datastore(&["export", &path, "debian", &disk.path().display().to_string()])?;
    // A power cut leaves a journal, and deleted files that somebody had open. What goes beyond that, `-p` refuses to mend.
    fsck(disk.path(), "-p", 1)?;
    fsck(disk.path(), "-fn", 0)
}

/// Runs e2fsck, which must end with `most` at most: 1 says that something was mended.
fn fsck(disk: &Path, option: &str, most: i32) -> Result<()> {
    let output = Command::new("/sbin/e2fsck")
        .arg(option)
        .arg(disk)
        .output()
        .map_err(|e| Failure::new(format!("cannot start e2fsck: {e} (Debian package e2fsprogs)")))?;
    ensure!(
        output.status.code().is_some_and(|code| code <= most),
        "e2fsck {option} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
