//! Intel's gigabit controllers: 82540EM and 82545EM (`e1000`), 82574L (`e1000e`), 82576 (`igb`). The first two kinds have the same descriptors, the last has its own and several queues, over which it spreads
//! what it receives.

mod plan;
mod receive;
mod registers;
mod send;
#[cfg(test)]
mod tests;

use crate::nic::{Capabilities, Filter, Nic, Progress, Refused, SEND_MS, Sink};
use crate::packet::Packet;
use crate::tag::TAGGED;
use alloc::{boxed::Box, format, rc::Rc, string::String, vec::Vec};
use receive::{Count, Receiver};
use registers::{cause, ctrl, mdic, rctl, status, tctl};
use send::{MAX_SEGMENTS, Sender};
use tessera_device::{
    Device,
    hardware::{Platform, Registers, wait_until},
};
use tessera_proto::network::{Link, NicOffloads, NicState, NicStatistics};
use tessera_rt::log;

/// Milliseconds that a reset may take; the data sheets promise a few.
const RESET_MS: u64 = 100;
/// Longest payload of a frame.
const MTU: u32 = 9000;
/// Bytes around it: addresses, type, and a tag.
const AROUND: u32 = 18;
/// Queues that are used at most.
const MAX_QUEUES: u16 = 4;
/// Addresses that a card can hold beside its own.
const ADDRESSES: usize = 14;
/// What a register reads as when nobody is there.
const NOBODY: u32 = u32::MAX;

/// The kinds of cards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    E1000,
    E1000e,
    Igb,
}

struct Card {
    name: String,
    kind: Kind,
    platform: Rc<dyn Platform>,
    registers: Rc<dyn Registers>,
    interrupts: u16,
    capabilities: Capabilities,
    state: NicState,
    link: Link,
    statistics: NicStatistics,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    /// The receiver whose turn is first.
    first: usize,
    /// Its interrupts are on.
    listens: bool,
    promiscuous: bool,
    multicast: bool,
    addresses: Vec<[u8; 6]>,
    last_error: String,
}

/// The model that a device is; `None`: not one of these.
fn model(device: &Device) -> Option<(Kind, &'static str)> {
    match device.identity() {
        (0x8086, 0x100e) => Some((Kind::E1000, "Intel 82540EM")),
        (0x8086, 0x100f) => Some((Kind::E1000, "Intel 82545EM")),
        (0x8086, 0x10d3) => Some((Kind::E1000e, "Intel 82574L")),
        (0x8086, 0x10c9) => Some((Kind::Igb, "Intel 82576")),
        _ => None,
    }
}

/// Starts the driver. `None`: it is none of these cards.
///
/// # Errors
/// Why it cannot.
pub fn start(device: &Device, name: &str) -> Option<Result<Box<dyn Nic>, String>> {
    let (kind, model) = model(device)?;
    let registers = device.memory[0].clone();
    Some(registers.ok_or("its registers are not in memory".into()).and_then(|registers| {
        let mut card = Card {
            name: name.into(),
            kind,
            platform: device.platform.clone(),
            registers,
            interrupts: device.interrupts,
            capabilities: Capabilities {
                model: model.into(),
                mac: [0; 6],
                mtu: MTU,
                segments: MAX_SEGMENTS,
                queues: if kind == Kind::Igb { MAX_QUEUES } else { 1 },
                offloads: NicOffloads {
                    checksum: true,
                    tcp4: true,
                    tcp6: true,
                    udp: false,
                    verifies: true,
                    joins: false,
                    vlan: true,
                },
            },
            state: NicState::Resetting,
            link: Link::default(),
            statistics: NicStatistics::default(),
            senders: Vec::new(),
            receivers: Vec::new(),
            first: 0,
            listens: false,
            promiscuous: false,
            multicast: false,
            addresses: Vec::with_capacity(ADDRESSES),
            last_error: String::new(),
        };
        card.bring_up()?;
        Ok(Box::new(card) as Box<dyn Nic>)
    }))
}

impl Card {
    fn read(&self, register: u64) -> u32 {
        self.registers.read32(register)
    }

    fn write(&self, register: u64, value: u32) {
        self.registers.write32(register, value);
    }

    fn is_advanced(&self) -> bool {
        self.kind == Kind::Igb
    }

    /// Resets the card and waits until it has forgotten everything.
    fn reset(&mut self) -> Result<(), String> {
        self.ignore();
        self.write(registers::RCTL, 0);
        self.write(registers::TCTL, tctl::PAD);
        self.write(registers::CTRL, self.read(registers::CTRL) & !ctrl::PHY_RESET | ctrl::RESET);
        // Registers must not be touched at once (8254x manual, 13.4.1).
        self.platform.pause(2);
        let done = wait_until(&*self.platform, RESET_MS, || self.read(registers::CTRL) & ctrl::RESET == 0);
        if self.is_gone() {
            return Err("it is not there".into());
        }
        if !done {
            return Err("it does not come out of its reset".into());
        }
        self.ignore();
        self.write(registers::ICR, u32::MAX);
        Ok(())
    }

