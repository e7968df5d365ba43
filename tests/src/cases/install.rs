//! Debian installed from its installer's ISO, as people do: in the Host Client, in Chromium, to a page that the installed system serves. It takes an hour and more, so it runs only when it is named (`make test-install`).

use super::{
    Case,
    guest_net::free_port,
    management::{Client, PASSWORD, boot_served},
};
use crate::{
    Context, Outcome, Result, browser,
    disks::Scratch,
    machine::{Disk, Forward, Network},
    systems::System,
};
use std::{
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "install/bios",
        about: "in Chromium: Debian 13's installer started by SeaBIOS, its first questions answered by keyboard, the rest by a file; the installed system starts, and its nginx serves a page to a client outside of the host",
        minutes: 60,
        bochs: None,
        run: |context| install(context, "bios"),
    },
    Case {
        name: "install/uefi",
        about: "the same by OVMF",
        minutes: 60,
        bochs: None,
        run: |context| install(context, "uefi"),
    },
];

/// Whether a test runs only when it is named.
#[must_use]
pub fn is_only_named(test: &str) -> bool {
    test.starts_with("install/")
}

/// The guest's web server: the emulator's network gives it to the second that asks, behind the host's management.
const GUEST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 16), 80);

fn install(context: &Context, firmware: &'static str) -> Result<Outcome> {
    let root = &context.environment.root;
    if let Some(missing) = browser::lacks(root) {
        return Outcome::skip(missing);
    }
    let iso = match context.guest_file("installer/netboot-13.iso") {
        Ok(path) => path,
        Err(missing) => return Outcome::skip(missing),
    };
    let upstream = std::env::var("TESSERA_MIRROR").unwrap_or_else(|_| "http://deb.debian.org/debian".into());
    // The disk of a host on which it was installed before: the last part alone.
    let installed = std::env::var_os("TESSERA_INSTALLED").map(PathBuf::from);
    let scratch = match &installed {
        Some(disk) => Scratch::copy(&context.environment.logs, context.name, disk)?,
        None => {
            let scratch = Scratch::empty(&context.environment.logs, context.name, 8 << 30)?;
            let path = scratch.path().display().to_string();
            context.environment.images.datastore(&["create", &path, "--label", "main"])?;
            scratch
        }
    };
    let web = free_port()?;
    let system = System::delivered(root)?.without_machines();
    let (host, port) = boot_served(context, system, |config| {
        config.disks.push(Disk::usual(context.emulator, scratch.path(), "STORE"));
        for nic in &mut config.nics {
            if let Network::User(forwards) = &mut nic.network {
                forwards.push(Forward { here: web, to: GUEST });
            }
        }
    })?;
    let client = Client::new(port);
    let screenshots = context.environment.logs.join(context.name.replace('/', "-"));
    browser::run(root, "install.mjs", &screenshots, |command| {
        command.args(["--url", client.address(), "--password", PASSWORD, "--firmware", firmware]);
        command.args(["--mirror", &upstream, "--page", &format!("http://127.0.0.1:{web}/")]);
        // UEFI keeps some for itself.
        command.args(["--memory", if firmware == "uefi" { "1536" } else { "1024" }]);
        command.arg("--iso").arg(&iso).arg("--kept").arg(root.join("build/guests/mirror"));
        if installed.is_some() {
            command.args(["--installed", &format!("pc-{firmware}")]);
        }
    })?;
    drop(host);
    Ok(Outcome::Passed)
}
