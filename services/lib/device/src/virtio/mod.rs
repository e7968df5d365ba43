//! Registers of a virtio device on PCI (virtio 1.2, 4.1.4), and the driver's side of its queues.

mod ring;

pub use ring::{Broken, DESCRIPTOR, Ring, Used, flags};

use crate::{function::Device, hardware::Registers};
use alloc::{rc::Rc, string::String};
use tessera_pci::capability_id;

/// Feature bits of all kinds of devices (6).
pub mod features {
    /// Indirect descriptors.
    pub const INDIRECT: u64 = 1 << 28;
    /// Notifications and interrupts are wished for by place in the ring.
    pub const EVENT_INDEX: u64 = 1 << 29;
    /// Not the transitional interface.
    pub const VERSION_1: u64 = 1 << 32;
    /// Memory is accessed through the platform's ways, an IOMMU.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
}

/// Bits of the device status (2.1).
pub mod status {
    /// It was seen.
    pub const ACKNOWLEDGE: u8 = 1;
    /// It has a driver.
    pub const DRIVER: u8 = 2;
    /// The driver works.
    pub const DRIVER_OK: u8 = 4;
    /// The features are agreed on.
    pub const FEATURES_OK: u8 = 8;
    /// It cannot go on.
    pub const NEEDS_RESET: u8 = 64;
}

/// A structure inside of a range.
#[derive(Clone)]
struct Structure {
    registers: Rc<dyn Registers>,
    offset: u64,
    length: u64,
}

/// The registers.
pub struct Configuration {
    common: Structure,
    notify: Structure,
    device: Structure,
    multiplier: u32,
}

/// Kinds of structures (4.1.4).
const COMMON: u8 = 1;
const NOTIFY: u8 = 2;
const DEVICE: u8 = 4;

impl Configuration {
    /// Finds the structures through the vendor's capabilities; the device's own has at least `least` bytes.
    ///
    /// # Errors
    /// One is missing: it is a transitional device without the modern interface, or broken.
    pub fn find(device: &Device, least: u64) -> Result<Self, String> {
        let mut found: [Option<(Structure, u32)>; 5] = [const { None }; 5];
        let mut offset = device.configuration(0x34, 1) as usize & 0xfc;
        // As many as fit.
        for _ in 0..48 {
            if !(0x40..=0xf0).contains(&offset) {
                break;
            }
            let byte = |at: usize| device.configuration(offset + at, 1) as u8;
            let word = |at: usize| device.configuration(offset + at, 4);
            if byte(0) == capability_id::VENDOR {
                let (kind, bar) = (byte(3), byte(4));
                let registers = device.memory.get(usize::from(bar)).and_then(Option::as_ref);
                if let (Some(place), Some(registers)) = (found.get_mut(usize::from(kind)), registers)
                    && place.is_none()
                {
                    let structure = Structure {
                        registers: registers.clone(),
                        offset: word(8).into(),
                        length: word(12).into(),
                    };
                    *place = Some((structure, word(16)));
                }
            }
            offset = usize::from(byte(1)) & 0xfc;
        }
        let mut take = |kind: u8, least: u64, name: &str| {
            let structure = found.get_mut(usize::from(kind)).and_then(Option::take);
            let structure = structure.filter(|(structure, _)| structure.length >= least);
            structure.ok_or_else(|| {
                alloc::format!("it has no {name} structure in memory: it has to be a virtio 1.0 device (QEMU: disable-legacy=on)")
            })
        };
        let (common, _) = take(COMMON, 56, "common configuration")?;
        let (notify, multiplier) = take(NOTIFY, 2, "notification")?;
        let (device, _) = take(DEVICE, least, "device configuration")?;
        Ok(Self {
            common,
            notify,
            device,
            multiplier,
        })
    }

    fn write32(&self, offset: u64, value: u32) {
        self.common.registers.write32(self.common.offset + offset, value);
    }

    fn write16(&self, offset: u64, value: u16) {
        self.common.registers.write16(self.common.offset + offset, value);
    }

    fn read16(&self, offset: u64) -> u16 {
        self.common.registers.read16(self.common.offset + offset)
    }

    /// A device that is not there reads as all ones, on some machines as zeros; its number of queues is neither.
    #[must_use]
    pub fn is_there(&self) -> bool {
        !matches!(self.read16(18), 0 | 0xffff)
    }

    /// Device status.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.common.registers.read8(self.common.offset + 20)
    }

    /// Sets it; 0 resets the device.
    pub fn set_status(&self, status: u8) {
        self.common.registers.write8(self.common.offset + 20, status);
    }

    /// Features that the device has.
    #[must_use]
    pub fn offered(&self) -> u64 {
        let half = |number: u32| {
            self.write32(0, number);
            u64::from(self.common.registers.read32(self.common.offset + 4))
        };
        half(0) | half(1) << 32
    }

    /// Features that will be used. `vector`: where changes of the configuration interrupt; without one, it has to be looked at now and then.
    pub fn accept(&self, features: u64, vector: Option<u16>) {
        for (number, half) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write32(8, number);
            self.write32(12, half);
        }
        self.write16(16, vector.unwrap_or(0xffff));
    }

    /// A number of the device's configuration; 0 outside.
    #[must_use]
    pub fn device(&self, offset: u64, bytes: u64) -> u64 {
        if offset + bytes > self.device.length {
            return 0;
        }
        let at = self.device.offset + offset;
        let registers = &self.device.registers;
        match bytes {
            1 => registers.read8(at).into(),
            2 => registers.read16(at).into(),
            8 => registers.read64(at),
            _ => registers.read32(at).into(),
        }
    }

    /// Selects a queue; its largest size, 0: there is none.
    #[must_use]
    pub fn select(&self, queue: u16) -> u16 {
        self.write16(22, queue);
        self.read16(24)
    }

    /// Sets up the selected queue: size, vector, addresses of descriptors, available ring and used ring. Answers where it is notified.
    ///
    /// # Errors
    /// The device has no vector left, or puts the notification outside of its structure.
    pub fn enable(&self, size: u16, vector: Option<u16>, addresses: [u64; 3]) -> Result<u64, String> {
        self.write16(24, size);
        let vector = vector.unwrap_or(0xffff);
        self.write16(26, vector);
        if self.read16(26) != vector {
            return Err("it does not take a vector for a queue's interrupt".into());
        }
        for (offset, address) in [32, 40, 48].into_iter().zip(addresses) {
            self.write32(offset, address as u32);
            self.write32(offset + 4, (address >> 32) as u32);
        }
        let place = u64::from(self.read16(30)) * u64::from(self.multiplier);
        if place + 2 > self.notify.length {
            return Err("it puts a queue's notification outside of its registers".into());
        }
        self.write16(28, 1);
        Ok(place)
    }

    /// Tells the device that a queue has something new.
    pub fn notify(&self, place: u64, queue: u16) {
        self.notify.registers.write16(self.notify.offset + place, queue);
    }
}
