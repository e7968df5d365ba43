//! A command in the guest's memory: its header, its FIS, its packet, where its data goes (AHCI 1.3.1, 4.2), and what comes back (4.2.1).

use crate::memory::GuestMemory;
use alloc::vec::Vec;

/// Status: device ready, seek complete.
pub const READY: u8 = 0x50;
/// Status: an error.
pub const ERROR: u8 = 1;
/// Error: the command was aborted.
pub const ABORTED: u8 = 4;
/// Bytes of a sector of a CD.
pub const SECTOR: u64 = 2048;
/// Most entries of a table that are looked at.
const ENTRIES: usize = 1024;
/// A register FIS from the host.
const FROM_HOST: u8 = 0x27;
/// It holds a command, and not the control register.
const IS_COMMAND: u8 = 0x80;

/// What the drive answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done, with these bytes.
    Data(Vec<u8>),
    /// Sectors are to be read from the medium.
    Read {
        /// The first.
        sector: u32,
        /// How many.
        count: u32,
    },
    /// It failed; holds the error register.
    Failed(u8),
}

impl Reply {
    /// Failed, with this in the error register.
    pub const fn failed(error: u8) -> Self {
        Self::Failed(error)
    }

    /// Status and error register.
    pub const fn registers(&self) -> (u8, u8) {
        match self {
            Self::Failed(error) => (READY | ERROR, *error),
            _ => (READY, 0),
        }
    }
}

/// A command.
#[derive(Clone, Debug)]
pub struct Command {
    /// Code, or `None` if it only writes the control register.
    pub code: Option<u8>,
    /// The packet of a packet command.
    pub packet: [u8; 16],
    /// Features, of 16 bits where the command has them.
    pub features: u16,
    /// Sector, of 48 bits where the command has them.
    pub sector: u64,
    /// Device register.
    pub device: u8,
    /// Count.
    pub count: u16,
    table: u64,
    entries: usize,
}

/// Something to be read from the medium into the guest's RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Where on the medium it begins, in bytes.
    pub offset: u64,
    /// Where it goes: address and bytes. All of it is RAM.
    pub pieces: Vec<(u64, u64)>,
    pub(super) slot: u8,
    pub(super) epoch: u32,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is where it belongs.
    Done,
    /// It could not be read.
    Failed,
}

impl Job {
    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u32 {
        let all: u64 = self.pieces.iter().map(|(_, length)| *length).sum();
        u32::try_from(all).unwrap_or(u32::MAX)
    }
}

const fn header(list: u32, slot: u8) -> u64 {
    list as u64 + 32 * slot as u64
}

impl Command {
    /// Reads the command in a slot. `None` where it is not in RAM.
    pub fn read(memory: &GuestMemory, list: u32, slot: u8) -> Option<Self> {
        let header = header(list, slot);
        let word = memory.read_u32(header)?;
        let table = u64::from(memory.read_u32(header + 8)? & !0x7f);
        let fis = memory.read::<64>(table)?;
        Some(Self {
            code: (fis[0] == FROM_HOST && fis[1] & IS_COMMAND != 0).then_some(fis[2]),
            packet: memory.read(table + 0x40)?,
            features: u16::from_le_bytes([fis[3], fis[11]]),
            sector: u64::from_le_bytes([fis[4], fis[5], fis[6], fis[8], fis[9], fis[10], 0, 0]),
            device: fis[7],
            count: u16::from_le_bytes([fis[12], fis[13]]),
            table,
            entries: (word >> 16) as usize,
        })
    }

    /// Where up to `most` bytes go, or come from: address and bytes, all of it RAM.
    pub fn pieces(&self, memory: &GuestMemory, most: u64) -> Option<Vec<(u64, u64)>> {
        let mut pieces = Vec::new();
        let mut left = most;
        for index in 0..self.entries.min(ENTRIES) as u64 {
            if left == 0 {
                break;
            }
            let entry = self.table + 0x80 + 16 * index;
            let address = u64::from(memory.read_u32(entry)?) | u64::from(memory.read_u32(entry + 4)?) << 32;
            let length = (u64::from(memory.read_u32(entry + 12)? & 0x3f_ffff) + 1).min(left);
            memory.contains(address, length).then_some(())?;
            left -= length;
            match pieces.last_mut() {
                Some((start, before)) if *start + *before == address => *before += length,
                _ => pieces.push((address, length)),
            }
        }
        Some(pieces)
    }

    /// Reads `bytes` bytes from where they come. `None`: there are fewer.
    pub fn read_all(&self, memory: &GuestMemory, bytes: u64) -> Option<Vec<u8>> {
        let mut data = Vec::new();
        for (address, length) in self.pieces(memory, bytes)? {
            let start = data.len();
            data.resize(start + length as usize, 0);
            memory.read_slice(address, &mut data[start..])?;
        }
        (data.len() as u64 == bytes).then_some(data)
    }

    /// What is to be done for a command that reads.
    pub fn job(&self, memory: &GuestMemory, slot: u8, epoch: u32, sector: u32, count: u32) -> Option<Job> {
        Some(Job {
            offset: u64::from(sector) * SECTOR,
            pieces: self.pieces(memory, u64::from(count) * SECTOR)?,
            slot,
            epoch,
        })
    }

    /// Copies an answer to where it goes. Returns how much of it there was room for.
    pub fn write(&self, memory: &GuestMemory, data: &[u8]) -> u32 {
        let Some(pieces) = self.pieces(memory, data.len() as u64) else {
            return 0;
        };
        let mut done = 0;
        for (address, length) in pieces {
            let part = &data[done..done + length as usize];
            // It was RAM a moment ago, and stays so.
            let _ = memory.write_slice(address, part);
            done += part.len();
        }
        done as u32
    }
}

/// Writes how many bytes were transferred.
pub fn answer(memory: &GuestMemory, list: u32, slot: u8, bytes: u32) {
    // A list outside of RAM is the driver's own mistake.
    let _ = memory.write_u32(header(list, slot) + 4, bytes);
}

/// Registers of a device beside status and error, as the end of a command leaves them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Sector, of 24 bits.
    pub sector: u32,
    /// Count.
    pub count: u8,
}

impl Left {
    /// Of a drive that takes packets: its signature, and that the command is over.
    pub const PACKETS: Self = Self {
        sector: 0xeb_1401,
        count: 3,
    };
}

/// Delivers the FIS that tells of the end of a command: that of the registers, and what a driver of PIO commands looks at.
pub fn receive(memory: &GuestMemory, area: u32, status: u8, error: u8, left: Left) {
    let mut fis = [0; 20];
    fis[..4].copy_from_slice(&[0x34, 0x40, status, error]);
    fis[4..7].copy_from_slice(&left.sector.to_le_bytes()[..3]);
    fis[12] = left.count;
    let mut pio = fis;
    pio[0] = 0x5f;
    pio[15] = status;
    let area = u64::from(area);
    // As above.
    let _ = memory.write_slice(area + 0x20, &pio);
    let _ = memory.write_slice(area + 0x40, &fis);
}

/// Delivers the FIS that tells of the end of queued commands: a bit for each.
pub fn receive_bits(memory: &GuestMemory, area: u32, status: u8, error: u8, ended: u32) {
    let [a, b, c, d] = ended.to_le_bytes();
    // As above; the bits that say whether the device is busy are not in it.
    let _ = memory.write_slice(u64::from(area) + 0x58, &[0xa1, 0x40, status & 0x77, error, a, b, c, d]);
}
