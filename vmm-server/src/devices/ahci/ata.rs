//! Commands of a hard disk (ATA8-ACS, 7): what each asks for.

use super::command::{ABORTED, Command, Left};
use super::identify;
use crate::devices::virtio::block;
use alloc::vec::Vec;

/// Error register: there is no such sector; it cannot be read.
pub const NO_SECTOR: u8 = 0x10;
pub const UNREADABLE: u8 = 0x40;
/// Device register of a queued write or an EXT command: past the cache.
const PAST_CACHE: u8 = 0x80;
/// What SMART commands have in the sector, and what is there when the disk is well.
const SMART_KEY: u32 = 0xc2_4f00;

/// What is to be done for a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing more: it is done.
    Done(Left),
    /// The guest gets these bytes.
    Answer(Vec<u8>),
    /// It is refused; holds the error register.
    Refused(u8),
    /// Data is moved. Sectors are logical ones.
    Transfer {
        /// To the disk.
        write: bool,
        /// First sector.
        sector: u64,
        /// Sectors, at least one.
        count: u32,
        /// It is over when the data is safe.
        safe: bool,
    },
    /// Everything that was written is made safe.
    Flush,
    /// Ranges that are not needed any more: this many blocks of them, which the guest has.
    Trim(u16),
}

/// What the guest can change of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// A write is over before its data is safe.
    pub write_cache: bool,
}

/// Whether a command is queued.
pub const fn is_queued(code: Option<u8>) -> bool {
    matches!(code, Some(0x60 | 0x61))
}

/// Reads a command. `failed` is what the error log has to tell.
pub fn decode(command: &Command, disk: &block::Disk, serial: &str, settings: &mut Settings, failed: Option<(u8, u8, u64)>) -> Action {
    let done = Action::Done(Left::default());
    let Some(code) = command.code else { return done };
    let features = command.features as u8;
    let wide = command.sector;
    let narrow = wide & 0xff_ffff | u64::from(command.device & 0xf) << 24;
    let count = |count: u16, most: u32| if count == 0 { most } else { u32::from(count) };
    let short = count(command.count & 0xff, 256);
    let long = count(command.count, 1 << 16);
    let safe = !settings.write_cache;
    let transfer = |write: bool, sector: u64, count: u32, safe: bool| {
        if write && disk.read_only {
            return Action::Refused(ABORTED);
        }
        match sector.checked_add(count.into()) {
            Some(end) if end <= identify::sectors(disk) => Action::Transfer {
                write,
                sector,
                count,
                safe: write && safe,
            },
            _ => Action::Refused(NO_SECTOR),
        }
    };
    match code {
        // READ SECTORS, MULTIPLE, DMA, and the same of 48 bits.
        0x20 | 0xc4 | 0xc8 => transfer(false, narrow, short, false),
        0x24 | 0x25 | 0x29 => transfer(false, wide, long, false),
        // WRITE likewise; those past the cache.
        0x30 | 0xc5 | 0xca => transfer(true, narrow, short, safe),
        0x34 | 0x35 | 0x39 => transfer(true, wide, long, safe),
        0x3d | 0xce => transfer(true, wide, long, true),
        // READ, WRITE FPDMA QUEUED: the count stands where others have features.
        0x60 => transfer(false, wide, count(command.features, 1 << 16), false),
        0x61 => transfer(
            true,
            wide,
            count(command.features, 1 << 16),
            safe || command.device & PAST_CACHE != 0,
        ),
        // READ VERIFY: that there are such sectors.
        0x40 | 0x42 => {
            let (sector, count) = if code == 0x40 { (narrow, short) } else { (wide, long) };
            match transfer(false, sector, count, false) {
                Action::Transfer { .. } => done,
                refused => refused,
            }
        }
        // DATA SET MANAGEMENT: TRIM, which a disk has that says so.
        0x06 if features & 1 != 0 && disk.discard && !disk.read_only && (1..=identify::TRIM_BLOCKS).contains(&command.count) => {
            Action::Trim(command.count)
        }
        // FLUSH CACHE (EXT); STANDBY and SLEEP, before which it is done.
        0xe7 | 0xea | 0xe0 | 0xe2 | 0xe6 => Action::Flush,
        // IDLE; RECALIBRATE, SEEK; INITIALIZE DEVICE PARAMETERS, SET MULTIPLE MODE.
        0xe1 | 0xe3 | 0x10 | 0x70 | 0x91 | 0xc6 => done,
        // CHECK POWER MODE: active.
        0xe5 => Action::Done(Left { sector: 0, count: 0xff }),
        0xec => Action::Answer(identify::device(disk, serial, settings.write_cache)),
        0xef => set_features(features, settings),
        // READ LOG EXT, and by DMA: the first page.
        0x2f | 0x47 if wide & 0xff00 == 0 && command.count == 1 => {
            identify::log(wide as u8, failed).map_or(Action::Refused(ABORTED), Action::Answer)
        }
        0xb0 if wide as u32 & 0xff_ff00 == SMART_KEY => match features {
            // READ DATA, READ THRESHOLDS; what switches it on, off and saves; RETURN STATUS: well.
            0xd0 | 0xd1 => Action::Answer(identify::smart()),
            0xd2 | 0xd3 | 0xd8 | 0xd9 => done,
            0xda => Action::Done(Left {
                sector: SMART_KEY,
                count: 0,
            }),
            _ => Action::Refused(ABORTED),
        },
        _ => Action::Refused(ABORTED),
    }
}

/// SET FEATURES (7.45).
const fn set_features(feature: u8, settings: &mut Settings) -> Action {
    match feature {
        0x02 => settings.write_cache = true,
        0x82 => settings.write_cache = false,
        // Mode of transfer; look-ahead; defaults at a reset of the link.
        0x03 | 0x55 | 0xaa | 0x66 | 0xcc => (),
        _ => return Action::Refused(ABORTED),
    }
    Action::Done(Left { sector: 0, count: 0 })
}

/// The ranges of a block for TRIM: first sector and sectors. Those of no length say nothing.
pub fn ranges(block: &[u8]) -> impl Iterator<Item = (u64, u32)> + '_ {
    block.as_chunks::<8>().0.iter().filter_map(|entry| {
        let entry = u64::from_le_bytes(*entry);
        let (sector, count) = (entry & 0xffff_ffff_ffff, (entry >> 48) as u32);
        (count > 0).then_some((sector, count))
    })
}
