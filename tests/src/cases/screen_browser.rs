//! Machines with firmware as people install them: in the Host Client, in Chromium, from the ISO of an installer to its first questions.

use super::{Case, management::PASSWORD, management_state::boot_with};
use crate::{Context, Outcome, Result, browser, disks::Scratch};

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

fn installer(context: &Context, firmware: &'static str) -> Result<Outcome> {
    let root = &context.environment.root;
    if let Some(missing) = browser::lacks(root) {
        return Outcome::skip(missing);
    }
    let iso = match context.guest_file("installer/netboot.iso") {
        Ok(path) => path,
        Err(missing) => return Outcome::skip(missing),
    };
    let scratch = Scratch::empty(&context.environment.logs, context.name, 1 << 30)?;
    let path = scratch.path().display().to_string();
    context.environment.images.datastore(&["create", &path, "--label", "main"])?;
    let (host, client) = boot_with(context, scratch.path(), None)?;
    let screenshots = context.environment.logs.join(context.name.replace('/', "-"));
    browser::run(root, "screen.mjs", &screenshots, |command| {
        command.args(["--url", client.address(), "--password", PASSWORD, "--firmware", firmware]);
        command.arg("--iso").arg(&iso);
    })?;
    drop(host);
    Ok(Outcome::Passed)
}