    fn bring_up(&mut self) -> Result<(), String> {
        self.reset()?;
        self.platform.allow_memory_access()?;
        self.read_address()?;
        let keep = self.read(registers::CTRL) & !(ctrl::FORCE_SPEED | ctrl::FORCE_DUPLEX | ctrl::FLOW | ctrl::RESET | ctrl::PHY_RESET);
        // It is so after a reset by the book; emulated cards have begun with 0.
        self.write(registers::VET, TAGGED.into());
        self.write(registers::CTRL, keep | ctrl::FULL_DUPLEX | ctrl::SET_LINK_UP | ctrl::VLAN);
        for entry in 0..128 {
            self.write(registers::MTA + 4 * entry, 0);
        }
        self.hand_over_queues()?;
        self.set_interrupts();
        self.write(registers::TIPG, 10 | 8 << 10 | 6 << 20);
        self.write(registers::TCTL, tctl::ENABLE | tctl::PAD | tctl::COLLISIONS);
        self.write_filter();
        for receiver in &mut self.receivers {
            receiver.start(&*self.registers);
        }
        if self.kind == Kind::Igb {
            // After a reset by software the PHY does not negotiate by itself.
            self.write(registers::MDIC, mdic::NEGOTIATE);
            wait_until(&*self.platform, RESET_MS, || self.read(registers::MDIC) & mdic::READY != 0);
        }
        self.state = NicState::Ready;
        self.look_at_link();
        Ok(())
    }

    /// The card's own address, which most have read from their memory by themselves.
    fn read_address(&mut self) -> Result<(), String> {
        if self.read(registers::RAL) == 0 {
            let [a, b, c] = [self.read_memory(0)?, self.read_memory(1)?, self.read_memory(2)?].map(u32::from);
            self.write(registers::RAL, a | b << 16);
            self.write(registers::RAL + 4, c | 1 << 31);
        }
        let [a, b, c, d] = self.read(registers::RAL).to_le_bytes();
        let [e, f, ..] = self.read(registers::RAL + 4).to_le_bytes();
        let mac = [a, b, c, d, e, f];
        if mac == [0; 6] || mac[0] & 1 != 0 {
            return Err(format!("it has no address of its own ({mac:02x?})"));
        }
        self.capabilities.mac = mac;
        Ok(())
    }

    /// A word of the card's memory (8254x manual, 13.4.4; 82574 datasheet, 10.2.2.4).
    fn read_memory(&self, word: u32) -> Result<u16, String> {
        let (place, done) = if self.kind == Kind::E1000 { (8, 1 << 4) } else { (2, 1 << 1) };
        self.write(registers::EERD, 1 | word << place);
        let ready = wait_until(&*self.platform, RESET_MS, || self.read(registers::EERD) & done != 0);
        if ready {
            Ok((self.read(registers::EERD) >> 16) as u16)
        } else {
            Err("its memory, in which its address stands, cannot be read".into())
        }
    }

    fn hand_over_queues(&mut self) -> Result<(), String> {
        let (advanced, platform, registers) = (self.is_advanced(), &*self.platform, &*self.registers);
        // Checksums of IP, TCP, UDP; several queues need the hash in their place.
        let several = self.capabilities.queues > 1;
        self.write(registers::RXCSUM, 1 << 8 | 1 << 9 | u32::from(several) << 13);
        for number in 0..self.capabilities.queues {
            let place = usize::from(number);
            if self.receivers.len() == place {
                self.receivers.push(Receiver::new(advanced, platform, number)?);
            }
            if self.senders.len() == place {
                self.senders.push(Sender::new(advanced, platform, number)?);
            }
            self.receivers[place].reset(registers);
            self.senders[place].reset(registers);
        }
        if advanced {
            self.write(registers::RLPML, MTU + AROUND + 4);
            let all = || {
                self.receivers.iter().all(|queue| queue.is_enabled(registers))
                    && self.senders.iter().all(|queue| queue.is_enabled(registers))
            };
            if !wait_until(platform, RESET_MS, all) {
                return Err("it does not enable its queues".into());
            }
            self.spread();
        }
        Ok(())
    }

