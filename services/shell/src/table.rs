//! Tables that fit the terminal.

use crate::terminal::{COLUMNS, Output, Style, clip};
use alloc::{string::String, vec, vec::Vec};

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
    /// Text that is cut when the table is too wide.
    Flexible,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<(Style, Vec<String>)>,
}

/// Columns between two columns.
const GAP: usize = 2;
/// A flexible column does not become narrower than this.
const NARROWEST: usize = 8;

impl Table {
    /// An empty table with headings.
    #[must_use]
    pub fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; what is missing stays empty, what is too much is dropped.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.styled_row(Style::Plain, cells);
    }

    /// Adds a row in a style.
    pub fn styled_row<const N: usize>(&mut self, style: Style, cells: [String; N]) {
        let mut cells = Vec::from(cells);
        cells.resize(self.columns.len(), String::new());
        self.rows.push((style, cells));
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|(title, _)| title.chars().count()).collect();
        for (_, cells) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
        let mut excess = total.saturating_sub(COLUMNS);
        // Later columns give way first.
        for (width, (_, align)) in widths.iter_mut().zip(&self.columns).rev() {
            if *align == Align::Flexible {
                let cut = excess.min(width.saturating_sub(NARROWEST));
                *width -= cut;
                excess -= cut;
            }
        }
        widths
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (index, ((cell, &width), (_, align))) in cells.iter().zip(widths).zip(&self.columns).enumerate() {
            if index > 0 {
                line.extend(core::iter::repeat_n(' ', GAP));
            }
            let cell = clip(cell, width);
            let padding = core::iter::repeat_n(' ', width - cell.chars().count());
            if *align == Align::Right {
                line.extend(padding);
                line.push_str(cell);
            } else {
                line.push_str(cell);
                line.extend(padding);
            }
        }
        clip(line.trim_end(), COLUMNS).into()
    }

    /// Heading and rows as lines of at most [`COLUMNS`] columns, in their styles.
    #[must_use]
    pub fn lines(&self) -> Vec<(Style, String)> {
        let widths = self.widths();
        let titles: Vec<String> = self.columns.iter().map(|&(title, _)| title.into()).collect();
        let mut lines = vec![(Style::Heading, self.line(&titles, &widths))];
        lines.extend(self.rows.iter().map(|(style, cells)| (*style, self.line(cells, &widths))));
        lines
    }

    /// Writes it.
    pub fn print(&self, output: &mut Output<'_>) {
        for (style, line) in self.lines() {
            output.styled_line(style, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn columns_are_aligned_and_the_flexible_one_gives_way() {
        let mut table = Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right), ("REASON", Align::Flexible)]);
        table.row(["a".into(), "12".into(), "x".repeat(100)]);
        table.row(["longer".into(), "3".into(), String::new()]);
        let lines: Vec<String> = table.lines().into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines[0], "NAME    SIZE  REASON");
        assert_eq!(lines[1], format!("a         12  {}", "x".repeat(66)));
        assert_eq!(lines[2], "longer     3");
    }

    proptest! {
        #[test]
        fn no_line_is_wider_than_the_terminal(rows in proptest::collection::vec(proptest::array::uniform4("\\PC{0,60}"), 0..20)) {
            let mut table = Table::new(&[("A", Align::Left), ("B", Align::Flexible), ("C", Align::Right), ("D", Align::Flexible)]);
            for row in rows.clone() {
                table.row(row);
            }
            let lines = table.lines();
            prop_assert_eq!(lines.len(), rows.len() + 1);
            for (_, line) in lines {
                prop_assert!(line.chars().count() <= COLUMNS);
            }
        }
    }
}
