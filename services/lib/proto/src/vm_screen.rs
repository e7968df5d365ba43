//! The screen, keyboard and mouse of one virtual machine, served by its VMX on the `control` endpoint.

use crate::{declare::interface, wire};
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};

/// Most bytes of one `read` or `write`.
pub const MAX_DATA: usize = 3072;
/// Most lines of one `text`.
pub const MAX_LINES: usize = 16;
/// Most keys of one `press`.
pub const MAX_KEYS: usize = 16;
/// Most bytes of one `type_text`.
pub const MAX_TEXT: usize = 1024;

/// What somebody wants of a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum View {
    /// RFB 3.8 (RFC 6143), without a password: whoever hands out the connection asks for one.
    Rfb,
    /// A picture of now, in PNG.
    Picture {
        /// Each pixel of it is the mean of so many squared, 1 to 8.
        divisor: u8,
    },
}

/// Bytes for a viewer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewChunk {
    /// The bytes, at most [`MAX_DATA`]; none: there are none now.
    #[serde(with = "wire::bytes")]
    pub data: Vec<u8>,
    /// Nothing comes behind these.
    pub last: bool,
}

/// The screen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScreenInfo {
    /// Its mode, for people.
    pub mode: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Columns and rows of text; 0 in modes without text.
    pub columns: u32,
    /// See there.
    pub rows: u32,
    /// A number made of all pixels: equal pictures have equal ones.
    pub hash: u64,
    /// Viewers.
    pub viewers: u32,
}

/// Keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Make codes of scan code set 1, with a prefix E0 as upper byte; at most [`MAX_KEYS`].
    #[serde(with = "wire::list")]
    pub codes: Vec<u16>,
}

interface! {
    /// The screen, keyboard and mouse of a virtual machine. A machine without them answers `Unsupported`.
    vm_screen = 17;

    /// The screen now.
    0 idempotent fn info() -> ScreenInfo;
    /// Lines of text from the `first`th on, with what is not ASCII replaced by `?`; none in modes without text.
    1 idempotent fn text(first: u32) -> String;
    /// Begins to view; returns the view's number. One that is not read for a minute ends.
    2 once fn open(view: View) -> u64;
    /// Bytes of a view from the `from`th on. Those before are forgotten.
    3 idempotent fn read(view: u64, from: u64) -> ViewChunk;
    /// Bytes from the viewer; returns how many were taken. Offer the rest later.
    4 once fn write(view: u64, data: &'a [u8]) -> u32;
    /// Ends a view.
    5 once fn close(view: u64) -> ();
    /// Presses keys in this order and lets them go in the reverse one.
    6 once fn press(keys: Keys) -> ();
    /// Types text on a keyboard with US layout; characters that it does not have are left out. Returns how many bytes were taken; offer the rest later.
    7 once fn type_text(text: &'a str) -> u32;
}
