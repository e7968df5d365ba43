//! Datastores on the running system: guests run from virtual disks in them.

use super::Case;
use crate::{
    Context, Failure, Outcome, Result,
    disks::Scratch,
    ensure,
    machine::{Bus, Disk},
    shell::Host,
    systems::Guest,
};
use std::{path::Path, process::Command};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "datastore/snapshot-and-revert",
    about: "Debian boots from a virtual disk in a datastore on NVMe; a snapshot brings back what it deletes; space is given back",
    minutes: 3,
    bochs: None,
    run: snapshot_and_revert,
}];

/// Shell prompt of Debian's root.
const GUEST_PROMPT: &str = "guest# ";

/// Runs `image-builder datastore`, which stands beside this program.
fn tool(arguments: &[&str]) -> Result<()> {
    let program = std::env::current_exe()?.with_file_name("image-builder");
    let output = Command::new(&program).arg("datastore").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} datastore {}: {}",
        program.display(),
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    )))
}

/// A command in the guest; it must end well.
fn guest(host: &mut Host, line: &str) -> Result<String> {
    host.serial().send_line(&format!("{line}; echo END-\"\"OF $?"))?;
    let text = host.serial().expect("END-OF ")?;
    let status = host.serial().expect("\n")?;
    ensure!(status.trim() == "0", "`{line}` ended with {} in the guest:\n{text}", status.trim());
    Ok(text)
}

fn end_guest(host: &mut Host) -> Result<()> {
    host.serial().send_line("sync; poweroff -f")?;
    host.serial().expect(crate::shell::PROMPT)?;
    host.poll_command("vm list", |text| !text.contains("running"))?;
    Ok(())
}

fn store_with_debian(context: &Context, image: &Path) -> Result<Scratch> {
    let scratch = Scratch::empty(&context.environment.logs, context.name, 2 << 30)?;
    let path = scratch.path().display().to_string();
    tool(&["create", &path, "--label", "main"])?;
    tool(&["import", &path, &image.display().to_string(), "debian"])?;
    Ok(scratch)
}

fn snapshot_and_revert(context: &Context) -> Result<Outcome> {
    let files = context
        .guest_file("initramfs-disk.cpio")
        .and_then(|ram| Ok((ram, context.guest_file("debian/disk.img")?)));
    let (initramfs, image) = match files {
        Ok(found) => found,
        Err(missing) => return Outcome::skip(missing),
    };
    let mut debian = Guest::debian_on_disk("debian", "/usr/local/sbin/plain-init");
    debian.disks = vec!["{ store = \"main\", disk = \"debian\" }".into()];
    let system = context
        .product()?
        .without_machines()
        .file("debian-disk-initramfs", &initramfs)
        .guest(&debian);
    let store = store_with_debian(context, &image)?;
    let mut host = context.boot(&system.into(), |config| {
        config.disks.push(Disk::new(Bus::Nvme, store.path(), "STORE"))
    })?;
    host.console("debian", GUEST_PROMPT)?;
    guest(&mut host, "echo kept > /root/kept && sync")?;
    host.leave_console()?;
    let list = host.neat_command("datastore list")?;
    ensure!(list.contains("main") && list.contains("nvme0"), "`datastore list` says:\n{list}");
    host.neat_command("datastore snapshot main debian before")?;
    let refused = host.command("datastore revert main debian before")?;
    ensure!(refused.contains("in use"), "a disk in use was reverted:\n{refused}");
    host.start_command("vm console debian")?;
    guest(
        &mut host,
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
    host.console("debian", GUEST_PROMPT)?;
    guest(&mut host, "grep kept /root/kept && test -d /usr/share/doc && test ! -e /root/new")?;
    end_guest(&mut host)?;
    host.neat_command("datastore unsnapshot main debian before")?;
    let shown = host.neat_command("datastore show main debian")?;
    ensure!(!shown.contains("before"), "`datastore show` says:\n{shown}");
    drop(host);
    tool(&["check", &store.path().display().to_string()])?;
    Ok(Outcome::Passed)
}
