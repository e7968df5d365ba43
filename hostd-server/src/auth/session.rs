//! Sessions.

use alloc::{string::String, vec::Vec};
use sha2::{Digest, Sha256};

/// Who asks.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Account.
    pub user: String,
    /// The session, unless it is a key that asks.
    pub session: Option<String>,
}

pub(crate) struct SessionRecord {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) csrf: String,
    pub(crate) address: String,
    pub(crate) created_ms: u64,
    pub(crate) used_ms: u64,
    pub(crate) used_monotonic: u64,
    pub(crate) begun_monotonic: u64,
}

/// A session ends when it is not used for half an hour, and after twelve.
const IDLE_MS: u64 = 30 * 60 * 1000;
pub(crate) const WHOLE_MS: u64 = 12 * 60 * 60 * 1000;

impl SessionRecord {
    pub(crate) fn is_over(&self, now: u64) -> bool {
        now.saturating_sub(self.used_monotonic) > IDLE_MS || now.saturating_sub(self.begun_monotonic) > WHOLE_MS
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)]))
        .collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// What is kept of a token: who reads the state cannot use it.
pub(crate) fn digest(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}
