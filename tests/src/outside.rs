//! A network outside of an emulated machine, held by the test: what a card of the machine sends arrives here frame by frame with its VLAN tag, and a station of ours answers ARP (RFC 826) and echo requests (RFC 792): as
//! 10.9.0.254 without a tag, and as 10.9.N.254 in VLAN N. Emulators carry frames as UDP packets on 127.0.0.1; nothing beyond is reached, and nothing of it needs rights.

use crate::{
    Failure, Result,
    machine::{Emulator, Network, Nic},
};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Types of frames (IEEE 802.3, 802.1Q).
const TAGGED: u16 = 0x8100;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
/// Most frames that are remembered.
const MOST: usize = 100_000;

/// A frame that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: Instant,
    /// The tag's number, if it has a tag.
    pub vlan: Option<u16>,
    /// From whom.
    pub source: [u8; 6],
    /// To whom.
    pub destination: [u8; 6],
    /// What it carries.
    pub kind: u16,
    /// Bytes.
    pub length: usize,
}

/// The network behind one card.
pub struct Outside {
    socket: Arc<UdpSocket>,
    /// The emulator's end.
    theirs: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The station's address in a VLAN, or without a tag.
fn station(vlan: Option<u16>) -> [u8; 4] {
    [10, 9, vlan.unwrap_or(0) as u8, 254]
}

/// The VLAN tag's number, and where the frame goes on behind it.
fn parse(frame: &[u8]) -> Option<(Option<u16>, u16, usize)> {
    let word = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    match word(12)? {
        TAGGED => Some((Some(word(14)? & 0xfff), word(16)?, 18)),
        kind => Some((None, kind, 14)),
    }
}

/// The one's complement sum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What our station answers to a frame.
fn answer(frame: &[u8], mac: [u8; 6], (vlan, kind, at): (Option<u16>, u16, usize)) -> Option<Vec<u8>> {
    let own = station(vlan);
    let mut reply = frame.to_vec();
    match kind {
        ARP => {
            let body = frame.get(at..at + 28)?;
            let target = &body[24..28];
            if body[7] != 1 || target != own {
                return None;
            }
            let out = &mut reply[at..at + 28];
            out[7] = 2;
            out[8..14].copy_from_slice(&mac);
            out[14..18].copy_from_slice(target);
            out[18..28].copy_from_slice(&body[8..18]);
        }
        IPV4 => {
            let header = usize::from(frame.get(at)? & 15) * 4;
            let total = usize::from(u16::from_be_bytes([*frame.get(at + 2)?, *frame.get(at + 3)?]));
            let (source, target) = (frame.get(at + 12..at + 16)?, frame.get(at + 16..at + 20)?);
            let message = at + header;
            let end = at + total;
            let ours = frame[..6] == mac && target == own;
            if !ours || frame[at + 9] != 1 || frame.get(message..end)?.first() != Some(&8) {
                return None;
            }
            reply[at + 12..at + 16].copy_from_slice(target);
            reply[at + 16..at + 20].copy_from_slice(source);
            reply[message] = 0;
            reply[message + 2..message + 4].fill(0);
            let sum = checksum(&reply[message..end]);
            reply[message + 2..message + 4].copy_from_slice(&sum.to_be_bytes());
        }
        _ => return None,
    }
    let (first, source): ([u8; 6], [u8; 6]) = (frame[6..12].try_into().ok()?, mac);
    reply[..6].copy_from_slice(&first);
    reply[6..12].copy_from_slice(&source);
    Some(reply)
}

/// A socket, and the free address below it, which the emulator binds next; nobody else asks for it meanwhile. Bochs sends to the port behind its own.
fn neighbours() -> Result<(UdpSocket, SocketAddr)> {
    const TRIES: u32 = 100;
    for _ in 0..TRIES {
        let theirs = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = theirs.local_addr()?;
        let Some(next) = address.port().checked_add(1) else { continue };
        if let Ok(ours) = UdpSocket::bind((Ipv4Addr::LOCALHOST, next)) {
            return Ok((ours, address));
        }
    }
    Err(Failure::new("no two UDP ports of 127.0.0.1 beside each other are free"))
}

impl Outside {
    /// A network with a station of the number `number`.
    pub fn new(number: u8) -> Result<Self> {
        let (socket, theirs) = neighbours()?;
        let socket = Arc::new(socket);
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (seen, ends) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let mac = [0x52, 0x54, 0, 0x99, 0, number];
        let (own, list, end) = (socket.clone(), seen.clone(), ends.clone());
        let thread = std::thread::spawn(move || {
            let mut bytes = [0; 65_536];
            while !end.load(Ordering::Relaxed) {
                let Ok((length, _)) = own.recv_from(&mut bytes) else { continue };
                let frame = &bytes[..length];
                let Some(parsed) = parse(frame) else { continue };
                let (vlan, kind, _) = parsed;
                let mut known = list.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                if known.len() < MOST {
                    known.push(Seen {
                        at: Instant::now(),
                        vlan,
                        source: frame[6..12].try_into().unwrap_or_default(),
                        destination: frame[..6].try_into().unwrap_or_default(),
                        kind,
                        length,
                    });
                }
                drop(known);
                if let Some(reply) = answer(frame, mac, parsed) {
                    let _ = own.send_to(&reply, theirs);
                }
            }
        });
        Ok(Self {
            socket,
            theirs,
            seen,
            ends,
            thread: Some(thread),
        })
    }

    /// A card in this network.
    pub fn nic(&self, emulator: Emulator) -> Result<Nic> {
        let network = Network::Udp {
            ours: self.socket.local_addr()?.port(),
            theirs: self.theirs.port(),
        };
        Ok(Nic::usual(emulator, network))
    }

    /// What has arrived since it was asked last.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x99, 0, 1];

    #[test]
    fn echo_requests_are_answered_with_their_tag() {
        let mut frame = Vec::from(MAC);
        frame.extend([2, 0, 0, 0, 0, 1, 0x81, 0, 0, 100, 8, 0]);
        frame.extend([0x45, 0, 0, 30, 0, 0, 0, 0, 64, 1, 0, 0, 10, 9, 100, 1, 10, 9, 100, 254]);
        frame.extend([8, 0, 0, 0, 0, 1, 0, 1, 0xab, 0xcd]);
        assert_eq!(parse(&frame), Some((Some(100), IPV4, 18)));
        let reply = answer(&frame, MAC, parse(&frame).unwrap()).unwrap();
        assert_eq!(reply[..6], [2, 0, 0, 0, 0, 1]);
        assert_eq!(reply[12..18], frame[12..18]);
        assert_eq!(checksum(&reply[38..48]), 0);
        assert_eq!((reply[38], &reply[30..38]), (0, &[10, 9, 100, 254, 10, 9, 100, 1][..]));
        frame[37] = 1;
        assert_eq!(answer(&frame, MAC, parse(&frame).unwrap()), None);
        frame[37] = 254;
        frame[15] = 200;
        assert_eq!(
            answer(&frame, MAC, parse(&frame).unwrap()),
            None,
            "in another VLAN it has another address"
        );
    }
}
