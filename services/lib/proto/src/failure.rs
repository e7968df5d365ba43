//! What a server answers when it does not do what it was asked.

use alloc::string::{String, ToString};
use core::fmt;
use serde::{Deserialize, Serialize};

/// Longest detail that is sent, in bytes; longer ones are cut.
pub const MAX_DETAIL: usize = 240;

/// The class of a failure, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The interface or operation number is not served here.
    UnknownOperation,
    /// The arguments could not be decoded or are out of range.
    BadRequest,
    /// The caller may not do this.
    NotAllowed,
    /// The thing named does not exist.
    NotFound,
    /// The thing is in a state in which this cannot be done.
    BadState,
    /// Memory, slots or another bounded resource is used up.
    Exhausted,
    /// This machine or this build cannot do it.
    Unsupported,
    /// The answer did not fit into a message.
    TooLarge,
    /// The server failed by itself.
    Internal,
}

/// Why a server refused, with one line for people: what happened, to what, what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Class.
    pub kind: FailureKind,
    /// One line; may be empty.
    pub detail: String,
}

impl Failure {
    /// A failure with a line for people, cut at a character boundary at or below [`MAX_DETAIL`] bytes.
    #[must_use]
    pub fn new(kind: FailureKind, detail: impl fmt::Display) -> Self {
        let mut detail = detail.to_string();
        detail.truncate(detail.floor_char_boundary(MAX_DETAIL));
        Self { kind, detail }
    }
}

impl From<FailureKind> for Failure {
    fn from(kind: FailureKind) -> Self {
        Self {
            kind,
            detail: String::new(),
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::UnknownOperation => "the server does not know this operation",
            Self::BadRequest => "the request is malformed",
            Self::NotAllowed => "the caller may not do this",
            Self::NotFound => "no such thing",
            Self::BadState => "not possible in the present state",
            Self::Exhausted => "out of resources",
            Self::Unsupported => "not supported here",
            Self::TooLarge => "the answer is too large for a message",
            Self::Internal => "the server failed",
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.detail.is_empty() {
            self.kind.fmt(formatter)
        } else {
            formatter.write_str(&self.detail)
        }
    }
}
