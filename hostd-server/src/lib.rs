//! hostd: the one door for management. Everything that is asked of a host comes through its HTTP API; what the host is made of it asks of other servers
//! through [`host::Host`]. The library knows neither messages nor sockets, so that the same code runs in the host, in tests and on a developer's machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod agent;
pub mod api;
pub mod auth;
mod counters;
pub mod files;
pub mod future;
pub mod host;
pub mod http;
pub mod licences;
pub mod model;
pub mod net;
pub mod ntp;
pub mod platform;
mod seed;
pub mod sleepers;
pub mod state;
pub mod stream;
pub mod time;
pub mod tls;