    /// What arrives is spread over the queues by a hash of addresses and ports (82576 datasheet, 7.1.2.8).
    fn spread(&self) {
        // Any key will do; this one is the specification's example, so that hashes can be compared.
        const KEY: [u32; 10] = [
            0xda56_5a6d,
            0xc20e_5b25,
            0x3d25_6741,
            0xb08f_a343,
            0xcb2b_cad0,
            0xb430_7bae,
            0xa32d_cb77,
            0x0cf2_3080,
            0x3bb7_426a,
            0xfa01_acbe,
        ];
        for (place, word) in (0..).zip(KEY) {
            self.write(registers::RSSRK + 4 * place, word);
        }
        let queues = u32::from(self.capabilities.queues);
        for place in 0..32 {
            let entry = |index: u32| ((4 * place + index) % queues) << (8 * index);
            self.write(registers::RETA + 4 * u64::from(place), entry(0) | entry(1) | entry(2) | entry(3));
        }
        // TCP and IP of both versions.
        self.write(registers::MRQC, 2 | 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21);
    }

    /// All causes go to the first vector.
    fn set_interrupts(&self) {
        match self.kind {
            Kind::E1000e if self.interrupts > 1 => {
                self.write(registers::IVAR, 0x8_8888);
                self.write(registers::EIAC_82574, cause::QUEUES);
            }
            Kind::Igb if self.interrupts > 1 => {
                // Several messages, and each is masked when it was sent.
                self.write(registers::GPIE, 1 | 1 << 4 | 1 << 30 | 1 << 31);
                self.write(registers::EIAC, 1);
                for queue in 0..u64::from(self.capabilities.queues) {
                    self.write(registers::IVAR0 + 4 * queue, 0x8080);
                }
            }
            _ => {}
        }
    }

    fn ignore(&mut self) {
        self.listens = false;
        self.write(registers::IMC, u32::MAX);
        if self.is_advanced() {
            self.write(registers::EIMC, u32::MAX);
        }
    }

    /// Writes what is to be received.
    fn write_filter(&self) {
        let many = self.addresses.len() > ADDRESSES;
        let wishes = [
            (self.promiscuous || many, rctl::ALL_UNICAST),
            (self.promiscuous || many || self.multicast, rctl::ALL_MULTICAST),
        ];
        let wishes = wishes.iter().filter(|wish| wish.0).fold(0, |all, wish| all | wish.1);
        for place in 0..ADDRESSES {
            let register = registers::RAL + 8 * (place as u64 + 1);
            let address = self.addresses.get(place).filter(|_| !many);
            let [a, b, c, d, e, f] = address.copied().unwrap_or_default();
            self.write(register, u32::from_le_bytes([a, b, c, d]));
            let valid = u32::from(address.is_some()) << 31;
            self.write(register + 4, u32::from_le_bytes([e, f, 0, 0]) | valid);
        }
        self.write(
            registers::RCTL,
            rctl::ENABLE | rctl::LONG | rctl::BROADCAST | rctl::STRIP_CHECK | wishes,
        );
    }

    /// Where nobody is, registers read as all ones, on some machines as zeros; state and address are not both like that.
    fn is_gone(&self) -> bool {
        matches!(self.read(registers::STATUS), 0 | NOBODY) && matches!(self.read(registers::RAL), 0 | NOBODY)
    }

    fn look_at_link(&mut self) {
        let word = self.read(registers::STATUS);
        let up = word & status::LINK_UP != 0;
        let speed = [10, 100, 1000, 1000][(word >> 6 & 3) as usize];
        if self.link.up != up {
            self.statistics.link_changes += 1;
            log::info!("{}: link {}", self.name, if up { "up" } else { "down" });
        }
        self.link = Link {
            up,
            speed: if up { speed } else { 0 },
            full_duplex: up && word & status::FULL_DUPLEX != 0,
        };
    }

    /// The card forgets by itself what it counted when it was asked.
    fn count(&mut self) {
        let read = |register| match self.read(register) {
            NOBODY => 0,
            count => u64::from(count),
        };
        let missed = read(registers::MPC);
        let errors = read(registers::CRCERRS) + read(registers::RXERRC) + read(registers::RLEC);
        self.statistics.received_missed = self.statistics.received_missed.saturating_add(missed);
        self.statistics.received_errors = self.statistics.received_errors.saturating_add(errors);
    }

    /// Everything in flight is lost.
    fn drain(&mut self, sink: &mut dyn Sink) {
        let statistics = &mut self.statistics;
        for sender in &mut self.senders {
            sender.drain(&mut |tag| {
                statistics.sent_errors += 1;
                sink.sent(tag);
            });
        }
    }

    fn gone(&mut self, sink: &mut dyn Sink) {
        log::warn!("{} is gone", self.name);
        self.last_error = "it was taken away".into();
        self.state = NicState::Gone;
        self.link = Link::default();
        self.drain(sink);
    }

