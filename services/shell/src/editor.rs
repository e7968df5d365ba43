//! The line editor. It redraws with carriage return, spaces and backspaces alone, so it works on any terminal; lines wider than the screen scroll sideways.
//!
//! Why not a crate: the maintained `no_std` editors have no completion, or draw with escape sequences that a dumb terminal shows as litter.

use crate::{
    history::History,
    key::Key,
    terminal::{COLUMNS, Terminal},
};
use alloc::{string::String, vec::Vec};

/// Longest line in characters; further ones are refused with a bell.
pub const MAX_LINE: usize = 512;
/// Most candidates that completion lists.
const MAX_LISTED: usize = 100;

/// What a key led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Editing goes on.
    Continue,
    /// A line was entered.
    Line(String),
    /// The line was given up (Ctrl-C).
    Cancelled,
    /// Ctrl-L: the caller clears the screen and calls [`Editor::show`].
    Clear,
}

/// Knows how words can go on.
pub trait Complete {
    /// All words that could stand where the last word of `line` (what follows the last space) stands, and start with it.
    fn candidates(&mut self, line: &str) -> Vec<String>;
}

/// A search through the history (Ctrl-R).
#[derive(Clone, Debug)]
struct Search {
    text: String,
    age: usize,
    failed: bool,
    /// The line as it was before.
    before: String,
}

/// The editor. Printable ASCII only: one byte, one column.
#[derive(Debug, Default)]
pub struct Editor {
    prompt: String,
    line: String,
    cursor: usize,
    /// First character that is shown.
    scroll: usize,
    /// Columns that the last drawing filled.
    drawn: usize,
    /// Column the terminal's cursor stands in.
    column: usize,
    killed: String,
    /// Age of the history line shown; 0 is the new line, kept in `draft` meanwhile.
    age: usize,
    draft: String,
    search: Option<Search>,
    /// The last key was Tab: the next one lists.
    tabbed: bool,
    history: History,
}

impl Editor {
    /// An editor with an empty line.
    #[must_use]
    pub fn new(prompt: &str) -> Self {
        Self {
            prompt: prompt.into(),
            ..Self::default()
        }
    }

    /// Draws prompt and line on a fresh line of the terminal.
    pub fn show(&mut self, terminal: &mut dyn Terminal) {
        self.drawn = 0;
        self.column = 0;
        self.draw(terminal);
    }

    /// The line so far.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }

    /// The cursor's place in it.
    #[must_use]
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// Takes one key.
    pub fn feed(&mut self, key: Key, complete: &mut dyn Complete, terminal: &mut dyn Terminal) -> Edit {
        if self.search.is_some() && self.feed_search(key, terminal) {
            return Edit::Continue;
        }
        let tabbed = core::mem::take(&mut self.tabbed);
        match key {
            Key::Char(character) => return self.insert(character, terminal),
            Key::Tab => self.complete(tabbed, complete, terminal),
            Key::Enter => return self.enter(terminal),
            Key::Backspace | Key::Control(b'h') if self.cursor > 0 => self.remove(self.cursor - 1, self.cursor),
            Key::Control(b'd') if self.line.is_empty() => {}
            Key::Delete | Key::Control(b'd') if self.cursor < self.line.len() => self.remove(self.cursor, self.cursor + 1),
            Key::Left | Key::Control(b'b') if self.cursor > 0 => self.cursor -= 1,
            Key::Right | Key::Control(b'f') if self.cursor < self.line.len() => self.cursor += 1,
            Key::Home | Key::Control(b'a') => self.cursor = 0,
            Key::End | Key::Control(b'e') => self.cursor = self.line.len(),
            Key::WordLeft => self.cursor = self.word_left(),
            Key::WordRight => self.cursor = self.word_right(),
            Key::Up | Key::Control(b'p') => self.recall(self.age + 1, terminal),
            Key::Down | Key::Control(b'n') if self.age > 0 => self.recall(self.age - 1, terminal),
            Key::Control(b'k') => self.kill(self.cursor, self.line.len()),
            Key::Control(b'u') => self.kill(0, self.cursor),
            Key::Control(b'w') => self.kill(self.word_left(), self.cursor),
            Key::Control(b'y') => self.yank(),
            Key::Control(b't') => self.transpose(),
            Key::Control(b'r') => {
                let before = self.line.clone();
                self.search = Some(Search {
                    text: String::new(),
                    age: 0,
                    failed: false,
                    before,
                });
            }
            Key::Control(b'c') => {
                terminal.write(b"^C\r\n");
                self.reset();
                return Edit::Cancelled;
            }
            Key::Control(b'l') => return Edit::Clear,
            Key::Unknown | Key::StatusReport => return Edit::Continue,
            _ => {
                terminal.write(b"\x07");
                return Edit::Continue;
            }
        }
        self.draw(terminal);
        Edit::Continue
    }

