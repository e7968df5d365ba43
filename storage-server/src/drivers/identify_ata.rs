//! What ATA devices tell of themselves (ACS-3, 7.12.7) and of their condition (SMART, ACS-2, 7.52).

use crate::drivers::text;
use alloc::{string::String, vec::Vec};
use tessera_proto::storage::DiskHealth;

/// Bytes of the identify data.
pub const LENGTH: usize = 512;

/// What a disk tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AtaInfo {
    /// Model.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// Revision of the firmware.
    pub firmware: String,
    /// Sectors.
    pub sectors: u64,
    /// Bytes of a sector.
    pub sector_size: u32,
    /// Addresses have 48 bits.
    pub wide: bool,
    /// Takes DMA.
    pub dma: bool,
    /// Commands that it queues; 0: none.
    pub queued: u32,
    /// Takes TRIM.
    pub trim: bool,
    /// Blocks of ranges that one TRIM has at most.
    pub trim_blocks: u32,
    /// Its write cache is on.
    pub write_cache: bool,
    /// Tells its condition.
    pub smart: bool,
}

/// Text in words, the first character of each in its high half.
fn words(bytes: &[u8], first: usize, count: usize) -> String {
    let part = bytes.get(first * 2..(first + count) * 2).unwrap_or_default();
    let swapped: Vec<u8> = part.as_chunks::<2>().0.iter().flat_map(|pair| [pair[1], pair[0]]).collect();
    text(&swapped)
}

impl AtaInfo {
    /// Reads identify data.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let word = |at: usize| {
            bytes
                .get(at * 2..at * 2 + 2)
                .map_or(0, |pair| u16::from_le_bytes([pair[0], pair[1]]))
        };
        let double = |at: usize| u64::from(word(at)) | u64::from(word(at + 1)) << 16;
        if word(0) == 0xffff || bytes.len() < LENGTH {
            return Err("its identification makes no sense");
        }
        // Words 83 and 87 are valid if bit 14 is set and bit 15 is not.
        let valid = |at: usize| word(at) >> 14 == 1;
        let wide = valid(83) && word(83) & 1 << 10 != 0;
        let sectors = if wide { double(100) | double(102) << 32 } else { double(60) };
        let long = valid(106) && word(106) & 1 << 12 != 0;
        let sector_size = if long { double(117).saturating_mul(2) } else { 512 };
        if !sector_size.is_power_of_two() || !(512..=4096).contains(&sector_size) {
            return Err("the size of its sectors makes no sense");
        }
        if sectors == 0 || sectors > 1 << 48 {
            return Err("its size makes no sense");
        }
        Ok(Self {
            model: words(bytes, 27, 20),
            serial: words(bytes, 10, 10),
            firmware: words(bytes, 23, 4),
            sectors,
            sector_size: sector_size as u32,
            wide,
            dma: word(49) & 1 << 8 != 0,
            queued: if word(76) & 1 << 8 != 0 && word(76) != 0xffff {
                u32::from(word(75) & 31) + 1
            } else {
                0
            },
            trim: word(169) & 1 != 0,
            trim_blocks: u32::from(word(105)).max(1),
            write_cache: word(85) & 1 << 5 != 0,
            smart: word(82) & 1 != 0 && word(85) & 1 != 0,
        })
    }
}

/// Reads SMART data: attributes of 12 bytes from byte 2 on; the raw value is behind identity, flags, value and worst.
#[must_use]
pub fn health(bytes: &[u8]) -> DiskHealth {
    let mut health = DiskHealth::default();
    for attribute in bytes.get(2..362).unwrap_or_default().chunks_exact(12) {
        let raw = attribute[5..11]
            .iter()
            .rev()
            .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        match attribute[0] {
            9 => health.power_on_hours = Some(raw & 0xffff_ffff),
            // The lowest byte; the others may hold extremes.
            194 => health.temperature = Some(i16::from(raw as i8)),
            _ => {}
        }
    }
    health
}
