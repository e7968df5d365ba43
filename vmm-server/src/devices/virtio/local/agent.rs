//! A serial device (virtio 1.2, 5.3) with one port that has the name by which qemu-guest-agent finds it. What the agent says is kept until management takes it, a bounded number of bytes: an agent that is not listened to waits.

use super::super::{CONFIG_LENGTH, DeviceConfig, USUAL_SIZE, feature};
use super::{Local, Outside, Queues, TURN};
use crate::memory::GuestMemory;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use tessera_virtqueue::Violation;

const KIND: u16 = 3;
/// Communication controller, other.
const CLASS: u32 = 0x0780_0001;
/// Ports are told of by messages (5.3.3).
const MULTIPORT: u64 = 1 << 1;
/// Offset of the number of ports.
const PORTS: usize = 4;
/// Queues: of the one port, and of messages about it.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const TELL: u16 = 2;
const TOLD: u16 = 3;
/// The port's name.
const NAME: &[u8] = b"org.qemu.guest_agent.0";
/// Bytes of a message without a name (5.3.6.2).
const MESSAGE: usize = 8;
/// Bytes for the agent that wait.
const MOST_FOR_GUEST: usize = 4096;
/// Bytes of the agent's from which on no more are taken.
const ENOUGH: usize = 32 << 10;
/// Bytes of one request that are taken: no driver sends more than half of it.
const MOST: u64 = 64 << 10;

/// Messages about ports.
mod event {
    pub const DEVICE_READY: u16 = 0;
    pub const DEVICE_ADD: u16 = 1;
    pub const PORT_READY: u16 = 3;
    pub const PORT_OPEN: u16 = 6;
    pub const PORT_NAME: u16 = 7;
}

/// The device.
#[derive(Debug, Default)]
pub struct Agent {
    /// Messages for the driver: event and value.
    messages: heapless::Deque<(u16, u16), 8>,
    /// A program in the guest has the port open.
    open: bool,
    for_guest: VecDeque<u8>,
    from_guest: VecDeque<u8>,
}

impl Agent {
    /// Whether a program in the guest has the port open.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open
    }

    /// Bytes for the agent: how many there was room for. They reach it when the queues are served next.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(MOST_FOR_GUEST.saturating_sub(self.for_guest.len()));
        self.for_guest.extend(&bytes[..taken]);
        taken
    }

    /// What the agent said, at most `most` bytes.
    pub fn take(&mut self, most: usize) -> Vec<u8> {
        let count = self.from_guest.len().min(most);
        self.from_guest.drain(..count).collect()
    }

    /// The driver says something about its port.
    fn told(&mut self, message: [u8; MESSAGE]) {
        let [id, _, _, _, event, event1, value, value1] = message;
        let (event, value) = (u16::from_le_bytes([event, event1]), u16::from_le_bytes([value, value1]));
        // A driver that says more than it listens to loses answers.
        let mut tell = |event, value| {
            let _ = self.messages.push_back((event, value));
        };
        match (event, value) {
            (event::DEVICE_READY, 1) => tell(event::DEVICE_ADD, 1),
            (event::PORT_READY, 1) if id == 0 => {
                tell(event::PORT_NAME, 1);
                tell(event::PORT_OPEN, 1);
            }
            (event::PORT_OPEN, value) if id == 0 => {
                self.open = value != 0;
                // What was meant for one program is not for the next.
                self.for_guest.clear();
                self.from_guest.clear();
            }
            _ => {}
        }
    }

    fn serve_messages(&mut self, queues: &mut Queues, memory: &GuestMemory) -> Result<bool, Violation> {
        let mut left = TURN;
        while left > 0
            && let Some(request) = queues.pop(TOLD, memory)?
        {
            let mut message = [0; MESSAGE];
            if request.read(memory, 0, &mut message) == MESSAGE {
                self.told(message);
            }
            queues.push(&request, 0, memory)?;
            left -= 1;
        }
        while let Some((event, value)) = self.messages.front().copied() {
            // Without a buffer it waits for one.
            let Some(request) = queues.pop(TELL, memory)? else { break };
            self.messages.pop_front();
            let mut bytes = heapless::Vec::<u8, { MESSAGE + NAME.len() }>::new();
            let [event0, event1] = event.to_le_bytes();
            let [value0, value1] = value.to_le_bytes();
            // There is room for both.
            let _ = bytes.extend_from_slice(&[0, 0, 0, 0, event0, event1, value0, value1]);
            if event == event::PORT_NAME {
                let _ = bytes.extend_from_slice(NAME);
            }
            let written = request.write(memory, &bytes);
            queues.push(&request, written, memory)?;
        }
        Ok(left == 0)
    }

    fn serve_port(&mut self, queues: &mut Queues, memory: &GuestMemory) -> Result<bool, Violation> {
        let mut left = TURN;
        while left > 0
            && self.from_guest.len() < ENOUGH
            && let Some(request) = queues.pop(TRANSMIT, memory)?
        {
            let mut bytes = alloc::vec![0; request.readable().min(MOST) as usize];
            let read = request.read(memory, 0, &mut bytes);
            self.from_guest.extend(&bytes[..read]);
            queues.push(&request, 0, memory)?;
            left -= 1;
        }
        while !self.for_guest.is_empty()
            && let Some(request) = queues.pop(RECEIVE, memory)?
        {
            let count = self.for_guest.len().min(request.writable().min(MOST) as usize);
            let bytes: Vec<u8> = self.for_guest.drain(..count).collect();
            let written = request.write(memory, &bytes);
            queues.push(&request, written, memory)?;
            if count == 0 {
                break;
            }
        }
        Ok(left == 0)
    }
}

