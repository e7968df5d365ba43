//! Verdicts: a test says nothing when all is well, and otherwise what it saw.

use core::fmt::{self, Write};

/// What a test found wrong, or why there is nothing to test.
pub struct Failure {
    text: [u8; 120],
    length: usize,
    /// The processor does not have what is tested.
    pub absent: bool,
}

/// Outcome of a test.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// With these words, as far as they fit.
    pub fn new(words: fmt::Arguments<'_>, absent: bool) -> Self {
        let mut failure = Self {
            text: [0; 120],
            length: 0,
            absent,
        };
        // What does not fit is left out.
        let _ = failure.write_fmt(words);
        failure
    }
}

impl Write for Failure {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.text.get_mut(self.length).ok_or(fmt::Error)? = byte;
            self.length += 1;
        }
        Ok(())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(core::str::from_utf8(&self.text[..self.length]).unwrap_or("?"))
    }
}

/// Ends the test unless a condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($words:tt)+) => {
        if !$condition {
            return Err($crate::report::Failure::new(format_args!($($words)+), false));
        }
    };
}

/// Ends the test unless two values are the same.
#[macro_export]
macro_rules! same {
    ($seen:expr, $wanted:expr, $($words:tt)+) => {{
        let (seen, wanted) = ($seen, $wanted);
        if seen != wanted {
            return Err($crate::report::Failure::new(format_args!("{}: {seen:x?} instead of {wanted:x?}", format_args!($($words)+)), false));
        }
    }};
}

/// Ends the test, for there is nothing to test.
#[macro_export]
macro_rules! absent {
    ($($words:tt)+) => {
        return Err($crate::report::Failure::new(format_args!($($words)+), true))
    };
}
