//! The serial debug shell: what it understands and how it answers. Everything here runs on a developer's machine as well: the terminal and the system behind it
//! are traits ([`terminal::Terminal`], [`host::Host`]); `main.rs` puts the serial port and the kernel in their place.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod chrome;
pub mod commands;
mod console;
pub mod editor;
pub mod format;
pub mod history;
pub mod host;
pub mod key;
pub mod reference;
pub mod serial;
pub mod session;
pub mod shared;
pub mod suggest;
pub mod table;
pub mod terminal;
#[cfg(test)]
mod testing;
