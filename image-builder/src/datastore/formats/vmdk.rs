//! VMware's VMDK in one file (Virtual Disk Format 5.0): monolithic sparse is read and written, stream-optimised is read.

use super::{Sink, Source};
use anyhow::{Context, ensure};
use std::{fs::File, ops::Range, os::unix::fs::FileExt, path::Path};

/// First bytes of a file.
pub const MAGIC: &[u8; 4] = b"KDMV";
const SECTOR: u64 = 512;
const ZEROED_GRAINS: u32 = 1 << 2;
const COMPRESSED: u32 = 1 << 16;
/// The directory's place is in the header's copy at the end of the file.
const AT_END: u64 = u64::MAX;
/// Sectors of a grain and entries of a table in files that are written.
const GRAIN: u64 = 128;
const PER_TABLE: u64 = 512;
/// Where the descriptor stands, and how long it is, in sectors.
const DESCRIPTOR: (u64, u64) = (1, 20);

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

/// Reads an image.
pub struct Reader {
    file: File,
    /// Bytes of the disk, and of a grain.
    size: u64,
    grain: u64,
    per_table: u64,
    compressed: bool,
    zeroed: bool,
    directory: Vec<u32>,
    /// The table that was read last, and its number.
    table: (u64, Vec<u32>),
    /// The compressed grain that was read last, and its sector.
    unpacked: (u32, Vec<u8>),
}

fn read_table(file: &File, sector: u64, count: usize) -> anyhow::Result<Vec<u32>> {
    let mut bytes = vec![0; count * 4];
    let at = sector.checked_mul(SECTOR).context("a table of grains is far outside the file")?;
    file.read_exact_at(&mut bytes, at)
        .context("a table of grains reaches past the end of the file")?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|entry| u32::from_le_bytes(*entry)).collect())
}

impl Reader {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut header = [0; 512];
        file.read_exact_at(&mut header, 0).context("the header is cut off")?;
        ensure!(
            &header[..4] == MAGIC,
            "not a sparse VMDK; a descriptor alone is not enough, name the file with the data"
        );
        if le64(&header, 56) == AT_END {
            let at = length.checked_sub(1024).context("the file is cut off")?;
            file.read_exact_at(&mut header, at)?;
            ensure!(&header[..4] == MAGIC, "the footer is missing: the file was not written to its end");
        }
        let (version, flags) = (le32(&header, 4), le32(&header, 8));
        ensure!((1..=3).contains(&version), "version {version} is not supported");
        let (capacity, grain) = (le64(&header, 12), le64(&header, 20));
        let per_table = u64::from(le32(&header, 44));
        ensure!(
            grain.is_power_of_two() && (8..=2048).contains(&grain),
            "grains of {grain} sectors are not allowed"
        );
        ensure!((1..=4096).contains(&per_table), "tables of {per_table} grains are not allowed");
        ensure!(capacity <= (64 << 40) / SECTOR, "{capacity} sectors are more than a disk can have");
        let compressed = flags & COMPRESSED != 0;
        ensure!(!compressed || header[77] == 1, "its compression is not known");
        let (descriptor, sectors) = (le64(&header, 28), le64(&header, 36));
        if descriptor > 0 && descriptor < length / SECTOR && sectors <= 2048 {
            let mut text = vec![0; usize::try_from(sectors * SECTOR)?.min(usize::try_from(length - descriptor * SECTOR)?)];
            file.read_exact_at(&mut text, descriptor * SECTOR)?;
            let text = String::from_utf8_lossy(&text).to_lowercase();
            let parent = text
                .lines()
                .find_map(|line| line.trim().strip_prefix("parentcid=").map(|id| id.trim().to_string()));
            ensure!(
                parent.is_none_or(|id| id == "ffffffff"),
                "it is the difference to another disk; consolidate it first"
            );
        }
        let tables = capacity.div_ceil(grain * per_table);
        ensure!(tables * 4 <= length, "the directory of grains is larger than the file");
        let directory = read_table(&file, le64(&header, 56), usize::try_from(tables)?)?;
        Ok(Self {
            file,
            size: capacity * SECTOR,
            grain: grain * SECTOR,
            per_table,
            compressed,
            zeroed: flags & ZEROED_GRAINS != 0,
            directory,
            table: (u64::MAX, Vec::new()),
            unpacked: (0, Vec::new()),
        })
    }

    /// The sector of the grain that a byte is in; 0 for zeroes.
    fn entry(&mut self, offset: u64) -> anyhow::Result<u32> {
        let number = offset / self.grain;
        let table = number / self.per_table;
        let at = *self.directory.get(usize::try_from(table)?).context("outside the disk")?;
        if at == 0 {
            return Ok(0);
        }
        if self.table.0 != table {
            self.table = (table, read_table(&self.file, u64::from(at), usize::try_from(self.per_table)?)?);
        }
        let entry = self.table.1[usize::try_from(number % self.per_table)?];
        Ok(if self.zeroed && entry == 1 { 0 } else { entry })
    }

    fn unpack(&mut self, sector: u32) -> anyhow::Result<()> {
        if self.unpacked.0 == sector {
            return Ok(());
        }
        let at = u64::from(sector) * SECTOR;
        let mut marker = [0; 12];
        self.file
            .read_exact_at(&mut marker, at)
            .context("a grain reaches past the end of the file")?;
        let length = u64::from(le32(&marker, 8));
        ensure!(length > 0 && length <= 2 * self.grain, "the grain at sector {sector} is damaged");
        let mut packed = vec![0; usize::try_from(length)?];
        self.file
            .read_exact_at(&mut packed, at + 12)
            .context("a grain reaches past the end of the file")?;
        let grain = miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&packed, usize::try_from(self.grain)?)
            .map_err(|error| anyhow::anyhow!("the grain at sector {sector} is damaged: {error}"))?;
        self.unpacked = (sector, grain);
        Ok(())
    }
}

