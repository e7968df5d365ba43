//! Virtual switches, their ports, and recordings of what goes through them.

use crate::{
    host::{encode, list},
    http::Place,
    show,
};
use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{Read, Write},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// What can be done with networks.
#[derive(Subcommand)]
pub enum Network {
    /// Virtual switches.
    Switches,
    /// Port groups.
    Groups,
    /// Ports with their counters.
    Ports,
    /// One port, with what was dropped and why.
    Port { name: String },
    /// Recordings.
    Captures,
    /// Record what goes through a port into a pcapng file.
    Capture {
        /// The port, such as `debian.0`.
        port: String,
        /// The file.
        file: PathBuf,
        /// How long.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Bytes of each frame.
        #[arg(long, default_value_t = 256)]
        snap_length: u32,
    },
    /// Forget a recording that an interrupted `capture` left.
    Forget { capture: String },
}

/// Between two looks for what was recorded.
const LOOK: Duration = Duration::from_millis(500);

/// Does it.
///
/// # Errors
/// The host refused, or was not reached.
pub fn run(place: &Place, command: Network, json_wanted: bool) -> Result<()> {
    match command {
        Network::Switches => show::list(
            &list(place, "/networks/switches")?,
            &["id", "name", "mtu", "uplinks", "usedPorts"],
            json_wanted,
        ),
        Network::Groups => show::list(
            &list(place, "/networks/port-groups")?,
            &["id", "name", "switch", "vlan", "vms", "hostInterfaces"],
            json_wanted,
        ),
        Network::Ports => show::list(
            &list(place, "/networks/ports")?,
            &[
                "name",
                "kind",
                "portGroup",
                "mac",
                "linkUp",
                "uplink",
                "received.frames",
                "received.bytes",
                "sent.frames",
                "sent.bytes",
            ],
            json_wanted,
        ),
        Network::Port { name } => {
            let port = place.json("GET", &format!("/api/v1/networks/ports/{}", encode(&name, "._-")), None)?;
            show::one(&port, json_wanted);
            let dropped = port["dropped"].as_array().map_or(&[][..], Vec::as_slice);
            if !json_wanted && !dropped.is_empty() {
                println!();
                show::list(dropped, &["frames", "reason", "text"], false);
            }
        }
        Network::Captures => show::list(
            &list(place, "/networks/captures")?,
            &["id", "port", "running", "snapLength", "frames", "lost", "waiting"],
            json_wanted,
        ),
        Network::Capture {
            port,
            file,
            seconds,
            snap_length,
        } => capture(place, &port, &file, Duration::from_secs(seconds), snap_length, json_wanted)?,
        Network::Forget { capture } => {
            place.json("DELETE", &path(&capture), None)?;
        }
    }
    Ok(())
}

fn path(capture: &str) -> String {
    format!("/api/v1/networks/captures/{}", encode(capture, "._-"))
}

/// Appends what there is of the recording to the file; how much that was.
fn fetch(place: &Place, id: &str, from: u64, target: &mut File) -> Result<u64> {
    let url = format!("{}/file?from={from}", path(id));
    let mut answer = place.send("GET", &url, &[], 0, &mut std::io::empty(), |_| ())?;
    if answer.status != 200 {
        return answer.json().map(|_| 0);
    }
    let length: u64 = answer.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut bytes = Vec::new();
    answer.stream.by_ref().take(length).read_to_end(&mut bytes)?;
    // A part of it is as good: the next request goes on there.
    target.write_all(&bytes)?;
    Ok(bytes.len() as u64)
}

fn capture(place: &Place, port: &str, file: &PathBuf, time: Duration, snap_length: u32, json_wanted: bool) -> Result<()> {
    let mut target = File::create(file).with_context(|| format!("{} cannot be written", file.display()))?;
    let body = json!({ "port": port, "snapLength": snap_length });
    let begun = place.json("POST", "/api/v1/networks/captures", Some(&body))?;
    let id = begun["id"].as_str().context("the host gave the recording no name")?;
    let mut record = || -> Result<Value> {
        let (begin, mut at) = (Instant::now(), 0);
        while begin.elapsed() < time {
            thread::sleep(LOOK.min(time));
            at += fetch(place, id, at, &mut target)?;
        }
        let ended = place.json("POST", &format!("{}/stop", path(id)), None)?;
        loop {
            match fetch(place, id, at, &mut target)? {
                0 => return Ok(ended),
                more => at += more,
            }
        }
    };
    let recorded = record();
    // It holds one of few places; if the host is gone, so is the recording.
    let forgotten = place.json("DELETE", &path(id), None);
    let recorded = recorded?;
    forgotten?;
    if json_wanted {
        println!("{recorded}");
    } else {
        println!("{} frames, {} lost", show::cell(&recorded["frames"]), show::cell(&recorded["lost"]));
    }
    Ok(())
}
