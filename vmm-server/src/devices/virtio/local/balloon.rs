//! The memory balloon (virtio 1.2, 5.5): the guest is asked to do without some of its memory, and tells how much of it it needs.

use super::super::{CONFIG_LENGTH, DeviceConfig, USUAL_SIZE, feature};
use super::{Local, Outside, Queues, Request, TURN};
use crate::memory::GuestMemory;
use tessera_virtqueue::Violation;

const KIND: u16 = 5;
/// Memory controller, other.
const CLASS: u32 = 0x0580_0001;
/// The third queue carries statistics.
const STATISTICS: u64 = 1 << 1;
/// The guest takes pages back by itself rather than run out of memory.
const DEFLATE_ON_OOM: u64 = 1 << 2;
const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;
const NEWS: u16 = 2;
/// Offset of the number of pages that the guest did give up; the driver writes it.
const ACTUAL: usize = 4;
/// Bytes of a page of the balloon, whatever the guest's are.
pub const PAGE: u64 = 4096;
/// Bytes of a statistic: its tag and value.
const ENTRY: usize = 10;

/// What a guest tells of its memory, in bytes; none of what it did not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Not used for anything.
    pub free: Option<u64>,
    /// All that the guest's system manages.
    pub total: Option<u64>,
    /// Could be had without swapping.
    pub available: Option<u64>,
    /// Holds copies of what is on disks.
    pub caches: Option<u64>,
    /// Brought in from swap since the start.
    pub swapped_in: Option<u64>,
    /// Written out to swap since the start.
    pub swapped_out: Option<u64>,
    /// Page faults that waited for a disk, since the start: a number.
    pub major_faults: Option<u64>,
}

impl Statistics {
    fn take(&mut self, tag: u16, value: u64) {
        let place = match tag {
            0 => &mut self.swapped_in,
            1 => &mut self.swapped_out,
            2 => &mut self.major_faults,
            4 => &mut self.free,
            5 => &mut self.total,
            6 => &mut self.available,
            7 => &mut self.caches,
            _ => return,
        };
        *place = Some(value);
    }
}

/// The device.
#[derive(Debug, Default)]
pub struct Balloon {
    statistics: Statistics,
    /// The driver's buffer for statistics: to be returned when new ones are wanted.
    held: Option<Request>,
    wanted: bool,
}

impl Balloon {
    /// What the guest told last.
    #[must_use]
    pub const fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// New statistics are asked for when the queues are served next.
    pub const fn ask(&mut self) {
        self.wanted = true;
    }
}

/// Asks for `pages` pages. Answers whether that is something new.
pub fn set_target(config: &mut DeviceConfig, pages: u32) -> bool {
    let bytes = pages.to_le_bytes();
    core::mem::replace(config.space.first_chunk_mut().unwrap_or(&mut [0; 4]), bytes) != bytes
}

/// Pages that are asked for, and that the guest gave up.
#[must_use]
pub fn pages(config: &DeviceConfig) -> (u32, u32) {
    let word = |at: usize| {
        config.space[at..]
            .first_chunk()
            .map_or(0, |bytes: &[u8; 4]| u32::from_le_bytes(*bytes))
    };
    (word(0), word(ACTUAL))
}

impl Local for Balloon {
    fn config(&self) -> DeviceConfig {
        DeviceConfig {
            kind: KIND,
            class: CLASS,
            features: feature::VERSION_1 | feature::INDIRECT | feature::EVENT_INDEX | STATISTICS | DEFLATE_ON_OOM,
            queues: 3,
            queue_size: USUAL_SIZE,
            space: [0; CONFIG_LENGTH],
            local: true,
            hidden: false,
            writable: 0xf << ACTUAL,
        }
    }

    fn start(&mut self) {
        *self = Self::default();
    }

    fn serve(&mut self, queues: &mut Queues, memory: &GuestMemory, _outside: &mut dyn Outside) -> Result<bool, Violation> {
        let mut more = false;
        for queue in [INFLATE, DEFLATE] {
            let mut left = TURN;
            while left > 0
                && let Some(request) = queues.pop(queue, memory)?
            {
                // The driver itself counts, in `ACTUAL`.
                queues.push(&request, 0, memory)?;
                left -= 1;
            }
            more |= left == 0;
        }
        // The driver adds one buffer, and the next when it got that back.
        if let Some(request) = queues.pop(NEWS, memory)? {
            let mut bytes = [0; 16 * ENTRY];
            let length = request.read(memory, 0, &mut bytes);
            self.statistics = Statistics::default();
            for entry in bytes[..length].chunks_exact(ENTRY) {
                let (tag, value) = entry.split_at(2);
                let value = value.try_into().map_or(0, u64::from_le_bytes);
                self.statistics.take(u16::from_le_bytes([tag[0], tag[1]]), value);
            }
            if let Some(odd) = self.held.replace(request) {
                queues.push(&odd, 0, memory)?;
            }
        }
        if core::mem::take(&mut self.wanted)
            && let Some(request) = self.held.take()
        {
            queues.push(&request, 0, memory)?;
        }
        Ok(more)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Driver, World};
    use super::*;

    fn entry(tag: u16, value: u64) -> std::vec::Vec<u8> {
        [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()
    }

    #[test]
    fn statistics_come_when_they_are_asked_for() {
        let (mut driver, mut world, mut balloon) = (Driver::new(3), World::default(), Balloon::default());
        let told = [entry(4, 7 << 20), entry(5, 9 << 20), entry(77, 1), entry(6, 8 << 20)].concat();
        driver.add(2, &[&told], &[]);
        balloon.ask();
        assert_eq!(balloon.serve(&mut driver.queues, &driver.memory, &mut world), Ok(false));
        let expected = Statistics {
            free: Some(7 << 20),
            total: Some(9 << 20),
            available: Some(8 << 20),
            ..Statistics::default()
        };
        assert_eq!(balloon.statistics(), expected);
        assert_eq!(driver.used(2).unwrap(), [], "asked for more");
        driver.add(2, &[&entry(4, 1)[..9]], &[]);
        balloon.serve(&mut driver.queues, &driver.memory, &mut world).unwrap();
        assert_eq!(driver.used(2), None, "kept until more is wanted");
        assert_eq!(balloon.statistics(), Statistics::default(), "half a statistic is none");
    }

    #[test]
    fn pages_are_asked_for_and_counted() {
        let mut config = Balloon::default().config();
        assert!(set_target(&mut config, 0x1234));
        assert!(!set_target(&mut config, 0x1234));
        config.space[ACTUAL] = 5;
        assert_eq!(pages(&config), (0x1234, 5));
        let (mut driver, mut world, mut balloon) = (Driver::new(3), World::default(), Balloon::default());
        driver.add(0, &[&[0; 1024]], &[]);
        driver.add(1, &[&[0; 4]], &[]);
        assert_eq!(balloon.serve(&mut driver.queues, &driver.memory, &mut world), Ok(false));
        assert_eq!((driver.used(0), driver.used(1)), (Some(vec![]), Some(vec![])));
    }
}
