//! What the driver asks for through the control queue (virtio 1.2, 5.1.6.5), and which packets it wants because of that.

use super::features::{Features, Takes};
use alloc::vec::Vec;
use tessera_device::DmaBuffer;

/// Most addresses that are told apart; a driver that names more gets more than it asked for.
const MOST_ADDRESSES: usize = 64;
/// Bytes of a command that are looked at.
pub const LONGEST: usize = 2 + 2 * (4 + 6 * MOST_ADDRESSES) + 64;
/// Bytes that the state takes in memory that outlives the server.
pub const STATE: usize = 32 + 6 * MOST_ADDRESSES + VLAN_BYTES;
const VLAN_BYTES: usize = 4096 / 8;
const BROADCAST: [u8; 6] = [0xff; 6];

/// Modes of receiving, in the order of the commands of class 0 (5.1.6.5.1).
mod mode {
    pub const PROMISCUOUS: u8 = 1 << 0;
    pub const ALL_MULTICAST: u8 = 1 << 1;
    pub const ALL_UNICAST: u8 = 1 << 2;
    pub const NO_MULTICAST: u8 = 1 << 3;
    pub const NO_UNICAST: u8 = 1 << 4;
    pub const NO_BROADCAST: u8 = 1 << 5;
    /// More addresses of a kind than fit.
    pub const OVERFLOW_UNICAST: u8 = 1 << 6;
    pub const OVERFLOW_MULTICAST: u8 = 1 << 7;
}

/// What a command brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It was refused.
    Refused,
    /// Done.
    Done,
    /// Which packets are wanted is different now.
    Filter,
    /// The driver has told the network where it is.
    Announced,
}

/// What the driver asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// Its address.
    pub mac: [u8; 6],
    modes: u8,
    /// Pairs of queues in use.
    pub pairs: u16,
    /// What it takes undone.
    pub takes: Takes,
    addresses: Vec<[u8; 6]>,
    vlans: Vec<u8>,
}

impl Control {
    /// What holds until the driver asks for something.
    #[must_use]
    pub fn new(mac: [u8; 6], features: Features) -> Self {
        Self {
            mac,
            modes: 0,
            pairs: 1,
            takes: features.takes(),
            addresses: Vec::with_capacity(MOST_ADDRESSES),
            vlans: alloc::vec![0; VLAN_BYTES],
        }
    }

    /// What holds for a driver that asked for something, of which nothing is known any more: rather too many packets than too few.
    #[must_use]
    pub fn unknown(mac: [u8; 6], features: Features) -> Self {
        Self {
            modes: mode::OVERFLOW_UNICAST | mode::OVERFLOW_MULTICAST,
            vlans: alloc::vec![0xff; VLAN_BYTES],
            ..Self::new(mac, features)
        }
    }

    /// Writes it down for a successor.
    pub fn save(&self, to: &DmaBuffer) {
        let mut bytes = [0; STATE];
        bytes[..6].copy_from_slice(&self.mac);
        bytes[6] = self.modes;
        bytes[7] = self.pairs as u8;
        bytes[8..16].copy_from_slice(&self.takes.bits().to_le_bytes());
        bytes[16] = self.addresses.len() as u8;
        for (place, address) in bytes[32..].chunks_exact_mut(6).zip(&self.addresses) {
            place.copy_from_slice(address);
        }
        bytes[STATE - VLAN_BYTES..].copy_from_slice(&self.vlans);
        to.copy_in(0, &bytes);
    }

    /// Takes over what a predecessor wrote down; `None` if it makes no sense.
    #[must_use]
    pub fn load(from: &DmaBuffer, features: Features, most_pairs: u16) -> Option<Self> {
        let mut bytes = [0; STATE];
        from.copy_out(0, &mut bytes);
        let count = usize::from(bytes[16]);
        let pairs = u16::from(bytes[7]);
        if count > MOST_ADDRESSES || !(1..=most_pairs).contains(&pairs) {
            return None;
        }
        let offloads = bytes[8..16].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let mut addresses = Vec::with_capacity(MOST_ADDRESSES);
        addresses.extend(bytes[32..].chunks_exact(6).take(count).map(address));
        Some(Self {
            mac: address(&bytes[..6]),
            modes: bytes[6],
            pairs,
            takes: Takes::new(offloads, features)?,
            addresses,
            vlans: bytes[STATE - VLAN_BYTES..].to_vec(),
        })
    }

