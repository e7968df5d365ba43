//! `image-builder datastore`: making, filling and looking at datastores in image files and on block devices.

pub mod formats;
mod show;
mod target;
mod transfer;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use formats::Format;
use serde_json::json;
use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::SystemTime,
};
use target::Target;
use tessera_block::{BlockDevice, block_on};
use tessera_datastore::{CheckOptions, DiskOptions, FormatOptions, Kind, Memory, Store};

/// Bytes of heap that a storage server has unless the manifest is changed.
const STORAGE_HEAP: u64 = 16 << 20;

/// What to do with a datastore.
#[derive(Subcommand)]
pub enum Command {
    /// Make an empty datastore; makes the image file where it is not there.
    Create(Create),
    /// List a folder.
    List {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Folder of the datastore.
        #[arg(default_value = "")]
        path: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what is known of the datastore, or of one thing in it.
    Info {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Folder, file or disk of the datastore.
        path: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Copy a file out of the datastore.
    Read {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// File of the datastore.
        path: String,
        /// File of this machine, or - for the standard output.
        #[arg(default_value = "-")]
        output: PathBuf,
    },
    /// Copy a file, or a folder with everything in it, into the datastore, over what was there.
    Write {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// File of the datastore.
        path: String,
        /// File or folder of this machine, or - for the standard input.
        #[arg(default_value = "-")]
        input: PathBuf,
    },
    /// Make a folder.
    Mkdir {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Folder of the datastore.
        path: String,
    },
    /// Remove a file, an empty folder, or a disk with its snapshots.
    Remove {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// File, folder or disk of the datastore.
        path: String,
    },
    /// Give something another name or folder.
    Rename {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// What it is called.
        from: String,
        /// What it shall be called.
        to: String,
    },
    /// Make a virtual disk that reads as zeroes.
    DiskCreate {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Disk of the datastore.
        path: String,
        /// Its size, such as 10GiB.
        #[arg(long, value_parser = size)]
        size: u64,
        /// What the disk is to be like.
        #[command(flatten)]
        disk: Disk,
    },
    /// Make a virtual disk larger.
    DiskGrow {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Disk of the datastore.
        path: String,
        /// Its new size, such as 20GiB.
        #[arg(long, value_parser = size)]
        size: u64,
    },
    /// Take, list, remove and go back to snapshots of a disk.
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Make a virtual disk that goes on from a snapshot of another and shares its blocks.
    Clone {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Disk of the datastore.
        disk: String,
        /// Its snapshot.
        snapshot: String,
        /// The new disk.
        path: String,
    },
    /// List the ranges of a disk that changed since a snapshot.
    Changes {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Disk of the datastore.
        disk: String,
        /// Its snapshot.
        snapshot: String,
    },
    /// Make the datastore larger, or smaller where nothing is in the way.
    Resize {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Its new size; all of the device or partition if not given.
        #[arg(long, value_parser = size)]
        size: Option<u64>,
    },
    /// Look for everything that does not fit together, without changing anything.
    Check {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Read all data that has checksums.
        #[arg(long)]
        data: bool,
    },
    /// Mend what check finds. What is damaged is lost, and told.
    Repair {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Read all data that has checksums.
        #[arg(long)]
        data: bool,
    },
    /// Make a virtual disk of a disk image.
    Import {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Disk image of this machine.
        input: PathBuf,
        /// Disk of the datastore.
        path: String,
        /// Format of the disk image; by its first bytes if not given.
        #[arg(long, value_enum)]
        format: Option<Format>,
        /// What the disk is to be like.
        #[command(flatten)]
        disk: Disk,
    },
    /// Make a disk image of a virtual disk.
    Export {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Disk of the datastore.
        path: String,
        /// Disk image of this machine.
        output: PathBuf,
        /// Format of the disk image.
        #[arg(long, value_enum, default_value = "raw")]
        format: Format,
    },
}

/// What to do with snapshots.
#[derive(Subcommand)]
pub enum Snapshot {
    /// Take a snapshot.
    Create {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Disk of the datastore.
        disk: String,
        /// What to call the snapshot.
        name: String,
    },
    /// List the snapshots of a disk.
    List {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Disk of the datastore.
        disk: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make the disk what it was; what was written since is lost.
    Revert {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Disk of the datastore.
        disk: String,
        /// Its snapshot.
        name: String,
    },
    /// Remove a snapshot; the disk keeps what it holds.
    Remove {
        /// Where the datastore is.
        #[command(flatten)]
        image: Image,
        /// Disk of the datastore.
        disk: String,
        /// Its snapshot.
        name: String,
    },
}

/// Where the datastore is.
#[derive(Args)]
pub struct Image {
    /// Image file or block device.
    image: PathBuf,
    /// Number of the partition; the first that is marked as a datastore if not given, or all of an image without partitions.
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,
    /// Show no progress.
    #[arg(long, short)]
    quiet: bool,
}

/// What a new datastore is like.
#[derive(Args)]
pub struct Create {
    /// Where the datastore is.
    #[command(flatten)]
    image: Image,
    /// Size of the image file, such as 10GiB; makes or enlarges it.
    #[arg(long, value_parser = size)]
    size: Option<u64>,
    /// What to call the datastore.
    #[arg(long, default_value = "datastore")]
    label: String,
    /// Write a new partition table with one partition for the datastore.
    #[arg(long)]
    gpt: bool,
    /// Even where there is a datastore already, which is lost then.
    #[arg(long)]
    force: bool,
}

/// What a new disk is like.
#[derive(Args)]
pub struct Disk {
    /// Set space for all of it aside.
    #[arg(long)]
    thick: bool,
    /// Keep checksums of its data.
    #[arg(long)]
    checksums: bool,
}

/// Bytes: "10GiB", "10G", "512 MiB", "4096".
///
/// # Errors
/// What is wrong with it.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let number: u64 = digits
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is no size; write for example 10GiB"))?;
    let shift = match text[digits.len()..].trim().trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        unit => return Err(format!("{unit:?} is no unit; there are KiB, MiB, GiB, TiB")),
    };
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |duration| duration.as_secs())
}

