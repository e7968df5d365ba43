//! Virtio network devices over PCI (virtio 1.2, 4.1 and 5.1), without the transitional interface.

mod control;
mod header;
mod receive;
mod send;
#[cfg(test)]
mod tests;

use crate::nic::{Capabilities, Filter, Nic, Progress, Refused, SEND_MS, Sink};
use crate::packet::Packet;
use alloc::{boxed::Box, format, rc::Rc, string::String, vec::Vec};
use control::{Control, MAX_ADDRESSES, Wish};
use receive::{BUFFER, Count, Receiver};
use send::{MAX_SEGMENTS, Sender};
use tessera_device::{
    Device,
    hardware::{Platform, wait_until},
    virtio::{Broken, Configuration, features as common, status},
};
use tessera_proto::network::{Link, NicOffloads, NicState, NicStatistics};
use tessera_rt::log;

/// Pairs of queues that are used at most.
const MAX_PAIRS: u16 = 4;
/// Milliseconds that a reset may take.
const RESET_MS: u64 = 2000;
/// Bytes of the configuration that are there in any case (5.1.4): the address and the state.
const CONFIGURATION: u64 = 8;

/// Feature bits (5.1.3).
mod features {
    /// Fills in checksums.
    pub const CHECKSUM: u64 = 1 << 0;
    /// The driver takes packets whose checksum is to be filled in.
    pub const GUEST_CHECKSUM: u64 = 1 << 1;
    /// The longest packet is told.
    pub const MTU: u64 = 1 << 3;
    /// The address is told.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes packets that stand for several: TCP over IPv4, over IPv6, with congestion.
    pub const GUEST_LARGE: u64 = 1 << 7 | 1 << 8 | 1 << 9;
    /// Cuts packets.
    pub const HOST_TCP4: u64 = 1 << 11;
    pub const HOST_TCP6: u64 = 1 << 12;
    pub const HOST_CONGESTION: u64 = 1 << 13;
    pub const HOST_UDP: u64 = 1 << 14;
    /// A packet may lie in several buffers.
    pub const MERGEABLE: u64 = 1 << 15;
    /// The state of the link is told.
    pub const STATUS: u64 = 1 << 16;
    /// There is a control queue, and it takes filters.
    pub const CONTROL: u64 = 1 << 17;
    pub const CONTROL_RECEIVE: u64 = 1 << 18;
    /// Several pairs of queues.
    pub const MULTI_QUEUE: u64 = 1 << 22;
    /// Speed and duplex are told.
    pub const SPEED: u64 = 1 << 63;
}

struct Card {
    name: String,
    platform: Rc<dyn Platform>,
    registers: Configuration,
    interrupts: u16,
    accepted: u64,
    capabilities: Capabilities,
    state: NicState,
    link: Link,
    statistics: NicStatistics,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
    control: Option<Control>,
    wish: Wish,
    /// The receiver whose turn is first.
    first: usize,
    /// Milliseconds: until then a reset may take.
    reset_until: u64,
    last_error: String,
}

/// Starts the driver.
///
/// # Errors
/// Why it cannot.
pub fn start(device: &Device, name: &str) -> Result<Box<dyn Nic>, String> {
    let mut card = Card {
        name: name.into(),
        platform: device.platform.clone(),
        registers: Configuration::find(device, CONFIGURATION)?,
        interrupts: device.interrupts,
        accepted: 0,
        capabilities: Capabilities {
            model: "virtio network device".into(),
            mac: [0; 6],
            mtu: 0,
            segments: MAX_SEGMENTS,
            queues: 1,
            offloads: NicOffloads::default(),
        },
        state: NicState::Resetting,
        link: Link::default(),
        statistics: NicStatistics::default(),
        senders: Vec::new(),
        receivers: Vec::new(),
        control: None,
        wish: Wish::default(),
        first: 0,
        reset_until: 0,
        last_error: String::new(),
    };
    card.bring_up()?;
    Ok(Box::new(card))
}

