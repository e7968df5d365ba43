//! A network card: Intel's 82574L, as drivers called e1000e have it (82574 datasheet, "datasheet" below), with one queue to receive, one to transmit and an interrupt line.
//!
//! ```text
//!  TDT --> descriptors: packets are put together --> copied to blocks of reserved RAM --> queue --> network server
//!  guest's buffers, descriptors, interrupt <-- filter <-- blocks of reserved RAM <------- queue <--
//! ```
//!
//! The monitor drives the queues of a virtio network card that is not on the bus (`virtio::driver`). Packets are copied once, on the thread of the vCPU that wrote a register or that the server signals; so when the driver resets the
//! card, nothing works in its buffers any more.

mod phy;
mod saved;
mod transmit;

pub use saved::SavedE1000e;

use super::pci::function::{Function, Space};
use super::pci::line_of;
use super::virtio::driver::{self, Driver};
use super::virtio::{DeviceConfig, Service, VirtioPci, net};
use crate::apic::{Interrupts, Kick};
use crate::memory::GuestMemory;
use alloc::vec;
use alloc::vec::Vec;
use transmit::{Context, Descriptor, HEADER, Kind, LONGEST, Packet};

/// Base address register of the registers, and their length.
const RANGE: usize = 0;
const LENGTH: u32 = 0x2_0000;
/// Where the range of the card in device 0 of the bus would be before firmware places it.
const ADDRESS: u32 = 0xfe00_0000;
/// Registers that are kept.
const KEPT: u32 = 0x6000;
/// Bytes of a block of reserved RAM.
const BLOCK: u64 = 2048;
/// Blocks for packets to send: room for the longest and some.
const BLOCKS: u32 = 128;
/// Reserved RAM of a card: three queues, a block for each packet that is received, those to send.
pub const RESERVED: u64 = 3 * driver::LENGTH + BLOCK * (driver::SLOTS as u64 + BLOCKS as u64);
/// Least bytes of a frame without its check sequence, and bytes of that.
const SHORTEST: usize = 60;
const CHECK: usize = 4;

/// Registers (datasheet 10.1).
mod register {
    pub const CTRL: u32 = 0x00;
    pub const STATUS: u32 = 0x08;
    pub const EECD: u32 = 0x10;
    pub const EERD: u32 = 0x14;
    pub const CTRL_EXT: u32 = 0x18;
    pub const MDIC: u32 = 0x20;
    pub const ICR: u32 = 0xc0;
    pub const ICS: u32 = 0xc8;
    pub const IMS: u32 = 0xd0;
    pub const IMC: u32 = 0xd8;
    pub const IAM: u32 = 0xe0;
    pub const RCTL: u32 = 0x100;
    pub const TCTL: u32 = 0x400;
    pub const RDBAL: u32 = 0x2800;
    pub const RDBAH: u32 = 0x2804;
    pub const RDLEN: u32 = 0x2808;
    pub const RDH: u32 = 0x2810;
    pub const RDT: u32 = 0x2818;
    pub const TDBAL: u32 = 0x3800;
    pub const TDBAH: u32 = 0x3804;
    pub const TDLEN: u32 = 0x3808;
    pub const TDH: u32 = 0x3810;
    pub const TDT: u32 = 0x3818;
    /// Statistics: all of them read 0.
    pub const STATISTICS: core::ops::Range<u32> = 0x4000..0x4200;
    pub const RFCTL: u32 = 0x5008;
    pub const MTA: u32 = 0x5200;
    pub const RAL: u32 = 0x5400;
    pub const RAH: u32 = 0x5404;
    pub const VFTA: u32 = 0x5600;
}

