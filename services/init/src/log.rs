//! The system's log: the newest lines, in bounded memory.

use alloc::{borrow::ToOwned, collections::VecDeque, string::String, vec::Vec};
use tessera_proto::MAX_MESSAGE;
use tessera_proto::init::{Level, MAX_LINE};
use tessera_proto::supervisor::{LogChunk, LogLine};
use tessera_proto::wire;

/// Bytes of text that are kept.
const MAX_BYTES: usize = 96 << 10;
/// Lines that are kept, however short.
const MAX_LINES: usize = 2000;
/// Room for a chunk's own framing.
const FRAMING: usize = 40;

/// The log. Lines are numbered from 0; a cursor is the number of the next line to read.
#[derive(Debug, Default)]
pub struct Log {
    lines: VecDeque<LogLine>,
    bytes: usize,
    /// Number of the oldest kept line.
    first: u64,
}

impl Log {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            first: 0,
        }
    }

    /// Adds a line. Control characters, with which a server could forge lines or garble a terminal, become `?`; what is too long is cut.
    pub fn add(&mut self, tsc: u64, server: &str, level: Level, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_LINE)];
        let text: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        self.bytes += text.len() + server.len();
        self.lines.push_back(LogLine {
            tsc,
            server: server.to_owned(),
            level,
            text,
        });
        while self.bytes > MAX_BYTES || self.lines.len() > MAX_LINES {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= line.text.len() + line.server.len();
            self.first += 1;
        }
    }

    /// As many lines from `cursor` on as fit into a message.
    #[must_use]
    pub fn read(&self, cursor: u64) -> LogChunk {
        let end = self.first + self.lines.len() as u64;
        let start = cursor.clamp(self.first, end);
        let mut lines = Vec::new();
        let mut room = MAX_MESSAGE - FRAMING;
        for line in self.lines.iter().skip((start - self.first) as usize) {
            let size = wire::size(line);
            if size > room {
                break;
            }
            room -= size;
            lines.push(line.clone());
        }
        LogChunk {
            next: start + lines.len() as u64,
            lost: start.saturating_sub(cursor),
            lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn forged_lines_stay_one_line() {
        let mut log = Log::new();
        log.add(0, "probe", Level::Info, "harmless\ninit: all is lost\x1b[2J");
        assert_eq!(log.read(0).lines[0].text, "harmless?init: all is lost?[2J");
    }

    #[test]
    fn a_cursor_from_the_future_reads_nothing() {
        let mut log = Log::new();
        log.add(0, "probe", Level::Info, "one");
        let chunk = log.read(u64::MAX);
        assert_eq!((chunk.next, chunk.lost, chunk.lines.len()), (1, 0, 0));
    }

    proptest! {
        #[test]
        fn a_reader_sees_every_kept_line_once(lengths in proptest::collection::vec(0usize..700, 0..400)) {
            let mut log = Log::new();
            for (number, length) in lengths.iter().enumerate() {
                log.add(number as u64, "server", Level::Info, &"é".repeat(*length));
            }
            let mut cursor = 0;
            let mut seen = Vec::new();
            let mut lost = 0;
            loop {
                let chunk = log.read(cursor);
                prop_assert!(wire::size(&Ok::<_, ()>(&chunk)) <= MAX_MESSAGE);
                lost += chunk.lost;
                if chunk.lines.is_empty() {
                    break;
                }
                seen.extend(chunk.lines.iter().map(|line| line.tsc));
                cursor = chunk.next;
            }
            prop_assert_eq!(lost + seen.len() as u64, lengths.len() as u64);
            prop_assert_eq!(seen, (lost..lengths.len() as u64).collect::<Vec<_>>());
        }
    }
}