impl Card {
    /// Resets the device and sets it up (3.1.1).
    fn bring_up(&mut self) -> Result<(), String> {
        let registers = &self.registers;
        registers.set_status(0);
        if !wait_until(&*self.platform, RESET_MS, || registers.status() == 0) {
            return Err("it does not come out of its reset".into());
        }
        self.platform.allow_memory_access()?;
        registers.set_status(status::ACKNOWLEDGE);
        registers.set_status(status::ACKNOWLEDGE | status::DRIVER);
        let offered = registers.offered();
        let wanted = common::VERSION_1 | common::INDIRECT;
        if offered & wanted != wanted {
            return Err(format!("it lacks features of virtio 1.0 (it offers {offered:#x})"));
        }
        self.accepted = choose(offered);
        registers.accept(self.accepted, None);
        registers.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        if registers.status() & status::FEATURES_OK == 0 {
            return Err("it does not take the features that it offers".into());
        }
        self.read_capabilities();
        self.hand_over_queues()?;
        self.registers
            .set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK);
        for receiver in &mut self.receivers {
            receiver.publish(&self.registers);
        }
        self.state = NicState::Ready;
        self.look_at_link();
        self.say_wish();
        Ok(())
    }

    fn has(&self, feature: u64) -> bool {
        self.accepted & feature != 0
    }

    fn read_capabilities(&mut self) {
        let read = |offset, bytes| self.registers.device(offset, bytes);
        // A card without an address of its own gets one of those that anybody may give.
        let mac = if self.has(features::MAC) {
            let mut mac = [0; 6];
            for (offset, byte) in (0..).zip(&mut mac) {
                *byte = read(offset, 1) as u8;
            }
            mac
        } else {
            [2, 0, 0, 0, 0, 1]
        };
        let most = if self.has(features::MERGEABLE) {
            9216
        } else {
            BUFFER - header::LENGTH - 18
        };
        let mtu = if self.has(features::MTU) { read(10, 2) as u32 } else { most };
        let pairs = if self.has(features::MULTI_QUEUE) { read(8, 2) as u16 } else { 1 };
        let capabilities = &mut self.capabilities;
        capabilities.mac = mac;
        capabilities.mtu = mtu.clamp(68, most);
        capabilities.queues = pairs.clamp(1, MAX_PAIRS);
        let large = self.accepted & features::GUEST_LARGE;
        capabilities.offloads = NicOffloads {
            checksum: self.accepted & features::CHECKSUM != 0,
            tcp4: self.accepted & features::HOST_TCP4 != 0,
            tcp6: self.accepted & features::HOST_TCP6 != 0,
            udp: self.accepted & features::HOST_UDP != 0,
            verifies: self.accepted & features::GUEST_CHECKSUM != 0,
            joins: large != 0,
            vlan: true,
        };
    }

    fn hand_over_queues(&mut self) -> Result<(), String> {
        let (registers, platform) = (&self.registers, &*self.platform);
        let vector = (self.interrupts > 0).then_some(0);
        for pair in 0..self.capabilities.queues {
            let place = usize::from(pair);
            if self.receivers.len() == place {
                self.receivers.push(Receiver::new(registers, platform, pair * 2)?);
            }
            if self.senders.len() == place {
                self.senders.push(Sender::new(registers, platform, pair * 2 + 1)?);
            }
            self.receivers[place].reset(registers, self.accepted, vector)?;
            self.senders[place].reset(registers, self.accepted, vector)?;
        }
        if self.has(features::CONTROL) {
            if self.control.is_none() {
                // Behind all pairs that there are (5.1.2), whether they are used or not.
                let pairs = if self.has(features::MULTI_QUEUE) {
                    registers.device(8, 2).clamp(1, 0x7ffe) as u16
                } else {
                    1
                };
                self.control = Some(Control::new(registers, platform, pairs * 2)?);
            }
            if let Some(control) = &mut self.control {
                control.reset(registers, self.accepted)?;
            }
        }
        Ok(())
    }

    fn say_wish(&mut self) {
        self.wish.pairs = self.capabilities.queues;
        if let Some(control) = &mut self.control
            && self.accepted & features::CONTROL_RECEIVE != 0
        {
            control.wish(self.wish.clone());
        }
    }

    /// Answers whether it changed.
    fn look_at_link(&mut self) -> bool {
        let up = !self.has(features::STATUS) || self.registers.device(6, 2) & 1 != 0;
        let (mut speed, mut full_duplex) = (0, true);
        if up && self.has(features::SPEED) {
            // All ones: unknown (5.1.4).
            speed = match self.registers.device(12, 4) as u32 {
                told if told > i32::MAX as u32 => 0,
                told => told,
            };
            full_duplex = self.registers.device(16, 1) != 0;
        }
        let link = Link {
            up,
            speed,
            full_duplex: up && full_duplex,
        };
        let changed = link != self.link;
        if changed && self.link.up != up {
            self.statistics.link_changes += 1;
            log::info!("{}: link {}", self.name, if up { "up" } else { "down" });
        }
        self.link = link;
        changed
    }

    /// The device is reset, or is gone; everything in flight is lost when it has stopped.
    fn give_up(&mut self, why: &str, now: u64, sink: &mut dyn Sink) {
        self.registers.set_status(0);
        log::warn!("{}: {why}; it is reset", self.name);
        self.last_error = why.into();
        self.state = NicState::Resetting;
        self.statistics.resets += 1;
        self.reset_until = now.saturating_add(RESET_MS);
        self.go_on(now, sink);
    }

    /// Goes on with a reset.
    fn go_on(&mut self, now: u64, sink: &mut dyn Sink) {
        match self.registers.status() {
            _ if !self.registers.is_there() => {
                log::warn!("{} is gone", self.name);
                self.last_error = "it was taken away".into();
                self.state = NicState::Gone;
                self.link = Link::default();
            }
            0 => {}
            // It still has its queues.
            _ if now < self.reset_until => return,
            _ => {
                self.last_error = "it does not come out of its reset".into();
                self.state = NicState::Failed;
            }
        }
        let statistics = &mut self.statistics;
        for sender in &mut self.senders {
            sender.drain(&mut |tag| {
                statistics.sent_errors += 1;
                sink.sent(tag);
            });
        }
        if self.state == NicState::Resetting
            && let Err(reason) = self.bring_up()
        {
            log::error!("{}: {reason}", self.name);
            self.last_error = reason;
            self.state = NicState::Failed;
        }
    }

    fn collect(&mut self, budget: u32, sink: &mut dyn Sink) -> Result<bool, Broken> {
        let statistics = &mut self.statistics;
        for sender in &mut self.senders {
            sender.sent(&mut |tag, length| {
                statistics.sent += 1;
                statistics.sent_bytes += u64::from(length);
                sink.sent(tag);
            })?;
        }
        let mergeable = self.accepted & features::MERGEABLE != 0;
        let (mut left, mut count) = (budget, Count::default());
        let mut outcome = Ok(());
        for turn in 0..self.receivers.len() {
            let place = (self.first + turn) % self.receivers.len();
            let receiver = &mut self.receivers[place];
            match receiver.received(left, mergeable, &mut count, sink) {
                Ok(0) => {}
                Ok(taken) => {
                    left -= taken;
                    receiver.publish(&self.registers);
                }
                Err(Broken) => {
                    outcome = Err(Broken);
                    break;
                }
            }
        }
        self.first = (self.first + 1) % self.receivers.len().max(1);
        statistics.received += count.packets;
        statistics.received_bytes += count.bytes;
        statistics.received_errors += count.errors;
        outcome?;
        if let Some(control) = &mut self.control
            && control.is_busy()
        {
            control.go_on(&self.registers)?;
        }
        Ok(left == 0)
    }
}

