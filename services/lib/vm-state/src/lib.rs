//! The file that holds the state of a suspended virtual machine (`NAME.vmss`): what is in which block, and checks of everything that is read.
//!
//! ```text
//! block 0        header: written last, when everything else is safe
//! block 1 ..     what the monitor knows: processors, devices (postcard), padded to a block
//! then           chunks of RAM: a block that says which of 256 pages follow, and the pages that are not all zeros
//! ```
//!
//! All numbers are little-endian. The header names the machine and has a number that no other file has; each chunk repeats it, so blocks of an older file are not taken for this one's. Header and heads of chunks have a CRC-32C
//! over the block, each page has one in its chunk's head, the monitor's part has one in the header.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod array;
mod chunk;
mod header;

pub use chunk::{CHUNK, CHUNK_PAGES, Chunk};
pub use header::{Header, MAX_NAME, VERSION, named};

use alloc::vec::Vec;
use core::fmt;
use serde::{Serialize, de::DeserializeOwned};

/// What the name of a file ends with whose machine is suspended.
pub const ENDING: &str = ".vmss";

/// Bytes of a block, and of a page.
pub const BLOCK: usize = 4096;
/// Most bytes of the monitor's part.
pub const MAX_STATE: u64 = 1 << 20;

static CASTAGNOLI: crc::Crc<u32, crc::Table<16>> = crc::Crc::<u32, crc::Table<16>>::new(&crc::CRC_32_ISCSI);

/// CRC-32C of some bytes.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u32 {
    CASTAGNOLI.checksum(bytes)
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It does not begin as such files do.
    NotState,
    /// It has another version.
    Version(u32),
    /// A check does not fit: of what.
    Checksum(&'static str),
    /// Something in it cannot be: what.
    Nonsense(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotState => formatter.write_str("it holds no state of a virtual machine, or one that was not written to its end"),
            Self::Version(version) => write!(
                formatter,
                "it has version {version} of the format, this host reads version {VERSION}"
            ),
            Self::Checksum(what) => write!(formatter, "it is damaged: the checksum of {what} is wrong"),
            Self::Nonsense(what) => write!(formatter, "it is damaged: {what}"),
        }
    }
}

/// The bytes of the monitor's part.
#[must_use]
pub fn encode<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    postcard::to_allocvec(value).ok().filter(|bytes| bytes.len() as u64 <= MAX_STATE)
}

/// The monitor's part out of its bytes; all of them have to be used.
///
/// # Errors
/// They are something else.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damage> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(Damage::Nonsense(
            "what it says of processors and devices is not what this monitor writes",
        )),
    }
}

/// `length` up to whole blocks.
#[must_use]
pub const fn blocks(length: u64) -> u64 {
    length.div_ceil(BLOCK as u64) * BLOCK as u64
}

fn word(block: &[u8; BLOCK], at: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&block[at..at + 8]);
    u64::from_le_bytes(bytes)
}

fn put(block: &mut [u8; BLOCK], at: usize, value: u64) {
    block[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Where each block that is checked as a whole has its check: at its end.
const CHECK: usize = BLOCK - 4;

fn seal(block: &mut [u8; BLOCK]) {
    let check = checksum(&block[..CHECK]);
    block[CHECK..].copy_from_slice(&check.to_le_bytes());
}

fn is_sealed(block: &[u8; BLOCK]) -> bool {
    block[CHECK..] == checksum(&block[..CHECK]).to_le_bytes()
}
