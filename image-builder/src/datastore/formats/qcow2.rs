//! QEMU's qcow2, versions 2 and 3 (QEMU, docs/interop/qcow2.txt): read with compressed clusters, written without; no backing files, encryption or external data.

use super::{Sink, Source};
use anyhow::{Context, bail, ensure};
use std::{fs::File, ops::Range, os::unix::fs::FileExt, path::Path};

/// First bytes of a file.
pub const MAGIC: &[u8; 4] = b"QFI\xfb";
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const COPIED: u64 = 1 << 63;
const ZERO: u64 = 1;
/// Bits of a cluster's size in files that are written.
const BITS: u32 = 16;
const CLUSTER: u64 = 1 << BITS;
/// Entries of the first table at most: 32 MiB, as QEMU has it.
const MAX_L1: u64 = 4 << 20;

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    u64::from(be32(bytes, at)) << 32 | u64::from(be32(bytes, at + 4))
}

/// Reads an image.
pub struct Reader {
    file: File,
    size: u64,
    bits: u32,
    /// Whether clusters can be marked as zeroes.
    zeroes: bool,
    l1: Vec<u64>,
    /// The second table that was read last, and its number.
    l2: (u64, Vec<u64>),
    /// The compressed cluster that was read last, and its entry.
    cluster: (u64, Vec<u8>),
}

fn read_table(file: &File, at: u64, count: usize) -> anyhow::Result<Vec<u64>> {
    let mut bytes = vec![0; count * 8];
    file.read_exact_at(&mut bytes, at)
        .context("a table of clusters reaches past the end of the file")?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|entry| u64::from_be_bytes(*entry)).collect())
}

impl Reader {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path)?;
        let mut header = [0; 104];
        file.read_exact_at(&mut header[..72], 0).context("the header is cut off")?;
        let version = be32(&header, 4);
        ensure!(&header[..4] == MAGIC && matches!(version, 2 | 3), "not qcow2 of version 2 or 3");
        ensure!(
            be64(&header, 8) == 0,
            "it has a backing file; make a whole image with `qemu-img convert` first"
        );
        let bits = be32(&header, 20);
        ensure!((9..=21).contains(&bits), "clusters of 2^{bits} bytes are not allowed");
        ensure!(be32(&header, 32) == 0, "it is encrypted; decrypt it with `qemu-img convert` first");
        if version == 3 {
            file.read_exact_at(&mut header[72..], 72).context("the header is cut off")?;
            let features = be64(&header, 72);
            ensure!(
                features & 2 == 0,
                "it is marked as corrupt; mend it with `qemu-img check -r all` first"
            );
            ensure!(
                features & !0b11 == 0,
                "it uses features {features:#x} that are not supported; convert it with `qemu-img convert -O qcow2` first"
            );
        }
        let size = be64(&header, 24);
        let entries = u64::from(be32(&header, 36));
        let needed = size.div_ceil(1 << (2 * bits - 3));
        ensure!(size <= 64 << 40, "{size} bytes are more than a disk can have");
        ensure!(
            entries >= needed && entries <= MAX_L1,
            "the first table has {entries} entries, {needed} are needed"
        );
        let l1 = read_table(&file, be64(&header, 40), usize::try_from(needed)?)?;
        Ok(Self {
            file,
            size,
            bits,
            zeroes: version == 3,
            l1,
            l2: (u64::MAX, Vec::new()),
            cluster: (0, Vec::new()),
        })
    }

    /// The entry of the cluster that a byte is in; 0 for zeroes.
    fn entry(&mut self, offset: u64) -> anyhow::Result<u64> {
        let number = offset >> self.bits;
        let (table, place) = (number >> (self.bits - 3), number & ((1 << (self.bits - 3)) - 1));
        let at = self.l1.get(usize::try_from(table)?).context("outside the disk")? & OFFSET;
        if at == 0 {
            return Ok(0);
        }
        if self.l2.0 != table {
            self.l2 = (table, read_table(&self.file, at, 1 << (self.bits - 3))?);
        }
        let entry = self.l2.1[usize::try_from(place)?];
        let zero = entry & COMPRESSED == 0 && (entry & OFFSET == 0 || (self.zeroes && entry & ZERO != 0));
        Ok(if zero { 0 } else { entry })
    }

    fn read_compressed(&mut self, entry: u64) -> anyhow::Result<()> {
        if self.cluster.0 == entry {
            return Ok(());
        }
        let split = 62 - (self.bits - 8);
        let at = entry & ((1 << split) - 1);
        let sectors = ((entry & (COMPRESSED - 1)) >> split) + 1;
        let length = usize::try_from(sectors * 512 - at % 512)?;
        let mut packed = vec![0; length];
        // The last cluster of a file may be shorter than it says.
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut packed[filled..], at + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        let size = 1 << self.bits;
        let mut cluster = vec![0; size];
        let mut inflater = Box::<miniz_oxide::inflate::core::DecompressorOxide>::default();
        let flags = miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (_, _, written) = miniz_oxide::inflate::core::decompress(&mut inflater, &packed[..filled], &mut cluster, 0, flags);
        ensure!(written == size, "the compressed cluster at {at} is damaged");
        self.cluster = (entry, cluster);
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
            let within = at & ((1 << self.bits) - 1);
            let part = usize::try_from((1 << self.bits) - within)?.min(rest.len());
            let (now, later) = rest.split_at_mut(part);
            let entry = self.entry(at)?;
            if entry == 0 {
                now.fill(0);
            } else if entry & COMPRESSED != 0 {
                self.read_compressed(entry)?;
                now.copy_from_slice(&self.cluster.1[usize::try_from(within)?..][..part]);
            } else {
                self.file
                    .read_exact_at(now, (entry & OFFSET) + within)
                    .with_context(|| format!("the cluster of byte {at} is not in the file"))?;
            }
            at += part as u64;
            rest = later;
        }
        Ok(())
    }

    fn next_data(&mut self, offset: u64) -> anyhow::Result<Option<Range<u64>>> {
        let mut at = offset;
        while at < self.size {
            let per_table = 1 << (2 * self.bits - 3);
            if self.l1[usize::try_from(at / per_table)?] & OFFSET == 0 {
                at = (at / per_table + 1) * per_table;
            } else if self.entry(at)? == 0 {
                at = ((at >> self.bits) + 1) << self.bits;
            } else {
                break;
            }
        }
        if at >= self.size {
            return Ok(None);
        }
        let mut end = ((at >> self.bits) + 1) << self.bits;
        while end < self.size
            && self.l1[usize::try_from(end >> (2 * self.bits - 3))?] & OFFSET != 0
            && self.entry(end)? != 0
            && end - at < 64 << 20
        {
            end += 1 << self.bits;
        }
        Ok(Some(at..end.min(self.size)))
    }
}

