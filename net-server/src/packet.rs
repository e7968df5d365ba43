//! What moves through the server: a frame somewhere in memory, and what is still to be done to it.

use tessera_device::{Piece, Segment};

/// Longest Ethernet header with one VLAN tag (IEEE 802.3, 802.1Q).
pub const LONGEST_HEADER: usize = 18;
/// Longest packet: what a segmentation offload takes, and its header (virtio 1.2, 5.1.6.2).
pub const LONGEST: u32 = 65_550;

/// A port of the switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

/// How a packet that is larger than a frame is cut (virtio 1.2, 5.1.6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentationKind {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either.
    Udp,
}

/// A packet that stands for several frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// What it is.
    pub kind: SegmentationKind,
    /// The sender set the congestion bit that only the first frame may carry (RFC 3168).
    pub congestion: bool,
    /// Bytes of payload in each frame.
    pub size: u16,
    /// Bytes of all headers, as the sender says: not to be trusted.
    pub header: u16,
}

/// What the sender left to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// A checksum is to be filled in: it covers everything from `.0` on, and stands at `.0 + .1`, in bytes from the frame's start. The field holds the pseudo header's sum.
    pub checksum: Option<(u16, u16)>,
    /// The checksums were found right, or nobody else could have changed the packet.
    pub verified: bool,
    /// The packet is to be cut into frames.
    pub segmentation: Option<Segmentation>,
}

/// A frame without its check sequence, somewhere in memory that somebody else may be changing.
pub trait Packet {
    /// Bytes.
    fn length(&self) -> u32;
    /// Copies bytes out; those outside are zeros.
    fn copy_out(&self, offset: u32, bytes: &mut [u8]);
    /// Where it lies, for devices; `None` where devices do not reach it.
    fn segments(&self) -> Option<&[Segment]>;
    /// What is still to be done.
    fn offload(&self) -> Offload;
    /// Shows the bytes in order, piece by piece, to be copied. Somebody may be changing them: what was read before may be different.
    fn visit(&self, each: &mut dyn FnMut(Piece<'_>)) {
        let mut bytes = [0; 2048];
        let mut offset = 0;
        while offset < self.length() {
            let count = (self.length() - offset).min(bytes.len() as u32) as usize;
            self.copy_out(offset, &mut bytes[..count]);
            each(Piece::of(&bytes[..count]));
            offset += count as u32;
        }
    }
}

/// A frame in memory of this process, with what is still to be done to it. Devices do not reach it.
#[derive(Clone, Debug, Default)]
pub struct Bytes<B>(pub B, pub Offload);

impl<B: AsRef<[u8]>> Bytes<B> {
    /// A frame that is complete.
    pub fn plain(bytes: B) -> Self {
        Self(bytes, Offload::default())
    }
}

impl<B: AsRef<[u8]>> Packet for Bytes<B> {
    fn length(&self) -> u32 {
        self.0.as_ref().len() as u32
    }
    fn copy_out(&self, offset: u32, bytes: &mut [u8]) {
        let part = self.0.as_ref().get(offset as usize..).unwrap_or_default();
        let count = part.len().min(bytes.len());
        bytes[..count].copy_from_slice(&part[..count]);
        bytes[count..].fill(0);
    }
    fn segments(&self) -> Option<&[Segment]> {
        None
    }
    fn offload(&self) -> Offload {
        self.1
    }
    fn visit(&self, each: &mut dyn FnMut(Piece<'_>)) {
        each(Piece::of(self.0.as_ref()));
    }
}
