//! Verdicts: a test says nothing when all is well, and otherwise what it saw.

use crate::machine::Raw;
use core::fmt::{self, Write};

/// Words of the last failure: tests run one at a time, on the first processor.
static WORDS: Raw<Words> = Raw::new(Words { text: [0; 160], length: 0 });

struct Words {
    text: [u8; 160],
    length: usize,
}

/// What a test found wrong, or why there is nothing to test. There is one at a time.
pub struct Failure {
    /// The processor does not have what is tested.
    pub absent: bool,
}

/// Outcome of a test.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// With these words, as far as they fit.
    pub fn new(words: fmt::Arguments<'_>, absent: bool) -> Self {
        // SAFETY: only the first processor's tests fail, one at a time.
        let place = unsafe { &mut *WORDS.get() };
        place.length = 0;
        // What does not fit is left out.
        let _ = place.write_fmt(words);
        Self { absent }
    }
}

impl Write for Words {
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
        // SAFETY: as in `new`; nothing fails while a verdict is printed.
        let words = unsafe { &*WORDS.get() };
        formatter.write_str(core::str::from_utf8(&words.text[..words.length]).unwrap_or("?"))
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
