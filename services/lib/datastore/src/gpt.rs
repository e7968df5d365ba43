//! Reading GUID partition tables (UEFI 2.10, section 5.3). Writing them is the host tools' business.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use tessera_block::{BlockDevice, IoError};

use crate::bytes::{put, u16_at, u32_at, u64_at};

/// The type of partitions that hold a datastore, 54657373-6572-4461-8174-6173746f7265, as it stands in the table.
pub const DATASTORE_TYPE: [u8; 16] = [
    0x73, 0x73, 0x65, 0x54, 0x72, 0x65, 0x61, 0x44, 0x81, 0x74, 0x61, 0x73, 0x74, 0x6f, 0x72, 0x65,
];
/// Entries of a table that are looked at; the usual number is 128.
const MAX_ENTRIES: u32 = 1024;
const HEADER: usize = 92;
const ENTRY: usize = 128;

static IEEE: crc::Crc<u32, crc::Table<1>> = crc::Crc::<u32, crc::Table<1>>::new(&crc::CRC_32_ISO_HDLC);

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u32,
    /// What it is for, as it stands in the table.
    pub kind: [u8; 16],
    /// Tells it apart, as it stands in the table.
    pub id: [u8; 16],
    /// First sector.
    pub first: u64,
    /// How many sectors.
    pub sectors: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// What people call it.
    pub name: String,
}

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Tells the disk apart, as it stands in the table.
    pub disk: [u8; 16],
    /// The partitions by number.
    pub partitions: Vec<Entry>,
    /// The first copy is damaged, and this is the second.
    pub from_backup: bool,
}

/// Why there is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GptError {
    /// The device failed.
    Io(IoError),
    /// There is none.
    Missing,
    /// There was one, and neither copy is whole.
    Damaged(&'static str),
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "reading the partition table: {error}"),
            Self::Missing => write!(f, "there is no GUID partition table: make one, or use the whole device"),
            Self::Damaged(what) => write!(
                f,
                "both copies of the partition table are damaged ({what}): mend it with a partitioning tool such as `sgdisk --verify`"
            ),
        }
    }
}

impl core::error::Error for GptError {}

/// Reads the table of a device, the second copy where the first is damaged.
///
/// # Errors
/// See [`GptError`].
pub async fn read<D: BlockDevice>(device: &D) -> Result<Table, GptError> {
    let sectors = device.geometry().sectors;
    let first = read_copy(device, 1).await;
    match first {
        Ok(_) | Err(GptError::Io(IoError::Gone)) => first,
        Err(problem) => match read_copy(device, sectors.saturating_sub(1)).await {
            Ok(table) => Ok(Table {
                from_backup: true,
                ..table
            }),
            Err(GptError::Missing) => Err(problem),
            Err(other) => Err(if problem == GptError::Missing { other } else { problem }),
        },
    }
}

async fn read_copy<D: BlockDevice>(device: &D, at: u64) -> Result<Table, GptError> {
    let geometry = device.geometry();
    let size = geometry.sector_size as usize;
    if size < 512 || at == 0 || geometry.check(at, 1).is_err() {
        return Err(GptError::Missing);
    }
    let mut header = vec![0; size];
    device.read(at, &mut header).await.map_err(GptError::Io)?;
    if &header[..8] != b"EFI PART" {
        return Err(GptError::Missing);
    }
    let length = u32_at(&header, 12) as usize;
    if !(HEADER..=size).contains(&length) {
        return Err(GptError::Damaged("the header's length"));
    }
    let crc = u32_at(&header, 16);
    put(&mut header, 16, &[0; 4]);
    if IEEE.checksum(&header[..length]) != crc {
        return Err(GptError::Damaged("the header's checksum"));
    }
    let (usable, last_usable) = (u64_at(&header, 40), u64_at(&header, 48));
    let (entries, count, entry) = (u64_at(&header, 72), u32_at(&header, 80), u32_at(&header, 84) as usize);
    if u64_at(&header, 24) != at || usable > last_usable || last_usable >= geometry.sectors {
        return Err(GptError::Damaged("the header's sectors"));
    }
    if count > MAX_ENTRIES || !(ENTRY..=4096).contains(&entry) || !entry.is_power_of_two() {
        return Err(GptError::Damaged("the number or size of entries"));
    }
    let bytes = count as usize * entry;
    let mut list = vec![0; bytes.next_multiple_of(size)];
    geometry
        .check_buffer(entries, list.len())
        .map_err(|_| GptError::Damaged("the place of the entries"))?;
    device.read(entries, &mut list).await.map_err(GptError::Io)?;
    if IEEE.checksum(&list[..bytes]) != u32_at(&header, 88) {
        return Err(GptError::Damaged("the entries' checksum"));
    }
    let mut partitions: Vec<Entry> = Vec::new();
    for (number, bytes) in list[..bytes].chunks_exact(entry).enumerate() {
        if bytes[..16] == [0; 16] {
            continue;
        }
        let (first, last) = (u64_at(bytes, 32), u64_at(bytes, 40));
        if first > last || first < usable || last > last_usable {
            return Err(GptError::Damaged("a partition's sectors"));
        }
        if partitions
            .iter()
            .any(|other| first < other.first + other.sectors && other.first <= last)
        {
            return Err(GptError::Damaged("partitions that overlap"));
        }
        let name = (0..36).map(|place| u16_at(bytes, 56 + 2 * place)).take_while(|unit| *unit != 0);
        partitions.push(Entry {
            number: number as u32 + 1,
            kind: array(bytes, 0),
            id: array(bytes, 16),
            first,
            sectors: last - first + 1,
            attributes: u64_at(bytes, 48),
            name: char::decode_utf16(name)
                .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect(),
        });
    }
    Ok(Table {
        disk: array(&header, 56),
        partitions,
        from_backup: false,
    })
}

fn array(bytes: &[u8], at: usize) -> [u8; 16] {
    core::array::from_fn(|place| bytes[at + place])
}