/// Control: no more accesses to memory; reset; reset of the transceiver.
const MASTER_OFF: u32 = 1 << 2;
const RESET: u32 = 1 << 26;
const PHY_RESET: u32 = 1 << 31;
/// Status: both directions at once, the link is up, 1000 Mbit/s, memory is accessed.
const DUPLEX: u32 = 1;
const LINK_UP: u32 = 2;
const SPEED: u32 = 2 << 6;
const MASTER: u32 = 1 << 19;
/// Configuration memory: there is one and it was read; somebody may have it who asks.
const NVM_THERE: u32 = 0x300;
const NVM_ASKED: u32 = 1 << 6;
const NVM_GIVEN: u32 = 1 << 7;
const NVM_DONE: u32 = 2;
/// Extended control: reading the causes masks them.
const AUTO_MASK: u32 = 1 << 27;
/// Causes of interrupts: a descriptor was done, all were, the link changed, there are no buffers, a packet came; that there is one.
const SENT: u32 = 1;
const SENT_ALL: u32 = 1 << 1;
const LINK_CHANGED: u32 = 1 << 2;
const OVERRUN: u32 = 1 << 6;
const RECEIVED: u32 = 1 << 7;
const ASSERTED: u32 = 1 << 31;
/// Receive and transmit control: on.
const ON: u32 = 1 << 1;
/// Receive control: all unicast, all multicast, broadcast; only VLANs of the table; check sequences are cut off.
const UNICAST: u32 = 1 << 3;
const MULTICAST: u32 = 1 << 4;
const BROADCAST: u32 = 1 << 15;
const VLANS: u32 = 1 << 18;
const STRIPPED: u32 = 1 << 26;
/// Receive filter control: descriptors of the extended form.
const EXTENDED: u32 = 1 << 15;
/// Status of a receive descriptor: done, last, checksums were not looked at.
const DONE: u32 = 1;
const LAST: u32 = 2;
const NO_CHECKSUMS: u32 = 4;
/// An address of the table is valid.
const VALID: u32 = 1 << 31;
/// Addresses of the table.
const ADDRESSES: u32 = 16;
/// Class and commands of the control queue (virtio 1.2, 5.1.6.5.1): modes of receiving; everything, all multicast.
const MODES: u8 = 0;
const PROMISCUOUS: u8 = 0;
const ALL_MULTICAST: u8 = 1;

/// A card that is plugged in.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// Place of its virtio device among the bus's, which is not on the bus.
    pub place: usize,
    /// Its device number on the bus.
    pub slot: u8,
    /// Its address.
    pub mac: [u8; 6],
    /// [`RESERVED`] bytes of reserved RAM.
    pub memory: u64,
}

/// The queues, while they are in use.
#[derive(Clone, Debug)]
struct Queues {
    receive: Driver,
    transmit: Driver,
    control: Driver,
    /// Blocks in use, and those of each packet that is being sent.
    taken: u128,
    sending: Vec<u128>,
    /// Modes that the server was told of: a bit for each command; none at first.
    modes: Option<u8>,
}

/// The card.
#[derive(Clone, Debug)]
pub struct E1000e {
    seat: Seat,
    function: Function,
    registers: Vec<u32>,
    phy: Vec<u16>,
    causes: u32,
    mask: u32,
    link: bool,
    context: Context,
    packet: Packet,
    queues: Option<Queues>,
}

impl E1000e {
    /// After power-on.
    #[must_use]
    pub fn new(seat: Seat) -> Self {
        let mut card = Self {
            function: Self::function_at(seat.slot),
            seat,
            registers: vec![0; (KEPT / 4) as usize],
            phy: phy::registers(),
            causes: 0,
            mask: 0,
            link: false,
            context: Context::default(),
            packet: Packet::default(),
            queues: None,
        };
        card.reset_registers();
        card
    }

    fn function_at(slot: u8) -> Function {
        let mut function = Function::new(slot, 0x8086, 0x10d3, 0x0200_0000);
        function.set_subsystem(0x8086, 0);
        function.set_line(line_of(slot));
        function.set_range(RANGE, Space::Memory, LENGTH, ADDRESS + LENGTH * u32::from(slot));
        function
    }

