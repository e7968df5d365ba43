//! init, the root server: it reads the boot manifest, starts every server with exactly the capabilities listed there, watches over them, and starts and ends virtual machines.
//!
//! It never calls a server, so that nothing can make it wait.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod arrange;
pub mod backoff;
pub mod buddy;
pub mod devices;
pub mod faults;
pub mod grants;
pub mod loan;
pub mod log;
pub mod machine;
pub mod manage;
pub mod passthrough;
pub mod policy;
pub mod process;
pub mod protection;
pub mod root;
pub mod screen;
pub mod service;
pub mod share;
pub mod tables;
pub mod vm;
pub mod window;
pub mod zero_ahead;
