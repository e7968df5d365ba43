//! Datastores on the running system: guests run from virtual disks in them.

use super::Case;
use crate::{
    Context, Outcome, Result,
    disks::Scratch,
    ensure,
    linux::{PROMPT, succeeds},
    machine::Disk,
    shell::Host,
    systems::{Guest, Probe, System},
};
use std::path::Path;

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "datastore/snapshot-and-revert",
        about: "Debian boots from a virtual disk in a datastore; a snapshot brings back what it deletes; space is given back",
        minutes: 3,
        bochs: Some(4),
        run: snapshot_and_revert,
    },
    Case {
        name: "datastore/stream",
        about: "a server writes and reads a long file through shared memory while the storage server is killed; nothing that was made safe is lost",
        minutes: 2,
        bochs: Some(2),
        run: stream,
    },
    Case {
        name: "datastore/made-at-run-time",
        about: "a machine is made on the running host, boots kernel, RAM disk and disk out of a datastore, and is removed",
        minutes: 3,
        bochs: Some(5),
        run: made_at_run_time,
    },
];

fn end_guest(host: &mut Host) -> Result<()> {
    host.serial().send_line("sync; poweroff -f")?;
    host.serial().expect(crate::shell::PROMPT)?;
    host.poll_command("vm list", |text| !text.contains("running"))?;
    Ok(())
}

pub(super) fn store_with_debian(context: &Context, image: &Path) -> Result<Scratch> {
    let scratch = Scratch::empty(&context.environment.logs, context.name, 2 << 30)?;
    let path = scratch.path().display().to_string();
    context.environment.images.datastore(&["create", &path, "--label", "main"])?;
    context
        .environment
        .images
        .datastore(&["import", &path, &image.display().to_string(), "debian"])?;
    Ok(scratch)
}

/// The delivered system with Debian as its only machine, and the datastore with its disk; or what is missing.
pub(super) fn debian_in_store(context: &Context) -> Result<Result<(System, Scratch), String>> {
    let files = context
        .guest_file("initramfs-disk.cpio")
        .and_then(|ram| Ok((ram, context.guest_file("debian/disk.img")?)));
    let (initramfs, image) = match files {
        Ok(found) => found,
        Err(missing) => return Ok(Err(missing)),
    };
    let mut debian = Guest::debian_on_disk("debian", "/usr/local/sbin/plain-init");
    debian.disks = vec!["{ store = \"main\", disk = \"debian\" }".into()];
    let system = context
        .product()?
        .without_machines()
        .file("debian-disk-initramfs", &initramfs)
        .guest(&debian);
    Ok(Ok((system, store_with_debian(context, &image)?)))
}