impl Source for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> anyhow::Result<()> {
        let (mut at, mut rest) = (offset, buffer);
        while !rest.is_empty() {
            let within = at % self.grain;
            let part = usize::try_from(self.grain - within)?.min(rest.len());
            let (now, later) = rest.split_at_mut(part);
            match self.entry(at)? {
                0 => now.fill(0),
                sector if self.compressed => {
                    self.unpack(sector)?;
                    // A grain at the end of the disk may be short.
                    let content = self.unpacked.1.get(usize::try_from(within)?..).unwrap_or(&[]);
                    let known = content.len().min(part);
                    now[..known].copy_from_slice(&content[..known]);
                    now[known..].fill(0);
                }
                sector => self
                    .file
                    .read_exact_at(now, u64::from(sector) * SECTOR + within)
                    .with_context(|| format!("the grain of byte {at} is not in the file"))?,
            }
            at += part as u64;
            rest = later;
        }
        Ok(())
    }

    fn next_data(&mut self, offset: u64) -> anyhow::Result<Option<Range<u64>>> {
        let mut at = offset;
        while at < self.size {
            let per_table = self.grain * self.per_table;
            if self.directory[usize::try_from(at / per_table)?] == 0 {
                at = (at / per_table + 1) * per_table;
            } else if self.entry(at)? == 0 {
                at = (at / self.grain + 1) * self.grain;
            } else {
                return Ok(Some(at..((at / self.grain + 1) * self.grain).min(self.size)));
            }
        }
        Ok(None)
    }
}

/// Writes a monolithic sparse image.
pub struct Writer {
    file: File,
    name: String,
    sectors: u64,
    entries: Vec<u32>,
    /// Sectors before the first grain.
    overhead: u64,
    /// The next sector of the file.
    next: u64,
}

impl Writer {
    pub fn create(path: &Path, size: u64) -> anyhow::Result<Self> {
        let sectors = size.div_ceil(SECTOR);
        let tables = sectors.div_ceil(GRAIN * PER_TABLE);
        let directory = (tables * 4).div_ceil(SECTOR);
        let overhead = (DESCRIPTOR.0 + DESCRIPTOR.1 + directory + tables * PER_TABLE * 4 / SECTOR).next_multiple_of(GRAIN);
        ensure!(
            overhead + sectors < u64::from(u32::MAX),
            "{size} bytes are more than the format can hold, 2 TiB"
        );
        let name = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().replace('"', ""));
        let entries = vec![0; usize::try_from(tables * PER_TABLE)?];
        Ok(Self {
            file: File::create(path)?,
            name,
            sectors,
            entries,
            overhead,
            next: overhead,
        })
    }
}

impl Sink for Writer {
    fn write(&mut self, offset: u64, data: &[u8]) -> anyhow::Result<()> {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let within = at % (GRAIN * SECTOR);
            let (now, later) = rest.split_at(rest.len().min((GRAIN * SECTOR - within) as usize));
            let entry = &mut self.entries[usize::try_from(at / (GRAIN * SECTOR))?];
            if *entry == 0 {
                *entry = u32::try_from(self.next)?;
                self.next += GRAIN;
            }
            self.file.write_all_at(now, u64::from(*entry) * SECTOR + within)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> anyhow::Result<()> {
        let tables = self.entries.len() as u64 / PER_TABLE;
        let directory_at = DESCRIPTOR.0 + DESCRIPTOR.1;
        let first_table = directory_at + (tables * 4).div_ceil(SECTOR);
        let directory: Vec<u8> = (0..tables)
            .flat_map(|table| ((first_table + table * PER_TABLE * 4 / SECTOR) as u32).to_le_bytes())
            .collect();
        self.file.write_all_at(&directory, directory_at * SECTOR)?;
        let entries: Vec<u8> = self.entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
        self.file.write_all_at(&entries, first_table * SECTOR)?;
        let cylinders = (self.sectors / (255 * 63)).max(1);
        let descriptor = format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\n# Extent description\nRW {} SPARSE \"{}\"\n\n\
             # The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\nddb.adapterType = \"lsilogic\"\nddb.geometry.cylinders = \"{cylinders}\"\nddb.geometry.heads = \"255\"\n\
             ddb.geometry.sectors = \"63\"\n",
            self.sectors, self.name
        );
        self.file.write_all_at(descriptor.as_bytes(), DESCRIPTOR.0 * SECTOR)?;
        let mut header = [0; 512];
        header[..4].copy_from_slice(MAGIC);
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(4, &1_u32.to_le_bytes());
        put(8, &1_u32.to_le_bytes());
        put(12, &self.sectors.to_le_bytes());
        put(20, &GRAIN.to_le_bytes());
        put(28, &DESCRIPTOR.0.to_le_bytes());
        put(36, &DESCRIPTOR.1.to_le_bytes());
        put(44, &(PER_TABLE as u32).to_le_bytes());
        put(56, &directory_at.to_le_bytes());
        put(64, &self.overhead.to_le_bytes());
        put(73, b"\n \r\n");
        self.file.write_all_at(&header, 0)?;
        self.file.set_len(self.next * SECTOR)?;
        Ok(self.file.sync_all()?)
    }
}