    /// Power-on state. Its virtio device has forgotten its queues.
    pub fn reset(&mut self) {
        self.function = Self::function_at(self.seat.slot);
        self.phy = phy::registers();
        self.queues = None;
        self.reset_registers();
    }

    fn reset_registers(&mut self) {
        self.registers.fill(0);
        (self.causes, self.mask) = (0, 0);
        self.context = Context::default();
        self.packet = Packet::default();
        let [a, b, c, d, e, f] = self.seat.mac;
        self.set(register::RAL, u32::from_le_bytes([a, b, c, d]));
        self.set(register::RAH, u32::from_le_bytes([e, f, 0, 0]) | VALID);
    }

    /// Its configuration space.
    pub const fn function(&mut self) -> &mut Function {
        &mut self.function
    }

    /// Its device number.
    #[must_use]
    pub const fn slot(&self) -> u8 {
        self.seat.slot
    }

    fn get(&self, register: u32) -> u32 {
        self.registers.get((register / 4) as usize).copied().unwrap_or(0)
    }

    fn set(&mut self, register: u32, value: u32) {
        if let Some(place) = self.registers.get_mut((register / 4) as usize) {
            *place = value;
        }
    }

    /// Whether it asks for its line.
    pub const fn line_interrupt(&mut self) -> bool {
        let pending = self.causes & self.mask != 0;
        self.function.set_interrupt(pending)
    }

    /// Reads its range; `None` if the address is not in it.
    pub fn range_read(&mut self, address: u64, width: u8) -> Option<u64> {
        let offset = self.function.offset(RANGE, Space::Memory, address, width)?;
        let word = u64::from(self.read(offset & !3)) >> ((offset & 3) * 8);
        Some(match width {
            8 => word & 0xffff_ffff | u64::from(self.read((offset & !3) + 4)) << 32,
            width => word & ((1 << (8 * u32::from(width.min(4)))) - 1),
        })
    }

    /// Writes its range; false if the address is not in it.
    pub fn range_write(&mut self, address: u64, width: u8, value: u64) -> bool {
        let Some(offset) = self.function.offset(RANGE, Space::Memory, address, width) else {
            return false;
        };
        // Registers are written whole.
        if offset & 3 == 0 && width >= 4 {
            self.write(offset, value as u32);
            if width == 8 {
                self.write(offset + 4, (value >> 32) as u32);
            }
        }
        true
    }

    fn read(&mut self, offset: u32) -> u32 {
        match offset {
            register::STATUS => {
                let link = if self.link { LINK_UP } else { 0 };
                let master = if self.get(register::CTRL) & MASTER_OFF == 0 { MASTER } else { 0 };
                DUPLEX | SPEED | link | master
            }
            register::EECD => {
                let asked = self.get(register::EECD) & NVM_ASKED;
                NVM_THERE | asked | if asked == 0 { 0 } else { NVM_GIVEN }
            }
            register::ICR => self.take_causes(),
            register::IMS => self.mask,
            register::ICS | register::IMC => 0,
            _ => self.get(offset),
        }
    }

    /// Reading the causes takes them (datasheet 7.4.5).
    fn take_causes(&mut self) -> u32 {
        let asserted = self.causes & self.mask != 0;
        let causes = core::mem::take(&mut self.causes) | if asserted { ASSERTED } else { 0 };
        if asserted && self.get(register::CTRL_EXT) & AUTO_MASK != 0 {
            self.mask &= !self.get(register::IAM);
        }
        causes
    }

