//! A CD-ROM drive (ATA/ATAPI-8 ACS, 4.3; MMC-6; SPC-4): what it says of itself and of its medium. What is on the medium others read.

use super::command::{ABORTED, Command, Reply, SECTOR};
use super::identify::put_text;
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Sense keys and additional codes.
const NOT_READY: u8 = 2;
const MEDIUM_ERROR: u8 = 3;
const ILLEGAL_REQUEST: u8 = 5;
const UNIT_ATTENTION: u8 = 6;
const NO_MEDIUM: u8 = 0x3a;
const MEDIUM_CHANGED: u8 = 0x28;
const LOCKED: u8 = 0x53;
const UNREADABLE: u8 = 0x11;
const BAD_COMMAND: u8 = 0x20;
const OUT_OF_RANGE: u8 = 0x21;
const BAD_FIELD: u8 = 0x24;
/// Most sectors of one command: 32 MiB.
const MOST: u32 = 16 << 10;
/// The profile of a CD-ROM.
const CD_ROM: u16 = 8;

/// The drive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Drive {
    /// Sectors of the medium.
    sectors: Option<u32>,
    /// The guest opened the tray, on which there are that many sectors.
    tray: Option<u32>,
    /// The guest does not want it to be opened.
    locked: bool,
    changed: bool,
    sense: (u8, u8),
}

impl Drive {
    /// Whether the same number of sectors is in both.
    pub(super) fn has_same_medium(&self, other: &Self) -> bool {
        self.sectors == other.sectors && self.tray == other.tray
    }
}

const fn sectors(bytes: Option<u64>) -> Option<u32> {
    match bytes {
        // A number of 32 bits is all that the commands have.
        Some(bytes) => {
            let sectors = bytes.div_ceil(SECTOR);
            Some(if sectors > u32::MAX as u64 { u32::MAX } else { sectors as u32 })
        }
        None => None,
    }
}

