//! `capture`: what goes through a port of a virtual switch.

use super::{Command, Context, Doing, Failure, number, port, shorten, words};
use crate::{
    format,
    host::Host,
    table::{Align, Table},
    terminal::Style,
};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

/// The command.
pub struct Capture;

/// Bytes of each frame that are kept unless something else is said.
const SNAP: u32 = 256;
/// Bytes in a line of base64.
const LINE: usize = 57;
/// Most bytes that are printed.
const MOST: u64 = 1 << 20;

impl Command for Capture {
    fn name(&self) -> &'static str {
        "capture"
    }

    fn summary(&self) -> &'static str {
        "record what goes through a port, as pcapng"
    }

    fn usage(&self) -> &'static [&'static str] {
        &[
            "capture [list]",
            "capture start PORT [BYTES]",
            "capture read ID",
            "capture stop ID",
            "capture remove ID",
        ]
    }

    fn help(&self) -> &'static str {
        "Records the frames that a port of a virtual switch sends and is given (`port list` shows ports), with up to BYTES of each (256), until 256 KiB wait to be read; what finds no room is counted.\n`read` prints what was recorded since the last `read` in base64 between two markers: all pieces one after the other, decoded, are a pcapng file as tcpdump and Wireshark read it. `stop` ends the recording, what waits can still be read; `remove` forgets it."
    }

    fn complete(&self, host: &mut dyn Host, before: &[&str]) -> Vec<String> {
        match before {
            [] => words(&["list", "start", "read", "stop", "remove"]),
            ["start"] => port::names(host),
            ["read" | "stop" | "remove"] => {
                let all = host.captures().unwrap_or_default();
                all.into_iter().map(|capture| capture.id.to_string()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn execute(&self, context: &mut Context<'_>, arguments: &[&str]) -> Result<(), Failure> {
        match *arguments {
            [] | ["list"] => list(context),
            ["start", name] => start(context, name, SNAP),
            ["start", name, bytes] => start(context, name, number(self, "the number of bytes", bytes)?),
            ["read", id] => read(context, number(self, "a capture", id)?),
            ["stop", id] => {
                context.host.capture_stop(number(self, "a capture", id)?).doing("end the capture")?;
                context.out.line(&format!("`capture read {id}` prints what it recorded."));
                Ok(())
            }
            ["remove", id] => {
                let id = number(self, "a capture", id)?;
                context.host.capture_remove(id).doing("forget the capture")?;
                context.out.line(&format!("Capture {id} is forgotten."));
                Ok(())
            }
            [other, ..] => Err(Failure::usage(
                self,
                format!("`capture {}` is no form of `capture`", shorten(other)),
            )),
        }
    }
}

fn list(context: &mut Context<'_>) -> Result<(), Failure> {
    let captures = context.host.captures().doing("list captures")?;
    if captures.is_empty() {
        context.out.styled_line(Style::Faint, "There are no captures.");
        return Ok(());
    }
    let mut table = Table::new(&[
        ("ID", Align::Right),
        ("PORT", Align::Flexible),
        ("STATE", Align::Left),
        ("BYTES", Align::Right),
        ("FRAMES", Align::Right),
        ("LOST", Align::Right),
        ("WAITING", Align::Right),
    ]);
    for capture in captures {
        table.row([
            capture.id.to_string(),
            capture.port,
            if capture.running { "running".into() } else { "ended".into() },
            capture.snap.to_string(),
            format::count(capture.frames),
            format::count(capture.lost),
            format::bytes(capture.waiting.into()),
        ]);
    }
    table.print(&mut context.out);
    Ok(())
}

fn start(context: &mut Context<'_>, name: &str, snap: u32) -> Result<(), Failure> {
    let port = port::find(context, name)?;
    let id = context.host.capture_start(&port.name, snap).doing("begin a capture")?;
    context.out.line(&format!("Capture {id} of {} is under way.", port.name));
    Ok(())
}

/// Base64 (RFC 4648, 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { digit.into() } else { '=' });
        }
    }
    text
}

fn read(context: &mut Context<'_>, id: u32) -> Result<(), Failure> {
    // The network server forgets what was read, so the next read goes on from there.
    let mut at = context
        .memory
        .captures
        .iter()
        .find(|(known, _)| *known == id)
        .map_or(0, |(_, at)| *at);
    let begin = at;
    let mut rest: Vec<u8> = Vec::new();
    context.out.line("-----BEGIN PCAPNG-----");
    let outcome = loop {
        let chunk = match context.host.capture_read(id, at) {
            Ok(chunk) => chunk,
            failed => break failed.map(|_| ()),
        };
        at += chunk.bytes.len() as u64;
        rest.extend(&chunk.bytes);
        let last = chunk.end || chunk.bytes.is_empty() || at - begin >= MOST;
        let whole = if last { rest.len() } else { rest.len() / LINE * LINE };
        for line in rest[..whole].chunks(LINE) {
            context.out.line(&base64(line));
        }
        rest.drain(..whole);
        if last {
            break Ok(());
        }
    };
    context.out.line("-----END PCAPNG-----");
    context.memory.captures.retain(|(known, _)| *known != id);
    context.memory.captures.push((id, at));
    if context.memory.captures.len() > 16 {
        context.memory.captures.remove(0);
    }
    outcome.doing("read the capture")
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_what_the_standard_shows() {
        // RFC 4648, 10.
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