    fn write(&mut self, offset: u32, value: u32) {
        match offset {
            register::CTRL => {
                if value & PHY_RESET != 0 {
                    self.phy = phy::registers();
                }
                if value & RESET != 0 {
                    self.reset_registers();
                } else {
                    self.set(offset, value & !PHY_RESET);
                }
            }
            register::STATUS => (),
            register::EERD => {
                let index = (value >> 2 & 0x3fff) as usize;
                self.set(offset, u32::from(phy::word(self.seat.mac, index)) << 16 | value & 0xfffc | NVM_DONE);
            }
            register::MDIC => {
                let answer = phy::command(&mut self.phy, value, self.link);
                self.set(offset, answer);
            }
            register::ICR => self.causes &= !value,
            register::ICS => self.causes |= value & !ASSERTED,
            register::IMS => self.mask |= value,
            register::IMC => self.mask &= !value,
            register::RDH | register::RDT | register::TDH | register::TDT => self.set(offset, value & 0xffff),
            register::RDLEN | register::TDLEN => self.set(offset, value & 0xf_ff80),
            offset if register::STATISTICS.contains(&offset) => (),
            _ => self.set(offset, value),
        }
    }

    /// Goes on with what the driver wants sent, and with what came. `devices` are the bus's. Answers whether causes of interrupts came.
    pub fn run<K: Kick>(&mut self, memory: &GuestMemory, devices: &mut [VirtioPci], to: &Interrupts<K>) -> bool {
        let Some(device) = devices.get_mut(self.seat.place) else {
            return false;
        };
        let before = self.causes;
        self.follow_link(device.config(), device.registers().is_broken());
        let on = (self.get(register::RCTL) | self.get(register::TCTL)) & ON != 0;
        if self.queues.is_none() && on {
            self.connect(memory, device, to);
        }
        let Some(mut queues) = self.queues.take() else {
            return before != self.causes;
        };
        let mut rings = self.receive(&mut queues, memory);
        rings |= self.transmit(&mut queues, memory);
        rings |= self.tell_modes(&mut queues, memory);
        if rings {
            to.ring(self.seat.place);
        }
        self.queues = Some(queues);
        before != self.causes
    }

    fn follow_link(&mut self, config: &DeviceConfig, broken: bool) {
        let link = net::link(config) && !broken;
        if core::mem::replace(&mut self.link, link) != link {
            self.causes |= LINK_CHANGED;
        }
    }

    /// Sets the queues up and asks for their server.
    fn connect<K: Kick>(&mut self, memory: &GuestMemory, device: &mut VirtioPci, to: &Interrupts<K>) {
        if device.registers().service() != Service::Idle {
            return;
        }
        let at = |index: u64| Driver::new(memory, self.seat.memory + index * driver::LENGTH);
        let (Some(mut receive), Some(transmit), Some(control)) = (at(0), at(1), at(2)) else {
            return;
        };
        for slot in 0..driver::SLOTS {
            // It is RAM, as the queue is.
            let _ = self.offer(&mut receive, memory, slot);
        }
        device.adopt(net::DRIVER_FEATURES, &[receive.queue(), transmit.queue(), control.queue()], to);
        self.queues = Some(Queues {
            receive,
            transmit,
            control,
            taken: 0,
            sending: vec![0; driver::SLOTS.into()],
            modes: None,
        });
    }

    const fn block(&self, index: u64) -> u64 {
        self.seat.memory + 3 * driver::LENGTH + BLOCK * index
    }

    fn offer(&self, receive: &mut Driver, memory: &GuestMemory, slot: u8) -> Option<()> {
        receive.submit_packet(memory, slot, &[0; HEADER], &[(self.block(slot.into()), BLOCK as u32)], true)
    }

    /// Takes the packets that came. Answers whether the server is to be told of new buffers.
    fn receive(&mut self, queues: &mut Queues, memory: &GuestMemory) -> bool {
        let mut offered = false;
        while let Some((slot, _, written)) = queues.receive.ended(memory) {
            let length = (written as usize).saturating_sub(HEADER).min(BLOCK as usize);
            let mut frame = vec![0; length];
            if memory.read_slice(self.block(slot.into()), &mut frame).is_some() && length >= 14 {
                self.deliver(frame, memory);
            }
            offered |= self.offer(&mut queues.receive, memory, slot).is_some();
        }
        offered && queues.receive.wants_notification(memory)
    }

