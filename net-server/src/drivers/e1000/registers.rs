//! Registers of Intel's gigabit controllers: 82540EM (8254x software developer's manual, 13), 82574L (datasheet 10) and 82576 (datasheet 8), which share most of them.

/// Device control.
pub const CTRL: u64 = 0x0000;
/// Device status.
pub const STATUS: u64 = 0x0008;
/// Reading of the card's memory.
pub const EERD: u64 = 0x0014;
/// Access to the PHY's registers (82576 datasheet, 8.2.4).
pub const MDIC: u64 = 0x0020;
/// Type of frames with a VLAN tag.
pub const VET: u64 = 0x0038;
/// Causes of interrupts; writing ones clears them.
pub const ICR: u64 = 0x00c0;
/// Causes that interrupt: set and clear.
pub const IMS: u64 = 0x00d0;
pub const IMC: u64 = 0x00d8;
/// Vectors of causes (82574).
pub const IVAR: u64 = 0x00e4;
/// Causes that are cleared when their message was sent (82574).
pub const EIAC_82574: u64 = 0x00dc;
/// Receiving.
pub const RCTL: u64 = 0x0100;
/// Sending.
pub const TCTL: u64 = 0x0400;
/// Gap between frames.
pub const TIPG: u64 = 0x0410;
/// Vectors (82576): general settings, clear and set, automatic mask, of queues, of the rest.
pub const GPIE: u64 = 0x1514;
pub const EIMS: u64 = 0x1524;
pub const EIMC: u64 = 0x1528;
pub const EIAC: u64 = 0x152c;
pub const IVAR0: u64 = 0x1700;
/// Frames with errors: check sequence, alignment or code, length.
pub const CRCERRS: u64 = 0x4000;
pub const RXERRC: u64 = 0x400c;
pub const RLEC: u64 = 0x4040;
/// Frames that were missed.
pub const MPC: u64 = 0x4010;
/// Longest frame (82576).
pub const RLPML: u64 = 0x5004;
/// Checks of what is received.
pub const RXCSUM: u64 = 0x5000;
/// Multicast table.
pub const MTA: u64 = 0x5200;
/// Addresses: low and high part by turns.
pub const RAL: u64 = 0x5400;
/// Several queues (82576): rule, table of queues, key.
pub const MRQC: u64 = 0x5818;
pub const RETA: u64 = 0x5c00;
pub const RSSRK: u64 = 0x5c80;

pub mod ctrl {
    pub const FULL_DUPLEX: u32 = 1 << 0;
    pub const SET_LINK_UP: u32 = 1 << 6;
    pub const FORCE_SPEED: u32 = 1 << 11;
    pub const FORCE_DUPLEX: u32 = 1 << 12;
    pub const RESET: u32 = 1 << 26;
    /// Flow control by received and sent pauses.
    pub const FLOW: u32 = 1 << 27 | 1 << 28;
    pub const VLAN: u32 = 1 << 30;
    pub const PHY_RESET: u32 = 1 << 31;
}

pub mod mdic {
    /// Writes the control register of the PHY that belongs to the controller, to negotiate anew (IEEE 802.3, 22.2.4.1).
    pub const NEGOTIATE: u32 = 0x1200 | 1 << 21 | 1 << 26;
    pub const READY: u32 = 1 << 28;
}

pub mod status {
    pub const FULL_DUPLEX: u32 = 1 << 0;
    pub const LINK_UP: u32 = 1 << 1;
}

pub mod cause {
    pub const SENT: u32 = 1 << 0;
    pub const LINK: u32 = 1 << 2;
    pub const FEW_BUFFERS: u32 = 1 << 4;
    pub const OVERRUN: u32 = 1 << 6;
    pub const RECEIVED: u32 = 1 << 7;
    /// Queue 0, in both directions, and all else (82574 with its own vectors).
    pub const QUEUES: u32 = 1 << 20 | 1 << 22 | 1 << 24;
}

pub mod rctl {
    pub const ENABLE: u32 = 1 << 1;
    pub const ALL_UNICAST: u32 = 1 << 3;
    pub const ALL_MULTICAST: u32 = 1 << 4;
    pub const LONG: u32 = 1 << 5;
    pub const BROADCAST: u32 = 1 << 15;
    pub const STRIP_CHECK: u32 = 1 << 26;
}

pub mod tctl {
    pub const ENABLE: u32 = 1 << 1;
    pub const PAD: u32 = 1 << 3;
    /// Tries after collisions, and the time in which they are found.
    pub const COLLISIONS: u32 = 0x0f << 4 | 0x40 << 12;
}

/// Of a queue, from its own first register on: base, length, control, head, tail.
pub mod queue {
    pub const BASE: u64 = 0x00;
    pub const LENGTH: u64 = 0x08;
    /// Size of buffers and kind of descriptors (82576, receiving).
    pub const SPLIT: u64 = 0x0c;
    pub const HEAD: u64 = 0x10;
    pub const TAIL: u64 = 0x18;
    pub const CONTROL: u64 = 0x28;
    pub const ENABLE: u32 = 1 << 25;
}

/// First registers of receiving and sending queues.
pub fn receive_queue(advanced: bool, number: u16) -> u64 {
    if advanced {
        0xc000 + 0x40 * u64::from(number)
    } else {
        0x2800 + 0x100 * u64::from(number)
    }
}

pub fn send_queue(advanced: bool, number: u16) -> u64 {
    if advanced {
        0xe000 + 0x40 * u64::from(number)
    } else {
        0x3800 + 0x100 * u64::from(number)
    }
}
