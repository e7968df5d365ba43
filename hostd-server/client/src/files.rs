//! Files of datastores.

use crate::{
    host::{encode, find, list},
    http::{self, Place, Refusal},
    show,
};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

/// What can be done with files.
#[derive(Subcommand)]
pub enum Files {
    /// What is in a folder.
    List { datastore: String, path: Option<String> },
    /// Send a file; where the connection breaks it goes on.
    Upload {
        file: PathBuf,
        datastore: String,
        path: String,
        /// Go on with what an earlier upload of the same file left.
        #[arg(long)]
        resume: bool,
    },
    /// Fetch a file; one that broke off goes on where it did.
    Download { datastore: String, path: String, file: PathBuf },
    /// Remove a file.
    Delete { datastore: String, path: String },
}

/// Does it.
///
/// # Errors
/// The host refused, or was not reached.
pub fn run(place: &Place, command: Files, json_wanted: bool) -> Result<()> {
    let url = |datastore: &str, path: &str| -> Result<String> {
        Ok(format!(
            "/api/v1/datastores/{}/files/{}",
            find(place, "/datastores", datastore)?,
            encode(path, "/._-")
        ))
    };
    match command {
        Files::List { datastore, path } => {
            let query = format!(
                "/datastores/{}/files?path={}",
                find(place, "/datastores", &datastore)?,
                encode(&path.unwrap_or_default(), "._-")
            );
            show::list(&list(place, &query)?, &["name", "kind", "size", "modified"], json_wanted);
        }
        Files::Delete { datastore, path } => {
            place.json(
                "DELETE",
                &format!(
                    "/api/v1/datastores/{}/files?path={}",
                    find(place, "/datastores", &datastore)?,
                    encode(&path, "._-")
                ),
                None,
            )?;
        }
        Files::Upload {
            file,
            datastore,
            path,
            resume,
        } => {
            let mut source = File::open(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            let (size, url) = (source.metadata()?.len(), url(&datastore, &path)?);
            let bar = indicatif::ProgressBar::new(size);
            // How much the host has of it; all of it may be of another file, so that then is sent anew.
            let have = || {
                place
                    .send("HEAD", &url, &[], 0, &mut std::io::empty(), |_| ())
                    .ok()
                    .filter(|answer| answer.status == 200)
                    .and_then(|answer| answer.header("upload-offset")?.parse().ok())
                    .filter(|have| *have < size)
                    .unwrap_or(0)
            };
            let mut from = if resume { have() } else { 0 };
            for attempt in 0.. {
                source.seek(SeekFrom::Start(from))?;
                let mut headers = vec![("Content-Type", "application/octet-stream".to_string())];
                if from > 0 {
                    headers.push(("Content-Range", format!("bytes {from}-{}/{size}", size - 1)));
                }
                let sent = place
                    .send("PUT", &url, &headers, size - from, &mut source, |sent| {
                        bar.set_position(from + sent)
                    })
                    .and_then(http::Answer::json);
                match sent {
                    Ok(_) => break,
                    Err(error) if error.is::<Refusal>() || attempt == 5 => return Err(error),
                    Err(_) => std::thread::sleep(Duration::from_secs(1 << attempt)),
                }
                from = have();
            }
            bar.finish_and_clear();
        }
        Files::Download { datastore, path, file } => {
            let have = std::fs::metadata(&file).map_or(0, |file| file.len());
            let headers = if have > 0 {
                vec![("Range", format!("bytes={have}-"))]
            } else {
                Vec::new()
            };
            let mut answer = place.send("GET", &url(&datastore, &path)?, &headers, 0, &mut std::io::empty(), |_| ())?;
            match answer.status {
                200 if have == 0 => {}
                206 => {}
                416 => return Ok(()),
                200 => bail!("the host does not give parts: remove {} first", file.display()),
                _ => return answer.json().map(|_| ()),
            }
            let mut target = OpenOptions::new()
                .create(true)
                .append(true)
                .open(&file)
                .with_context(|| format!("{} cannot be written", file.display()))?;
            let length = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let bar = indicatif::ProgressBar::new(length);
            let count = std::io::copy(&mut bar.wrap_read(answer.stream.by_ref().take(length)), &mut target)?;
            bar.finish_and_clear();
            if count != length {
                bail!("the connection broke after {count} of {length} bytes: the same command goes on from there");
            }
        }
    }
    Ok(())
}