fn random() -> anyhow::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?
        .read_exact(&mut bytes)
        .context("/dev/urandom cannot be read")?;
    Ok(*uuid::Builder::from_random_bytes(bytes).as_uuid().as_bytes())
}

impl Image {
    fn mount(&self, write: bool) -> anyhow::Result<Store<Target>> {
        target::mount(&self.image, self.partition, write)
    }

    /// Checks, and mends what can be; fails where something is left that is not as it should be.
    fn check(&self, data: bool, repair: bool) -> anyhow::Result<()> {
        let target = target::open(&self.image, self.partition, repair)?;
        let options = CheckOptions { data, cache: 256 << 20 };
        let bar = transfer::bar(0, self.quiet);
        let progress = |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        };
        let result = block_on(async {
            if repair {
                tessera_datastore::repair(target, options, progress).await
            } else {
                tessera_datastore::check(target, options, progress).await
            }
        });
        bar.finish_and_clear();
        let report = result.with_context(|| self.image.display().to_string())?;
        for problem in &report.problems {
            println!("{problem}{}", if problem.harmless { " (only space is lost)" } else { "" });
        }
        let word = if repair { "mended" } else { "found" };
        println!(
            "{} objects, {} blocks in use, {} checksums compared, {} problems {word}",
            report.objects, report.used, report.verified, report.count
        );
        let heap = Memory::heap_for(report.memory);
        if heap > STORAGE_HEAP {
            println!(
                "a host mounts it only with {} MiB of `heap` for its storage server, for there are so many objects",
                heap.div_ceil(1 << 20)
            );
        }
        ensure!(
            repair || report.count == 0,
            "the datastore is damaged: `image-builder datastore repair` mends it"
        );
        Ok(())
    }

    /// Mounts for writing, does something, and makes it durable.
    fn change<T>(&self, work: impl FnOnce(&Store<Target>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let store = self.mount(true)?;
        let result = work(&store)?;
        block_on(store.sync())?;
        Ok(result)
    }
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// What went wrong, to be shown.
    pub fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Create(create) => create.run(),
            Self::List { image, path, json } => {
                let entries = image.mount(false)?.list(path)?;
                if *json {
                    println!("{:#}", json!(entries.iter().map(show::info_json).collect::<Vec<_>>()));
                } else {
                    print!("{}", show::list(&entries));
                }
                Ok(())
            }
            Self::Info { image, path, json } => {
                let store = image.mount(false)?;
                let found = path.as_ref().map(|path| store.lookup(path)).transpose()?;
                match (found, json) {
                    (None, false) => print!("{}", show::store(&store)),
                    (None, true) => println!("{:#}", show::store_json(&store)),
                    (Some(info), false) => print!("{}", show::info(&info)),
                    (Some(info), true) => println!("{:#}", show::info_json(&info)),
                }
                Ok(())
            }
            Self::Read { image, path, output } => {
                let store = image.mount(false)?;
                let info = store.lookup(path)?;
                ensure!(info.kind == Kind::File, "{path} is no file; disks are copied with export");
                let bar = transfer::bar(info.size, image.quiet);
                if output == Path::new("-") {
                    transfer::download(&store, info.id, std::io::stdout().lock(), &bar)
                } else {
                    let file = File::create(output).with_context(|| format!("{}: cannot be made", output.display()))?;
                    transfer::download(&store, info.id, file, &bar)
                }
            }
            Self::Write { image, path, input } => image.change(|store| transfer::write(store, path, input, image.quiet)),
            Self::Mkdir { image, path } => image.change(|store| Ok(store.create_folder(path, now()).map(drop)?)),
            Self::Remove { image, path } => image.change(|store| {
                block_on(store.remove(path))?;
                reclaim(store)
            }),
            Self::Rename { image, from, to } => image.change(|store| Ok(store.rename(from, to)?)),
            Self::DiskCreate { image, path, size, disk } => image.change(|store| disk.create(store, path, *size).map(drop)),
            Self::DiskGrow { image, path, size } => image.change(|store| Ok(block_on(store.grow_disk(store.lookup(path)?.id, *size))?)),
            Self::Snapshot(command) => command.run(),
            Self::Clone {
                image,
                disk,
                snapshot,
                path,
            } => image.change(|store| {
                let (_, snapshot) = find_snapshot(store, disk, snapshot)?;
                Ok(store.clone_snapshot(snapshot, path, random()?, now()).map(drop)?)
            }),
            Self::Changes { image, disk, snapshot } => {
                let store = image.mount(false)?;
                let (disk, snapshot) = find_snapshot(&store, disk, snapshot)?;
                let mut from = Some(0);
                while let Some(at) = from {
                    let changes = block_on(store.difference(disk, snapshot, at))?;
                    for range in changes.ranges {
                        println!("{} {}", range.start, range.end - range.start);
                    }
                    from = changes.next;
                }
                Ok(())
            }
            Self::Resize { image, size } => image.change(|store| {
                let size = size.unwrap_or_else(|| store.device().geometry().bytes());
                Ok(block_on(store.resize(size))?)
            }),
            Self::Check { image, data } => image.check(*data, false),
            Self::Repair { image, data } => image.check(*data, true),
            Self::Import {
                image,
                input,
                path,
                format,
                disk,
            } => {
                let format = format.map_or_else(|| formats::detect(input), Ok)?;
                let mut source = formats::open(input, format)?;
                let bar = transfer::bar(source.size(), image.quiet);
                image.change(|store| {
                    let id = disk.create(store, path, source.size())?;
                    transfer::import(&mut *source, store, id, &bar)
                })
            }
            Self::Export {
                image,
                path,
                output,
                format,
            } => {
                let store = image.mount(false)?;
                let info = store.lookup(path)?;
                ensure!(info.kind == Kind::Disk, "{path} is no disk; files are copied with read");
                let sink = formats::create(output, *format, info.size)?;
                transfer::export(&store, info.id, sink, &transfer::bar(info.size, image.quiet))
            }
        }
    }
}

