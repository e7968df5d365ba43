//! A disk's content as it is. Zeroes are left out of the file, so that it takes no more space than it has to.

use super::{Sink, Source};
use std::{
    fs::File,
    io::{Seek, SeekFrom},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
};

/// Reads a file or a block device.
pub struct Reader {
    file: File,
    size: u64,
}

impl Reader {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut file = File::open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, size })
    }
}

impl Source for Reader {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> anyhow::Result<()> {
        Ok(self.file.read_exact_at(buffer, offset)?)
    }

    fn next_data(&mut self, offset: u64) -> anyhow::Result<Option<Range<u64>>> {
        Ok((offset < self.size).then_some(offset..self.size))
    }
}

/// Writes a file with holes.
pub struct Writer {
    file: File,
}

impl Writer {
    pub fn create(path: &Path, size: u64) -> anyhow::Result<Self> {
        let file = File::create(path)?;
        file.set_len(size)?;
        Ok(Self { file })
    }
}

impl Sink for Writer {
    fn write(&mut self, offset: u64, data: &[u8]) -> anyhow::Result<()> {
        Ok(self.file.write_all_at(data, offset)?)
    }

    fn finish(self: Box<Self>) -> anyhow::Result<()> {
        Ok(self.file.sync_all()?)
    }
}
