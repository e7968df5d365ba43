//! The Host Client in a browser, against the host itself.

use super::{Case, management::PASSWORD, management_settings::servers, management_state::boot_with};
use crate::{Context, Outcome, Result, disks::Scratch, ensure};
use std::process::Command;

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "management/browser",
    about: "in Chromium, from an empty host: log-in, datastore, uploads, wizard, console, charts, snapshot, settings against chrony and dnsmasq, a reader",
    minutes: 3,
    bochs: None,
    run: browser,
}];

/// Where Debian has it, unless `CHROMIUM` says otherwise.
const CHROMIUM: &str = "/usr/bin/chromium";

fn browser(context: &Context) -> Result<Outcome> {
    let files = ["cloud/vmlinuz", "initramfs.cpio"].map(|name| context.guest_file(name));
    let [Ok(kernel), Ok(initramfs)] = &files else {
        let missing = files.into_iter().filter_map(std::result::Result::err);
        return Outcome::skip(missing.collect::<Vec<_>>().join("; "));
    };
    let root = &context.environment.root;
    let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| CHROMIUM.into());
    if !std::path::Path::new(&chromium).exists() || !root.join("hostd-server/web/node_modules").exists() {
        return Outcome::skip("Chromium or the Host Client's packages are missing: run `make setup` and `make web`");
    }
    let servers = match servers(context)? {
        Ok(servers) => servers,
        Err(missing) => return Outcome::skip(missing),
    };
    let disk = Scratch::empty(&context.environment.logs, context.name, 4 << 30)?;
    let more = ["-rtc", "base=2026-01-01T00:00:00"];
    let (host, client) = boot_with(context, disk.path(), &more)?;
    let mut command = Command::new("node");
    command
        .current_dir(root)
        .args(["tests/web/run.mjs", "--only", "flows", "--user", "root"]);
    command.args(["--password", PASSWORD, "--url", client.address()]);
    command.arg("--kernel").arg(kernel).arg("--initramfs").arg(initramfs);
    command.args(["--name-server", "10.0.2.2", "--time-servers", "time.lab.example", "--clock-follows"]);
    command.arg("--screenshots").arg(context.environment.logs.join("browser"));
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    drop((host, servers));
    Ok(Outcome::Passed)
}
