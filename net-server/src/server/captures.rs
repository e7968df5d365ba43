//! Captures that are under way.

use super::Server;
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_net::{
    capture::{Capture, Direction},
    packet::Packet,
};
use tessera_proto::{
    Call, Failure, FailureKind, Page,
    capture::{self, CaptureChunk, CaptureInfo, MAX_CAPTURES, MAX_ROOM, MAX_SNAP},
};
use tessera_rt::{start::start_info, time};

/// Least room: a file's beginning, and some frames.
const MIN_ROOM: u32 = 4096;
/// Bytes in an answer, so that it fits a message.
const CHUNK: usize = 2048;

/// A capture with its number and its port.
struct Named {
    id: u32,
    port: String,
    capture: Capture,
}

/// All of them.
#[derive(Default)]
pub struct Captures {
    all: Vec<Named>,
    made: u32,
}

/// Nanoseconds since 1970.
fn clock() -> u64 {
    let info = start_info();
    let since_boot = time::from_ticks(time::now().saturating_sub(info.boot_tsc), 1_000_000_000, time::hz());
    info.wall_clock.saturating_mul(1_000_000_000).saturating_add(since_boot)
}

impl Captures {
    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// A frame passed a port.
    pub fn add(&mut self, port: &str, packet: &dyn Packet, direction: Direction) {
        for named in self.all.iter_mut().filter(|named| named.port == port) {
            named.capture.add(clock(), packet, direction);
        }
    }

    fn find(&mut self, id: u32) -> Result<&mut Capture, Failure> {
        let found = self.all.iter_mut().find(|named| named.id == id);
        found.map(|named| &mut named.capture).ok_or_else(|| missing(id))
    }
}

fn missing(id: u32) -> Failure {
    Failure::new(
        FailureKind::NotFound,
        format!("there is no capture {id}: a restart of the network server ends all"),
    )
}

/// What is answered to a reader.
fn chunk(id: u32, from: u64, part: Option<(Vec<u8>, bool)>) -> Result<CaptureChunk, Failure> {
    let (bytes, end) = part.ok_or_else(|| {
        let text = format!("byte {from} of capture {id} was read before and forgotten, or is not there yet");
        Failure::new(FailureKind::BadRequest, text)
    })?;
    Ok(CaptureChunk { bytes, end })
}

impl capture::Server for Server {
    fn captures(&mut self, _call: &mut Call, first: u32) -> Result<Page<CaptureInfo>, Failure> {
        let all = (0..).zip(&self.hub.captures.all).skip(first as usize);
        Ok(Page::fill(all.map(|(number, Named { id, port, capture })| {
            let (frames, lost) = capture.counts();
            let info = CaptureInfo {
                id: *id,
                port: port.clone(),
                snap: capture.snap(),
                room: capture.room() as u32,
                waiting: capture.waiting() as u32,
                frames,
                lost,
                running: capture.is_running(),
            };
            (number, info)
        })))
    }

    fn start(&mut self, _call: &mut Call, port: &str, snap: u32, room: u32) -> Result<u32, Failure> {
        if self.hub.fabric.find(port).is_none() {
            let text = format!("there is no port `{port}`: `port list` shows all");
            return Err(Failure::new(FailureKind::NotFound, text));
        }
        let room = if room == 0 { MAX_ROOM } else { room };
        if !(1..=MAX_SNAP).contains(&snap) || !(MIN_ROOM..=MAX_ROOM).contains(&room) {
            let text = format!("captures keep 1 to {MAX_SNAP} bytes of a frame, and have room for {MIN_ROOM} to {MAX_ROOM} bytes");
            return Err(Failure::new(FailureKind::BadRequest, text));
        }
        let captures = &mut self.hub.captures;
        if captures.all.len() >= MAX_CAPTURES {
            let text = format!("there are {MAX_CAPTURES} captures already: remove one");
            return Err(Failure::new(FailureKind::Exhausted, text));
        }
        captures.made = captures.made.wrapping_add(1);
        let id = captures.made;
        captures.all.push(Named {
            id,
            port: port.to_string(),
            capture: Capture::new(port, snap, room as usize),
        });
        Ok(id)
    }

    fn read(&mut self, _call: &mut Call, id: u32, from: u64) -> Result<CaptureChunk, Failure> {
        let part = self.hub.captures.find(id)?.read(from, CHUNK);
        chunk(id, from, part)
    }

    fn peek(&mut self, _call: &mut Call, id: u32, from: u64) -> Result<CaptureChunk, Failure> {
        let part = self.hub.captures.find(id)?.peek(from, CHUNK);
        chunk(id, from, part)
    }

    fn stop(&mut self, _call: &mut Call, id: u32) -> Result<(), Failure> {
        self.hub.captures.find(id)?.stop(clock());
        Ok(())
    }

    fn remove(&mut self, _call: &mut Call, id: u32) -> Result<(), Failure> {
        let all = &mut self.hub.captures.all;
        let place = all.iter().position(|named| named.id == id).ok_or_else(|| missing(id))?;
        all.remove(place);
        Ok(())
    }
}
