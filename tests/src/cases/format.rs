//! Guests that are not Linux: a Multiboot kernel in protected mode, a boot sector in real mode, and a file that is neither.

use super::Case;
use crate::{
    Context, Outcome, Result, ensure,
    shell::Host,
    systems::{Guest, System},
};
use std::{fs, path::Path};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "format/multiboot",
        about: "a Multiboot kernel runs without paging, with 32-bit paging and with PAE",
        minutes: 2,
        bochs: Some(2),
        run: multiboot,
    },
    Case {
        name: "format/boot-sector",
        about: "a boot sector works in real mode, and the machine starts it anew when it is reset",
        minutes: 2,
        bochs: Some(2),
        run: boot_sector,
    },
    Case {
        name: "format/unknown",
        about: "a file that is no kernel ends its machine with a report that says so",
        minutes: 1,
        bochs: Some(1),
        run: unknown,
    },
];

/// A host with one machine, which is started, out of one file of the guests' folder.
fn boot(context: &Context, name: &str, path: &Path, guest: &Guest) -> Result<Host> {
    let system: System = context.product()?.without_guests().file(guest.kernel, path).guest(guest);
    let mut host = context.boot(&system.into(), |_| ())?;
    host.neat_command(&format!("vm start {name}"))?;
    Ok(host)
}

/// Whether every test that a guest ran passed, by its last line.
fn all_passed(host: &mut Host, word: &str) -> Result<String> {
    let groups = host.serial().expect_line(&format!("{word} end (\\d+) passed (\\d+) failed"))?;
    let text = host.serial().all();
    let failed: Vec<&str> = text.lines().filter(|line| line.ends_with("FAILED")).collect();
    ensure!(groups[2] == "0", "in the guest: {}", failed.join(", "));
    Ok(groups[1].clone())
}

fn multiboot(context: &Context) -> Result<Outcome> {
    let (path, module) = match (context.guest_file("multiboot-guest"), context.guest_file("bare-guest")) {
        (Ok(path), Ok(module)) => (path, module),
        (Err(missing), _) | (_, Err(missing)) => return Outcome::skip(missing),
    };
    // Any file will do as the module: the guest adds its bytes up.
    let mut guest = Guest::other("multi", "multiboot-guest", "one two=three");
    guest.initramfs = Some("module");
    let system: System = context
        .product()?
        .without_guests()
        .file("multiboot-guest", &path)
        .file("module", &module)
        .guest(&guest);
    let mut host = context.boot(&system.into(), |_| ())?;
    host.neat_command("vm start multi")?;
    host.start_command("vm console multi")?;
    let line = host.serial().expect_line("MULTI command line (.*)")?;
    ensure!(line[1].trim() == "one two=three", "the command line came as '{}'", line[1]);
    let memory = host.serial().expect_line(r"MULTI memory (\d+) (\d+)")?;
    // 64 MiB: above the first one, and all but what the BIOS area takes.
    ensure!(
        memory[1] == "64512" && memory[2] == (64512 + 639).to_string(),
        "the guest was told {} KiB above 1 MiB, {} in all",
        memory[1],
        memory[2]
    );
    let bytes = fs::read(&module)?;
    let sum: u64 = bytes.iter().map(|&byte| u64::from(byte)).sum();
    let seen = host.serial().expect_line(r"MULTI module (\d+) (\d+)")?;
    ensure!(
        seen[1] == bytes.len().to_string() && seen[2] == sum.to_string(),
        "the module came with {} bytes that add up to {}, instead of {} and {sum}",
        seen[1],
        seen[2],
        bytes.len()
    );
    let passed = all_passed(&mut host, "MULTI")?;
    ensure!(passed == "4", "{passed} tests ran instead of 4");
    Ok(Outcome::Passed)
}

fn boot_sector(context: &Context) -> Result<Outcome> {
    let path = match context.guest_file("boot-sector-guest") {
        Ok(path) => path,
        Err(missing) => return Outcome::skip(missing),
    };
    let guest = Guest::other("sector", "boot-sector-guest", "");
    let mut host = boot(context, "sector", &path, &guest)?;
    for _ in 0..2 {
        host.start_command("vm console sector")?;
        host.serial().expect_line("^BOOT this line comes by rep outsb")?;
        let passed = all_passed(&mut host, "BOOT")?;
        ensure!(passed == "9", "{passed} tests ran instead of 9");
        host.leave_console()?;
        host.neat_command("vm reset sector")?;
    }
    Ok(Outcome::Passed)
}

fn unknown(context: &Context) -> Result<Outcome> {
    let path = match context.guest_file("initramfs.cpio") {
        Ok(path) => path,
        Err(missing) => return Outcome::skip(missing),
    };
    let mut host = boot(context, "other", &path, &Guest::other("other", "no-kernel", ""))?;
    host.poll_command("log", |log| log.contains("neither a Linux bzImage"))?;
    let list = host.neat_command("vm list")?;
    ensure!(
        list.lines().any(|l| l.contains("other") && l.contains("failed")),
        "`vm list` does not say that the machine failed:\n{list}"
    );
    Ok(Outcome::Passed)
}