    fn insert(&mut self, character: u8, terminal: &mut dyn Terminal) -> Edit {
        if self.line.len() >= MAX_LINE {
            terminal.write(b"\x07");
            return Edit::Continue;
        }
        self.line.insert(self.cursor, character as char);
        self.cursor += 1;
        let end = self.prompt.len() + self.line.len();
        if self.cursor == self.line.len() && self.scroll == 0 && end < COLUMNS && self.column + 1 == end {
            // The common case: what is typed at the end is echoed as it is.
            terminal.write(&[character]);
            self.column = end;
            self.drawn = self.drawn.max(end);
        } else {
            self.draw(terminal);
        }
        Edit::Continue
    }

    fn enter(&mut self, terminal: &mut dyn Terminal) -> Edit {
        if self.cursor != self.line.len() {
            self.cursor = self.line.len();
            self.draw(terminal);
        }
        terminal.write(b"\r\n");
        let line = core::mem::take(&mut self.line);
        self.history.add(&line);
        self.reset();
        Edit::Line(line)
    }

    fn reset(&mut self) {
        self.line.clear();
        self.draft.clear();
        (self.cursor, self.scroll, self.drawn, self.column, self.age) = (0, 0, 0, 0, 0);
        self.search = None;
        self.tabbed = false;
    }

    fn remove(&mut self, from: usize, to: usize) {
        self.line.replace_range(from..to, "");
        self.cursor = from;
    }

    fn kill(&mut self, from: usize, to: usize) {
        if from < to {
            self.killed = self.line.get(from..to).unwrap_or("").into();
            self.remove(from, to);
        }
    }

    fn yank(&mut self) {
        let room = MAX_LINE - self.line.len().min(MAX_LINE);
        let text = self.killed.get(..room.min(self.killed.len())).unwrap_or("");
        self.line.insert_str(self.cursor, text);
        self.cursor += text.len();
    }

    fn transpose(&mut self) {
        let at = if self.cursor == self.line.len() {
            self.cursor.saturating_sub(1)
        } else {
            self.cursor
        };
        if at == 0 {
            return;
        }
        let character = self.line.remove(at);
        self.line.insert(at - 1, character);
        self.cursor = at + 1;
    }

    fn word_left(&self) -> usize {
        let before = self.line.get(..self.cursor).unwrap_or("").trim_end_matches(' ');
        before.rfind(' ').map_or(0, |space| space + 1)
    }

    fn word_right(&self) -> usize {
        let after = self.line.get(self.cursor..).unwrap_or("");
        let spaces = after.len() - after.trim_start_matches(' ').len();
        let word = after.get(spaces..).unwrap_or("");
        self.cursor + spaces + word.find(' ').unwrap_or(word.len())
    }

    fn recall(&mut self, age: usize, terminal: &mut dyn Terminal) {
        if self.age == 0 {
            self.draft = self.line.clone();
        }
        let Some(line) = (if age == 0 { Some(&*self.draft) } else { self.history.back(age) }) else {
            terminal.write(b"\x07");
            return;
        };
        self.line = line.into();
        self.age = age;
        self.cursor = self.line.len();
    }

    /// Handles a key during a search; false if the key ended the search and wants to be handled as usual.
    fn feed_search(&mut self, key: Key, terminal: &mut dyn Terminal) -> bool {
        let Some(search) = &mut self.search else { return false };
        match key {
            Key::Char(character) if search.text.len() < MAX_LINE => {
                search.text.push(character as char);
                search.age = search.age.saturating_sub(1);
            }
            Key::Control(b'r') => {}
            Key::Backspace => {
                search.text.pop();
                search.age = 0;
            }
            Key::Control(b'g' | b'c') => {
                self.line = core::mem::take(&mut search.before);
                self.cursor = self.line.len();
                self.search = None;
                self.draw(terminal);
                return true;
            }
            Key::Unknown | Key::StatusReport => return true,
            _ => {
                self.search = None;
                self.draw(terminal);
                return false;
            }
        }
        let found = if search.text.is_empty() {
            None
        } else {
            self.history.search(&search.text, search.age)
        };
        search.failed = found.is_none() && !search.text.is_empty();
        if let Some(age) = found {
            search.age = age;
            self.line = self.history.back(age).unwrap_or("").into();
            self.cursor = self.line.find(&*search.text).unwrap_or(self.line.len());
        }
        self.draw(terminal);
        true
    }

