//! hostd on a developer's machine: the real API over a host that is simulated.
#![forbid(unsafe_code)]

pub mod http;
pub mod platform;
pub mod simulated;