    /// The card is reset and set up again.
    fn give_up(&mut self, why: &str, sink: &mut dyn Sink) {
        log::warn!("{}: {why}; it is reset", self.name);
        self.last_error = why.into();
        self.state = NicState::Resetting;
        self.statistics.resets += 1;
        // What is in flight may be forgotten only when the card has stopped, which a reset sees to.
        let stopped = self.reset();
        self.drain(sink);
        if let Err(reason) = stopped.and_then(|()| self.bring_up()) {
            if self.is_gone() {
                self.gone(sink);
                return;
            }
            log::error!("{}: {reason}", self.name);
            self.last_error = reason;
            self.state = NicState::Failed;
        }
    }

    fn has_work(&self) -> bool {
        self.receivers.iter().any(Receiver::has_work) || self.senders.iter().any(Sender::has_work)
    }
}

impl Nic for Card {
    fn driver(&self) -> &'static str {
        match self.kind {
            Kind::E1000 => "e1000",
            Kind::E1000e => "e1000e",
            Kind::Igb => "igb",
        }
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn state(&self) -> NicState {
        self.state
    }

    fn link(&self) -> Link {
        self.link
    }

    fn statistics(&self) -> NicStatistics {
        self.statistics
    }

    fn filter(&mut self, filter: &Filter<'_>) {
        (self.promiscuous, self.multicast) = (filter.promiscuous, filter.multicast);
        self.addresses.clear();
        // One more says that there are too many.
        self.addresses.extend(filter.addresses.iter().take(ADDRESSES + 1));
        if self.state == NicState::Ready {
            self.write_filter();
        }
    }

    fn transmit(&mut self, queue: u16, packet: &dyn Packet, vlan: Option<u16>, tag: u32) -> Result<(), Refused> {
        if self.state != NicState::Ready {
            return Err(Refused::Down);
        }
        let count = self.senders.len();
        let place = if count == 1 { 0 } else { usize::from(queue) % count.max(1) };
        let sender = self.senders.get_mut(place).ok_or(Refused::Down)?;
        let outcome = sender.add(packet, vlan, tag, MTU + AROUND);
        if outcome == Err(Refused::Full) {
            self.statistics.sent_full += 1;
        }
        outcome
    }

    fn flush(&mut self) {
        if self.state == NicState::Ready {
            for sender in &mut self.senders {
                sender.publish(&*self.registers);
            }
        }
    }

    fn poll(&mut self, budget: u32, sink: &mut dyn Sink) -> Progress {
        if self.state != NicState::Ready {
            return Progress::default();
        }
        if self.listens {
            self.ignore();
        }
        let statistics = &mut self.statistics;
        for sender in &mut self.senders {
            sender.sent(&mut |tag, length| {
                statistics.sent += 1;
                statistics.sent_bytes += u64::from(length);
                sink.sent(tag);
            });
        }
        let (mut left, mut count) = (budget, Count::default());
        for turn in 0..self.receivers.len() {
            let place = (self.first + turn) % self.receivers.len();
            let receiver = &mut self.receivers[place];
            left -= receiver.received(left, &mut count, sink);
            receiver.give_back(&*self.registers);
        }
        self.first = (self.first + 1) % self.receivers.len().max(1);
        statistics.received += count.packets;
        statistics.received_bytes += count.bytes;
        statistics.received_errors += count.errors;
        Progress {
            more: left == 0,
            changed: false,
        }
    }

    fn listen(&mut self) -> bool {
        if self.state != NicState::Ready {
            return false;
        }
        if self.interrupts == 0 {
            return self.has_work();
        }
        self.listens = true;
        // What was caused until now is looked at below; what comes later interrupts.
        self.write(registers::ICR, u32::MAX);
        if self.is_advanced() && self.interrupts > 1 {
            self.write(registers::EIMS, 1);
        } else {
            let causes = match self.kind {
                // With vectors of their own the queues have causes of their own.
                Kind::E1000e if self.interrupts > 1 => cause::QUEUES,
                _ => cause::SENT | cause::LINK | cause::FEW_BUFFERS | cause::OVERRUN | cause::RECEIVED,
            };
            self.write(registers::IMS, causes);
        }
        let more = self.has_work();
        if more {
            self.ignore();
        }
        more
    }

    fn watch(&mut self, now: u64, sink: &mut dyn Sink) -> Progress {
        let before = (self.state, self.link);
        let mut progress = self.poll(u32::MAX, sink);
        if self.state == NicState::Ready {
            let late = self.senders.iter_mut().any(|sender| sender.stands_since(now) > SEND_MS);
            if self.is_gone() {
                self.gone(sink);
            } else if self.read(registers::RCTL) & rctl::ENABLE == 0 {
                self.give_up("the card has forgotten what it was told", sink);
            } else if late && self.link.up {
                self.give_up("the card hangs", sink);
            } else {
                self.look_at_link();
                self.count();
            }
        }
        progress.changed |= before != (self.state, self.link);
        progress
    }

    fn has_interrupts(&self) -> bool {
        self.interrupts > 0
    }

    fn last_error(&self) -> &str {
        &self.last_error
    }
}
