//! Requests of the server's own for an address (DHCP, RFC 2131), by which tests see that a card works.

use crate::packet::{Offload, Packet};
use tessera_device::{DmaBuffer, Segment};
use tessera_proto::network::Exercise;

/// Bytes of a request: headers, the message's fixed part, the cookie, and options.
const LENGTH: usize = 14 + 20 + 8 + 236 + 4 + 8;
/// Where the headers and the message begin.
const IP: usize = 14;
const UDP: usize = 34;
const MESSAGE: usize = 42;
/// Bytes of an answer that are looked at.
const HEAD: usize = MESSAGE + 20;
/// Milliseconds until a request is taken for lost.
const PATIENCE_MS: u64 = 1000;

/// A card's requests, one after the other.
pub struct Requests {
    memory: DmaBuffer,
    segments: [Segment; 1],
    mac: [u8; 6],
    /// Rounds to go, and when the last request was sent, while it is unanswered.
    left: u32,
    since: Option<u64>,
    /// The card has the memory.
    in_flight: bool,
    done: Exercise,
}

impl Requests {
    /// Requests for a card's address, out of `memory`, which holds at least a page.
    #[must_use]
    pub fn new(memory: DmaBuffer, mac: [u8; 6]) -> Self {
        let segments = [Segment {
            physical: memory.physical(),
            length: LENGTH as u32,
        }];
        Self {
            memory,
            segments,
            mac,
            left: 0,
            since: None,
            in_flight: false,
            done: Exercise::default(),
        }
    }

    /// Adds rounds. Answers how far it came.
    pub fn add(&mut self, rounds: u32) -> Exercise {
        self.left = self.left.saturating_add(rounds);
        self.done
    }

    /// Whether a request is to be sent now. It is ready as a packet then.
    pub fn prepare(&mut self, now: u64) -> bool {
        let late = self.since.is_none_or(|since| now.saturating_sub(since) > PATIENCE_MS);
        if self.left == 0 || self.in_flight || !late {
            return false;
        }
        self.memory.copy_in(0, &request(self.mac, self.done.sent));
        true
    }

    /// A request was given to the card.
    pub fn given(&mut self, now: u64) {
        self.in_flight = true;
        self.since = Some(now);
        self.done.sent += 1;
        self.left -= 1;
    }

    /// The card is done with the request's memory.
    pub fn sent(&mut self) {
        self.in_flight = false;
    }

    /// Looks at a received packet.
    pub fn received(&mut self, packet: &dyn Packet) {
        let mut head = [0; HEAD];
        packet.copy_out(0, &mut head);
        if let Some((number, offered)) = offer(&head)
            && self.since.is_some()
            && number.wrapping_add(1) == self.done.sent
        {
            self.since = None;
            self.done.answered += 1;
            self.done.offered = offered;
        }
    }
}

impl Packet for Requests {
    fn length(&self) -> u32 {
        LENGTH as u32
    }

    fn copy_out(&self, offset: u32, bytes: &mut [u8]) {
        self.memory.copy_out(offset as usize, bytes);
    }

    fn segments(&self) -> Option<&[Segment]> {
        Some(&self.segments)
    }

    fn offload(&self) -> Offload {
        Offload::default()
    }
}

/// The sum of an IPv4 header (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// A DISCOVER from `mac`, whose number is that of the transaction. The UDP checksum is left out, as IPv4 allows.
fn request(mac: [u8; 6], number: u32) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &[0xff; 6]);
    put(6, &mac);
    put(12, &[8, 0]);
    put(IP, &[0x45, 0]);
    put(IP + 2, &((LENGTH - IP) as u16).to_be_bytes());
    put(IP + 8, &[64, 17]);
    put(IP + 16, &[0xff; 4]);
    put(UDP, &[0, 68, 0, 67]);
    put(UDP + 4, &((LENGTH - UDP) as u16).to_be_bytes());
    // Request over Ethernet, answered by broadcast.
    put(MESSAGE, &[1, 1, 6, 0]);
    put(MESSAGE + 4, &number.to_be_bytes());
    put(MESSAGE + 10, &[0x80, 0]);
    put(MESSAGE + 28, &mac);
    put(MESSAGE + 236, &[99, 130, 83, 99]);
    // Message type DISCOVER, end.
    put(MESSAGE + 240, &[53, 1, 1, 255]);
    let header = sum(&bytes[IP..UDP]);
    bytes[IP + 10..IP + 12].copy_from_slice(&header.to_be_bytes());
    bytes
}

/// The number of the transaction and the address that an answer offers; `None`: it is none.
fn offer(head: &[u8; HEAD]) -> Option<(u32, [u8; 4])> {
    let is_answer =
        head[12..14] == [8, 0] && head[IP] == 0x45 && head[IP + 9] == 17 && head[UDP..UDP + 4] == [0, 67, 0, 68] && head[MESSAGE] == 2;
    let part = |at: usize| head.get(at..at + 4)?.try_into().ok();
    if !is_answer {
        return None;
    }
    Some((u32::from_be_bytes(part(MESSAGE + 4)?), part(MESSAGE + 16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_once() {
        let mut requests = Requests::new(DmaBuffer::of_this_process(4096), [2, 0, 0, 0, 0, 9]);
        assert!(!requests.prepare(0));
        requests.add(2);
        assert!(requests.prepare(0));
        requests.given(0);
        assert!(!requests.prepare(5000), "the card has the memory");
        requests.sent();
        assert!(!requests.prepare(500), "it waits for the answer");
        let mut bytes = request([2, 0, 0, 0, 0, 9], 0);
        assert_eq!(sum(&bytes[IP..UDP]), 0);
        bytes[UDP..UDP + 4].copy_from_slice(&[0, 67, 0, 68]);
        bytes[MESSAGE] = 2;
        bytes[MESSAGE + 16..MESSAGE + 20].copy_from_slice(&[10, 0, 2, 15]);
        let answer = Requests::new(DmaBuffer::of_this_process(4096), [0; 6]);
        answer.memory.copy_in(0, &bytes);
        requests.received(&answer);
        requests.received(&answer);
        let done = requests.add(0);
        assert_eq!((done.sent, done.answered, done.offered), (1, 1, [10, 0, 2, 15]));
        assert!(requests.prepare(501));
        requests.given(501);
        requests.sent();
        requests.received(&answer);
        assert_eq!(requests.add(1).answered, 1, "an old answer");
        assert!(requests.prepare(501 + PATIENCE_MS + 1), "it is taken for lost");
    }
}
