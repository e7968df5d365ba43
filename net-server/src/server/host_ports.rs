//! Ports of the host's own servers.

use super::{
    Server,
    fabric::At,
    hub::{Hub, nanoseconds},
};
use alloc::{format, vec::Vec};
use tessera_device::platform;
use tessera_host_port::{FRAME, Rings, SHARE, Side};
use tessera_net::packet::Packet;
use tessera_proto::host_port::{self, HostPortInfo};
use tessera_proto::{Call, Failure, FailureKind};
use tessera_rt::{CNode, Notification, abi::Error, slots};

/// The bit of the notification that all ports have.
pub const BIT: u64 = 1 << 31;
/// What a port carries at most.
const MTU: u16 = 1500;

/// Memory with a frame that was taken out of a ring.
#[derive(Default)]
pub struct Taken {
    memory: Vec<u8>,
    length: Option<usize>,
}

impl Taken {
    /// The frame.
    pub fn bytes(&self) -> &[u8] {
        self.length.and_then(|length| self.memory.get(..length)).unwrap_or_default()
    }
}

/// A server's port.
pub struct HostPort {
    /// The server's number.
    pub client: u64,
    rings: Rings,
    /// Tells the server of frames.
    signal: Option<Notification>,
    mac: [u8; 6],
    /// Where it is connected.
    at: Option<At>,
    /// Where frames are taken to; with one in it that was not to go yet.
    taken: Taken,
    /// Frames have come of which it was not told.
    unsaid: bool,
}

impl HostPort {
    /// Takes the next frame that it sends. It comes back with [`Self::put_back`]. `None`: there is none.
    pub fn take(&mut self) -> Option<Taken> {
        let mut taken = core::mem::take(&mut self.taken);
        if taken.length.is_none() {
            // Only the first time there is something to do.
            taken.memory.resize(FRAME, 0);
            taken.length = self.rings.receive(&mut taken.memory);
        }
        if taken.length.is_none() {
            self.taken = taken;
            return None;
        }
        Some(taken)
    }

    /// The memory of a frame comes back; `later`: with it still in it.
    pub fn put_back(&mut self, mut taken: Taken, later: bool) {
        if !later {
            taken.length = None;
        }
        self.taken = taken;
    }

    /// Gives it a finished frame. What finds no room is lost, as in any network.
    pub fn give(&mut self, packet: &dyn Packet) {
        let mut frame = [0; FRAME];
        let length = packet.length() as usize;
        if let Some(frame) = frame.get_mut(..length) {
            packet.copy_out(0, frame);
            self.unsaid |= self.rings.send(frame);
        }
    }

    /// Tells it of what has come.
    pub fn settle(&mut self) {
        if core::mem::take(&mut self.unsaid)
            && let Some(signal) = self.signal
        {
            // A server that is gone opens its port again when it is back.
            let _ = signal.signal();
        }
    }
}

impl Drop for HostPort {
    fn drop(&mut self) {
        if let Some(signal) = self.signal.take() {
            slots::free(signal.slot());
        }
    }
}

/// All of them.
#[derive(Default)]
pub struct HostPorts {
    /// The ports.
    pub ports: Vec<HostPort>,
    /// What servers ring.
    doorbell: Option<Notification>,
}

impl HostPorts {
    fn doorbell(&mut self) -> Result<Notification, Error> {
        match self.doorbell {
            Some(doorbell) => Ok(doorbell),
            None => Ok(*self.doorbell.insert(platform::signal(BIT)?)),
        }
    }
}

fn kernel(error: Error) -> Failure {
    Failure::new(FailureKind::Exhausted, format_args!("opening a port: {}", error.text()))
}

/// An address for a port: locally administered, different for each server and on each host.
fn address(card: [u8; 6], client: u64) -> [u8; 6] {
    [0x06, 0x54, card[3], card[4], card[5], client as u8]
}

impl Server {
    /// Where a caller's port stands; one that it has not opened yet is made.
    fn host_port(&mut self, client: u64) -> Result<usize, Failure> {
        let ports = &mut self.hub.hosts.ports;
        if let Some(place) = ports.iter().position(|port| port.client == client) {
            return Ok(place);
        }
        let none = || {
            Failure::new(
                FailureKind::NotAllowed,
                "the caller shares no memory for frames with the network server: grant it `frames = { share = \"net + 512 KiB\" }`",
            )
        };
        let memory = platform::shared(&format!("shared.{client}.{SHARE}")).ok_or_else(none)?;
        let rings = Rings::new(&memory, Side::Switch).ok_or_else(none)?;
        let card = self.cards.first().map_or([0; 6], |card| card.info().mac);
        ports.push(HostPort {
            client,
            rings,
            signal: None,
            mac: address(card, client),
            at: None,
            taken: Taken::default(),
            unsaid: false,
        });
        Ok(ports.len() - 1)
    }
}

impl host_port::Server for Server {
    fn open(&mut self, call: &mut Call, group: &str) -> Result<HostPortInfo, Failure> {
        let from = call.cap(0).ok_or(Failure::from(FailureKind::BadRequest))?;
        let doorbell = self.hub.hosts.doorbell().map_err(kernel)?;
        let place = self.host_port(call.badge)?;
        let Hub { hosts, fabric, .. } = &mut self.hub;
        let port = &mut hosts.ports[place];
        let elsewhere = port.at.filter(|at| fabric.group_of(*at) != Some(group));
        if port.at.is_none() || elsewhere.is_some() {
            let name = format!("host-{}", call.badge);
            // It keeps its old place until it has the new one.
            let at = fabric.connect_host(place, &name, port.mac, group, nanoseconds())?;
            if let Some(old) = port.at.replace(at) {
                fabric.disconnect(old);
            }
        }
        let mtu = fabric.mtu(group).unwrap_or(MTU).min(MTU);
        let slot = slots::take().map_err(kernel)?;
        if let Err(error) = CNode::OWN.take(slot, CNode::OWN, from) {
            slots::free(slot);
            return Err(kernel(error));
        }
        if let Some(old) = port.signal.replace(Notification::new(slot)) {
            slots::free(old.slot());
        }
        // Frames that came before it asked.
        port.unsaid = true;
        call.give(doorbell.slot());
        Ok(HostPortInfo { mac: port.mac, mtu })
    }

    fn close(&mut self, call: &mut Call) -> Result<(), Failure> {
        let Hub { hosts, fabric, .. } = &mut self.hub;
        if let Some(port) = hosts.ports.iter_mut().find(|port| port.client == call.badge) {
            if let Some(at) = port.at.take() {
                fabric.disconnect(at);
            }
            if let Some(signal) = port.signal.take() {
                slots::free(signal.slot());
            }
        }
        Ok(())
    }
}
