//! The Host Client in a browser, against the host itself.

use super::{Case, management::PASSWORD, management_settings::servers, management_state::boot_with};
use crate::{Context, Outcome, Result, browser, disks::Scratch, machine::Date};

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "management/browser",
    about: "in Chromium, from an empty host: log-in, datastore, uploads, wizard, console, charts, snapshot, settings against chrony and dnsmasq, a reader",
    minutes: 3,
    bochs: None,
    run: in_browser,
}];

fn in_browser(context: &Context) -> Result<Outcome> {
    let files = ["cloud/vmlinuz", "initramfs.cpio"].map(|name| context.guest_file(name));
    let [Ok(kernel), Ok(initramfs)] = &files else {
        let missing = files.into_iter().filter_map(std::result::Result::err);
        return Outcome::skip(missing.collect::<Vec<_>>().join("; "));
    };
    let root = &context.environment.root;
    if let Some(missing) = browser::lacks(root) {
        return Outcome::skip(missing);
    }
    let servers = match servers(context)? {
        Ok(servers) => servers,
        Err(missing) => return Outcome::skip(missing),
    };
    let disk = Scratch::empty(&context.environment.logs, context.name, 4 << 30)?;
    let (host, client) = boot_with(context, disk.path(), Some(Date::PAST))?;
    browser::run(root, "run.mjs", &context.environment.logs.join("browser"), |command| {
        command.args(["--only", "flows", "--user", "root"]);
        command.args(["--password", PASSWORD, "--url", client.address()]);
        command.arg("--kernel").arg(kernel).arg("--initramfs").arg(initramfs);
        command.args(["--name-server", "10.0.2.2", "--time-servers", "time.lab.example", "--clock-follows"]);
    })?;
    drop((host, servers));
    Ok(Outcome::Passed)
}
