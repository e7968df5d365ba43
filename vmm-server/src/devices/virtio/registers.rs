//! The common configuration of a virtio device (virtio 1.2, 2.1, 2.2, 3.1.1, 4.1.4.3), and how far its server is with it.
//!
//! ```text
//!          DRIVER_OK           server serves           status := 0            server stopped
//!  Idle -------------> Wanted --------------> Serving -------------> Stopping ---------------> Idle
//!                        ^  \                  |  |                     ^
//!                        |   `-- status := 0 --|--|---------------------+
//!                        +----- server died ---+  +- a rule is broken: NEEDS_RESET
//! ```
//!
//! While it stops, the status register keeps its value: the driver waits until it reads 0, and nothing works in the guest's memory any more then.

use super::{DeviceConfig, feature};
use heapless::Vec;
use serde::{Deserialize, Serialize};

/// Most queues of a device: four pairs of a network card's, and the one for its control.
pub const MAX_QUEUES: usize = 9;
/// Descriptors of a queue, unless a device says otherwise.
pub const USUAL_SIZE: u16 = 256;
/// No vector.
pub const NO_VECTOR: u16 = 0xffff;
/// Bytes of the register file.
pub const LENGTH: usize = 60;

/// Device status (2.1).
mod status {
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
    /// Acknowledged, there is a driver, and both of the above.
    pub const ALL: u8 = 1 | 2 | DRIVER_OK | FEATURES_OK;
}

/// A queue, as the driver set it up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueConfig {
    /// Descriptors.
    pub size: u16,
    /// In use.
    pub enabled: bool,
    /// MSI-X vector, or [`NO_VECTOR`].
    pub vector: u16,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
}

impl QueueConfig {
    const fn new(size: u16) -> Self {
        Self {
            size,
            enabled: false,
            vector: NO_VECTOR,
            descriptors: 0,
            available: 0,
            used: 0,
        }
    }
}

/// How far the device's server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Service {
    /// Nobody serves it.
    Idle,
    /// It is to be served.
    Wanted {
        /// It was served before, by a server that died.
        resume: bool,
    },
    /// It is served.
    Serving,
    /// It is not to be served any more.
    Stopping,
}

/// The registers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Registers {
    device_select: u32,
    driver_select: u32,
    driver_features: u64,
    config_vector: u16,
    status: u8,
    generation: u8,
    select: u16,
    /// Descriptors of a queue after a reset, and at most.
    largest: u16,
    queues: [QueueConfig; MAX_QUEUES],
    service: Service,
}

fn put_half(register: &mut u64, high: bool, value: u32) {
    *register = if high {
        *register & 0xffff_ffff | u64::from(value) << 32
    } else {
        *register & !0xffff_ffff | u64::from(value)
    };
}

impl Registers {
    /// Such a device's after a reset.
    #[must_use]
    pub const fn new(config: &DeviceConfig) -> Self {
        Self::with_queues(config.queue_size)
    }

    const fn with_queues(size: u16) -> Self {
        Self {
            largest: size,
            device_select: 0,
            driver_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            generation: 0,
            select: 0,
            queues: [QueueConfig::new(size); MAX_QUEUES],
            service: Service::Idle,
        }
    }

    fn selected(&self, config: &DeviceConfig) -> Option<&QueueConfig> {
        (self.select < config.queues).then(|| &self.queues[usize::from(self.select)])
    }

