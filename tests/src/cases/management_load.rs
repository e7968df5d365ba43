//! Management under load, hostile and merely much: the guests keep their share of the processor, and who may log in can.

use super::{
    Case,
    management::{Client, PASSWORD, boot_served},
    share::percentages,
};
use crate::{
    Context, Outcome, Result, ensure,
    systems::{Guest, System},
};
use std::process::Command;

/// The tests of this file.
pub const CASES: &[Case] = &[Case {
    name: "management/load",
    about: "500 clients held open, endless headers, requests without pause, wrong bodies, guesses, bytes that are no TLS: a guest keeps its share, log-ins succeed",
    minutes: 4,
    bochs: None,
    run: load,
}];

/// Percent of the processor that a guest that spins keeps at least beside hostd's busy threads, which are as urgent: its first thread, and the one that hashes passwords.
const SHARE: f64 = 30.0;

fn load(context: &Context) -> Result<Outcome> {
    let system = System::delivered(&context.environment.root)?
        .without_machines()
        .guest(&Guest::debian("spinner", "spin"));
    let (mut host, port) = boot_served(context, system, |_| ())?;
    host.console("spinner", "GUEST-SPIN")?;
    host.leave_console()?;
    let mut client = Client::new(port);
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    let before = restarts(&host.neat_command("ps")?);
    let root = &context.environment.root;
    let output = Command::new("python3")
        .arg(root.join("tests/api/load.py"))
        .args(["--port", &port.to_string(), "--seconds", "30"])
        .env("ADMIN_PASSWORD", PASSWORD)
        .output()?;
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::write(context.environment.logs.join("management-load.txt"), &text)?;
    ensure!(output.status.success(), "{text}");
    let ps = host.neat_command("ps")?;
    let share = percentages(&ps).get("spinner").copied().unwrap_or_default();
    ensure!(
        share.total_cmp(&SHARE).is_ge(),
        "the guest kept {share} % of the processor:\n{ps}\n{text}"
    );
    // What it has is what the manifest gives it: without memory it ends.
    ensure!(
        before.is_some() && restarts(&ps) == before,
        "hostd ended under the load:\n{ps}\n{text}"
    );
    // Whoever is logged in goes on, and finds what was tried.
    let events = client.get("/api/v1/events?limit=1000", &[])?.to_string();
    ensure!(events.contains("session.failed"), "no event tells of the guesses: {events}");
    Ok(Outcome::Passed)
}

/// How often hostd began anew, as `ps` says.
fn restarts(ps: &str) -> Option<String> {
    let line = ps.lines().find(|line| line.split_whitespace().nth(1) == Some("hostd"))?;
    // MEMORY is two words.
    line.split_whitespace().rev().nth(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::restarts;

    #[test]
    fn restarts_are_found() {
        let ps = "ID  NAME        STATE    PRIO    CPU      TIME  THREADS  RESTARTS   MEMORY\n 4  hostd       running    20  11.6%    773 ms        3         7   33 MiB\n";
        assert_eq!(restarts(ps).as_deref(), Some("7"));
        assert_eq!(restarts("ID  NAME\n"), None);
    }
}
