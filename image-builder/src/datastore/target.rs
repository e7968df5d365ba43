//! The image file or block device that a datastore is on.

use anyhow::{Context, bail, ensure};
use std::{
    fs::{File, OpenOptions},
    io::{ErrorKind, Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt},
    path::Path,
    rc::Rc,
};
use tessera_block::{BlockDevice, Geometry, IoError, Partition, block_on};
use tessera_datastore::{
    MountOptions, Store,
    gpt::{self, DATASTORE_TYPE, GptError},
};

/// Bytes of a sector. Image files have no sectors of their own, and the kernel takes any multiple of this for block devices.
pub const SECTOR: u32 = 512;

/// A file as a device.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    geometry: Geometry,
}

impl FileDevice {
    /// Opens an image file or block device.
    ///
    /// # Errors
    /// It is not there, or may not be opened.
    pub fn open(path: &Path, write: bool) -> anyhow::Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(write)
            .open(path)
            .with_context(|| format!("{}: cannot be opened", path.display()))?;
        let kind = file.metadata()?.file_type();
        ensure!(
            kind.is_file() || kind.is_block_device(),
            "{}: neither a file nor a block device",
            path.display()
        );
        let bytes = file
            .seek(SeekFrom::End(0))
            .with_context(|| format!("{}: has no end", path.display()))?;
        let geometry = Geometry {
            sector_size: SECTOR,
            sectors: bytes / u64::from(SECTOR),
            max_transfer: 1 << 20,
            discard: false,
            write_cache: true,
            read_only: !write,
        };
        Ok(Self { file, geometry })
    }
}

fn failed(error: &std::io::Error, sector: u64) -> IoError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => IoError::Full,
        ErrorKind::NotFound => IoError::Gone,
        _ => IoError::Media { sector },
    }
}

impl BlockDevice for FileDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    async fn read(&self, sector: u64, buffer: &mut [u8]) -> Result<(), IoError> {
        self.geometry.check_buffer(sector, buffer.len())?;
        self.file
            .read_exact_at(buffer, sector * u64::from(SECTOR))
            .map_err(|error| failed(&error, sector))
    }

    async fn write(&self, sector: u64, data: &[u8]) -> Result<(), IoError> {
        self.geometry.check_write(sector, data.len())?;
        self.file
            .write_all_at(data, sector * u64::from(SECTOR))
            .map_err(|error| failed(&error, sector))
    }

    async fn flush(&self) -> Result<(), IoError> {
        self.file.sync_data().map_err(|error| failed(&error, 0))
    }
}

/// What the commands work on: all of a device or one of its partitions.
pub type Target = Partition<Rc<FileDevice>>;

/// Opens the partition with that number, or the first that holds a datastore; without a partition table, all of it.
///
/// # Errors
/// There is no such partition, or the table is damaged.
pub fn open(path: &Path, partition: Option<u32>, write: bool) -> anyhow::Result<Target> {
    let device = Rc::new(FileDevice::open(path, write)?);
    let whole = |device: Rc<FileDevice>| {
        let sectors = device.geometry().sectors;
        Partition::new(device, 0, sectors)
    };
    let table = match block_on(gpt::read(&device)) {
        Ok(table) => table,
        Err(GptError::Missing) if partition.is_none() => return Ok(whole(device)?),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let found = match partition {
        Some(number) => table.partitions.iter().find(|entry| entry.number == number),
        None => table.partitions.iter().find(|entry| entry.kind == DATASTORE_TYPE),
    };
    match (found, partition) {
        (Some(entry), _) => Ok(Partition::new(device, entry.first, entry.sectors)?),
        (None, Some(number)) => bail!("{}: there is no partition {number}; there are {}", path.display(), numbers(&table)),
        (None, None) => bail!(
            "{}: no partition is marked as a datastore; name one with --partition; there are {}",
            path.display(),
            numbers(&table)
        ),
    }
}

fn numbers(table: &gpt::Table) -> String {
    let list: Vec<String> = table
        .partitions
        .iter()
        .map(|entry| format!("{} ({:?})", entry.number, entry.name))
        .collect();
    if list.is_empty() { "none".to_string() } else { list.join(", ") }
}

/// Mounts the datastore of a device or partition.
///
/// # Errors
/// There is none, or it is damaged.
pub fn mount(path: &Path, partition: Option<u32>, write: bool) -> anyhow::Result<Store<Target>> {
    let options = MountOptions {
        cache: 256 << 20,
        read_only: !write,
        ..MountOptions::default()
    };
    block_on(Store::mount(open(path, partition, write)?, options)).with_context(|| path.display().to_string())
}

/// Writes a partition table with one partition, from 1 MiB on, for a datastore.
///
/// # Errors
/// The device is too small or cannot be written.
pub fn partition(path: &Path, name: &str) -> anyhow::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let sectors = file.seek(SeekFrom::End(0))? / u64::from(SECTOR);
    ensure!(sectors > 4096, "{}: too small for a partition table", path.display());
    ::gpt::mbr::ProtectiveMBR::with_lb_size(u32::try_from(sectors - 1).unwrap_or(u32::MAX)).overwrite_lba0(&mut file)?;
    let entry = ::gpt::partition::Partition {
        part_type_guid: ::gpt::partition_types::Type {
            guid: uuid::Uuid::from_bytes_le(DATASTORE_TYPE),
            os: ::gpt::partition_types::OperatingSystem::None,
        },
        part_guid: uuid::Uuid::from_bytes(super::random()?),
        first_lba: 2048,
        last_lba: (sectors - 34) / 2048 * 2048 - 1,
        flags: 0,
        name: name.chars().take(36).collect(),
    };
    let mut table = ::gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(::gpt::disk::LogicalBlockSize::Lb512)
        .create_from_device(file, Some(uuid::Uuid::from_bytes(super::random()?)))
        .context("the partition table cannot be made")?;
    table.update_partitions([(1, entry)].into()).context("the partition does not fit")?;
    table.write().context("the partition table cannot be written")?;
    Ok(())
}
