//! What a card is told of a packet whose checksum or cutting was left to it.

use crate::nic::Refused;
use crate::offload::{Headers, fold, headers, sum};
use crate::packet::{Packet, Segmentation, SegmentationKind};
use crate::tag::TAGGED;

/// Bytes for the headers of a packet that is cut.
pub const HEAD: usize = 256;
/// Frames that one packet is cut into at most.
const MOST_FRAMES: u32 = 256;

/// Bits of a context's third word: TCP, IPv4, cutting (legacy).
const LEGACY_TCP: u32 = 1 << 24;
const LEGACY_IP4: u32 = 1 << 25;
const LEGACY_CUT: u32 = 1 << 26;
const EXTENDED: u32 = 1 << 29;
/// Kinds of descriptors, and the same bits (82576 datasheet, 7.2.2.2).
const LEGACY_DATA: u32 = 1 << 20;
const CONTEXT: u32 = 2 << 20;
const DATA: u32 = 3 << 20;
const IP4: u32 = 1 << 10;
const TCP: u32 = 1 << 11;
const CUT: u32 = 1 << 31;
/// Options of data: fill in the checksum of IP, of TCP or UDP.
const FILL_IP: u32 = 1 << 8;
const FILL_TRANSPORT: u32 = 1 << 9;

/// Headers that go out of the driver's own memory, since the card wants them changed (8254x manual, 3.5).
pub struct Head {
    pub bytes: [u8; HEAD],
    pub length: u32,
}

/// The plan.
pub struct Plan {
    /// The context's two halves.
    pub context: Option<[u64; 2]>,
    /// Bits of each data descriptor's third and fourth word.
    pub command: u32,
    pub options: u32,
    /// The packet's headers, if they are the driver's.
    pub head: Option<Head>,
}

/// Where the network header begins, and whether it is IPv6's.
fn network(head: &[u8; HEAD]) -> Option<(usize, bool)> {
    let kind = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
    let at = if kind(12) == TAGGED { 18 } else { 14 };
    match kind(at - 2) {
        0x0800 => Some((at, false)),
        0x86dd => Some((at, true)),
        _ => None,
    }
}

impl Plan {
    /// For a packet; `longest` is the longest frame.
    ///
    /// # Errors
    /// The card cannot do it, or nobody can.
    pub fn new(advanced: bool, packet: &dyn Packet, vlan: Option<u16>, longest: u32) -> Result<Self, Refused> {
        let offload = packet.offload();
        let length = packet.length();
        let mut plan = Self {
            context: None,
            command: if advanced { DATA } else { LEGACY_DATA },
            options: if advanced { length << 14 } else { 0 },
            head: None,
        };
        if let Some(cut) = offload.segmentation {
            let (start, _) = offload.checksum.ok_or(Refused::Unfit)?;
            plan.cut(advanced, packet, vlan, cut, start, longest)?;
            return Ok(plan);
        }
        if length > longest {
            return Err(Refused::Impossible);
        }
        match offload.checksum {
            Some((start, offset)) => plan.fill(advanced, packet, vlan, start, offset)?,
            None if advanced && vlan.is_some() => plan.context = Some(context(14, 0, vlan, CONTEXT | EXTENDED, 0)),
            None => {}
        }
        Ok(plan)
    }

    /// A checksum is filled in.
    fn fill(&mut self, advanced: bool, packet: &dyn Packet, vlan: Option<u16>, start: u16, offset: u16) -> Result<(), Refused> {
        let field = u32::from(start) + u32::from(offset);
        if field + 2 > packet.length() {
            return Err(Refused::Impossible);
        }
        self.options |= FILL_TRANSPORT;
        if !advanced {
            // Any place will do, as far as a byte counts.
            let (Ok(start), Ok(field)) = (u8::try_from(start), u8::try_from(field)) else {
                return Err(Refused::Unfit);
            };
            let first = 14 | 24 << 8 | 33 << 16 | u64::from(start) << 32 | u64::from(field) << 40;
            let tcp = if offset == 16 { LEGACY_TCP } else { 0 };
            self.context = Some([first, u64::from(EXTENDED | tcp)]);
            return Ok(());
        }
        let mut head = [0; HEAD];
        packet.copy_out(0, &mut head);
        let (network, version6) = network(&head).ok_or(Refused::Unfit)?;
        let kind = match offset {
            16 => TCP,
            6 => 0,
            _ => return Err(Refused::Unfit),
        };
        let ip = usize::from(start).checked_sub(network).filter(|ip| (20..512).contains(ip));
        let ip = ip.ok_or(Refused::Unfit)?;
        let version = if version6 { 0 } else { IP4 };
        self.context = Some(context(network, ip, vlan, CONTEXT | EXTENDED | kind | version, 0));
        Ok(())
    }

