//! A terminal in memory, for tests: keeps what was sent, and shows what a screen would show.

mod host;
mod networks;

pub use host::{FakeHost, vm};

use crate::terminal::{COLUMNS, Terminal, Wake};
use alloc::collections::VecDeque;
use core::time::Duration;

/// The terminal.
#[derive(Debug, Default)]
pub struct Screen {
    raw: Vec<u8>,
    input: VecDeque<u8>,
    /// What is typed at each following wait.
    pub later: VecDeque<Vec<u8>>,
    /// Whether waits say that something else happened.
    pub event: bool,
}

impl Screen {
    /// A terminal into which `input` has been typed.
    pub fn typed(input: &[u8]) -> Self {
        Self {
            input: input.iter().copied().collect(),
            ..Self::default()
        }
    }

    /// Types more.
    pub fn type_in(&mut self, input: &[u8]) {
        self.input.extend(input);
    }

    /// Takes the input that nobody has read.
    pub fn read_all(&mut self) -> Vec<u8> {
        self.input.drain(..).collect()
    }

    /// Everything that was sent.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Forgets what was sent.
    pub fn clear(&mut self) {
        self.raw.clear();
    }

    /// What was sent, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).replace('\r', "")
    }

    /// The rows a terminal without escape sequences would show, and the cursor's column.
    pub fn rows(&self) -> (Vec<String>, usize) {
        let (mut rows, mut column) = (vec![Vec::new()], 0usize);
        for &byte in &self.raw {
            match byte {
                b'\r' => column = 0,
                b'\n' => rows.push(Vec::new()),
                8 => column = column.saturating_sub(1),
                7 => {}
                byte => {
                    assert!((0x20..0x7f).contains(&byte), "a dumb terminal was sent {byte:#x}");
                    if column == COLUMNS {
                        rows.push(Vec::new());
                        column = 0;
                    }
                    let row = rows.last_mut().unwrap();
                    if row.len() <= column {
                        row.resize(column + 1, b' ');
                    }
                    row[column] = byte;
                    column += 1;
                }
            }
        }
        (
            rows.into_iter()
                .map(|row| String::from_utf8(row).unwrap().trim_end().to_owned())
                .collect(),
            column,
        )
    }
}

impl Terminal for Screen {
    fn write(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
    }

    fn read(&mut self) -> Option<u8> {
        self.input.pop_front()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Wake {
        if self.input.is_empty()
            && let Some(input) = self.later.pop_front()
        {
            self.input.extend(input);
        }
        assert!(
            timeout.is_some() || self.event || !self.input.is_empty(),
            "waits for ever: nothing more is typed"
        );
        Wake {
            input: !self.input.is_empty(),
            console: false,
            log: self.event,
        }
    }
}
