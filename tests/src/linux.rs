//! Speaking to a shell of the guests' Debian disk over a serial port.

use crate::{Result, ensure, serial::Serial};

/// What the shell prints when it waits for a command.
pub const PROMPT: &str = "guest# ";

/// Words for the kernel command line of a guest that runs from its first disk with a shell at once, without systemd.
pub const PLAIN: &str = "console=ttyS0 quiet root=/dev/vda init=/usr/local/sbin/plain-init";
/// The same with systemd.
pub const FULL: &str = "console=ttyS0 quiet root=/dev/vda";

/// Waits for the first prompt; returns what came before it.
pub fn log_in(serial: &mut Serial) -> Result<String> {
    serial.fatal("GUEST-FAULT");
    serial.expect("GUEST-LOGIN ")?;
    serial.expect(PROMPT)
}

/// Runs a command and returns what it printed, without echo and prompt.
pub fn command(serial: &mut Serial, line: &str) -> Result<String> {
    serial.send_line(line)?;
    serial.expect("\n")?;
    let output = serial.expect(PROMPT)?;
    Ok(output.trim_matches('\n').to_owned())
}

/// Runs a command in any shell of a guest, whatever its prompt; it must end well. Returns what came before its end, its echo among it.
pub fn succeeds(serial: &mut Serial, line: &str) -> Result<String> {
    // The marker is typed in two parts, so that its echo is not taken for it.
    serial.send_line(&format!("{line}; echo END-\"\"OF $?"))?;
    let text = serial.expect("END-OF ")?;
    let status = serial.expect("\n")?;
    ensure!(status.trim() == "0", "`{line}` ended with {} in the guest:\n{text}", status.trim());
    Ok(text)
}
