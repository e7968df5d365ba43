//! The entropy device (virtio 1.2, 5.4).

use super::super::{CONFIG_LENGTH, DeviceConfig, USUAL_SIZE, feature};
use super::{Local, Outside, Queues, TURN};
use crate::memory::GuestMemory;
use tessera_virtqueue::Violation;

const KIND: u16 = 4;
/// Encryption controller, other; as transitional devices said it.
const CLASS: u32 = 0x1080_0001;
const QUEUE: u16 = 0;
/// Bytes that one request gets at most: a guest that wants more asks again.
const MOST: usize = 256;

/// The device.
#[derive(Debug, Default)]
pub struct Rng;

impl Local for Rng {
    fn config(&self) -> DeviceConfig {
        DeviceConfig {
            kind: KIND,
            class: CLASS,
            features: feature::VERSION_1 | feature::INDIRECT | feature::EVENT_INDEX,
            queues: 1,
            queue_size: USUAL_SIZE,
            space: [0; CONFIG_LENGTH],
            local: true,
            hidden: false,
            writable: 0,
        }
    }

    fn serve(&mut self, queues: &mut Queues, memory: &GuestMemory, outside: &mut dyn Outside) -> Result<bool, Violation> {
        for _ in 0..TURN {
            let Some(request) = queues.pop(QUEUE, memory)? else {
                return Ok(false);
            };
            let mut bytes = [0; MOST];
            let wanted = request.writable().min(MOST as u64) as usize;
            let written = if outside.random(&mut bytes[..wanted]) {
                request.write(memory, &bytes[..wanted])
            } else {
                0
            };
            queues.push(&request, written, memory)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Driver, World};
    use super::*;

    #[test]
    fn fills_what_it_is_given_and_not_more() {
        let mut driver = Driver::new(1);
        let mut world = World::default();
        driver.add(0, &[], &[100, 300]);
        driver.add(0, &[], &[8]);
        assert_eq!(Rng.serve(&mut driver.queues, &driver.memory, &mut world), Ok(false));
        let [first, second] = [driver.used(0).unwrap(), driver.used(0).unwrap()];
        assert_eq!((first.len(), second.len()), (MOST, 8));
        assert!(first.iter().any(|byte| *byte != first[0]), "not the same byte everywhere");
        assert_eq!(driver.queues.take_interrupts().collect::<std::vec::Vec<_>>(), [0]);
        assert_eq!(driver.used(0), None);
    }

    #[test]
    fn a_driver_that_wants_to_be_asked_for_notifications_is() {
        let mut driver = Driver::with(1, crate::devices::virtio::feature::EVENT_INDEX);
        for round in 1..4 {
            driver.add(0, &[], &[4]);
            assert_eq!(Rng.serve(&mut driver.queues, &driver.memory, &mut World::default()), Ok(false));
            assert_eq!(driver.notify_from(0), round, "of the next request");
        }
    }

    #[test]
    fn without_a_source_nothing_is_made_up() {
        let mut driver = Driver::new(1);
        let mut world = World {
            dry: true,
            ..World::default()
        };
        driver.add(0, &[], &[8]);
        assert_eq!(Rng.serve(&mut driver.queues, &driver.memory, &mut world), Ok(false));
        assert_eq!(driver.used(0).unwrap(), []);
    }

    #[test]
    fn others_get_their_turn() {
        let mut driver = Driver::new(1);
        for _ in 0..TURN {
            driver.add(0, &[], &[4]);
        }
        assert_eq!(Rng.serve(&mut driver.queues, &driver.memory, &mut World::default()), Ok(true));
        assert_eq!(Rng.serve(&mut driver.queues, &driver.memory, &mut World::default()), Ok(false));
    }
}