    /// Whether the driver wants a frame (datasheet 7.1.1).
    fn wants(&self, frame: &[u8]) -> bool {
        let control = self.get(register::RCTL);
        let Some(to) = frame.first_chunk::<6>() else { return false };
        let [a, b, c, d, e, f] = *to;
        let exact = (0..ADDRESSES).any(|index| {
            let (low, high) = (self.get(register::RAL + 8 * index), self.get(register::RAH + 8 * index));
            high & VALID != 0 && low == u32::from_le_bytes([a, b, c, d]) && high & 0xffff == u32::from_le_bytes([e, f, 0, 0])
        });
        let wanted = if *to == [0xff; 6] {
            control & (BROADCAST | MULTICAST) != 0
        } else if a & 1 != 0 {
            let shift = [4, 3, 2, 0][(control >> 12 & 3) as usize];
            let hash = u32::from(u16::from_le_bytes([e, f])) >> shift & 0xfff;
            control & MULTICAST != 0 || exact || self.get(register::MTA + hash / 32 * 4) >> (hash % 32) & 1 != 0
        } else {
            control & UNICAST != 0 || exact
        };
        let tag = match frame.get(12..16) {
            Some([0x81, 0, high, low]) => Some(u32::from(u16::from_be_bytes([*high, *low])) & 0xfff),
            _ => None,
        };
        let vlan = tag.is_none_or(|tag| control & VLANS == 0 || self.get(register::VFTA + tag / 32 * 4) >> (tag % 32) & 1 != 0);
        wanted && vlan
    }

    /// Puts a frame into the driver's buffers (datasheet 7.1.4 to 7.1.6).
    fn deliver(&mut self, mut frame: Vec<u8>, memory: &GuestMemory) {
        let control = self.get(register::RCTL);
        if control & ON == 0 || !self.wants(&frame) {
            return;
        }
        let least = frame.len().max(SHORTEST) + if control & STRIPPED == 0 { CHECK } else { 0 };
        frame.resize(least, 0);
        let size = match (control >> 16 & 3, control >> 25 & 1) {
            (shift, 0) => 2048 >> shift,
            (0, _) => 2048,
            (shift, _) => 0x8000 >> shift,
        };
        let (count, tail) = (self.get(register::RDLEN) / 16, self.get(register::RDT));
        let head = self.get(register::RDH);
        if head >= count || tail >= count {
            return;
        }
        let free = (tail + count - head) % count;
        let parts = frame.chunks(size);
        let needed = parts.len();
        if needed > free as usize {
            self.causes |= OVERRUN;
            return;
        }
        let base = u64::from(self.get(register::RDBAL) & !15) | u64::from(self.get(register::RDBAH)) << 32;
        let extended = self.get(register::RFCTL) & EXTENDED != 0;
        let mut index = head;
        for (number, part) in parts.enumerate() {
            let place = base.wrapping_add(16 * u64::from(index));
            index = (index + 1) % count;
            let Some(buffer) = memory.read_u64(place) else { continue };
            // Buffers outside of RAM are the driver's own mistake.
            let _ = memory.write_slice(buffer, part);
            let status = DONE | NO_CHECKSUMS | if number + 1 == needed { LAST } else { 0 };
            let length = part.len() as u64;
            let (first, second) = if extended {
                (0, u64::from(status) | length << 32)
            } else {
                (buffer, length | u64::from(status) << 32)
            };
            // The half with the status is the second.
            let _ = memory.write_slice(place, &first.to_le_bytes());
            let _ = memory.write_slice(place + 8, &second.to_le_bytes());
        }
        self.set(register::RDH, index);
        self.causes |= RECEIVED;
    }