/// Gives back all that was removed.
fn reclaim(store: &Store<Target>) -> anyhow::Result<()> {
    while block_on(store.reclaim(1024))? {}
    Ok(())
}

/// The numbers of a disk and of its snapshot of that name.
fn find_snapshot(store: &Store<Target>, disk: &str, name: &str) -> anyhow::Result<(u32, u32)> {
    let disk = store.lookup(disk)?;
    let snapshots = store.snapshots(disk.id)?;
    let mut found = snapshots.iter().filter(|snapshot| snapshot.name == name);
    match (found.next(), found.next()) {
        (Some(snapshot), None) => Ok((disk.id, snapshot.id)),
        (None, _) => bail!("{} has no snapshot {name:?}; `snapshot list` shows those it has", disk.name),
        _ => bail!("{} has several snapshots {name:?}", disk.name),
    }
}

impl Snapshot {
    fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Create { image, disk, name } => image.change(|store| {
                let disk = store.lookup(disk)?.id;
                ensure!(
                    store.snapshots(disk)?.iter().all(|other| other.name != *name),
                    "there is a snapshot {name:?} already; choose another name"
                );
                Ok(block_on(store.create_snapshot(disk, name, now())).map(drop)?)
            }),
            Self::List { image, disk, json } => {
                let store = image.mount(false)?;
                let list = store.snapshots(store.lookup(disk)?.id)?;
                if *json {
                    println!("{:#}", json!(list.iter().map(show::info_json).collect::<Vec<_>>()));
                } else {
                    print!("{}", show::list(&list));
                }
                Ok(())
            }
            Self::Revert { image, disk, name } => image.change(|store| {
                let (disk, snapshot) = find_snapshot(store, disk, name)?;
                block_on(store.revert(disk, snapshot))?;
                reclaim(store)
            }),
            Self::Remove { image, disk, name } => image.change(|store| {
                let (_, snapshot) = find_snapshot(store, disk, name)?;
                store.remove_snapshot(snapshot)?;
                reclaim(store)
            }),
        }
    }
}

