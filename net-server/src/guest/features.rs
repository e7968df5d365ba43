//! What driver and device agreed on (virtio 1.2, 5.1.3).

use crate::packet::{Offload, SegmentationKind};

/// `VIRTIO_NET_F_CSUM`: the driver may leave checksums to the device.
const CHECKSUM: u64 = 1 << 0;
/// `VIRTIO_NET_F_GUEST_CSUM`: the driver takes packets whose checksum is not filled in.
const GUEST_CHECKSUM: u64 = 1 << 1;
/// `VIRTIO_NET_F_GUEST_TSO4`.
const GUEST_TCP4: u64 = 1 << 7;
/// `VIRTIO_NET_F_GUEST_TSO6`.
const GUEST_TCP6: u64 = 1 << 8;
/// `VIRTIO_NET_F_GUEST_ECN`.
const GUEST_CONGESTION: u64 = 1 << 9;
/// `VIRTIO_NET_F_HOST_TSO4`.
const TCP4: u64 = 1 << 11;
/// `VIRTIO_NET_F_HOST_TSO6`.
const TCP6: u64 = 1 << 12;
/// `VIRTIO_NET_F_HOST_ECN`.
const CONGESTION: u64 = 1 << 13;
/// `VIRTIO_NET_F_MRG_RXBUF`: a packet may lie in several buffers.
const MERGEABLE: u64 = 1 << 15;
/// `VIRTIO_NET_F_CTRL_VLAN`: the driver says which VLANs it wants.
const CONTROL_VLAN: u64 = 1 << 19;
/// `VIRTIO_NET_F_MQ`.
const MULTIPLE_QUEUES: u64 = 1 << 22;
/// `VIRTIO_F_INDIRECT_DESC` and `VIRTIO_F_EVENT_IDX` (6).
const INDIRECT: u64 = 1 << 28;
const EVENT_INDEX: u64 = 1 << 29;
/// What `VIRTIO_NET_CTRL_GUEST_OFFLOADS` may change (5.1.6.5.6).
const CHANGEABLE: u64 = GUEST_CHECKSUM | GUEST_TCP4 | GUEST_TCP6 | GUEST_CONGESTION;

/// Features that both sides agreed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

impl Features {
    const fn has(self, feature: u64) -> bool {
        self.0 & feature != 0
    }

    /// What concerns queues.
    #[must_use]
    pub const fn queues(self) -> tessera_virtqueue::Features {
        tessera_virtqueue::Features {
            indirect: self.has(INDIRECT),
            event_index: self.has(EVENT_INDEX),
        }
    }

    /// A packet may lie in several buffers.
    #[must_use]
    pub const fn mergeable(self) -> bool {
        self.has(MERGEABLE)
    }

    /// More than one pair of queues may be used.
    #[must_use]
    pub const fn multiple_queues(self) -> bool {
        self.has(MULTIPLE_QUEUES)
    }

    /// Only VLANs that the driver named are received.
    #[must_use]
    pub const fn filters_vlans(self) -> bool {
        self.has(CONTROL_VLAN)
    }

    /// The driver may leave checksums to the device.
    #[must_use]
    pub const fn leaves_checksums(self) -> bool {
        self.has(CHECKSUM)
    }

    /// The driver may leave cutting packets to the device.
    #[must_use]
    pub const fn leaves_segmentation(self, kind: SegmentationKind, congestion: bool) -> bool {
        let allowed = match kind {
            SegmentationKind::Tcp4 => self.has(TCP4),
            SegmentationKind::Tcp6 => self.has(TCP6),
            SegmentationKind::Udp => false,
        };
        allowed && (!congestion || self.has(CONGESTION))
    }

    /// What the driver takes when it is not told otherwise.
    #[must_use]
    pub const fn takes(self) -> Takes {
        Takes(self.0 & CHANGEABLE)
    }
}

/// What the driver takes undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Takes(u64);

impl Takes {
    /// What the driver asks for, if it is no more than was agreed on.
    #[must_use]
    pub const fn new(offloads: u64, features: Features) -> Option<Self> {
        if offloads & !(features.0 & CHANGEABLE) == 0 {
            Some(Self(offloads))
        } else {
            None
        }
    }

    /// As a number.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether it takes the mark that checksums were verified.
    #[must_use]
    pub const fn checksums(self) -> bool {
        self.0 & GUEST_CHECKSUM != 0
    }

    /// Whether the driver takes a packet with this left undone.
    #[must_use]
    pub fn all_of(self, offload: &Offload) -> bool {
        if offload.checksum.is_some() && !self.checksums() {
            return false;
        }
        let Some(cut) = offload.segmentation else { return true };
        let kind = match cut.kind {
            SegmentationKind::Tcp4 => GUEST_TCP4,
            SegmentationKind::Tcp6 => GUEST_TCP6,
            SegmentationKind::Udp => return false,
        };
        self.0 & kind != 0 && self.checksums() && (!cut.congestion || self.0 & GUEST_CONGESTION != 0)
    }
}