impl Local for Agent {
    fn config(&self) -> DeviceConfig {
        let mut space = [0; CONFIG_LENGTH];
        space[PORTS] = 1;
        DeviceConfig {
            kind: KIND,
            class: CLASS,
            features: feature::VERSION_1 | feature::INDIRECT | feature::EVENT_INDEX | MULTIPORT,
            queues: 4,
            queue_size: USUAL_SIZE,
            space,
            local: true,
            hidden: false,
            writable: 0,
        }
    }

    fn start(&mut self) {
        *self = Self::default();
    }

    fn resumed(&mut self) {
        // The driver knows its port, and does not say again whether somebody has it open: who asks will see.
        self.open = true;
    }

    fn serve(&mut self, queues: &mut Queues, memory: &GuestMemory, _outside: &mut dyn Outside) -> Result<bool, Violation> {
        let more = self.serve_messages(queues, memory)?;
        Ok(self.serve_port(queues, memory)? || more)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Driver, World};
    use super::*;
    use proptest::prelude::*;

    fn message(id: u8, event: u16, value: u16) -> Vec<u8> {
        [&[id, 0, 0, 0][..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
    }

    fn serve(driver: &mut Driver, agent: &mut Agent) {
        assert_eq!(agent.serve(&mut driver.queues, &driver.memory, &mut World::default()), Ok(false));
    }

    /// As far as a program has the port open.
    fn opened() -> (Driver, Agent) {
        let (mut driver, mut agent) = (Driver::new(4), Agent::default());
        for _ in 0..4 {
            driver.add(TELL, &[], &[64]);
        }
        driver.add(TOLD, &[&message(0, event::DEVICE_READY, 1)], &[]);
        serve(&mut driver, &mut agent);
        assert_eq!(driver.used(TELL).unwrap(), message(0, event::DEVICE_ADD, 1));
        driver.add(TOLD, &[&message(0, event::PORT_READY, 1)], &[]);
        serve(&mut driver, &mut agent);
        assert_eq!(driver.used(TELL).unwrap(), [&message(0, event::PORT_NAME, 1)[..], NAME].concat());
        assert_eq!(driver.used(TELL).unwrap(), message(0, event::PORT_OPEN, 1));
        assert!(!agent.is_open());
        driver.add(TOLD, &[&message(0, event::PORT_OPEN, 1)], &[]);
        serve(&mut driver, &mut agent);
        assert!(agent.is_open());
        (driver, agent)
    }

    #[test]
    fn bytes_go_both_ways() {
        let (mut driver, mut agent) = opened();
        assert_eq!(agent.send(b"{\"execute\""), 10);
        driver.add(RECEIVE, &[], &[4]);
        driver.add(RECEIVE, &[], &[64]);
        driver.add(TRANSMIT, &[b"{\"re", b"turn\""], &[]);
        serve(&mut driver, &mut agent);
        assert_eq!(
            (driver.used(RECEIVE).unwrap(), driver.used(RECEIVE).unwrap()),
            (b"{\"ex".to_vec(), b"ecute\"".to_vec())
        );
        assert_eq!((agent.take(4), agent.take(100)), (b"{\"re".to_vec(), b"turn\"".to_vec()));
        driver.add(TRANSMIT, &[b"for whoever listened"], &[]);
        serve(&mut driver, &mut agent);
        driver.add(TOLD, &[&message(0, event::PORT_OPEN, 0)], &[]);
        serve(&mut driver, &mut agent);
        assert!(!agent.is_open() && agent.take(100).is_empty());
    }

    #[test]
    fn an_agent_that_nobody_listens_to_waits() {
        let (mut driver, mut agent) = opened();
        let much = std::vec![7; 30_000];
        for _ in 0..4 {
            driver.add(TRANSMIT, &[&much], &[]);
        }
        serve(&mut driver, &mut agent);
        assert_eq!((0..4).filter(|_| driver.used(TRANSMIT).is_some()).count(), 2);
        assert_eq!(agent.take(usize::MAX).len(), 60_000);
        serve(&mut driver, &mut agent);
        assert_eq!(agent.take(usize::MAX).len(), 60_000);
        assert_eq!(agent.send(&[0; 5000]), MOST_FOR_GUEST);
        assert_eq!(agent.send(&[0; 5000]), 0);
    }

    proptest! {
        #[test]
        fn any_messages_are_survived(messages in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..12), 0u32..40), 1..60)) {
            let (mut driver, mut agent) = (Driver::new(4), Agent::default());
            for (bytes, room) in messages {
                driver.add(TOLD, &[&bytes], &[]);
                driver.add(TRANSMIT, &[&bytes], &[]);
                driver.add(TELL, &[], &[room]);
                agent.send(&bytes);
                let _ = agent.serve(&mut driver.queues, &driver.memory, &mut World::default());
                prop_assert!(agent.for_guest.len() <= MOST_FOR_GUEST && agent.from_guest.len() <= ENOUGH + MOST as usize);
            }
        }
    }
}
