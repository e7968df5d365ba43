//! What hostd does for the host's own servers. People and programs outside manage a host over its HTTPS API.

use crate::declare::interface;
use alloc::string::String;
use serde::{Deserialize, Serialize};

/// Most bytes of an echo request's data.
pub const MAX_ECHO: u16 = 1400;
/// Longest wait for an answer, in milliseconds.
pub const MAX_ECHO_WAIT_MS: u32 = 10_000;

/// What became of an echo request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// The address that was asked.
    pub address: String,
    /// Microseconds until the answer was there; none came in time.
    pub microseconds: Option<u32>,
}

interface! {
    /// The host's management port.
    hostd = 15;

    /// Sends an ICMP echo request (RFC 792, RFC 4443) with `bytes` bytes of data from the host's management port to an address or a name, and waits for the answer.
    0 idempotent fn ping(to: &'a str, sequence: u16, bytes: u16, wait_ms: u32) -> Echo;
}
