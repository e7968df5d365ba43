//! Port 0x402, where SeaBIOS and OVMF tell what they do (SeaBIOS `CONFIG_DEBUG_IO`). Lines go to the log, so many of them after each power-on that nobody can fill it.

use heapless::Vec;

/// The port.
pub const PORT: u16 = 0x402;
/// What is read there says that somebody listens.
pub const PRESENT: u8 = 0xe9;
/// Longest line in bytes; more is another line.
const LINE: usize = 120;
/// Most lines.
const LINES: u32 = 600;

/// The port.
#[derive(Clone, Debug, Default)]
pub struct DebugPort {
    line: Vec<u8, LINE>,
    ended: bool,
    lines: u32,
}

impl DebugPort {
    /// Writes a byte; the answer is the line that it ends.
    pub fn write(&mut self, byte: u8) -> Option<&str> {
        if self.lines == LINES {
            return None;
        }
        if core::mem::take(&mut self.ended) {
            self.line.clear();
        }
        if byte != b'\n' {
            // Nothing that could mean something to a terminal.
            let byte = if matches!(byte, b' '..=b'~') { byte } else { b' ' };
            // There is room: a full line ended.
            let _ = self.line.push(byte);
        }
        if byte != b'\n' && !self.line.is_full() {
            return None;
        }
        self.ended = true;
        self.lines += 1;
        core::str::from_utf8(&self.line)
            .map(str::trim_end)
            .ok()
            .filter(|line| !line.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn lines(port: &mut DebugPort, bytes: &[u8]) -> Vec<String> {
        bytes.iter().filter_map(|byte| port.write(*byte).map(ToString::to_string)).collect()
    }

    #[test]
    fn lines_come_whole() {
        let mut port = DebugPort::default();
        assert_eq!(lines(&mut port, b"SeaBIOS\n\n \x1b[2Jx\r\nrest"), ["SeaBIOS", "  [2Jx"]);
        assert_eq!(lines(&mut port, b"\n"), ["rest"]);
    }

    proptest! {
        #[test]
        fn no_more_than_so_much(bytes in prop::collection::vec(any::<u8>(), 0..4000), times in 1usize..100) {
            let mut port = DebugPort::default();
            let mut count = 0;
            for _ in 0..times {
                for line in lines(&mut port, &bytes) {
                    prop_assert!(line.len() <= LINE && line.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
                    count += 1;
                }
            }
            prop_assert!(count <= LINES);
        }
    }
}