    /// The packet is cut into frames.
    fn cut(
        &mut self,
        advanced: bool,
        packet: &dyn Packet,
        vlan: Option<u16>,
        cut: Segmentation,
        start: u16,
        longest: u32,
    ) -> Result<(), Refused> {
        if cut.kind == SegmentationKind::Udp {
            return Err(Refused::Unfit);
        }
        let mut head = Head {
            bytes: [0; HEAD],
            length: 0,
        };
        let length = packet.length();
        let visible = HEAD.min(length as usize);
        packet.copy_out(0, &mut head.bytes[..visible]);
        // Longer headers than fit are somebody else's work.
        let at = headers(&head.bytes[..visible], cut, start.into()).ok_or(Refused::Unfit)?;
        let payload = length - at.payload as u32;
        if at.payload as u32 + u32::from(cut.size) > longest {
            return Err(Refused::Impossible);
        }
        if cut.size == 0 || payload.div_ceil(cut.size.into()) > MOST_FRAMES {
            return Err(Refused::Unfit);
        }
        head.length = at.payload as u32;
        self.options = FILL_TRANSPORT;
        if !at.version6 {
            self.options |= FILL_IP;
        }
        let size = u32::from(cut.size) << 16;
        let transport = (at.payload - at.transport) as u32;
        if advanced {
            let version = if at.version6 { 0 } else { IP4 };
            let ip = at.transport - at.network;
            self.context = Some(context(
                at.network,
                ip,
                vlan,
                CONTEXT | EXTENDED | TCP | version,
                size | transport << 8,
            ));
            self.command |= CUT;
            self.options |= payload << 14;
        } else {
            let ip_end = if at.version6 { 0 } else { at.transport as u64 - 1 };
            let first = at.network as u64
                | (at.network as u64 + 10) << 8
                | ip_end << 16
                | (at.transport as u64) << 32
                | (at.transport as u64 + 16) << 40;
            let version = if at.version6 { 0 } else { LEGACY_IP4 };
            let third = payload | EXTENDED | LEGACY_CUT | LEGACY_TCP | version;
            let fourth = size | head.length << 8;
            self.context = Some([first, u64::from(third) | u64::from(fourth) << 32]);
            self.command |= LEGACY_CUT;
        }
        clear_lengths(&mut head.bytes, &at);
        self.head = Some(head);
        Ok(())
    }
}

/// An advanced context.
fn context(network: usize, ip: usize, vlan: Option<u16>, kind: u32, fourth: u32) -> [u64; 2] {
    let first = ip as u64 | (network as u64) << 9 | u64::from(vlan.unwrap_or(0)) << 16;
    [first, u64::from(kind) | u64::from(fourth) << 32]
}

/// The card fills in lengths, and adds them to the pseudo header's sum.
fn clear_lengths(bytes: &mut [u8; HEAD], at: &Headers) {
    let addresses = if at.version6 {
        bytes[at.network + 4..at.network + 6].fill(0);
        at.network + 8..at.network + 40
    } else {
        bytes[at.network + 2..at.network + 4].fill(0);
        bytes[at.network + 10..at.network + 12].fill(0);
        at.network + 12..at.network + 20
    };
    let pseudo = fold(u64::from(sum(&bytes[addresses])) + u64::from(at.protocol));
    bytes[at.transport + 16..at.transport + 18].copy_from_slice(&pseudo.to_be_bytes());
}