    /// Sends what the driver wants sent. Answers whether the server is to be told.
    fn transmit(&mut self, queues: &mut Queues, memory: &GuestMemory) -> bool {
        while let Some((slot, ..)) = queues.transmit.ended(memory) {
            queues.taken &= !core::mem::take(&mut queues.sending[usize::from(slot)]);
        }
        let (count, tail) = (self.get(register::TDLEN) / 16, self.get(register::TDT));
        let base = u64::from(self.get(register::TDBAL) & !15) | u64::from(self.get(register::TDBAH)) << 32;
        let (mut sent, mut done) = (false, false);
        // No more than all of the ring at once.
        for _ in 0..count {
            let head = self.get(register::TDH);
            let on = self.get(register::TCTL) & ON != 0 && head < count && tail < count && head != tail;
            // Before a packet ends there has to be room for it.
            if !on || !Self::has_room(queues) {
                break;
            }
            let place = base.wrapping_add(16 * u64::from(head));
            let Some(words) = memory.read::<16>(place) else { break };
            let (words, _) = words.as_chunks::<4>();
            let descriptor = Descriptor([0, 1, 2, 3].map(|word| u32::from_le_bytes(words[word])));
            match descriptor.kind() {
                Kind::Context(context) => self.context = context,
                Kind::Data(address, bytes) => {
                    self.packet.add(descriptor, bytes, |to| memory.read_slice(address, to));
                    if descriptor.ends() {
                        let packet = core::mem::take(&mut self.packet).finish(&self.context);
                        if let Some((header, bytes)) = packet {
                            sent |= self.send(queues, memory, &header, &bytes).is_some();
                        }
                    }
                }
            }
            if descriptor.reports() {
                let _ = memory.write_u32(place + 12, descriptor.0[3] | DONE);
                done = true;
            }
            self.set(register::TDH, (head + 1) % count);
        }
        if done {
            self.causes |= SENT;
        }
        if done && self.get(register::TDH) == tail {
            self.causes |= SENT_ALL;
        }
        sent && queues.transmit.wants_notification(memory)
    }

    /// Whether the longest packet can be sent.
    const fn has_room(queues: &Queues) -> bool {
        queues.transmit.free().is_some() && queues.taken.count_zeros() as u64 > (LONGEST as u64).div_ceil(BLOCK)
    }

    fn send(&self, queues: &mut Queues, memory: &GuestMemory, header: &[u8], bytes: &[u8]) -> Option<()> {
        let slot = queues.transmit.free()?;
        let (mut blocks, mut pieces) = (0u128, Vec::new());
        for part in bytes.chunks(BLOCK as usize) {
            let index = (queues.taken | blocks).trailing_ones();
            (index < BLOCKS).then_some(())?;
            blocks |= 1 << index;
            let address = self.block(u64::from(driver::SLOTS) + u64::from(index));
            memory.write_slice(address, part)?;
            pieces.push((address, part.len() as u32));
        }
        queues.transmit.submit_packet(memory, slot, header, &pieces, false)?;
        queues.taken |= blocks;
        queues.sending[usize::from(slot)] = blocks;
        Some(())
    }

    /// Has the server receive what this card filters: its own frames and all multicast, or everything. Answers whether it is to be told.
    fn tell_modes(&self, queues: &mut Queues, memory: &GuestMemory) -> bool {
        while queues.control.ended(memory).is_some() {}
        let [a, b, c, d, e, f] = self.seat.mac;
        let own = (self.get(register::RAL), self.get(register::RAH))
            == (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, 0, 0]) | VALID);
        let others = (1..ADDRESSES).any(|index| {
            let (low, high) = (self.get(register::RAL + 8 * index), self.get(register::RAH + 8 * index));
            high & VALID != 0 && low & 1 == 0
        });
        let everything = self.get(register::RCTL) & UNICAST != 0 || !own || others;
        let modes = 1 << ALL_MULTICAST | u8::from(everything) << PROMISCUOUS;
        if queues.modes == Some(modes) || queues.control.is_busy() {
            return false;
        }
        queues.modes = Some(modes);
        for (slot, command) in [(0, PROMISCUOUS), (1, ALL_MULTICAST)] {
            let _ = queues
                .control
                .submit(memory, slot, &[MODES, command, modes >> command & 1], &[], true);
        }
        queues.control.wants_notification(memory)
    }
}

#[cfg(test)]
mod tests;
