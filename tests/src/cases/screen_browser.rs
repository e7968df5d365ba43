//! Machines with firmware as people install them: in the Host Client, in Chromium, from the ISO of an installer to its first questions.

use super::{Case, management::PASSWORD};
use crate::{
    Context, Outcome, Result,
    disks::Scratch,
    ensure,
    machine::{Bus, Disk},
    systems::System,
};
use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "screen/browser-bios",
        about: "in Chromium: an installer's ISO uploaded, a machine made, started by SeaBIOS; its screen shows the installer, which answers to the keyboard",
        minutes: 6,
        bochs: None,
        run: |context| installer(context, "bios"),
    },
    Case {
        name: "screen/browser-uefi",
        about: "the same by OVMF",
        minutes: 8,
        bochs: None,
        run: |context| installer(context, "uefi"),
    },
];

/// Why the browser cannot be used, if it cannot.
fn lacks(root: &Path) -> Option<String> {
    let chromium = std::env::var_os("CHROMIUM").unwrap_or_else(|| "/usr/bin/chromium".into());
    let node = Command::new("node").arg("--version").output();
    if !Path::new(&chromium).exists() {
        Some(format!("{} is missing: install Debian's chromium", Path::new(&chromium).display()))
    } else if !node.is_ok_and(|output| output.status.success()) {
        Some("node is missing: install Debian's nodejs".into())
    } else if !root.join("hostd-server/web/node_modules/playwright-core").exists() {
        Some("playwright-core is missing: run `make web`".into())
    } else {
        None
    }
}

fn installer(context: &Context, firmware: &'static str) -> Result<Outcome> {
    let root = &context.environment.root;
    if let Some(missing) = lacks(root) {
        return Outcome::skip(missing);
    }
    let iso = match context.guest_file("installer/netboot.iso") {
        Ok(path) => path,
        Err(missing) => return Outcome::skip(missing),
    };
    let scratch = Scratch::empty(&context.environment.logs, context.name, 1 << 30)?;
    let path = scratch.path().display().to_string();
    context.environment.images.datastore(&["create", &path, "--label", "main"])?;
    let system = System::delivered(root)?.without_machines().first_password(PASSWORD);
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let mut host = context.boot(&system.into(), |config| {
        // As with guests' cards: with a second processor QEMU 7.2 loses exits.
        config.cpus = 1;
        config.disks.push(Disk::new(Bus::Nvme, scratch.path(), "STORE"));
        let network = format!("user,id=out,hostfwd=tcp:127.0.0.1:{port}-:443");
        let arguments = ["-netdev", &network, "-device", "virtio-net-pci,netdev=out"];
        config.extra.extend(arguments.map(Into::into));
    })?;
    host.poll_command("log", |text| {
        text.contains("served at port 443") && text.contains("management address 10.0.2.15")
    })?;
    let screenshots = context.environment.logs.join(context.name.replace('/', "-"));
    let output = Command::new("node")
        .arg(root.join("tests/web/screen.mjs"))
        .args([
            "--url",
            &format!("https://127.0.0.1:{port}"),
            "--password",
            PASSWORD,
            "--firmware",
            firmware,
        ])
        .arg("--iso")
        .arg(&iso)
        .arg("--screenshots")
        .arg(&screenshots)
        .output()?;
    ensure!(
        output.status.success(),
        "the browser: {}{}(pictures: {})",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        screenshots.display()
    );
    Ok(Outcome::Passed)
}
