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

/// MiB that hostd may take beyond what it had before, however many clients there are.
const GROWTH: f64 = 2.0;

fn load(context: &Context) -> Result<Outcome> {
    let system = System::delivered(&context.environment.root)?
        .without_machines()
        .guest(&Guest::debian("spinner", "spin"));
    let (mut host, port) = boot_served(context, system, |_| ())?;
    host.console("spinner", "GUEST-SPIN")?;
    host.leave_console()?;
    let mut client = Client::new(port);
    ensure!(client.log_in(PASSWORD)? == 200, "the first password does not log in");
    let before = of_hostd(&host.neat_command("ps")?);
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
    let after = of_hostd(&ps);
    ensure!(
        before.0.is_some() && after.0 == before.0,
        "hostd ended under the load:\n{ps}\n{text}"
    );
    ensure!(
        after.1 <= before.1 + GROWTH,
        "hostd took {} MiB before and {} MiB after:\n{ps}\n{text}",
        before.1,
        after.1
    );
    // Whoever is logged in goes on, and finds what was tried.
    let events = client.get("/api/v1/events?limit=1000", &[])?.to_string();
    ensure!(events.contains("session.failed"), "no event tells of the guesses: {events}");
    Ok(Outcome::Passed)
}

/// How often hostd began anew, and the MiB that it has, as `ps` says.
fn of_hostd(ps: &str) -> (Option<String>, f64) {
    let line = ps.lines().find(|line| line.split_whitespace().nth(1) == Some("hostd"));
    // MEMORY is two words.
    let mut words = line.unwrap_or_default().split_whitespace().rev();
    let (unit, number) = (words.next(), words.next().and_then(|word| word.parse().ok()));
    let memory = number.filter(|_| unit == Some("MiB")).unwrap_or(f64::INFINITY);
    (words.next().map(str::to_owned), memory)
}

#[cfg(test)]
mod tests {
    use super::of_hostd;

    #[test]
    fn restarts_and_memory_are_found() {
        let ps = "ID  NAME        STATE    PRIO    CPU      TIME  THREADS  RESTARTS   MEMORY\n 4  hostd       running    20  11.6%    773 ms        3         7   33 MiB\n";
        assert_eq!(of_hostd(ps), (Some("7".into()), 33.0));
        assert_eq!(of_hostd("ID  NAME\n"), (None, f64::INFINITY));
    }
}
