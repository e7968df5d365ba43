//! Moving content between a datastore and the files of this machine, with a bar that shows how far it is.

use super::{
    formats::{Sink, Source},
    target::Target,
};
use anyhow::{Context, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs::{self, File},
    io::{IsTerminal, Read, Write},
    path::Path,
};
use tessera_block::block_on;
use tessera_datastore::{BLOCK, Kind, Store};

/// Bytes that are moved at once.
const CHUNK: usize = 1 << 20;

/// A bar for `bytes` bytes; none where nobody would see it.
pub fn bar(bytes: u64, quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("    [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}, {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::new(bytes).with_style(style)
}

/// Whether all bytes are zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|&byte| byte == 0)
}

/// Runs of blocks in `data` that are not all zero.
pub fn runs(data: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    for (number, block) in data.chunks(BLOCK).enumerate() {
        if is_zero(block) {
            continue;
        }
        let start = number * BLOCK;
        match runs.last_mut() {
            Some(last) if last.end == start => last.end += block.len(),
            _ => runs.push(start..start + block.len()),
        }
    }
    runs
}

/// Copies an image into a disk that reads as zeroes.
///
/// # Errors
/// Reading or writing fails.
pub fn import(source: &mut dyn Source, store: &Store<Target>, disk: u32, bar: &ProgressBar) -> anyhow::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some(range) = source.next_data(at)? {
        at = range.start;
        bar.set_position(at);
        while at < range.end {
            // Up to the next MiB of the disk, so that runs do not end where they need not.
            let part = (CHUNK as u64 - at % CHUNK as u64).min(range.end - at) as usize;
            let data = &mut buffer[..part];
            source.read(at, data)?;
            for run in runs(data) {
                block_on(store.write(disk, at + run.start as u64, &data[run]))?;
            }
            at += part as u64;
            bar.inc(part as u64);
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Copies a disk or snapshot into an image.
///
/// # Errors
/// Reading or writing fails.
pub fn export(store: &Store<Target>, disk: u32, mut sink: Box<dyn Sink>, bar: &ProgressBar) -> anyhow::Result<()> {
    let size = store.info(disk)?.size;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let part = (size - at).min(CHUNK as u64) as usize;
        let data = &mut buffer[..part];
        block_on(store.read(disk, at, data))?;
        for run in runs(data) {
            sink.write(at + run.start as u64, &data[run])?;
        }
        at += part as u64;
        bar.inc(part as u64);
    }
    bar.finish_and_clear();
    sink.finish()
}

/// Copies a file of this machine, the standard input (`-`), or a folder with everything in it, over what was there.
///
/// # Errors
/// Something of another kind is in the way, or is to be copied; reading or writing fails.
pub fn write(store: &Store<Target>, path: &str, input: &Path, quiet: bool) -> anyhow::Result<()> {
    if input == Path::new("-") {
        upload(std::io::stdin().lock(), store, file(store, path)?, &bar(0, true))?;
        return Ok(());
    }
    let kind = fs::metadata(input).with_context(|| format!("{}: cannot be opened", input.display()))?;
    if !kind.is_dir() {
        let from = File::open(input).with_context(|| format!("{}: cannot be opened", input.display()))?;
        upload(from, store, file(store, path)?, &bar(kind.len(), quiet))?;
        return Ok(());
    }
    match store.lookup(path) {
        Ok(info) => ensure!(info.kind == Kind::Folder, "{path} is no folder"),
        Err(_) => drop(store.create_folder(path, super::now())?),
    }
    let mut entries = fs::read_dir(input)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (from, kind) = (entry.path(), entry.file_type()?);
        if !kind.is_file() && !kind.is_dir() {
            bail!("{}: neither a file nor a folder", from.display());
        }
        let name = entry.file_name();
        let name = name
            .to_str()
            .with_context(|| format!("{}: its name is not UTF-8", from.display()))?;
        write(store, &format!("{}/{name}", path.trim_end_matches('/')), &from, quiet)?;
    }
    Ok(())
}

/// The file at `path`, empty.
fn file(store: &Store<Target>, path: &str) -> anyhow::Result<u32> {
    let Ok(info) = store.lookup(path) else {
        return Ok(store.create_file(path, super::now())?);
    };
    ensure!(info.kind == Kind::File, "{path} is no file; disks are made with import");
    block_on(store.set_file_size(info.id, 0))?;
    store.set_modified(info.id, super::now())?;
    Ok(info.id)
}

/// Copies everything that can be read into a file of the datastore; gives the number of bytes.
///
/// # Errors
/// Reading or writing fails.
pub fn upload(mut from: impl Read, store: &Store<Target>, file: u32, bar: &ProgressBar) -> anyhow::Result<u64> {
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    loop {
        let mut filled = 0;
        while filled < CHUNK {
            match from.read(&mut buffer[filled..]).context("reading the input")? {
                0 => break,
                count => filled += count,
            }
        }
        if filled == 0 {
            bar.finish_and_clear();
            return Ok(at);
        }
        block_on(store.write(file, at, &buffer[..filled]))?;
        at += filled as u64;
        bar.inc(filled as u64);
    }
}

/// Copies a file of the datastore to where it can be written.
///
/// # Errors
/// Reading or writing fails.
pub fn download(store: &Store<Target>, file: u32, mut to: impl Write, bar: &ProgressBar) -> anyhow::Result<()> {
    let size = store.info(file)?.size;
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while at < size {
        let part = (size - at).min(CHUNK as u64) as usize;
        block_on(store.read(file, at, &mut buffer[..part]))?;
        to.write_all(&buffer[..part]).context("writing the output")?;
        at += part as u64;
        bar.inc(part as u64);
    }
    bar.finish_and_clear();
    to.flush().context("writing the output")
}