/// What is used of what a device offers.
fn choose(offered: u64) -> u64 {
    let known = common::VERSION_1
        | common::INDIRECT
        | common::EVENT_INDEX
        | common::ACCESS_PLATFORM
        | features::CHECKSUM
        | features::GUEST_CHECKSUM
        | features::MTU
        | features::MAC
        | features::GUEST_LARGE
        | features::HOST_TCP4
        | features::HOST_TCP6
        | features::HOST_CONGESTION
        | features::HOST_UDP
        | features::MERGEABLE
        | features::STATUS
        | features::CONTROL
        | features::CONTROL_RECEIVE
        | features::MULTI_QUEUE
        | features::SPEED;
    let mut chosen = offered & known;
    // What builds on something that is missing (5.1.3.1).
    if chosen & features::CHECKSUM == 0 {
        chosen &= !(features::HOST_TCP4 | features::HOST_TCP6 | features::HOST_CONGESTION | features::HOST_UDP);
    }
    // A large packet needs several buffers.
    if chosen & features::GUEST_CHECKSUM == 0 || chosen & features::MERGEABLE == 0 {
        chosen &= !features::GUEST_LARGE;
    }
    if chosen & features::CONTROL == 0 {
        chosen &= !(features::CONTROL_RECEIVE | features::MULTI_QUEUE);
    }
    chosen
}