fn snapshot_and_revert(context: &Context) -> Result<Outcome> {
    let (system, store) = match debian_in_store(context)? {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let mut host = context.boot(&system.into(), |config| {
        config.disks.push(Disk::usual(context.emulator, store.path(), "STORE"))
    })?;
    host.console("debian", PROMPT)?;
    succeeds(host.serial(), "echo kept > /root/kept && sync")?;
    host.leave_console()?;
    let list = host.neat_command("datastore list")?;
    ensure!(
        list.contains("main") && list.contains(&Disk::usual_name(context.emulator, 0)),
        "`datastore list` says:\n{list}"
    );
    host.neat_command("datastore snapshot main debian before")?;
    let refused = host.command("datastore revert main debian before")?;
    ensure!(refused.contains("in use"), "a disk in use was reverted:\n{refused}");
    host.start_command("vm console debian")?;
    succeeds(
        host.serial(),
        "rm -r /root/kept /usr/share/doc && dd if=/dev/urandom of=/root/new bs=1M count=32 && sync",
    )?;
    end_guest(&mut host)?;
    let shown = host.neat_command("datastore show main debian")?;
    ensure!(
        shown.contains("before") && shown.contains("disk is here"),
        "`datastore show` says:\n{shown}"
    );
    host.neat_command("datastore revert main debian before")?;
    host.neat_command("vm start debian")?;
    host.console("debian", PROMPT)?;
    succeeds(
        host.serial(),
        "grep kept /root/kept && test -d /usr/share/doc && test ! -e /root/new",
    )?;
    end_guest(&mut host)?;
    host.neat_command("datastore unsnapshot main debian before")?;
    let shown = host.neat_command("datastore show main debian")?;
    ensure!(!shown.contains("before"), "`datastore show` says:\n{shown}");
    drop(host);
    context
        .environment
        .images
        .datastore(&["check", &store.path().display().to_string()])?;
    Ok(Outcome::Passed)
}

fn made_at_run_time(context: &Context) -> Result<Outcome> {
    let files = ["initramfs-disk.cpio", "debian/disk.img", "cloud/vmlinuz"].map(|name| context.guest_file(name));
    let [Ok(initramfs), Ok(image), Ok(kernel)] = &files else {
        let missing = files.into_iter().filter_map(std::result::Result::err);
        return Outcome::skip(missing.collect::<Vec<_>>().join("; "));
    };
    let system = context.product()?.without_machines();
    let store = store_with_debian(context, image)?;
    let path = store.path().display().to_string();
    let put = |name: &str, file: &Path| {
        let images = &context.environment.images;
        images.datastore(&["write", &path, name, &file.display().to_string()])
    };
    context.environment.images.datastore(&["mkdir", &path, "boot"])?;
    put("boot/vmlinuz", kernel)?;
    put("boot/initramfs", initramfs)?;
    let mut host = context.boot(&system.into(), |config| {
        config.disks.push(Disk::usual(context.emulator, store.path(), "STORE"))
    })?;
    let create = format!(
        "vm create web 256M main:boot/vmlinuz initramfs main:boot/initramfs vcpus 2 disk main:debian nic \"VM Network\" e1000e nic \"VM Network\" -- {}",
        crate::linux::PLAIN
    );
    let line = |text: &str, what: &str| text.lines().find(|line| line.starts_with(what)).unwrap_or_default().to_owned();
    let mut free = None;
    for round in 0..2 {
        host.neat_command(&create)?;
        let refused = host.command(&create)?;
        ensure!(
            refused.contains("already"),
            "a second machine of the same name was made:\n{refused}"
        );
        let shown = host.neat_command("vm show web")?;
        ensure!(
            shown.contains("main:boot/vmlinuz") && shown.contains("main:debian") && shown.matches("VM Network").count() == 2,
            "`vm show` says:\n{shown}"
        );
        host.neat_command("vm start web")?;
        host.console("web", PROMPT)?;
        succeeds(
            host.serial(),
            // An 82574L and a virtio card.
            &format!(
                "echo round {round} >> /root/rounds && sync && nproc | grep -x 2 && cat /sys/bus/pci/devices/*/device | grep -c -e 0x10d3 -e 0x1041 | grep -x 2"
            ),
        )?;
        host.leave_console()?;
        let refused = host.command("vm remove web")?;
        ensure!(refused.contains("stop it first"), "a machine that runs was removed:\n{refused}");
        host.neat_command("vm stop web")?;
        host.neat_command("vm remove web")?;
        let gone = host.command("vm start web")?;
        ensure!(gone.contains("no virtual machine"), "a machine that was removed started:\n{gone}");
        // The storage server gives RAM back when no device works in it any more.
        let text = host.poll_command("mem", |text| line(text, "guests").contains(" 0 B "))?;
        let now = line(&text, "free");
        let before = free.replace(now.clone()).unwrap_or(now.clone());
        ensure!(before == now, "memory was lost: `{before}`, now `{now}`");
    }
    host.neat_command("vm create other 64M main:boot/nothing")?;
    let failed = host.command("vm start other")?;
    let text = host.poll_command("log -n 20", |text| text.contains("boot/nothing"))?;
    ensure!(
        failed.contains("other") && text.contains("cannot be read") || text.contains("boot/nothing"),
        "a machine without a kernel says:\n{failed}\n{text}"
    );
    Ok(Outcome::Passed)
}

fn stream(context: &Context) -> Result<Outcome> {
    let scratch = Scratch::empty(&context.environment.logs, context.name, 256 << 20)?;
    let path = scratch.path().display().to_string();
    context.environment.images.datastore(&["create", &path, "--label", "main"])?;
    let system = context.product()?.without_guests().probe(
        Probe::new("user", "stream main 20")
            .reports()
            .grant("storage = { use = \"storage\" }")
            .grant("buffer = { share = \"storage + 256 KiB\" }"),
    );
    let mut host = context.boot(&system.into(), |config| {
        config.disks.push(Disk::usual(context.emulator, scratch.path(), "STORE"));
        config.second_port = true;
    })?;
    for round in [2, 5, 9] {
        host.com2()?.expect(&format!("round {round} is done"))?;
        host.command("kill storage")?;
    }
    super::isolation::verdicts(&mut host, "stream")?;
    drop(host);
    context.environment.images.datastore(&["check", &path])?;
    Ok(Outcome::Passed)
}
