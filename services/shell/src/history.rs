//! Lines that were entered before.

use alloc::{collections::VecDeque, string::String};

/// Lines kept.
const DEPTH: usize = 64;

/// The last lines, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    lines: VecDeque<String>,
}

impl History {
    /// Keeps a line, unless it is blank or the same as the last one.
    pub fn add(&mut self, line: &str) {
        if line.trim().is_empty() || self.lines.back().is_some_and(|last| last == line) {
            return;
        }
        if self.lines.len() == DEPTH {
            self.lines.pop_front();
        }
        self.lines.push_back(line.into());
    }

    /// Number of lines kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// A line; 1 is the newest.
    #[must_use]
    pub fn back(&self, age: usize) -> Option<&str> {
        self.lines
            .len()
            .checked_sub(age)
            .and_then(|index| self.lines.get(index))
            .map(String::as_str)
    }

    /// The age of the newest line older than `age` that contains `text`.
    #[must_use]
    pub fn search(&self, text: &str, age: usize) -> Option<usize> {
        (age + 1..=self.lines.len()).find(|&age| self.back(age).is_some_and(|line| line.contains(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_without_repeats() {
        let mut history = History::default();
        assert!(history.is_empty());
        for i in 0..DEPTH + 5 {
            history.add(&format!("line {i}"));
            history.add(&format!("line {i}"));
            history.add("  ");
        }
        assert_eq!(history.len(), DEPTH);
        assert_eq!(history.back(1), Some(&*format!("line {}", DEPTH + 4)));
        assert_eq!(history.back(DEPTH), Some("line 5"));
        assert_eq!(history.back(DEPTH + 1), None);
        assert_eq!(history.back(0), None);
    }

    #[test]
    fn search_goes_from_new_to_old() {
        let mut history = History::default();
        for line in ["vm list", "ps", "vm start a", "mem"] {
            history.add(line);
        }
        assert_eq!(history.search("vm", 0), Some(2));
        assert_eq!(history.search("vm", 2), Some(4));
        assert_eq!(history.search("vm", 4), None);
    }
}
