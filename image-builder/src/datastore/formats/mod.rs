//! Formats of disk images, one file each.

mod qcow2;
mod raw;
mod vmdk;

use anyhow::Context;
use clap::ValueEnum;
use std::{fs::File, ops::Range, os::unix::fs::FileExt, path::Path};

/// How a disk's content stands in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The content as it is.
    Raw,
    /// QEMU's format.
    Qcow2,
    /// VMware's format, in one sparse file.
    Vmdk,
}

/// A disk image to read.
pub trait Source {
    /// Bytes of the disk.
    fn size(&self) -> u64;
    /// Reads bytes that are inside.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> anyhow::Result<()>;
    /// The next range at or behind `offset` that may be other than zero; none if all the rest is zero.
    ///
    /// # Errors
    /// As `read`.
    fn next_data(&mut self, offset: u64) -> anyhow::Result<Option<Range<u64>>>;
}

/// A disk image to write. Offsets only grow.
pub trait Sink {
    /// Writes bytes; what is left out is zero.
    ///
    /// # Errors
    /// The file cannot be written.
    fn write(&mut self, offset: u64, data: &[u8]) -> anyhow::Result<()>;
    /// Completes the file.
    ///
    /// # Errors
    /// The file cannot be written.
    fn finish(self: Box<Self>) -> anyhow::Result<()>;
}

/// What a file's first bytes say that it is.
///
/// # Errors
/// It cannot be read.
pub fn detect(path: &Path) -> anyhow::Result<Format> {
    let file = File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
    let mut magic = [0; 4];
    let _ = file
        .read_at(&mut magic, 0)
        .with_context(|| format!("{}: cannot be read", path.display()))?;
    Ok(match &magic {
        qcow2::MAGIC => Format::Qcow2,
        vmdk::MAGIC | b"# Di" => Format::Vmdk,
        _ => Format::Raw,
    })
}

/// Opens an image of a format.
///
/// # Errors
/// It cannot be read, is damaged, or uses what is not supported.
pub fn open(path: &Path, format: Format) -> anyhow::Result<Box<dyn Source>> {
    let source: anyhow::Result<Box<dyn Source>> = match format {
        Format::Raw => raw::Reader::open(path).map(|reader| Box::new(reader) as _),
        Format::Qcow2 => qcow2::Reader::open(path).map(|reader| Box::new(reader) as _),
        Format::Vmdk => vmdk::Reader::open(path).map(|reader| Box::new(reader) as _),
    };
    source.with_context(|| path.display().to_string())
}

/// Makes an image of a format for a disk of `size` bytes.
///
/// # Errors
/// It cannot be written.
pub fn create(path: &Path, format: Format, size: u64) -> anyhow::Result<Box<dyn Sink>> {
    let sink: anyhow::Result<Box<dyn Sink>> = match format {
        Format::Raw => raw::Writer::create(path, size).map(|writer| Box::new(writer) as _),
        Format::Qcow2 => qcow2::Writer::create(path, size).map(|writer| Box::new(writer) as _),
        Format::Vmdk => vmdk::Writer::create(path, size).map(|writer| Box::new(writer) as _),
    };
    sink.with_context(|| path.display().to_string())
}
