//! Formatting into a fixed buffer, where the heap is not to be trusted.

use core::fmt;

/// Text of at most `N` bytes; what does not fit is cut at a character boundary.
pub struct Line<const N: usize> {
    bytes: [u8; N],
    length: usize,
    full: bool,
}

impl<const N: usize> Line<N> {
    /// Empty.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
            full: false,
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

impl<const N: usize> Default for Line<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Write for Line<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.full {
            return Ok(());
        }
        let fits = text.floor_char_boundary(N - self.length);
        self.full = fits < text.len();
        self.bytes[self.length..self.length + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.length += fits;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::fmt::Write;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keeps_a_prefix(parts in proptest::collection::vec(".{0,12}", 0..8)) {
            let mut line = Line::<32>::new();
            let mut whole = String::new();
            for part in &parts {
                write!(line, "{part}").unwrap();
                whole.push_str(part);
            }
            prop_assert!(whole.starts_with(line.as_str()));
            prop_assert!(line.as_str().len() + 3 >= whole.len().min(32));
        }
    }
}
