//! The terminal as commands see it: bytes out, bytes in, and waiting.

use alloc::string::String;
use core::{fmt, time::Duration};

/// Columns that output is laid out for: what a serial terminal is sure to have.
pub const COLUMNS: usize = 80;

/// Why a wait ended. Several may hold at once; none means that the time was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// The terminal may have input.
    pub input: bool,
    /// The guest whose console is open has printed.
    pub console: bool,
    /// The log that is followed has grown.
    pub log: bool,
}

/// A terminal on a line.
pub trait Terminal {
    /// Sends bytes. Blocks while the line is busy, gives up on a line that is stuck.
    fn write(&mut self, bytes: &[u8]);
    /// The next byte that has arrived, without waiting.
    fn read(&mut self) -> Option<u8>;
    /// Waits for input, for an event of the host, or until `timeout` is over (`None`: without end).
    fn wait(&mut self, timeout: Option<Duration>) -> Wake;
}

/// How text is set off, where the terminal can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// As it is.
    Plain,
    /// Headings.
    Heading,
    /// Something is wrong.
    Error,
    /// Something is odd.
    Warning,
    /// Something is well.
    Good,
    /// Of little weight.
    Faint,
}

impl Style {
    /// Select Graphic Rendition (ECMA-48, 8.3.117) that turns it on.
    const fn sequence(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Heading => "\x1b[1m",
            Self::Error => "\x1b[1;31m",
            Self::Warning => "\x1b[33m",
            Self::Good => "\x1b[32m",
            Self::Faint => "\x1b[2m",
        }
    }
}

/// Writes lines to a terminal: line feeds become carriage return and line feed, other control characters in text become `?`, so that no log line or name can
/// command the terminal.
pub struct Output<'a> {
    terminal: &'a mut dyn Terminal,
    styled: bool,
}

impl<'a> Output<'a> {
    /// Output to `terminal`; `styled` if it understands escape sequences.
    pub fn new(terminal: &'a mut dyn Terminal, styled: bool) -> Self {
        Self { terminal, styled }
    }

    /// The terminal itself, for raw bytes.
    pub fn terminal(&mut self) -> &mut dyn Terminal {
        self.terminal
    }

    /// Whether the terminal understands escape sequences.
    #[must_use]
    pub fn is_styled(&self) -> bool {
        self.styled
    }

    /// Writes text.
    pub fn text(&mut self, text: &str) {
        let mut buffer = [0; 128];
        let mut used = 0;
        for character in text.chars() {
            if used + 4 > buffer.len() {
                self.terminal.write(&buffer[..used]);
                used = 0;
            }
            let mut encoded = [0; 4];
            let safe = match character {
                '\n' => "\r\n",
                character if character.is_control() => "?",
                character => character.encode_utf8(&mut encoded),
            }
            .as_bytes();
            buffer[used..used + safe.len()].copy_from_slice(safe);
            used += safe.len();
        }
        self.terminal.write(&buffer[..used]);
    }

    /// Writes text in a style.
    pub fn styled(&mut self, style: Style, text: &str) {
        if self.styled && style != Style::Plain {
            self.terminal.write(style.sequence().as_bytes());
            self.text(text);
            self.terminal.write(b"\x1b[0m");
        } else {
            self.text(text);
        }
    }

    /// Writes a line in a style.
    pub fn styled_line(&mut self, style: Style, text: &str) {
        self.styled(style, text);
        self.text("\n");
    }

    /// Writes a line of data, cut to the width of the terminal.
    pub fn line(&mut self, text: &str) {
        self.text(clip(text, COLUMNS));
        self.text("\n");
    }

    /// Writes prose, broken at spaces to the width of the terminal; following lines are indented by `indent` columns.
    pub fn prose(&mut self, text: &str, indent: usize) {
        self.text(&wrap(text, COLUMNS, indent));
        self.text("\n");
    }

    /// Whether an interrupt (Ctrl-C) or `q` has been typed. Other input is dropped: nobody types ahead into a running command that asks this.
    pub fn interrupted(&mut self) -> bool {
        // As much as may have piled up in a receive buffer; a line that never falls silent must not hold the command up for ever.
        for _ in 0..4096 {
            match self.terminal.read() {
                Some(3 | b'q') => return true,
                Some(_) => {}
                None => return false,
            }
        }
        false
    }
}

impl fmt::Write for Output<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

/// The first `columns` characters of `text`.
#[must_use]
pub fn clip(text: &str, columns: usize) -> &str {
    text.char_indices()
        .nth(columns)
        .map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}

/// Breaks text at spaces so that no line is longer than `columns`; words that are longer are broken. Line feeds in the text stay, lines after the first are indented.
#[must_use]
pub fn wrap(text: &str, columns: usize, indent: usize) -> String {
    let mut wrapped = String::with_capacity(text.len() + 16);
    let indent = indent.min(columns / 2);
    let mut column = 0;
    let mut fresh = true;
    let break_line = |wrapped: &mut String, column: &mut usize| {
        wrapped.push('\n');
        wrapped.extend(core::iter::repeat_n(' ', indent));
        *column = indent;
    };
    for (number, paragraph) in text.split('\n').enumerate() {
        if number > 0 {
            break_line(&mut wrapped, &mut column);
            fresh = true;
        }
        for word in paragraph.split(' ') {
            let mut width = word.chars().count();
            if !fresh {
                if column + 1 + width > columns {
                    break_line(&mut wrapped, &mut column);
                } else {
                    wrapped.push(' ');
                    column += 1;
                }
            }
            fresh = false;
            let mut rest = word;
            while width > columns - column {
                let part = clip(rest, columns - column);
                wrapped.push_str(part);
                rest = rest.get(part.len()..).unwrap_or("");
                width = rest.chars().count();
                break_line(&mut wrapped, &mut column);
            }
            wrapped.push_str(rest);
            column += width;
        }
    }
    wrapped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Screen;
    use proptest::prelude::*;

    #[test]
    fn text_from_outside_cannot_command_the_terminal() {
        let mut screen = Screen::default();
        Output::new(&mut screen, true).text("a\x1b[2Jb\x07\u{9b}1m\nc");
        assert_eq!(screen.raw(), b"a?[2Jb??1m\r\nc");
    }

    #[test]
    fn styles_only_where_the_terminal_can() {
        let mut screen = Screen::default();
        Output::new(&mut screen, false).styled(Style::Error, "bad");
        assert_eq!(screen.raw(), b"bad");
        let mut screen = Screen::default();
        Output::new(&mut screen, true).styled(Style::Error, "bad");
        assert_eq!(screen.raw(), b"\x1b[1;31mbad\x1b[0m");
    }

    proptest! {
        #[test]
        fn wrapping_keeps_the_words_and_the_width(text in "[a-zé \n]{0,400}", columns in 2usize..100, indent in 0usize..60) {
            let wrapped = wrap(&text, columns, indent);
            for line in wrapped.lines() {
                prop_assert!(line.chars().count() <= columns);
            }
            let letters = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(letters(&wrapped), letters(&text));
        }

        #[test]
        fn output_sends_all_text_unbroken(text in "\\PC{0,300}") {
            let mut screen = Screen::default();
            Output::new(&mut screen, false).text(&text);
            let expected: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            prop_assert_eq!(String::from_utf8(screen.raw().to_vec()).unwrap(), expected);
        }
    }
}