    fn complete(&mut self, again: bool, complete: &mut dyn Complete, terminal: &mut dyn Terminal) {
        let head: String = self.line.get(..self.cursor).unwrap_or("").into();
        let word = head.get(head.rfind(' ').map_or(0, |space| space + 1)..).unwrap_or("");
        let mut candidates = complete.candidates(&head);
        candidates.retain(|candidate| candidate.starts_with(word) && candidate.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
        candidates.sort_unstable();
        candidates.dedup();
        let Some(first) = candidates.first() else {
            terminal.write(b"\x07");
            return;
        };
        let mut common = first.len();
        for candidate in &candidates {
            common = common.min(first.bytes().zip(candidate.bytes()).take_while(|(a, b)| a == b).count());
        }
        let mut addition: String = first.get(word.len()..common).unwrap_or("").into();
        if candidates.len() == 1 && !self.line.get(self.cursor..).unwrap_or("").starts_with(' ') {
            addition.push(' ');
        }
        if self.line.len() + addition.len() > MAX_LINE {
            terminal.write(b"\x07");
        } else if !addition.is_empty() {
            self.line.insert_str(self.cursor, &addition);
            self.cursor += addition.len();
        } else if again {
            self.list(&candidates, terminal);
        } else {
            terminal.write(b"\x07");
            self.tabbed = true;
        }
    }

    fn list(&mut self, candidates: &[String], terminal: &mut dyn Terminal) {
        let width = candidates.iter().take(MAX_LISTED).map(String::len).max().unwrap_or(0) + 2;
        let per_row = (COLUMNS / width).max(1);
        for (index, candidate) in candidates.iter().take(MAX_LISTED).enumerate() {
            if index % per_row == 0 {
                terminal.write(b"\r\n");
            }
            let shown = crate::terminal::clip(candidate, COLUMNS - 1);
            terminal.write(shown.as_bytes());
            for _ in shown.len()..width.min(COLUMNS) {
                // The last column stays free of padding, so that a row never wraps.
                if index % per_row + 1 < per_row {
                    terminal.write(b" ");
                }
            }
        }
        if candidates.len() > MAX_LISTED {
            terminal.write(b"\r\n...");
        }
        terminal.write(b"\r\n");
        self.drawn = 0;
        self.column = 0;
    }

    /// Draws prompt and the visible part of the line, blanks what the last drawing left behind, and puts the cursor in its place.
    fn draw(&mut self, terminal: &mut dyn Terminal) {
        let search_prompt = self.search.as_ref().map(|search| {
            let tail = search.text.get(search.text.len().saturating_sub(20)..).unwrap_or("");
            alloc::format!("({}search) `{tail}': ", if search.failed { "failed " } else { "" })
        });
        let prompt = search_prompt.as_ref().unwrap_or(&self.prompt);
        // One column stays free: a character in the last one would leave the cursor's place open.
        let room = COLUMNS - 1 - prompt.len().min(COLUMNS / 2);
        if self.cursor < self.scroll {
            self.scroll = self.cursor.saturating_sub(room / 2);
        }
        if self.cursor > self.scroll + room {
            self.scroll = self.cursor - room / 2;
        }
        if self.line.len() <= room {
            self.scroll = 0;
        }
        let end = self.line.len().min(self.scroll + room);
        let visible = self.line.get(self.scroll..end).unwrap_or("");
        let filled = prompt.len() + visible.len();
        terminal.write(b"\r");
        terminal.write(prompt.as_bytes());
        terminal.write(visible.as_bytes());
        for _ in filled..self.drawn {
            terminal.write(b" ");
        }
        let column = prompt.len() + self.cursor - self.scroll;
        for _ in column..filled.max(self.drawn) {
            terminal.write(b"\x08");
        }
        self.drawn = filled;
        self.column = column;
    }
}

#[cfg(test)]
#[path = "editor_tests.rs"]
mod tests;