fn word(bytes: &[u8; 16], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn long(bytes: &[u8; 16], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

impl Drive {
    /// A drive with a medium of that many bytes.
    pub const fn new(bytes: Option<u64>) -> Self {
        Self {
            sectors: sectors(bytes),
            tray: None,
            locked: false,
            changed: false,
            sense: (0, 0),
        }
    }

    /// The drive after power-on, its tray closed.
    pub const fn reset(self) -> Self {
        Self {
            sectors: match self.tray {
                Some(sectors) => Some(sectors),
                None => self.sectors,
            },
            tray: None,
            locked: false,
            changed: false,
            sense: (0, 0),
        }
    }

    /// Another medium, whatever the guest wants.
    pub const fn change(&mut self, bytes: Option<u64>) {
        self.sectors = sectors(bytes);
        self.tray = None;
        self.changed = true;
    }

    /// Bytes of the medium that can be read, and whether it is locked.
    pub fn medium(&self) -> (Option<u64>, bool) {
        (self.sectors.map(|sectors| u64::from(sectors) * SECTOR), self.locked)
    }

    /// START STOP UNIT (MMC-6, 6.43): opens or closes the tray.
    const fn move_tray(&mut self, how: u8) -> Reply {
        match how & 3 {
            2 if self.locked => return self.fail(ILLEGAL_REQUEST, LOCKED),
            2 if self.sectors.is_some() => self.tray = self.sectors.take(),
            3 if self.tray.is_some() => {
                self.sectors = self.tray.take();
                self.changed = true;
            }
            _ => (),
        }
        Reply::Data(Vec::new())
    }

    const fn fail(&mut self, key: u8, code: u8) -> Reply {
        self.sense = (key, code);
        Reply::failed(key << 4 | ABORTED)
    }

    /// The medium could not be read.
    pub const fn unreadable(&mut self) -> Reply {
        self.fail(MEDIUM_ERROR, UNREADABLE)
    }

    /// Does what a command asks for.
    pub fn execute(&mut self, command: &Command) -> Reply {
        match command.code {
            // The control register: a reset is done when it is over, device reset, idle, standby, features.
            None | Some(0x08 | 0xe0..=0xe3 | 0xef) => Reply::Data(Vec::new()),
            Some(0xa1) => Reply::Data(identity()),
            Some(0xa0) => self.packet(&command.packet),
            // Among them that of a disk, which tells a driver that it is none.
            Some(_) => Reply::failed(ABORTED),
        }
    }

    fn packet(&mut self, packet: &[u8; 16]) -> Reply {
        // What came of the medium is told before anything but these (SPC-4, 5.14).
        if !matches!(packet[0], 0x03 | 0x12 | 0x46 | 0x4a) && core::mem::take(&mut self.changed) {
            return self.fail(UNIT_ATTENTION, MEDIUM_CHANGED);
        }
        let asked = |at| usize::from(word(packet, at));
        match packet[0] {
            // TEST UNIT READY
            0x00 => self.with_medium(|_| Reply::Data(Vec::new())),
            // REQUEST SENSE
            0x03 => {
                let (key, code) = core::mem::take(&mut self.sense);
                let mut data = vec![0; 18];
                (data[0], data[2], data[7], data[12]) = (0x70, key, 10, code);
                cut(data, packet[4].into())
            }
            // INQUIRY; there are no pages.
            0x12 if packet[1] & 1 != 0 => self.fail(ILLEGAL_REQUEST, BAD_FIELD),
            0x12 => {
                let mut data = vec![0; 36];
                data[..5].copy_from_slice(&[5, 0x80, 5, 0x32, 31]);
                data[8..36].copy_from_slice(b"TESSERA VIRTUAL CD-ROM  1.0 ");
                cut(data, packet[4].into())
            }
            0x1b => self.move_tray(packet[4]),
            // PREVENT ALLOW MEDIUM REMOVAL
            0x1e => {
                self.locked = packet[4] & 1 != 0;
                Reply::Data(Vec::new())
            }
            // SET CD SPEED, SYNCHRONIZE CACHE
            0x35 | 0xbb => Reply::Data(Vec::new()),
            // READ CAPACITY
            0x25 => self.with_medium(|sectors| {
                let mut data = Vec::from(sectors.saturating_sub(1).to_be_bytes());
                data.extend_from_slice(&(SECTOR as u32).to_be_bytes());
                Reply::Data(data)
            }),
            // READ(10), READ(12)
            0x28 => self.read(long(packet, 2), word(packet, 7).into()),
            0xa8 => self.read(long(packet, 2), long(packet, 6)),
            // READ TOC/PMA/ATIP
            0x43 => self.contents(packet),
            // GET CONFIGURATION
            0x46 => {
                let current = if self.sectors.is_some() { CD_ROM } else { 0 };
                let mut data = vec![0, 0, 0, 0, 0, 0];
                data.extend_from_slice(&current.to_be_bytes());
                // The list of profiles; removable medium.
                data.extend_from_slice(&[0, 0, 3, 4, 0, 8, u8::from(current != 0), 0]);
                data.extend_from_slice(&[0, 3, 3, 4, 0x29, 0, 0, 0]);
                data[3] = data.len() as u8 - 4;
                cut(data, asked(7))
            }
            // GET EVENT STATUS NOTIFICATION: media
            0x4a if packet[1] & 1 == 0 => self.fail(ILLEGAL_REQUEST, BAD_FIELD),
            0x4a => {
                let event = if self.changed && self.sectors.is_some() { 2 } else { 0 };
                cut(
                    vec![0, 6, 4, 0x10, event, if self.sectors.is_some() { 2 } else { 0 }, 0, 0],
                    asked(7),
                )
            }
            // READ DISC INFORMATION: one complete session
            0x51 => self.with_medium(|_| {
                let mut data = vec![0; 34];
                data[..9].copy_from_slice(&[0, 32, 0x0e, 1, 1, 1, 1, 0x20, 0]);
                cut(data, asked(7))
            }),
            // MODE SENSE(10): capabilities
            0x5a if packet[2] & 0x3f == 0x2a || packet[2] & 0x3f == 0x3f => {
                let mut data = vec![0; 8 + 22];
                data[1] = 8 + 20;
                data[2] = if self.sectors.is_some() { 1 } else { 0x70 };
                // Reads no more than CD-ROMs; a tray that can be locked and opens.
                data[8..16].copy_from_slice(&[0x2a, 20, 0, 0, 0, 0, 0x29, 0]);
                cut(data, asked(7))
            }
            0x5a => self.fail(ILLEGAL_REQUEST, BAD_FIELD),
            _ => self.fail(ILLEGAL_REQUEST, BAD_COMMAND),
        }
    }

    fn with_medium(&mut self, answer: impl FnOnce(u32) -> Reply) -> Reply {
        match self.sectors {
            Some(sectors) => answer(sectors),
            None => self.fail(NOT_READY, NO_MEDIUM),
        }
    }

    fn read(&mut self, sector: u32, count: u32) -> Reply {
        match self.sectors {
            None => self.fail(NOT_READY, NO_MEDIUM),
            Some(sectors) if sector.checked_add(count).is_none_or(|end| end > sectors) => self.fail(ILLEGAL_REQUEST, OUT_OF_RANGE),
            Some(_) if count > MOST => self.fail(ILLEGAL_REQUEST, BAD_FIELD),
            Some(_) if count == 0 => Reply::Data(Vec::new()),
            Some(_) => Reply::Read { sector, count },
        }
    }

    /// One session with one track.
    fn contents(&mut self, packet: &[u8; 16]) -> Reply {
        let (minutes, format, first) = (packet[1] & 2 != 0, packet[2] & 0xf | packet[9] >> 6, packet[6]);
        let place = |sector: u32| {
            if minutes {
                let frame = sector.saturating_add(150);
                [0, (frame / 75 / 60).min(255) as u8, (frame / 75 % 60) as u8, (frame % 75) as u8]
            } else {
                sector.to_be_bytes()
            }
        };
        let Some(sectors) = self.sectors else {
            return self.fail(NOT_READY, NO_MEDIUM);
        };
        let mut data = vec![0, 0, 1, 1];
        let mut entry = |track: u8, sector: u32| {
            data.extend_from_slice(&[0, 0x14, track, 0]);
            data.extend_from_slice(&place(sector));
        };
        match format {
            0 if first > 1 && first != 0xaa => return self.fail(ILLEGAL_REQUEST, BAD_FIELD),
            0 => {
                if first <= 1 {
                    entry(1, 0);
                }
                entry(0xaa, sectors);
            }
            1 => entry(1, 0),
            _ => return self.fail(ILLEGAL_REQUEST, BAD_FIELD),
        }
        data[1] = data.len() as u8 - 2;
        cut(data, usize::from(word(packet, 7)))
    }
}

/// No more than the host has room for.
fn cut(mut data: Vec<u8>, most: usize) -> Reply {
    data.truncate(most);
    Reply::Data(data)
}

/// What IDENTIFY PACKET DEVICE answers (ATA8-ACS, 7.17).
fn identity() -> Vec<u8> {
    let mut words = [0u16; 256];
    // A removable CD-ROM that takes packets of 12 bytes.
    words[0] = 0x85c0;
    put_text(&mut words[10..20], "CD0");
    put_text(&mut words[23..27], "1.0");
    put_text(&mut words[27..47], "TESSERA CD-ROM");
    // DMA and logical addresses; which words are valid; modes; times in nanoseconds.
    words[49] = 1 << 9 | 1 << 8;
    words[53] = 7;
    words[63] = 7;
    words[64] = 3;
    words[65..69].copy_from_slice(&[120, 120, 120, 120]);
    // SATA 1.5 Gbit/s; ATA/ATAPI-5 to 7; ultra DMA 5 is selected.
    words[76] = 2;
    words[80] = 0xf0;
    words[82..85].copy_from_slice(&[1 << 4 | 1 << 9, 1 << 14, 1 << 14]);
    words[85..88].copy_from_slice(&[1 << 4 | 1 << 9, 0, 1 << 14]);
    words[88] = 0x203f;
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
