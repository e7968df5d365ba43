//! `log`: what servers and kernel said.

use super::{Command, Context, Doing, Failure, number, words};
use crate::{
    format,
    host::Host,
    terminal::{COLUMNS, Style, wrap},
};
use alloc::{format, string::String, vec::Vec};
use tessera_proto::{
    init::Level,
    supervisor::{LogChunk, LogLine},
};

/// The command.
pub struct Log;

/// Most chunks that are fetched in a row: many times what init keeps.
const MAX_CHUNKS: usize = 4096;

impl Command for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn summary(&self) -> &'static str {
        "show what servers and kernel said"
    }

    fn usage(&self) -> &'static [&'static str] {
        &["log [-n LINES]", "log -f", "log kernel", "log panic"]
    }

    fn help(&self) -> &'static str {
        "Shows the servers' log, oldest line first: seconds since boot, server, text; with -n only the last lines. `log -f` goes on showing new lines until Ctrl-C or q.\n`log kernel` shows what the kernel printed, `log panic` what its last panic left, before this boot."
    }

    fn complete(&self, _host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        if before.is_empty() {
            words(&["-f", "-n", "kernel", "panic"])
        } else {
            Vec::new()
        }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match arguments {
            [] => show(context, None).map(|_| ()),
            ["-n", lines] => {
                let lines = number(self, "the number of lines", lines)?;
                show(context, Some(lines as usize)).map(|_| ())
            }
            ["-f"] => follow(context),
            ["kernel"] => {
                let text = context.host.kernel_log().map(|log| log.text()).ok_or_else(|| {
                    Failure::new(
                        "the kernel's log was not granted to the shell",
                        "Grant `kernel-log` in the system manifest.",
                    )
                })?;
                print_text(context, &text);
                Ok(())
            }
            ["panic"] => {
                let text = context.host.panic_record();
                if text.trim().is_empty() {
                    context.out.line("The kernel has left no panic record.");
                } else {
                    print_text(context, &text);
                }
                Ok(())
            }
            _ => Err(Failure::usage(self, "`log` takes -n LINES, -f, kernel or panic")),
        }
    }
}

fn print_text(context: &mut Context<'_>, text: &str) {
    for line in text.lines() {
        context.out.prose(line, 2);
    }
}

/// Prints a line, broken to the terminal's width.
pub fn print_line(context: &mut Context<'_>, line: &LogLine, boot: u64, hz: u64) {
    let style = match line.level {
        Level::Error => Style::Error,
        Level::Warn => Style::Warning,
        Level::Info => Style::Plain,
        Level::Debug | Level::Trace => Style::Faint,
    };
    let mark = match line.level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        _ => "",
    };
    let text = format!("{} {}: {mark}{}", format::stamp(line.tsc, boot, hz), line.server, line.text);
    context.out.styled_line(style, &wrap(&text, COLUMNS, 13));
}

/// Prints a chunk. Returns the cursor for the next.
pub fn print_chunk(context: &mut Context<'_>, chunk: &LogChunk, boot: u64, hz: u64) -> u64 {
    if chunk.lost > 0 {
        context
            .out
            .styled_line(Style::Faint, &format!("({} earlier lines are no longer kept)", chunk.lost));
    }
    for line in &chunk.lines {
        print_line(context, line, boot, hz);
    }
    chunk.next
}

/// Prints the log, or its last lines; returns the cursor for what follows.
fn show(context: &mut Context<'_>, last: Option<usize>) -> Result<u64, Failure> {
    let system = context.host.system().doing("read about the system")?;
    let mut cursor = 0;
    let mut kept: Vec<LogLine> = Vec::new();
    for _ in 0..MAX_CHUNKS {
        let chunk = context.host.log(cursor).doing("read the log")?;
        if chunk.next == cursor || chunk.lines.is_empty() {
            break;
        }
        cursor = chunk.next;
        match last {
            None => {
                print_chunk(context, &chunk, system.boot_tsc, system.tsc_hz);
            }
            Some(last) => {
                kept.extend(chunk.lines);
                kept.drain(..kept.len().saturating_sub(last));
            }
        }
        if context.out.interrupted() {
            break;
        }
    }
    for line in &kept {
        print_line(context, line, system.boot_tsc, system.tsc_hz);
    }
    Ok(cursor)
}

fn follow(context: &mut Context<'_>) -> Result<(), Failure> {
    let system = context.host.system().doing("read about the system")?;
    context.host.follow_log().doing("follow the log")?;
    let mut cursor = show(context, Some(10))?;
    context.out.styled_line(Style::Faint, "(following; Ctrl-C or q ends)");
    loop {
        loop {
            let chunk = context.host.log(cursor).doing("read the log")?;
            if chunk.next == cursor {
                break;
            }
            cursor = print_chunk(context, &chunk, system.boot_tsc, system.tsc_hz);
            if context.out.interrupted() {
                return Ok(());
            }
        }
        if context.out.interrupted() {
            return Ok(());
        }
        context.out.terminal().wait(None);
    }
}