impl Disk {
    fn create(&self, store: &Store<Target>, path: &str, size: u64) -> anyhow::Result<u32> {
        let options = DiskOptions {
            size,
            thick: self.thick,
            checksums: self.checksums,
            uuid: random()?,
            now: now(),
        };
        Ok(store.create_disk(path, &options)?)
    }
}

impl Create {
    fn run(&self) -> anyhow::Result<()> {
        let path = &self.image.image;
        if let Some(size) = self.size {
            let file = File::options().write(true).create(true).truncate(false).open(path);
            let file = file.with_context(|| format!("{}: cannot be made", path.display()))?;
            if file.metadata()?.is_file() && file.metadata()?.len() < size {
                file.set_len(size)
                    .with_context(|| format!("{}: cannot be made that large", path.display()))?;
            }
        }
        ensure!(fs::exists(path)?, "{}: not there; --size makes it", path.display());
        if self.gpt {
            ensure!(
                self.image.partition.is_none(),
                "a new partition table has one partition: leave out --partition"
            );
            ensure!(
                self.force || target::mount(path, None, false).is_err(),
                "{}: there is a datastore already; --force replaces it",
                path.display()
            );
            target::partition(path, &self.label)?;
        }
        let target = target::open(path, self.image.partition, true)?;
        let occupied = target::mount(path, self.image.partition, false).is_ok();
        ensure!(
            self.force || self.gpt || !occupied,
            "{}: there is a datastore already; --force replaces it",
            path.display()
        );
        let options = FormatOptions {
            uuid: random()?,
            label: self.label.clone(),
            now: now(),
            ..FormatOptions::default()
        };
        block_on(Store::format(target, &options)).with_context(|| path.display().to_string())?;
        Ok(())
    }
}