/// Writes an image of version 3.
pub struct Writer {
    file: File,
    size: u64,
    /// The entries of all second tables.
    entries: Vec<u64>,
    /// The next cluster of the file.
    next: u64,
}

const PER_TABLE: u64 = CLUSTER / 8;

impl Writer {
    pub fn create(path: &Path, size: u64) -> anyhow::Result<Self> {
        let clusters = size.div_ceil(CLUSTER);
        if clusters.div_ceil(PER_TABLE) > MAX_L1 {
            bail!("{size} bytes are more than the format can hold");
        }
        // The header has the first cluster.
        Ok(Self {
            file: File::create(path)?,
            size,
            entries: vec![0; usize::try_from(clusters)?],
            next: 1,
        })
    }

    fn take(&mut self, clusters: u64) -> u64 {
        let at = self.next * CLUSTER;
        self.next += clusters;
        at
    }

    fn write_table(&self, at: u64, entries: &[u64]) -> anyhow::Result<()> {
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_be_bytes()).collect();
        Ok(self.file.write_all_at(&bytes, at)?)
    }
}

impl Sink for Writer {
    fn write(&mut self, offset: u64, data: &[u8]) -> anyhow::Result<()> {
        let (mut at, mut rest) = (offset, data);
        while !rest.is_empty() {
            let within = at % CLUSTER;
            let (now, later) = rest.split_at(rest.len().min((CLUSTER - within) as usize));
            let place = usize::try_from(at / CLUSTER)?;
            if self.entries[place] == 0 {
                self.entries[place] = self.take(1) | COPIED;
            }
            self.file.write_all_at(now, (self.entries[place] & OFFSET) + within)?;
            at += now.len() as u64;
            rest = later;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> anyhow::Result<()> {
        let entries = std::mem::take(&mut self.entries);
        let mut l1 = Vec::new();
        for table in entries.chunks(PER_TABLE as usize) {
            if table.iter().all(|entry| *entry == 0) {
                l1.push(0);
            } else {
                let at = self.take(1);
                self.write_table(at, table)?;
                l1.push(at | COPIED);
            }
        }
        let l1_at = self.take((l1.len() as u64 * 8).div_ceil(CLUSTER).max(1));
        self.write_table(l1_at, &l1)?;
        // Each reference count has 16 bits, so a block of counts has one for each of 32,768 clusters; they count themselves as well.
        let per_block = CLUSTER / 2;
        let (mut blocks, mut table) = (0, 0);
        loop {
            let total = self.next + blocks + table;
            let (needed, long) = (total.div_ceil(per_block), (total.div_ceil(per_block) * 8).div_ceil(CLUSTER));
            if (needed, long) == (blocks, table) {
                break;
            }
            (blocks, table) = (needed, long);
        }
        let table_at = self.take(table);
        let first_block = self.take(blocks);
        let list: Vec<u64> = (0..blocks).map(|block| first_block + block * CLUSTER).collect();
        self.write_table(table_at, &list)?;
        let mut counts = vec![0; usize::try_from(blocks * CLUSTER)?];
        for cluster in 0..usize::try_from(self.next)? {
            counts[2 * cluster + 1] = 1;
        }
        self.file.write_all_at(&counts, first_block)?;
        let mut header = [0; 112];
        header[..4].copy_from_slice(MAGIC);
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(4, &3_u32.to_be_bytes());
        put(20, &BITS.to_be_bytes());
        put(24, &self.size.to_be_bytes());
        put(36, &u32::try_from(l1.len())?.to_be_bytes());
        put(40, &l1_at.to_be_bytes());
        put(48, &table_at.to_be_bytes());
        put(56, &u32::try_from(table)?.to_be_bytes());
        put(96, &4_u32.to_be_bytes());
        put(100, &104_u32.to_be_bytes());
        self.file.write_all_at(&header, 0)?;
        self.file.set_len(self.next * CLUSTER)?;
        Ok(self.file.sync_all()?)
    }
}
