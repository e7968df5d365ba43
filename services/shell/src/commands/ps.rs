//! `ps`: servers, threads and their share of the processors.

use super::{Command, Context, Doing, Failure, server, server_names};
use crate::{
    format,
    host::Host,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use tessera_proto::supervisor::{ServerInfo, ServerState, ThreadState};

/// The command.
pub struct Ps;

const fn server_state(state: ServerState) -> (&'static str, Style) {
    match state {
        ServerState::Starting => ("starting", Style::Warning),
        ServerState::Running => ("running", Style::Plain),
        ServerState::Waiting => ("waiting", Style::Warning),
        ServerState::Ended => ("ended", Style::Faint),
    }
}

const fn thread_state(state: ThreadState) -> &'static str {
    match state {
        ThreadState::Stopped => "stopped",
        ThreadState::Ready => "ready",
        ThreadState::Receiving => "receiving",
        ThreadState::Calling => "calling",
        ThreadState::AwaitingReply => "awaiting reply",
        ThreadState::Waiting => "waiting",
        ThreadState::Faulted => "faulted",
        ThreadState::Throttled => "throttled",
    }
}

impl Command for Ps {
    fn name(&self) -> &'static str {
        "ps"
    }

    fn summary(&self) -> &'static str {
        "list servers and threads with their share of the processors"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["ps", "ps -t", "ps SERVER"]
    }

    fn help(&self) -> &'static str {
        "Lists the servers. CPU is the share of one processor since the last `ps`, or since boot the first time; TIME is all the processor time of a server's present threads. A guest's time counts as its VMM's.\n`ps -t` lists the threads of all servers, `ps SERVER` those of one. A thread's state says what it waits for: receiving (requests), calling (a server to take its request), awaiting reply, waiting (a notification or a time), throttled (its budget is used up), faulted."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        let mut candidates = Vec::new();
        if before.is_empty() {
            candidates = server_names(host);
            candidates.push("-t".into());
        }
        candidates
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] => servers(context),
            ["-t"] => {
                let servers = context.host.servers().doing("list servers")?;
                threads(context, &servers)
            }
            [name] => {
                let server = server(context, name)?;
                if !server.last_end.is_empty() {
                    context.out.prose(&alloc::format!("Last ended: {}", server.last_end), 2);
                }
                threads(context, &[server])
            }
            _ => Err(Failure::usage(self, "`ps` takes one server")),
        }
    }
}

fn servers(context: &mut Context<'_>) -> Result<(), Failure> {
    let system = context.host.system().doing("read about the system")?;
    let servers = context.host.servers().doing("list servers")?;
    let now = context.host.now();
    let present: Vec<(u64, u64)> = servers.iter().map(|server| (server.id, server.cpu_ticks)).collect();
    let earlier = context.memory.servers.replace((now, present));
    let first = earlier.is_none();
    let (since, earlier) = earlier.unwrap_or((system.boot_tsc, Vec::new()));
    let elapsed = now.saturating_sub(since);
    let mut table = Table::new(&[
        ("ID", Align::Right),
        ("NAME", Align::Flexible),
        ("STATE", Align::Left),
        ("PRIO", Align::Right),
        ("CPU", Align::Right),
        ("TIME", Align::Right),
        ("THREADS", Align::Right),
        ("RESTARTS", Align::Right),
        ("MEMORY", Align::Right),
    ]);
    for server in &servers {
        let known = earlier.iter().find(|(id, _)| *id == server.id && server.started_tsc <= since);
        let before = known.map_or(0, |(_, ticks)| *ticks);
        // All the time of one that was started since is new.
        let used = server.cpu_ticks.saturating_sub(before);
        let (state, style) = server_state(server.state);
        table.styled_row(
            style,
            [
                server.id.to_string(),
                server.name.clone(),
                state.into(),
                server.priority.to_string(),
                alloc::format!("{}%", format::percent(used, elapsed)),
                format::duration(format::nanoseconds(server.cpu_ticks, system.tsc_hz)),
                server.threads.to_string(),
                server.restarts.to_string(),
                format::pages(server.pages),
            ],
        );
    }
    table.print(&mut context.out);
    let period = format::duration(format::nanoseconds(elapsed, system.tsc_hz));
    context.out.styled_line(
        Style::Faint,
        &alloc::format!(
            "CPU: share of one processor {} {period}; {} processors",
            if first { "since boot," } else { "over the last" },
            system.cpus
        ),
    );
    Ok(())
}

fn threads(context: &mut Context<'_>, servers: &[ServerInfo]) -> Result<(), Failure> {
    let system = context.host.system().doing("read about the system")?;
    let mut table = Table::new(&[
        ("SERVER", Align::Flexible),
        ("SLOT", Align::Right),
        ("STATE", Align::Left),
        ("PRIO", Align::Right),
        ("CPU", Align::Right),
        ("FPU", Align::Left),
        ("TIME", Align::Right),
        ("SWITCHES", Align::Right),
        ("RIP", Align::Right),
    ]);
    for server in servers {
        // A server may end while the others are listed.
        let threads = match context.host.threads(server.id) {
            Ok(threads) => threads,
            Err(error) if servers.len() == 1 => return Err(Failure::call("cannot list threads", &error)),
            Err(_) => continue,
        };
        for thread in threads {
            let style = if thread.state == ThreadState::Faulted {
                Style::Error
            } else {
                Style::Plain
            };
            table.styled_row(
                style,
                [
                    server.name.clone(),
                    thread.slot.to_string(),
                    thread_state(thread.state).into(),
                    thread.priority.to_string(),
                    thread.cpu.to_string(),
                    if thread.no_fpu { "no" } else { "yes" }.into(),
                    format::duration(format::nanoseconds(thread.cpu_ticks, system.tsc_hz)),
                    format::count(thread.switches),
                    alloc::format!("{:#x}", thread.rip),
                ],
            );
        }
    }
    table.print(&mut context.out);
    Ok(())
}
