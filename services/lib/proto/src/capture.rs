//! Captures of what goes through a port of a virtual switch, as pcapng files (draft-ietf-opsawg-pcapng).

use crate::{Page, declare::interface, wire};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Most captures at once.
pub const MAX_CAPTURES: usize = 4;
/// Most bytes that one keeps for its reader.
pub const MAX_ROOM: u32 = 256 << 10;
/// Most bytes of each frame.
pub const MAX_SNAP: u32 = 65_535;

/// A capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureInfo {
    /// Its number.
    pub id: u32,
    /// The port.
    pub port: String,
    /// Bytes of each frame that are kept.
    pub snap: u32,
    /// Bytes that may wait for the reader.
    pub room: u32,
    /// Bytes that wait.
    pub waiting: u32,
    /// Frames that were captured.
    pub frames: u64,
    /// Frames that found no room, since they were not read fast enough.
    pub lost: u64,
    /// It goes on.
    pub running: bool,
}

/// Part of the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaptureChunk {
    /// Bytes from where the reader asked; empty: there are none yet.
    #[serde(with = "wire::bytes")]
    pub bytes: Vec<u8>,
    /// It does not go on, and this is the last.
    pub end: bool,
}

interface! {
    /// Captures at ports of virtual switches.
    capture = 13;

    /// Captures, from the `first`th on.
    0 idempotent fn captures(first: u32) -> Page<CaptureInfo>;
    /// Begins a capture of a port, both ways, that keeps up to `snap` bytes of each frame, and up to `room` bytes for its reader (0: as much as there may be). Answers its number.
    1 once fn start(port: &'a str, snap: u32, room: u32) -> u32;
    /// Reads the file from a byte on. Bytes before it are forgotten, which makes room for further frames.
    2 idempotent fn read(id: u32, from: u64) -> CaptureChunk;
    /// Ends a capture; what was captured can still be read.
    3 idempotent fn stop(id: u32) -> ();
    /// Forgets a capture.
    4 once fn remove(id: u32) -> ();
    /// Reads the file from a byte on as `read` does, but forgets nothing.
    5 idempotent fn peek(id: u32, from: u64) -> CaptureChunk;
}