    /// Reads `width` bytes (up to 8) at `offset`.
    #[must_use]
    pub fn read(&self, offset: u32, width: u8, config: &DeviceConfig) -> u64 {
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _ => 0,
        };
        let none = QueueConfig::new(0);
        let shown = self.selected(config).unwrap_or(&none);
        let mut bytes = [0; LENGTH + 12];
        let mut put = |place: usize, value: &[u8]| bytes[place..place + value.len()].copy_from_slice(value);
        put(0, &self.device_select.to_le_bytes());
        put(4, &half(config.features, self.device_select).to_le_bytes());
        put(8, &self.driver_select.to_le_bytes());
        put(12, &half(self.driver_features, self.driver_select).to_le_bytes());
        put(16, &self.config_vector.to_le_bytes());
        put(18, &config.queues.to_le_bytes());
        put(20, &[self.status, self.generation]);
        put(22, &self.select.to_le_bytes());
        put(24, &shown.size.to_le_bytes());
        put(26, &shown.vector.to_le_bytes());
        put(28, &u16::from(shown.enabled).to_le_bytes());
        // 30: all queues are notified at the same place, for the server looks at all of them.
        put(32, &shown.descriptors.to_le_bytes());
        put(40, &shown.available.to_le_bytes());
        put(48, &shown.used.to_le_bytes());
        let place = offset as usize;
        let mut value = [0; 8];
        let width = usize::from(width).min(8);
        if let Some(part) = bytes.get(place..place + width) {
            value[..width].copy_from_slice(part);
        }
        u64::from_le_bytes(value)
    }

    /// Writes `width` bytes at `offset`. `vectors` is how many MSI-X vectors there are. Answers true when the server has to be told something.
    pub fn write(&mut self, offset: u32, width: u8, value: u64, config: &DeviceConfig, vectors: u16) -> bool {
        let vector = if (value as u16) < vectors { value as u16 } else { NO_VECTOR };
        match (offset, width) {
            (0, 4) => self.device_select = value as u32,
            (8, 4) => self.driver_select = value as u32,
            (12, 4) if self.status & status::FEATURES_OK == 0 && self.driver_select < 2 => {
                put_half(&mut self.driver_features, self.driver_select == 1, value as u32);
            }
            (16, 2) => self.config_vector = vector,
            (20, 1) => return self.set_status(value as u8, config),
            (22, 2) => self.select = value as u16,
            _ => return self.write_queue(offset, width, value, vector, config),
        }
        false
    }

    fn write_queue(&mut self, offset: u32, width: u8, value: u64, vector: u16, config: &DeviceConfig) -> bool {
        if self.select >= config.queues {
            return false;
        }
        let served = self.service != Service::Idle;
        let queue = &mut self.queues[usize::from(self.select)];
        if (offset, width) == (26, 2) {
            queue.vector = vector;
            return served;
        }
        // What a server may be using stays as it is.
        if served || queue.enabled {
            return false;
        }
        let field = match offset {
            24 if width == 2 => {
                let size = value as u16;
                if size.is_power_of_two() && size <= self.largest {
                    queue.size = size;
                }
                return false;
            }
            28 if width == 2 => {
                queue.enabled = value & 1 != 0;
                return false;
            }
            32..40 => &mut queue.descriptors,
            40..48 => &mut queue.available,
            48..56 => &mut queue.used,
            _ => return false,
        };
        match (offset & 7, width) {
            (0, 8) => *field = value,
            (0 | 4, 4) => put_half(field, offset & 4 != 0, value as u32),
            _ => (),
        }
        false
    }

    fn set_status(&mut self, value: u8, config: &DeviceConfig) -> bool {
        if self.service == Service::Stopping {
            return false;
        }
        if value == 0 {
            return self.reset();
        }
        let mut value = value & !status::NEEDS_RESET | self.status & status::NEEDS_RESET;
        let good = self.driver_features & !config.features == 0 && self.driver_features & feature::VERSION_1 != 0;
        if self.status & status::FEATURES_OK == 0 && !good {
            value &= !status::FEATURES_OK;
        }
        let begins = value & !self.status & status::DRIVER_OK != 0 && value & status::FEATURES_OK != 0 && self.service == Service::Idle;
        self.status = value;
        if begins {
            self.service = Service::Wanted { resume: false };
        }
        begins
    }

    fn power_on(&mut self) {
        *self = Self {
            generation: self.generation,
            ..Self::with_queues(self.largest)
        };
    }

    fn reset(&mut self) -> bool {
        if self.service == Service::Idle {
            self.power_on();
            return false;
        }
        self.service = Service::Stopping;
        true
    }

    /// How far the device's server is.
    #[must_use]
    pub const fn service(&self) -> Service {
        self.service
    }

    /// Features that both sides agreed on.
    #[must_use]
    pub const fn features(&self) -> u64 {
        self.driver_features
    }

    /// The queues that are used, with their numbers.
    #[must_use]
    pub fn used_queues(&self) -> Vec<(u16, QueueConfig), MAX_QUEUES> {
        (0..).zip(self.queues).filter(|(_, queue)| queue.enabled).collect()
    }

    /// Vector of a queue.
    #[must_use]
    pub fn vector(&self, queue: u16) -> u16 {
        self.queues.get(usize::from(queue)).map_or(NO_VECTOR, |queue| queue.vector)
    }

    /// Vector of configuration changes.
    #[must_use]
    pub const fn config_vector(&self) -> u16 {
        self.config_vector
    }

    /// What a driver does until its device is to be served, done by the monitor's own: accepts `features` and uses the first queues.
    pub fn adopt(&mut self, features: u64, queues: &[QueueConfig]) {
        self.power_on();
        self.driver_features = features;
        self.status = status::ALL;
        for (place, queue) in self.queues.iter_mut().zip(queues) {
            *place = *queue;
        }
        self.service = Service::Wanted { resume: false };
    }

    /// Whether the device cannot go on before it is reset.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.status & status::NEEDS_RESET != 0
    }

    /// The server serves it.
    pub fn served(&mut self) {
        if matches!(self.service, Service::Wanted { .. }) {
            self.service = Service::Serving;
        }
    }

    /// The server does nothing with it any more: what was asked for is done.
    pub fn stopped(&mut self) {
        if self.service == Service::Stopping {
            self.power_on();
        }
    }

    /// The server died: its successor is to go on. A device that was stopping has stopped with it.
    pub fn server_died(&mut self) {
        match self.service {
            Service::Serving => self.service = Service::Wanted { resume: true },
            Service::Stopping => self.stopped(),
            Service::Idle | Service::Wanted { .. } => (),
        }
    }

    /// The server was stopped in the middle of its work, of which the driver is not to know: it is to be served again.
    pub fn paused(&mut self) {
        if self.service == Service::Serving {
            self.service = Service::Wanted { resume: true };
        }
    }

    /// Whether they can be those of such a device with `vectors` MSI-X vectors.
    #[must_use]
    pub fn is_sound(&self, config: &DeviceConfig, vectors: u16) -> bool {
        let vector = |vector: u16| vector < vectors || vector == NO_VECTOR;
        let queues = self
            .queues
            .iter()
            .all(|queue| queue.size.is_power_of_two() && queue.size <= config.queue_size && vector(queue.vector));
        let unused = self.queues.iter().skip(config.queues.into()).all(|queue| !queue.enabled);
        let idle = self.service == Service::Idle || self.driver_features & !config.features == 0;
        self.largest == config.queue_size && queues && unused && idle && vector(self.config_vector)
    }

    /// The driver broke a rule, or the device cannot go on (2.1.1). False: it knows already.
    pub fn needs_reset(&mut self) -> bool {
        let fresh = self.status & status::NEEDS_RESET == 0;
        self.status |= status::NEEDS_RESET;
        fresh && self.status & status::DRIVER_OK != 0
    }

    /// The device's own configuration changed. Whether the driver is there to be told.
    pub const fn config_changed(&mut self) -> bool {
        self.generation = self.generation.wrapping_add(1);
        self.status & status::DRIVER_OK != 0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::devices::virtio::block;
    use proptest::prelude::*;

    /// What a driver does until its device works.
    pub(crate) fn start(write: &mut dyn FnMut(u32, u8, u64)) {
        write(20, 1, 0);
        write(20, 1, 3);
        write(8, 4, 0);
        write(12, 4, feature::EVENT_INDEX);
        write(8, 4, 1);
        write(12, 4, 1);
        write(20, 1, 11);
        write(22, 2, 1);
        write(24, 2, 128);
        write(26, 2, 2);
        write(32, 8, 0x1_0000_1000);
        write(40, 4, 0x2000);
        write(44, 4, 1);
        write(48, 8, 0x3000);
        write(28, 2, 1);
        write(20, 1, 15);
    }

    #[test]
    fn a_driver_starts_a_device() {
        let config = block::config(&block::tests::disk());
        let mut registers = Registers::new(&config);
        let mut told = 0;
        start(&mut |offset, width, value| told += u32::from(registers.write(offset, width, value, &config, 5)));
        assert_eq!(told, 1);
        assert_eq!(registers.service(), Service::Wanted { resume: false });
        let queue = QueueConfig {
            size: 128,
            enabled: true,
            vector: 2,
            descriptors: 0x1_0000_1000,
            available: 0x1_0000_2000,
            used: 0x3000,
        };
        assert_eq!(registers.used_queues().as_slice(), [(1, queue)]);
        assert_eq!(registers.features(), feature::EVENT_INDEX | feature::VERSION_1);
        assert_eq!(registers.read(20, 1, &config), 15);
        // What is served stays.
        registers.write(48, 8, 0, &config, 5);
        assert_eq!(registers.read(48, 8, &config), 0x3000);
        registers.served();
        assert_eq!(registers.service(), Service::Serving);
        registers.server_died();
        assert_eq!(registers.service(), Service::Wanted { resume: true });
        registers.served();
        // A reset is over when the server says so.
        assert!(registers.write(20, 1, 0, &config, 5));
        assert_eq!(registers.read(20, 1, &config), 15);
        registers.write(20, 1, 3, &config, 5);
        assert_eq!(registers.service(), Service::Stopping);
        registers.stopped();
        assert_eq!((registers.read(20, 1, &config), registers.service()), (0, Service::Idle));
        assert!(registers.used_queues().is_empty());
    }

    #[test]
    fn features_that_were_not_offered_are_refused() {
        let config = block::config(&block::tests::disk());
        let mut registers = Registers::new(&config);
        let accepts = |registers: &mut Registers, low: u64, high: u64| {
            registers.write(20, 1, 0, &config, 5);
            for (offset, value) in [(8, 0), (12, low), (8, 1), (12, high)] {
                registers.write(offset, 4, value, &config, 5);
            }
            registers.write(20, 1, 11, &config, 5);
            registers.read(20, 1, &config) & 8 != 0
        };
        assert!(accepts(&mut registers, 0, 1));
        assert!(!accepts(&mut registers, 0, 0), "the interface from before the standard");
        assert!(!accepts(&mut registers, 1, 1), "not offered");
        registers.write(20, 1, 15, &config, 5);
        assert_eq!(registers.service(), Service::Idle, "without agreement");
    }

    #[test]
    fn trouble_is_told_once() {
        let config = block::config(&block::tests::disk());
        let mut registers = Registers::new(&config);
        assert!(!registers.config_changed(), "no driver");
        start(&mut |offset, width, value| {
            registers.write(offset, width, value, &config, 5);
        });
        registers.served();
        assert!(registers.needs_reset());
        assert!(!registers.needs_reset());
        assert_eq!(registers.read(20, 1, &config), 79);
        registers.write(20, 1, 15, &config, 5);
        assert_eq!(registers.read(20, 1, &config), 79, "only a reset clears it");
        assert!(registers.config_changed());
        assert_eq!(registers.read(21, 1, &config), 2);
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((0u8..6, 0u32..70, prop::sample::select(&[1u8, 2, 4, 8]), any::<u64>()), 1..200)) {
            let config = block::config(&block::tests::disk());
            let mut registers = Registers::new(&config);
            for (kind, offset, width, value) in operations {
                match kind {
                    0..=1 => { registers.write(offset, width, value, &config, 5); }
                    2 => { registers.write(20, 1, value & 0xf, &config, 5); }
                    3 => { let _ = registers.read(offset, width, &config); }
                    4 => registers.served(),
                    _ => if value & 1 == 0 { registers.stopped() } else { registers.server_died() },
                }
                for (_, queue) in registers.used_queues() {
                    prop_assert!(queue.size.is_power_of_two() && queue.size <= config.queue_size);
                    prop_assert!(queue.vector < 5 || queue.vector == NO_VECTOR);
                }
                if registers.service() != Service::Idle {
                    prop_assert_eq!(registers.features() & !config.features, 0);
                }
            }
        }
    }
}
