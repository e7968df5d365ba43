//! What every server may ask of init: the capability in `slots::INIT` is enough.

use crate::declare::interface;
use core::fmt;
use serde::{Deserialize, Serialize};

/// Longest text of a log line in bytes; clients cut, init refuses longer ones.
pub const MAX_LINE: usize = 512;

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is odd, the system goes on.
    Warn,
    /// What an administrator wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
    /// Every step.
    Trace,
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

interface! {
    /// Every server's line to init, which watches over it.
    init = 1;

    /// Adds a line to the log.
    0 once fn log(level: Level, text: &'a str) -> ();
    /// The server's work is done: init ends it. A code other than 0 is a failure. Does not return.
    1 once fn exit(code: i32, reason: &'a str) -> ();
    /// The server found itself in an impossible state: init logs the text and ends it. Does not return.
    2 once fn panicked(text: &'a str) -> ();
    /// The server is up and serves requests.
    3 idempotent fn ready() -> ();
    /// Lets a PCI function of the server, the `device`th of its start information, access memory by itself. The server has reset it: what an earlier one had it do is forgotten.
    4 idempotent fn bus_master(device: u32) -> ();
    /// Gives a Frame of zeroed memory, contiguous, in which the server's PCI functions may work. It stays init's own, since a device may be writing into it, and is taken back when the server ends; the manifest bounds how much a
    /// server gets (`device-memory`).
    5 once fn device_memory(pages: u32) gives 1 -> ();
    /// Takes a PCI function's access to memory away again: the server cannot make it stop, and what it was told to do to memory is over.
    6 idempotent fn no_bus_master(device: u32) -> ();
    /// Resets a PCI function: it may not access memory any more, and its registers are what they are after power-on. `begin`, and then ask without it until the answer is 0: it is the milliseconds until the next question.
    7 idempotent fn reset_device(device: u32, begin: bool) -> u32;
    /// Gives the Frame of a piece of the video RAM of the virtual machine that the server belongs to; to its VMX one to read. With `make` the monitor has a piece made that is not there yet, all zero; without it that is `NotFound`.
    8 idempotent fn video_memory(piece: u32, make: bool) gives 1 -> ();
}
