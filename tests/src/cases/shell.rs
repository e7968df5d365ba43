//! The debug shell: every command answers, within 80 columns; mistakes are answered with help.

use super::Case;
use crate::{Context, Outcome, Result, ensure};

/// The tests of this file.
pub const CASES: &[Case] = &[
    Case {
        name: "shell/commands",
        about: "every command answers within 80 columns",
        minutes: 1,
        bochs: None,
        run: commands,
    },
    Case {
        name: "shell/mistakes",
        about: "mistakes and noise are answered, the shell lives on",
        minutes: 1,
        bochs: None,
        run: mistakes,
    },
    Case {
        name: "shell/editing",
        about: "history, completion, cursor keys",
        minutes: 1,
        bochs: None,
        run: editing,
    },
];

fn commands(context: &Context) -> Result<Outcome> {
    let mut host = context.boot(&context.product()?.without_guests().into(), |_| ())?;
    for line in [
        "help",
        "help ps",
        "ps",
        "caps",
        "caps shell",
        "mem",
        "irq",
        "ipc",
        "vm list",
        "log",
        "cpu",
        "version",
        "uptime",
        "trace on",
        "ps",
        "trace show 20",
        "trace off",
    ] {
        host.neat_command(line)?;
    }
    let servers = host.neat_command("ps")?;
    for name in ["init", "shell"] {
        ensure!(servers.contains(name), "`ps` does not list {name}:\n{servers}");
    }
    let help = host.neat_command("help")?;
    for name in ["ps", "caps", "mem", "irq", "ipc", "vm", "trace", "log", "kill", "restart", "cpu"] {
        ensure!(help.contains(name), "`help` does not list {name}:\n{help}");
    }
    let chrome = {
        host.command("trace on")?;
        host.command("ps")?;
        host.command("trace off")?;
        host.command("trace chrome")?
    };
    ensure!(chrome.contains("traceEvents"), "`trace chrome` printed no Chrome trace:\n{chrome}");
    Ok(Outcome::Passed)
}

fn mistakes(context: &Context) -> Result<Outcome> {
    let mut host = context.boot(&context.product()?.without_guests().into(), |_| ())?;
    let answer = host.neat_command("pss")?;
    ensure!(
        answer.contains("ps"),
        "an unknown command was not answered with a suggestion: {answer}"
    );
    let nobody = host.neat_command("ping 10.0.2.2")?;
    ensure!(nobody.contains("does not grant `hostd`"), "without hostd `ping` says: {nobody}");
    for line in [
        "kill",
        "kill nobody",
        "restart nobody",
        "vm",
        "vm start nobody",
        "vm console nobody",
        "caps nobody",
        "trace frobnicate",
        "help nothing",
    ] {
        host.neat_command(line)?;
    }
    // Escape sequences cut anywhere, control characters, invalid UTF-8, a line longer than any buffer.
    host.serial().send(&[
        0x1b, b'[', b'1', b';', b'9', 0xff, 0xfe, 0x80, 0x1b, 0x1b, b'O', 0x00, 0x7f, 0x08, 0x0b,
    ])?;
    host.serial().send(&[b'x'; 5000])?;
    host.serial().send(&[0x15, 3, b'\r'])?;
    host.serial().send(b"\rversion\r")?;
    host.serial().expect("Tessera")?;
    let servers = host.poll_command("ps", |text| text.contains("shell"))?;
    let line = servers.lines().find(|l| l.contains("shell")).unwrap_or_default();
    ensure!(
        !line.contains("waiting") && !line.contains("ended"),
        "the shell did not survive: {line}"
    );
    Ok(Outcome::Passed)
}

fn editing(context: &Context) -> Result<Outcome> {
    let mut host = context.boot(&context.product()?.without_guests().into(), |_| ())?;
    // Completion of a command and a repetition of it from the history.
    host.serial().send(b"versi\t\r")?;
    host.serial().expect("Tessera")?;
    host.serial().expect(crate::shell::PROMPT)?;
    host.serial().send(b"\x1b[A\r")?;
    host.serial().expect("Tessera")?;
    host.serial().expect(crate::shell::PROMPT)?;
    // "rsion" typed, then "ve" put before it.
    host.serial().send(b"rsion\x01ve\x05\r")?;
    host.serial().expect("Tessera")?;
    host.serial().expect(crate::shell::PROMPT)?;
    Ok(Outcome::Passed)
}
