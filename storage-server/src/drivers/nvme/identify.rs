//! What controllers and namespaces tell of themselves (Base 2.0, 5.17.2.1; NVM Command Set 1.0, 4.1.5.1), and of their condition (5.16.1.3). All of it is checked before it is used.

use crate::drivers::text;
use alloc::{string::String, vec::Vec};
use tessera_proto::storage::DiskHealth;

/// Bytes of each of these structures.
pub const LENGTH: usize = 4096;
/// Namespaces that are used at most.
pub const MAX_NAMESPACES: usize = 16;

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let part = bytes.get(at..at + length).unwrap_or_default();
    part.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A controller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ControllerInfo {
    /// Serial number.
    pub serial: String,
    /// Model.
    pub model: String,
    /// Revision of the firmware.
    pub firmware: String,
    /// Bytes that one command transfers at most.
    pub max_transfer: u32,
    /// Takes dataset management.
    pub discard: bool,
    /// Takes write-zeroes.
    pub write_zeroes: bool,
    /// Has a write cache.
    pub write_cache: bool,
    /// Takes scatter-gather lists of any alignment.
    pub lists: bool,
    /// Entries of its error log, less one.
    pub errors: u8,
}

impl ControllerInfo {
    /// Reads it. `most` is what the driver transfers at most.
    #[must_use]
    pub fn parse(bytes: &[u8], most: u32) -> Self {
        let field = |at: usize, length: usize| bytes.get(at..at + length).unwrap_or_default();
        let mdts = number(bytes, 77, 1) as u32;
        // A power of two of pages; 0: no limit.
        let limit = if mdts == 0 || mdts > 19 { u32::MAX } else { 4096 << mdts };
        let oncs = number(bytes, 520, 2);
        Self {
            serial: text(field(4, 20)),
            model: text(field(24, 40)),
            firmware: text(field(64, 8)),
            max_transfer: limit.min(most),
            discard: oncs & 4 != 0,
            write_zeroes: oncs & 8 != 0,
            write_cache: number(bytes, 525, 1) & 1 != 0,
            lists: number(bytes, 536, 4) & 3 == 1,
            errors: number(bytes, 262, 1) as u8,
        }
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Sectors.
    pub sectors: u64,
    /// Bytes of a sector.
    pub sector_size: u32,
    /// Takes no writes.
    pub read_only: bool,
}

impl NamespaceInfo {
    /// Reads it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let flbas = number(bytes, 26, 1) as usize;
        // The number of formats has grown beyond 16; the further bits of the format in use are 5 and 6.
        let format = number(bytes, 128 + 4 * (flbas & 15 | flbas >> 1 & 0x30), 4);
        let power = format >> 16 & 0xff;
        if !(9..=16).contains(&power) {
            return Err("the size of its sectors makes no sense");
        }
        if format & 0xffff != 0 {
            return Err("its sectors carry metadata: format it without");
        }
        let sectors = number(bytes, 0, 8);
        if sectors == 0 || sectors > u64::MAX >> power {
            return Err("its size makes no sense");
        }
        Ok(Self {
            sectors,
            sector_size: 1 << power,
            read_only: number(bytes, 99, 1) & 1 != 0,
        })
    }
}

/// Numbers of active namespaces, in ascending order.
#[must_use]
pub fn namespaces(bytes: &[u8]) -> Vec<u32> {
    let all = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word));
    let mut found: Vec<u32> = Vec::new();
    for number in all.take_while(|number| *number != 0 && *number < u32::MAX - 1) {
        if found.len() == MAX_NAMESPACES || found.last().is_some_and(|last| *last >= number) {
            break;
        }
        found.push(number);
    }
    found
}

/// Bytes of the log page with the condition.
pub const HEALTH_LENGTH: usize = 512;

/// Reads the condition.
#[must_use]
pub fn health(bytes: &[u8]) -> DiskHealth {
    let kelvin = number(bytes, 1, 2) as i32;
    DiskHealth {
        temperature: (kelvin != 0).then(|| (kelvin - 273).clamp(-273, i16::MAX.into()) as i16),
        used_percent: Some(number(bytes, 5, 1) as u8),
        power_on_hours: Some(number(bytes, 128, 8)),
        // Bits 0, 2 and 3: spare blocks used up, unreliable, read-only.
        failing: Some(number(bytes, 0, 1) & 0x0d != 0),
    }
}

/// Warnings of the log page with the condition, by bit, in words.
pub const WARNINGS: [(u8, &str); 5] = [
    (1, "its spare space is used up: replace it soon"),
    (2, "its temperature is outside of its limits: look at its cooling"),
    (4, "it is not reliable any more: copy what is on it and replace it"),
    (8, "it takes no writes any more: copy what is on it and replace it"),
    (
        16,
        "the backup of its volatile memory has failed: a power cut may lose what was flushed",
    ),
];

/// The warnings of the log page with the condition.
#[must_use]
pub fn warnings(bytes: &[u8]) -> u8 {
    number(bytes, 0, 1) as u8
}

/// How many errors were logged in the controller's life.
#[must_use]
pub fn error_count(bytes: &[u8]) -> u64 {
    number(bytes, 176, 8)
}

/// Bytes of an entry of the error log.
pub const ERROR_LENGTH: usize = 64;

/// An entry of the error log (5.16.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedError {
    /// Which one in the controller's life, from 1 on.
    pub number: u64,
    /// Submission queue.
    pub queue: u16,
    /// Status as a completion has it.
    pub status: u16,
    /// First sector, where there is one.
    pub sector: u64,
    /// Namespace.
    pub namespace: u32,
}

/// Reads the error log; entries that are not in use are left out.
#[must_use]
pub fn errors(bytes: &[u8]) -> Vec<LoggedError> {
    let all = bytes.as_chunks::<ERROR_LENGTH>().0.iter().map(|entry| LoggedError {
        number: number(entry, 0, 8),
        queue: number(entry, 8, 2) as u16,
        // Bit 0 is the phase.
        status: number(entry, 12, 2) as u16 >> 1,
        sector: number(entry, 16, 8),
        namespace: number(entry, 24, 4) as u32,
    });
    all.filter(|error| error.number != 0).collect()
}
