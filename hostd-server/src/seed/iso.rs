//! A small ISO 9660 image (ECMA-119) with some files in its root, whose names Rock Ridge (IEEE P1282) has as they are.

use alloc::{string::String, vec, vec::Vec};

/// Bytes of a sector.
pub const SECTOR: usize = 2048;
/// Most files: their records fit into one sector.
pub const MOST: usize = 8;
/// Where things are: descriptors, tables of folders, the root, files.
const DESCRIPTOR: usize = 16;
const LITTLE_TABLE: u32 = 18;
const BIG_TABLE: u32 = 19;
const ROOT: u32 = 20;
const FILES: u32 = 21;
/// Bytes of a table: the root alone.
const TABLE: u32 = 10;
/// Flag of a record: a folder.
const FOLDER: u8 = 2;
/// Modes (POSIX): a folder and a file that everybody can read.
const FOLDER_MODE: u32 = 0o040_555;
const FILE_MODE: u32 = 0o100_444;

/// A file: the name that ISO 9660 allows (8.3, capitals), its own name, its bytes.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Such as `USERDATA.`.
    pub short: &'a str,
    /// Such as `user-data`.
    pub name: &'a str,
    /// What is in it.
    pub data: &'a [u8],
}

/// A number in both byte orders (ECMA-119, 7.3.3).
fn both(value: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&value.to_le_bytes());
    bytes[4..].copy_from_slice(&value.to_be_bytes());
    bytes
}

/// The same with 16 bits (7.2.3).
fn both_short(value: u16) -> [u8; 4] {
    let [a, b] = value.to_le_bytes();
    [a, b, b, a]
}

/// Mode of a file or folder (IEEE P1282, 4.1.1).
fn mode(value: u32) -> Vec<u8> {
    let mut entry = vec![b'P', b'X', 36, 1];
    entry.extend_from_slice(&both(value));
    entry.extend_from_slice(&both(1));
    entry.extend_from_slice(&[0; 16]);
    entry
}

/// A record of a folder (ECMA-119, 9.1).
fn record(name: &[u8], sector: u32, length: u32, flags: u8, extensions: &[u8]) -> Vec<u8> {
    let padding = usize::from(name.len().is_multiple_of(2));
    let unpadded = 33 + name.len() + padding + extensions.len();
    let bytes = unpadded + unpadded % 2;
    let mut record = vec![bytes as u8, 0];
    record.extend_from_slice(&both(sector));
    record.extend_from_slice(&both(length));
    // When it was written is not said.
    record.extend_from_slice(&[0; 7]);
    record.extend_from_slice(&[flags, 0, 0]);
    record.extend_from_slice(&both_short(1));
    record.push(name.len() as u8);
    record.extend_from_slice(name);
    record.resize(33 + name.len() + padding, 0);
    record.extend_from_slice(extensions);
    record.resize(bytes, 0);
    record
}

/// The root's records.
fn root(files: &[File<'_>]) -> Option<Vec<u8>> {
    // That there are extensions, and which (SUSP 5.3, 5.5).
    let mut extensions = vec![b'S', b'P', 7, 1, 0xbe, 0xef, 0];
    extensions.extend_from_slice(b"ER\x12\x01\x0a\0\0\x01RRIP_1991A");
    extensions.extend_from_slice(&mode(FOLDER_MODE));
    let mut records = record(&[0], ROOT, SECTOR as u32, FOLDER, &extensions);
    records.extend(record(&[1], ROOT, SECTOR as u32, FOLDER, &mode(FOLDER_MODE)));
    let mut sector = FILES;
    for file in files {
        let mut extensions = mode(FILE_MODE);
        let length = u8::try_from(5 + file.name.len()).ok().filter(|length| *length < 64)?;
        extensions.extend_from_slice(&[b'N', b'M', length, 1, 0]);
        extensions.extend_from_slice(file.name.as_bytes());
        let mut short = String::from(file.short);
        short.push_str(";1");
        let length = u32::try_from(file.data.len()).ok()?;
        records.extend(record(short.as_bytes(), sector, length, 0, &extensions));
        sector += length.div_ceil(SECTOR as u32);
    }
    (records.len() <= SECTOR && files.len() <= MOST).then_some(records)
}

/// The primary volume descriptor (ECMA-119, 8.4).
fn descriptor(label: &str, sectors: u32) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x01CD001\x01");
    // Texts are padded with spaces.
    put(8, &[b' '; 64]);
    put(40, label.as_bytes());
    put(80, &both(sectors));
    for (at, value) in [(120, 1), (124, 1), (128, SECTOR as u16)] {
        put(at, &both_short(value));
    }
    put(132, &both(TABLE));
    put(140, &LITTLE_TABLE.to_le_bytes());
    put(148, &BIG_TABLE.to_be_bytes());
    put(156, &record(&[0], ROOT, SECTOR as u32, FOLDER, &[]));
    put(190, &[b' '; 623]);
    for at in [813, 830, 847, 864] {
        put(at, b"0000000000000000\0");
    }
    put(881, &[1]);
    sector
}

/// The image; `None`: it would hold too much, or a name is too long. Files are in the order of their short names.
#[must_use]
pub fn image(label: &str, files: &[File<'_>]) -> Option<Vec<u8>> {
    if label.len() > 32 || !files.is_sorted_by_key(|file| file.short) {
        return None;
    }
    let records = root(files)?;
    let mut image = vec![0; FILES as usize * SECTOR];
    for file in files {
        image.extend_from_slice(file.data);
        image.resize(image.len().next_multiple_of(SECTOR), 0);
    }
    let mut put = |sector: usize, bytes: &[u8]| image[sector * SECTOR..][..bytes.len()].copy_from_slice(bytes);
    put(DESCRIPTOR + 1, b"\xffCD001\x01");
    let mut table = vec![1, 0];
    table.extend_from_slice(&ROOT.to_le_bytes());
    table.extend_from_slice(&[1, 0, 0, 0]);
    put(LITTLE_TABLE as usize, &table);
    let mut table = vec![1, 0];
    table.extend_from_slice(&ROOT.to_be_bytes());
    table.extend_from_slice(&[0, 1, 0, 0]);
    put(BIG_TABLE as usize, &table);
    put(ROOT as usize, &records);
    let sectors = u32::try_from(image.len() / SECTOR).ok()?;
    image[DESCRIPTOR * SECTOR..][..SECTOR].copy_from_slice(&descriptor(label, sectors));
    Some(image)
}

#[cfg(test)]
#[path = "iso_tests.rs"]
mod tests;
