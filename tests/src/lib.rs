//! Whole-system tests: they build an image, boot it in an emulated machine, and speak to it over its serial ports.
//!
//! A test waits for a line or an event and never for a time; a watchdog ends a test that waits in vain. Every emulator is tied to the life
//! of this process, so none survives it. What came over a serial port is kept under `build/test-logs`.
#![forbid(unsafe_code)]

pub mod bench;
pub mod browser;
pub mod cases;
pub mod context;
pub mod disks;
pub mod elf;
pub mod escape;
pub mod failure;
pub mod image;
pub mod initramfs;
pub mod linux;
pub mod machine;
mod medium;
pub mod outside;
pub mod runner;
pub mod serial;
pub mod shell;
pub mod systems;
pub mod text;
pub mod viewer;
pub mod web_socket;

pub use context::Context;
pub use failure::{Failure, Outcome, Result};
