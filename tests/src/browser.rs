//! Chromium on this machine, driven by a script of tests/web.

use crate::{Result, ensure};
use std::{path::Path, process::Command};

/// Where Debian has it, unless `CHROMIUM` says otherwise.
const CHROMIUM: &str = "/usr/bin/chromium";

/// Why the browser cannot be used, if it cannot.
#[must_use]
pub fn lacks(root: &Path) -> Option<String> {
    let chromium = std::env::var_os("CHROMIUM").unwrap_or_else(|| CHROMIUM.into());
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

/// Runs a script of tests/web with arguments, until it ends well; its pictures are in `screenshots`.
///
/// # Errors
/// What the script printed, if it failed.
pub fn run(root: &Path, script: &str, screenshots: &Path, add: impl FnOnce(&mut Command)) -> Result<()> {
    let mut command = Command::new("node");
    command.current_dir(root).arg(Path::new("tests/web").join(script));
    add(&mut command);
    let output = command.arg("--screenshots").arg(screenshots).output()?;
    ensure!(
        output.status.success(),
        "the browser: {}{}(pictures: {})",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        screenshots.display()
    );
    Ok(())
}
