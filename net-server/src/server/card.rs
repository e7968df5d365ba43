//! A network card in the loop.

use super::{fabric::At, hub::Hub};
use alloc::{boxed::Box, string::String, vec::Vec};
use tessera_device::platform;
use tessera_net::{
    exercise::Requests,
    nic::{Filter, Nic, Refused, Sink},
    packet::Packet,
};
use tessera_proto::network::{Exercise, NicInfo, NicState};
use tessera_rt::{Irq, abi::PAGE_SIZE, log};

/// Packets that one card may bring in a turn.
const BUDGET: u32 = 64;
/// Tag of the server's own requests, which nobody else's packets have.
const OWN: u32 = u32::MAX;

/// A card, and what the loop knows of it.
pub struct Card {
    name: String,
    address: String,
    nic: Box<dyn Nic>,
    /// Interrupts that have to be acknowledged.
    lines: Vec<Irq>,
    interrupts: u64,
    /// There may be something to do; its interrupts are off.
    due: bool,
    exercise: Option<Requests>,
    /// Its place in a switch.
    uplink: Option<At>,
    /// Packets got out through it when it was last looked at.
    was_up: bool,
}

/// Where packets go.
struct Inside<'a> {
    exercise: &'a mut Option<Requests>,
    hub: &'a mut Hub,
    uplink: Option<At>,
}

impl Sink for Inside<'_> {
    fn sent(&mut self, tag: u32) {
        match self.exercise {
            Some(requests) if tag == OWN => requests.sent(),
            _ => self.hub.sent(tag),
        }
    }

    fn received(&mut self, packet: &dyn Packet, vlan: Option<u16>) {
        if let Some(uplink) = self.uplink {
            self.hub.received(uplink, packet, vlan);
        }
        if let Some(requests) = self.exercise {
            requests.received(packet);
        }
    }
}

impl Card {
    /// A card whose driver has started it.
    pub fn new(name: String, address: String, mut nic: Box<dyn Nic>, lines: Vec<Irq>) -> Self {
        // What is behind a switch has addresses of its own.
        nic.filter(&Filter {
            promiscuous: true,
            ..Filter::default()
        });
        Self {
            name,
            address,
            nic,
            lines,
            interrupts: 0,
            due: true,
            exercise: None,
            uplink: None,
            was_up: false,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells the log of it.
    pub fn announce(&self) {
        let info = self.info();
        let [a, b, c, d, e, f] = info.mac;
        log::info!(
            "{}: {}, {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}, link {}, {} at {}",
            info.name,
            info.model,
            if info.link.up { "up" } else { "down" },
            info.driver,
            info.address
        );
    }

    /// What is told of it.
    pub fn info(&self) -> NicInfo {
        let capabilities = self.nic.capabilities();
        let mut statistics = self.nic.statistics();
        statistics.interrupts = self.interrupts;
        NicInfo {
            name: self.name.clone(),
            driver: self.nic.driver().into(),
            model: capabilities.model.clone(),
            address: self.address.clone(),
            mac: capabilities.mac,
            state: self.nic.state(),
            link: self.nic.link(),
            mtu: capabilities.mtu,
            queues: capabilities.queues,
            offloads: capabilities.offloads,
            promiscuous: true,
            statistics,
            last_error: self.nic.last_error().into(),
        }
    }

    /// It interrupted.
    pub fn interrupted(&mut self) {
        self.interrupts += 1;
        self.due = true;
        for line in &self.lines {
            // Lines are edge-triggered: an edge that comes while the card is looked at must not be lost.
            let _ = line.acknowledge();
        }
    }

    /// Whether it has to be looked at without interrupts.
    pub fn wants_polling(&self) -> bool {
        !self.nic.has_interrupts() && self.nic.state() == NicState::Ready
    }

    /// It is the uplink of a switch, at this place, or of none.
    pub const fn connect(&mut self, uplink: Option<At>) {
        self.uplink = uplink;
    }

    /// Whether packets get out through it.
    pub fn is_up(&self) -> bool {
        self.nic.state() == NicState::Ready && self.nic.link().up
    }

    /// Gives it a packet, with a VLAN tag to put in if there is one.
    pub fn transmit(&mut self, queue: u16, packet: &dyn Packet, vlan: Option<u16>, tag: u32) -> Result<(), Refused> {
        self.due = true;
        self.nic.transmit(queue, packet, vlan, tag)
    }

    /// Looks after it.
    pub fn watch(&mut self, now: u64, hub: &mut Hub) {
        let Self { nic, exercise, uplink, .. } = self;
        let uplink = *uplink;
        nic.watch(now, &mut Inside { exercise, hub, uplink });
        self.due = true;
    }

    /// Does what is due. Answers whether there is more.
    pub fn turn(&mut self, now: u64, hub: &mut Hub) -> bool {
        if !self.due && self.exercise.is_none() && !self.wants_polling() {
            return false;
        }
        let mut more = false;
        if self.due || self.wants_polling() {
            let Self { nic, exercise, uplink, .. } = self;
            let uplink = *uplink;
            more = nic.poll(BUDGET, &mut Inside { exercise, hub, uplink }).more;
            let up = self.is_up();
            hub.changed |= core::mem::replace(&mut self.was_up, up) != up;
        }
        if let Some(requests) = &mut self.exercise
            && requests.prepare(now)
            && self.nic.transmit(0, requests, None, OWN).is_ok()
        {
            requests.given(now);
            self.due = true;
        }
        self.nic.flush();
        if self.due && !more {
            more = self.nic.listen();
            self.due = more;
        }
        more
    }

    /// Sends requests of the server's own. `None`: there is no memory.
    pub fn exercise(&mut self, rounds: u32) -> Option<Exercise> {
        if self.exercise.is_none() {
            let memory = platform::allocate(PAGE_SIZE)?;
            self.exercise = Some(Requests::new(memory, self.nic.capabilities().mac));
        }
        self.exercise.as_mut().map(|requests| requests.add(rounds))
    }
}
