//! What a virtio network device tells of itself (virtio 1.2, 5.1): features and configuration space.

use super::{CONFIG_LENGTH, DeviceConfig, MAX_PAIRS, USUAL_SIZE, feature};

/// Kind of device.
const KIND: u16 = 1;
/// Network controller, Ethernet; revision 1.
const CLASS: u32 = 0x0200_0001;

// Features (5.1.3).
/// The device fills in checksums; the driver takes packets without.
const CHECKSUMS: u64 = 1 << 0 | 1 << 1;
/// The driver may change at any time what it takes.
const GUEST_OFFLOADS: u64 = 1 << 2;
const MTU: u64 = 1 << 3;
const MAC: u64 = 1 << 5;
/// The driver takes large TCP packets, also with the congestion bit.
const GUEST_SEGMENTATION: u64 = 1 << 7 | 1 << 8 | 1 << 9;
/// The device takes them.
const HOST_SEGMENTATION: u64 = 1 << 11 | 1 << 12 | 1 << 13;
const MERGEABLE: u64 = 1 << 15;
const STATUS: u64 = 1 << 16;
const CONTROL_QUEUE: u64 = 1 << 17;
/// Modes of receiving, VLAN filter, further modes.
const CONTROL_RECEIVE: u64 = 1 << 18 | 1 << 19 | 1 << 20;
const ANNOUNCE: u64 = 1 << 21;
const MULTIPLE_QUEUES: u64 = 1 << 22;
const CONTROL_MAC: u64 = 1 << 23;
const SPEED: u64 = 1 << 63;

/// Status (5.1.4).
const LINK_UP: u16 = 1;
const ANNOUNCE_NOW: u16 = 2;
const STATUS_OFFSET: usize = 6;

/// A network card, as its server describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its address.
    pub mac: [u8; 6],
    /// Most bytes of a frame's payload.
    pub mtu: u16,
    /// The link is up.
    pub link: bool,
    /// Mbit/s; 0: not known.
    pub speed: u32,
    /// Pairs of queues.
    pub pairs: u16,
}

/// The device for a network card. Its queues: for each pair one to receive and one to transmit, then the one for control.
#[must_use]
pub fn config(nic: &Nic) -> DeviceConfig {
    let pairs = nic.pairs.clamp(1, MAX_PAIRS as u16);
    let mut features = feature::VERSION_1 | feature::EVENT_INDEX;
    features |= CHECKSUMS | GUEST_OFFLOADS | MTU | MAC | GUEST_SEGMENTATION | HOST_SEGMENTATION | MERGEABLE | STATUS;
    features |= CONTROL_QUEUE | CONTROL_RECEIVE | ANNOUNCE | CONTROL_MAC | SPEED;
    if pairs > 1 {
        features |= MULTIPLE_QUEUES;
    }
    let mut space = [0; CONFIG_LENGTH];
    let mut put = |offset: usize, bytes: &[u8]| space[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, &nic.mac);
    put(8, &pairs.to_le_bytes());
    // Below 68 it would be no MTU (RFC 791).
    put(10, &nic.mtu.max(68).to_le_bytes());
    put(12, &if nic.speed == 0 { u32::MAX } else { nic.speed }.to_le_bytes());
    // Full duplex.
    put(16, &[1]);
    let mut config = DeviceConfig {
        kind: KIND,
        class: CLASS,
        features,
        queues: 2 * pairs + 1,
        queue_size: USUAL_SIZE,
        space,
        local: false,
        hidden: false,
        writable: 0,
    };
    set_status(&mut config, nic.link, false);
    config
}

/// What the monitor's own driver accepts: checksums and cutting TCP packets for those that it sends; modes of receiving.
pub const DRIVER_FEATURES: u64 =
    feature::VERSION_1 | feature::INDIRECT | 1 << 0 | MAC | 1 << 11 | 1 << 12 | STATUS | CONTROL_QUEUE | 1 << 18;

/// Whether the link is up.
#[must_use]
pub const fn link(config: &DeviceConfig) -> bool {
    config.space[STATUS_OFFSET] & LINK_UP as u8 != 0
}

/// The link is up or down, and the driver is to tell the network where it is. Answers whether the driver has to be told.
pub fn set_status(config: &mut DeviceConfig, link: bool, announce: bool) -> bool {
    let status = if link { LINK_UP } else { 0 } | if announce { ANNOUNCE_NOW } else { 0 };
    let [low, high] = [config.space[STATUS_OFFSET], config.space[STATUS_OFFSET + 1]];
    let before = u16::from_le_bytes([low, high]);
    config.space[STATUS_OFFSET..STATUS_OFFSET + 2].copy_from_slice(&status.to_le_bytes());
    // An announcement that was made is nothing new.
    (status ^ before) & LINK_UP != 0 || status & !before != 0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn nic() -> Nic {
        Nic {
            mac: [2, 0x54, 1, 2, 3, 4],
            mtu: 9000,
            link: true,
            speed: 10_000,
            pairs: 4,
        }
    }

    #[test]
    fn offers_what_the_card_can() {
        let all = config(&nic());
        assert_eq!(all.space[..12], [2, 0x54, 1, 2, 3, 4, 1, 0, 4, 0, 0x28, 0x23]);
        assert_eq!((all.queues, all.features & 0x0fff_ffff), (9, 0xff_bbaf));
        let mut small = nic();
        (small.pairs, small.mtu, small.link) = (0, 0, false);
        let small = config(&small);
        assert_eq!((small.queues, small.features & MULTIPLE_QUEUES), (3, 0));
        assert_eq!(small.space[6..12], [0, 0, 1, 0, 68, 0]);
    }

    #[test]
    fn news_are_told_and_nothing_else() {
        let mut config = config(&nic());
        assert!(!set_status(&mut config, true, false));
        assert!(set_status(&mut config, true, true));
        assert!(!set_status(&mut config, true, true));
        assert!(!set_status(&mut config, true, false), "acknowledged");
        assert!(set_status(&mut config, false, false));
        assert_eq!(config.space[6..8], [0, 0]);
    }
}