    /// Carries out a command: class, command, data. `most_pairs`: of queues.
    pub fn command(&mut self, command: &[u8], features: Features, most_pairs: u16) -> Effect {
        let [class, command, data @ ..] = command else {
            return Effect::Refused;
        };
        match (class, command, data) {
            (0, 0..=5, [on, ..]) => {
                let bit = 1 << command;
                self.modes = if *on == 0 { self.modes & !bit } else { self.modes | bit };
                Effect::Filter
            }
            (1, 0, tables) => self.set_addresses(tables),
            (1, 1, mac) if mac.len() >= 6 && mac[0] & 1 == 0 && mac[..6] != [0; 6] => {
                self.mac = address(mac);
                Effect::Filter
            }
            (2, 0 | 1, [low, high, ..]) => {
                let vlan = usize::from(u16::from_le_bytes([*low, *high]));
                let Some(byte) = self.vlans.get_mut(vlan / 8) else {
                    return Effect::Refused;
                };
                let bit = 1 << (vlan % 8);
                *byte = if *command == 0 { *byte | bit } else { *byte & !bit };
                Effect::Filter
            }
            (3, 0, _) => Effect::Announced,
            (4, 0, [low, high, ..]) => {
                let pairs = u16::from_le_bytes([*low, *high]);
                if !features.multiple_queues() || !(1..=most_pairs).contains(&pairs) {
                    return Effect::Refused;
                }
                self.pairs = pairs;
                Effect::Done
            }
            (5, 0, offloads) if offloads.len() >= 8 => {
                let offloads = offloads[..8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
                let Some(takes) = Takes::new(offloads, features) else {
                    return Effect::Refused;
                };
                self.takes = takes;
                Effect::Done
            }
            _ => Effect::Refused,
        }
    }

    /// Two tables, each its length and that many addresses: of stations, of groups.
    fn set_addresses(&mut self, tables: &[u8]) -> Effect {
        let mut addresses = Vec::with_capacity(MOST_ADDRESSES);
        let mut modes = self.modes & !(mode::OVERFLOW_UNICAST | mode::OVERFLOW_MULTICAST);
        let mut left = tables;
        for overflow in [mode::OVERFLOW_UNICAST, mode::OVERFLOW_MULTICAST] {
            let Some((count, rest)) = left.split_first_chunk::<4>() else {
                // Cut off where a command is too long to be looked at: the first table was too large.
                if modes & mode::OVERFLOW_UNICAST == 0 {
                    return Effect::Refused;
                }
                modes |= overflow;
                break;
            };
            let count = u32::from_le_bytes(*count) as usize;
            let bytes = count.saturating_mul(6);
            let Some((table, rest)) = rest.split_at_checked(bytes) else {
                if tables.len() < LONGEST - 2 {
                    return Effect::Refused;
                }
                modes |= overflow;
                left = &[];
                continue;
            };
            left = rest;
            if addresses.len() + count > MOST_ADDRESSES {
                modes |= overflow;
            } else {
                addresses.extend(table.chunks_exact(6).map(address));
            }
        }
        (self.addresses, self.modes) = (addresses, modes);
        Effect::Filter
    }

    /// Whether a packet to this address is wanted.
    #[must_use]
    pub fn wants(&self, to: [u8; 6]) -> bool {
        let has = |modes: u8| self.modes & modes != 0;
        if has(mode::PROMISCUOUS) {
            return true;
        }
        if to == BROADCAST {
            return !has(mode::NO_BROADCAST);
        }
        if to[0] & 1 != 0 {
            !has(mode::NO_MULTICAST) && (has(mode::ALL_MULTICAST | mode::OVERFLOW_MULTICAST) || self.addresses.contains(&to))
        } else {
            !has(mode::NO_UNICAST) && (to == self.mac || has(mode::ALL_UNICAST | mode::OVERFLOW_UNICAST) || self.addresses.contains(&to))
        }
    }

    /// Whether a packet with this tag is wanted.
    #[must_use]
    pub fn wants_vlan(&self, tag: u16, features: Features) -> bool {
        let vlan = usize::from(tag & 0xfff);
        // Tag 0 is a priority and no VLAN.
        vlan == 0 || !features.filters_vlans() || self.modes & mode::PROMISCUOUS != 0 || self.vlans[vlan / 8] >> (vlan % 8) & 1 != 0
    }

    /// Whether it wants packets to others.
    #[must_use]
    pub const fn is_promiscuous(&self) -> bool {
        self.modes & (mode::PROMISCUOUS | mode::ALL_UNICAST | mode::OVERFLOW_UNICAST) != 0
    }
}

/// Six bytes; there are as many.
fn address(bytes: &[u8]) -> [u8; 6] {
    let mut address = [0; 6];
    for (place, byte) in address.iter_mut().zip(bytes) {
        *place = *byte;
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Features = Features(u64::MAX);
    const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 5];

    fn tables(unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Vec<u8> {
        let mut command = vec![1, 0];
        for table in [unicast, multicast] {
            command.extend((table.len() as u32).to_le_bytes());
            command.extend(table.iter().flatten());
        }
        command.truncate(LONGEST);
        command
    }

    #[test]
    fn what_is_not_known_lets_everything_in_until_the_driver_says() {
        let mut control = Control::unknown(OWN, ALL);
        let other = [2, 0, 0, 0, 0, 9];
        assert!(control.wants(OWN) && control.wants(BROADCAST) && control.wants(GROUP) && control.wants_vlan(77, ALL));
        assert_eq!(control.command(&tables(&[], &[]), ALL, 4), Effect::Filter);
        assert!(control.wants(OWN) && !control.wants(other) && !control.wants(GROUP));
    }

    #[test]
    fn modes_and_addresses() {
        let mut control = Control::new(OWN, ALL);
        let other = [2, 0, 0, 0, 0, 9];
        assert!(control.wants(OWN) && control.wants(BROADCAST));
        assert!(!control.wants(other) && !control.wants(GROUP));
        assert_eq!(control.command(&tables(&[other], &[GROUP]), ALL, 4), Effect::Filter);
        assert!(control.wants(other) && control.wants(GROUP));
        assert_eq!(control.command(&tables(&[], &[]), ALL, 4), Effect::Filter);
        assert!(!control.wants(other) && !control.wants(GROUP));
        assert_eq!(control.command(&tables(&[], &[GROUP; 100]), ALL, 4), Effect::Filter);
        assert!(
            control.wants([1, 2, 3, 4, 5, 6]) && !control.wants(other),
            "too many groups: all of them"
        );
        assert_eq!(control.command(&tables(&[other; 1000], &[]), ALL, 4), Effect::Filter);
        assert!(control.wants([2, 2, 3, 4, 5, 6]) && control.is_promiscuous());
        assert_eq!(control.command(&[1, 0, 9, 0, 0, 0], ALL, 4), Effect::Refused);
        for (command, to) in [(0, other), (1, GROUP), (2, other)] {
            let mut control = Control::new(OWN, ALL);
            assert!(!control.wants(to));
            control.command(&[0, command, 1], ALL, 4);
            assert!(control.wants(to));
            control.command(&[0, command, 0], ALL, 4);
            assert!(!control.wants(to));
        }
        for (command, to) in [(3, GROUP), (4, OWN), (5, BROADCAST)] {
            let mut control = Control::new(OWN, ALL);
            control.command(&[0, 1, 1], ALL, 4);
            assert!(control.wants(to));
            control.command(&[0, command, 1], ALL, 4);
            assert!(!control.wants(to));
        }
        assert_eq!(control.command(&[1, 1, 2, 0, 0, 0, 0, 7], ALL, 4), Effect::Filter);
        assert_eq!(control.mac[5], 7);
        assert_eq!(control.command(&[1, 1, 3, 0, 0, 0, 0, 7], ALL, 4), Effect::Refused, "a group");
    }

    #[test]
    fn vlans_queues_offloads() {
        let mut control = Control::new(OWN, ALL);
        assert!(control.wants_vlan(0xe000, ALL) && !control.wants_vlan(7, ALL));
        assert!(control.wants_vlan(7, Features(0)), "no filter");
        control.command(&[2, 0, 7, 0], ALL, 4);
        assert!(control.wants_vlan(0x2007, ALL) && !control.wants_vlan(8, ALL));
        control.command(&[2, 1, 7, 0], ALL, 4);
        assert!(!control.wants_vlan(7, ALL));
        assert_eq!(control.command(&[2, 0, 0, 16], ALL, 4), Effect::Refused);
        assert_eq!(control.command(&[4, 0, 4, 0], ALL, 4), Effect::Done);
        for bad in [0, 5] {
            assert_eq!(control.command(&[4, 0, bad, 0], ALL, 4), Effect::Refused);
        }
        assert_eq!(control.pairs, 4);
        assert_eq!(control.command(&[5, 0, 2, 0, 0, 0, 0, 0, 0, 0], ALL, 4), Effect::Done);
        assert_eq!(control.takes.bits(), 2);
        assert_eq!(control.command(&[5, 0, 1, 0, 0, 0, 0, 0, 0, 0], ALL, 4), Effect::Refused);
        assert_eq!(control.command(&[3, 0], ALL, 4), Effect::Announced);
    }

    proptest! {
        #[test]
        fn survives_anything_and_its_successor_knows_it(commands in proptest::collection::vec((0u8..7, 0u8..7, proptest::collection::vec(any::<u8>(), 0..LONGEST)), 0..20)) {
            let mut control = Control::new(OWN, ALL);
            for (class, command, mut data) in commands {
                data.splice(0..0, [class, command]);
                data.truncate(LONGEST);
                control.command(&data, ALL, 4);
                let memory = DmaBuffer::of_this_process(STATE);
                control.save(&memory);
                let loaded = Control::load(&memory, ALL, 4);
                prop_assert_eq!(loaded.as_ref(), Some(&control));
            }
        }
    }
}
