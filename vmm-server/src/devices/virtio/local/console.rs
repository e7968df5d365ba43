//! The console device (virtio 1.2, 5.3), one port: the same line as the serial port's, without an exit for each character.

use super::super::{CONFIG_LENGTH, DeviceConfig, USUAL_SIZE, feature};
use super::{Local, Outside, Queues, TURN};
use crate::memory::GuestMemory;
use tessera_virtqueue::Violation;

const KIND: u16 = 3;
/// Communication controller, other.
const CLASS: u32 = 0x0780_0001;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// Bytes that are carried at once.
const CHUNK: usize = 128;
/// Bytes of one request that are shown: no driver sends more than a page.
const MOST: u64 = 64 << 10;

/// The device.
#[derive(Debug, Default)]
pub struct Port {
    /// Typed, and not yet with the guest.
    typed: heapless::Deque<u8, CHUNK>,
}

impl Port {
    fn transmit(queues: &mut Queues, memory: &GuestMemory, outside: &mut dyn Outside) -> Result<bool, Violation> {
        for _ in 0..TURN {
            let Some(request) = queues.pop(TRANSMIT, memory)? else {
                return Ok(false);
            };
            let end = request.readable().min(MOST);
            let mut at = 0;
            while at < end {
                let mut bytes = [0; CHUNK];
                let read = request.read(memory, at, &mut bytes[..CHUNK.min((end - at) as usize)]);
                outside.show(&bytes[..read]);
                at += read as u64;
            }
            queues.push(&request, 0, memory)?;
        }
        Ok(true)
    }

    fn receive(&mut self, queues: &mut Queues, memory: &GuestMemory, outside: &mut dyn Outside) -> Result<bool, Violation> {
        for _ in 0..TURN {
            if self.typed.is_empty() {
                let mut bytes = [0; CHUNK];
                let count = outside.typed(&mut bytes);
                self.typed.extend(bytes[..count].iter().copied());
            }
            if self.typed.is_empty() {
                return Ok(false);
            }
            // Without a buffer it waits for one.
            let Some(request) = queues.pop(RECEIVE, memory)? else {
                return Ok(false);
            };
            let count = self.typed.len().min(request.writable() as usize);
            let bytes: heapless::Vec<u8, CHUNK> = (0..count).filter_map(|_| self.typed.pop_front()).collect();
            let written = request.write(memory, &bytes);
            queues.push(&request, written, memory)?;
        }
        Ok(true)
    }
}

impl Local for Port {
    fn config(&self) -> DeviceConfig {
        DeviceConfig {
            kind: KIND,
            class: CLASS,
            features: feature::VERSION_1 | feature::INDIRECT | feature::EVENT_INDEX,
            queues: 2,
            queue_size: USUAL_SIZE,
            space: [0; CONFIG_LENGTH],
            local: true,
            hidden: false,
            writable: 0,
        }
    }

    fn start(&mut self) {
        self.typed.clear();
    }

    fn serve(&mut self, queues: &mut Queues, memory: &GuestMemory, outside: &mut dyn Outside) -> Result<bool, Violation> {
        let more = Self::transmit(queues, memory, outside)?;
        Ok(self.receive(queues, memory, outside)? || more)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Driver, World};
    use super::*;

    #[test]
    fn shows_what_is_written_in_whatever_pieces() {
        let (mut driver, mut world, mut port) = (Driver::new(2), World::default(), Port::default());
        let text: std::vec::Vec<u8> = (0..1000u32).map(|i| i as u8).collect();
        driver.add(1, &[&text[..700], &text[700..]], &[]);
        driver.add(1, &[b"!"], &[]);
        assert_eq!(port.serve(&mut driver.queues, &driver.memory, &mut world), Ok(false));
        assert_eq!(world.shown, [&text[..], b"!"].concat());
        assert_eq!(driver.used(1).unwrap(), []);
    }

    #[test]
    fn what_is_typed_waits_for_a_buffer() {
        let (mut driver, mut world, mut port) = (Driver::new(2), World::default(), Port::default());
        world.typed.extend(*b"hello");
        assert_eq!(port.serve(&mut driver.queues, &driver.memory, &mut world), Ok(false));
        driver.add(0, &[], &[2]);
        driver.add(0, &[], &[1, 7]);
        driver.add(0, &[], &[7]);
        assert_eq!(port.serve(&mut driver.queues, &driver.memory, &mut world), Ok(false));
        assert_eq!(driver.used(0).unwrap(), b"he");
        assert_eq!(driver.used(0).unwrap(), b"llo");
        assert_eq!(driver.used(0), None);
    }

    #[test]
    fn a_new_driver_does_not_get_what_was_for_the_last() {
        let (mut driver, mut world, mut port) = (Driver::new(2), World::default(), Port::default());
        world.typed.extend(*b"secret");
        port.serve(&mut driver.queues, &driver.memory, &mut world).unwrap();
        port.start();
        driver.add(0, &[], &[8]);
        port.serve(&mut driver.queues, &driver.memory, &mut world).unwrap();
        assert_eq!(driver.used(0), None);
    }
}
