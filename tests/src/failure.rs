//! How a test ends.

use std::fmt;

/// What went wrong, for people: what was expected, what came instead, and where the whole log stands.
#[derive(Debug, Clone)]
pub struct Failure(pub String);

impl Failure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Result of a step of a test.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// How a test ended when it did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Everything it asserts held.
    Passed,
    /// It could not be tried here, and why.
    Skipped(String),
}

impl Outcome {
    /// A skip with this reason.
    pub fn skip(reason: impl Into<String>) -> Result<Self> {
        Ok(Self::Skipped(reason.into()))
    }
}

/// Fails the test with a formatted text.
#[macro_export]
macro_rules! fail {
    ($($arg:tt)*) => { return Err($crate::Failure::new(format!($($arg)*))) };
}

/// Fails the test with a formatted text unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($arg:tt)*) => { if !$condition { $crate::fail!($($arg)*) } };
}
