//! Which queue a packet is received on: the one of the pair through which the guest last sent packets of the same flow (virtio 1.2, 5.1.6.5.5).

use crate::tag::TAGGED;
use core::cell::Cell;

/// Flows that are told apart.
const FLOWS: usize = 256;
/// Bytes of a packet that are looked at: Ethernet, a tag, IPv6, ports.
pub const LOOK: usize = 62;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// The pair of each flow.
pub struct Steering {
    pairs: [Cell<u8>; FLOWS],
}

impl Default for Steering {
    fn default() -> Self {
        Self {
            pairs: [const { Cell::new(0) }; FLOWS],
        }
    }
}

impl Steering {
    /// The guest sent such a packet through pair `pair`.
    pub fn sent(&self, head: &[u8; LOOK], pair: u8) {
        self.pairs[flow(head)].set(pair);
    }

    /// The pair on which it receives such a packet, among `pairs`.
    #[must_use]
    pub fn pair(&self, head: &[u8; LOOK], pairs: u16) -> usize {
        usize::from(self.pairs[flow(head)].get()) % usize::from(pairs.max(1))
    }
}

fn word(head: &[u8; LOOK], at: usize) -> u16 {
    u16::from_be_bytes([head[at], head[at + 1]])
}

/// The flow of a packet: both directions have the same.
fn flow(head: &[u8; LOOK]) -> usize {
    let (kind, at) = match word(head, 12) {
        TAGGED => (word(head, 16), 18),
        kind => (kind, 14),
    };
    let xor = |from: usize, length: usize| (from..from + length).step_by(2).fold(0, |sum, at| sum ^ word(head, at));
    let (addresses, protocol, ports) = match kind {
        IPV4 => (xor(at + 12, 8), head[at + 9], at + usize::from(head[at] & 15) * 4),
        IPV6 => (xor(at + 8, 32), head[at + 6], at + 40),
        _ => return 0,
    };
    let ports = if matches!(protocol, 6 | 17) && ports + 4 <= LOOK {
        xor(ports, 4)
    } else {
        0
    };
    let mixed = (u32::from(addresses) << 16 | u32::from(ports)).wrapping_mul(0x9e37_79b1);
    (mixed >> 24) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp4(from: (u8, u16), to: (u8, u16)) -> [u8; LOOK] {
        let mut head = [0; LOOK];
        head[12..14].copy_from_slice(&[8, 0]);
        (head[14], head[23]) = (0x45, 6);
        (head[29], head[33]) = (from.0, to.0);
        head[34..36].copy_from_slice(&from.1.to_be_bytes());
        head[36..38].copy_from_slice(&to.1.to_be_bytes());
        head
    }

    #[test]
    fn answers_come_back_where_the_questions_left() {
        let steering = Steering::default();
        for port in 0..40u8 {
            let there = tcp4((1, 40_000 + u16::from(port)), (2, 80));
            let back = tcp4((2, 80), (1, 40_000 + u16::from(port)));
            steering.sent(&there, port % 4);
            assert_eq!(steering.pair(&back, 4), usize::from(port % 4));
            assert_eq!(steering.pair(&back, 1), 0);
        }
    }

    proptest! {
        #[test]
        fn survives_anything(head in proptest::collection::vec(any::<u8>(), LOOK), pairs in 0u16..5) {
            let head: [u8; LOOK] = head.try_into().unwrap();
            let steering = Steering::default();
            steering.sent(&head, 3);
            prop_assert!(steering.pair(&head, pairs) < 4);
        }
    }
}
