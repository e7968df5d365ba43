//! FAT file systems in memory, the same bytes each time.

use anyhow::Context;
use std::io::{Cursor, Write};

/// A file of the image: path with `/`, content.
pub type Entry<'a> = (&'a str, &'a [u8]);

/// Files carry no time of their own: 1980-01-01, FAT's first day.
#[derive(Debug)]
struct NoTime;

impl fatfs::TimeProvider for NoTime {
    fn get_current_date(&self) -> fatfs::Date {
        fatfs::Date {
            year: 1980,
            month: 1,
            day: 1,
        }
    }

    fn get_current_date_time(&self) -> fatfs::DateTime {
        fatfs::DateTime {
            date: self.get_current_date(),
            time: fatfs::Time {
                hour: 0,
                min: 0,
                sec: 0,
                millis: 0,
            },
        }
    }
}

static NO_TIME: NoTime = NoTime;

/// Makes a file system that is large enough for `files`, in the order given.
///
/// # Errors
/// The files do not fit, or a name cannot be stored.
pub fn build(files: &[Entry<'_>], volume_id: u32) -> anyhow::Result<Vec<u8>> {
    let content: usize = files.iter().map(|(_, bytes)| bytes.len().next_multiple_of(4096) + 4096).sum();
    // Room for the tables and folders, and for a kernel or a configuration that is changed later.
    let size = (content + content / 64 + (1 << 20)).next_multiple_of(1 << 20);
    let mut disk = Cursor::new(vec![0_u8; size]);
    let sectors = u32::try_from(size / 512).context("the files are too large for a FAT file system")?;
    let options = fatfs::FormatVolumeOptions::new()
        .volume_id(volume_id)
        .volume_label(*b"TESSERA    ")
        .total_sectors(sectors);
    fatfs::format_volume(&mut disk, options).context("the file system cannot be made")?;
    {
        let system = fatfs::FileSystem::new(&mut disk, fatfs::FsOptions::new().time_provider(&NO_TIME))
            .context("the new file system cannot be read")?;
        let root = system.root_dir();
        for (path, bytes) in files {
            let mut folder = root.clone();
            let mut parts: Vec<&str> = path.split('/').collect();
            let name = parts.pop().unwrap_or_default();
            for part in parts {
                folder = folder
                    .create_dir(part)
                    .with_context(|| format!("{path}: the folder {part} cannot be made in the image"))?;
            }
            let mut file = folder
                .create_file(name)
                .with_context(|| format!("{path}: cannot be made in the image"))?;
            file.truncate()?;
            file.write_all(bytes)
                .with_context(|| format!("{path}: does not fit into the image"))?;
        }
    }
    Ok(disk.into_inner())
}

/// The file system's identity as GRUB's `search` wants it.
#[must_use]
pub fn uuid_text(volume_id: u32) -> String {
    format!("{:04X}-{:04X}", volume_id >> 16, volume_id & 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn files_come_back_and_bytes_repeat() {
        let large = vec![0x5a; 300_000];
        let files: [Entry<'_>; 3] = [("EFI/BOOT/BOOTX64.EFI", b"efi"), ("EFI/BOOT/x", b""), ("tessera/bundle", &large)];
        let image = build(&files, 0x1234_abcd).expect("build");
        assert!(image == build(&files, 0x1234_abcd).expect("again"));
        let system = fatfs::FileSystem::new(Cursor::new(image), fatfs::FsOptions::new()).expect("mount");
        assert_eq!(system.volume_id(), 0x1234_abcd);
        for (path, bytes) in files {
            let mut read = Vec::new();
            system
                .root_dir()
                .open_file(path)
                .expect("open")
                .read_to_end(&mut read)
                .expect("read");
            assert!(read == bytes, "{path}");
        }
    }

    #[test]
    fn identity_is_written_as_grub_reads_it() {
        assert_eq!(uuid_text(0x0012_abcd), "0012-ABCD");
    }
}