impl Nic for Card {
    fn driver(&self) -> &'static str {
        "virtio-net"
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
        let many = filter.addresses.len() > MAX_ADDRESSES;
        self.wish.promiscuous = filter.promiscuous || many;
        self.wish.multicast = filter.multicast;
        self.wish.addresses.clear();
        if !many {
            self.wish.addresses.extend_from_slice(filter.addresses);
        }
        if self.state == NicState::Ready {
            self.say_wish();
        }
    }

    fn transmit(&mut self, queue: u16, packet: &dyn Packet, vlan: Option<u16>, tag: u32) -> Result<(), Refused> {
        if self.state != NicState::Ready {
            return Err(Refused::Down);
        }
        let count = self.senders.len();
        let place = if count == 1 { 0 } else { usize::from(queue) % count.max(1) };
        let offload = packet.offload();
        if offload.checksum.is_some() || offload.segmentation.is_some() {
            let can = &self.capabilities.offloads;
            let cut = offload.segmentation.is_none_or(|one| {
                let congestion = !one.congestion || self.accepted & features::HOST_CONGESTION != 0;
                congestion
                    && match one.kind {
                        crate::packet::SegmentationKind::Tcp4 => can.tcp4,
                        crate::packet::SegmentationKind::Tcp6 => can.tcp6,
                        crate::packet::SegmentationKind::Udp => can.udp,
                    }
            });
            if !can.checksum || !cut {
                return Err(Refused::Unfit);
            }
        }
        let longest = self.capabilities.mtu + 18;
        if packet.length() > longest && offload.segmentation.is_none() {
            return Err(Refused::Impossible);
        }
        let outcome = self.senders.get_mut(place).ok_or(Refused::Down)?.add(packet, vlan, tag);
        if outcome == Err(Refused::Full) {
            self.statistics.sent_full += 1;
        }
        outcome
    }

    fn flush(&mut self) {
        if self.state == NicState::Ready {
            for sender in &mut self.senders {
                sender.publish(&self.registers);
            }
        }
    }

    fn poll(&mut self, budget: u32, sink: &mut dyn Sink) -> Progress {
        if self.state != NicState::Ready {
            return Progress::default();
        }
        match self.collect(budget, sink) {
            Ok(more) => Progress { more, changed: false },
            Err(Broken) => {
                let now = self.platform.now();
                self.give_up("the device uses what it was not given", now, sink);
                Progress {
                    more: false,
                    changed: true,
                }
            }
        }
    }

    fn listen(&mut self) -> bool {
        if self.state != NicState::Ready {
            return false;
        }
        let mut more = false;
        for receiver in &mut self.receivers {
            more |= receiver.listen();
        }
        for sender in &mut self.senders {
            more |= sender.listen();
        }
        if more {
            for receiver in &self.receivers {
                receiver.ignore();
            }
            for sender in &self.senders {
                sender.ignore();
            }
        }
        more
    }

    fn watch(&mut self, now: u64, sink: &mut dyn Sink) -> Progress {
        let before = (self.state, self.link);
        let mut progress = self.poll(u32::MAX, sink);
        match self.state {
            NicState::Ready => {
                let state = self.registers.status();
                let up = self.link.up;
                let late = up && self.senders.iter_mut().any(|sender| sender.stands_since(now) > SEND_MS);
                if state & status::NEEDS_RESET != 0 || state & status::DRIVER_OK == 0 || late {
                    self.give_up("the device hangs", now, sink);
                } else {
                    self.look_at_link();
                }
            }
            NicState::Resetting => self.go_on(now, sink),
            NicState::Failed | NicState::Gone => {}
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
