//! The ways to configuration space: memory where the firmware says so, ports else. Only init has them.

use crate::machine::Machine;
use crate::window::{self, Registers};
use alloc::vec::Vec;
use core::ops::RangeInclusive;
use tessera_abi::boot::slot;
use tessera_pci::{Address, ConfigSpace, Physical, ecam_windows};
use tessera_rt::IoPorts;

/// Selects a register.
const SELECTOR: u16 = 0xcf8;
/// The register.
const DATA: u16 = 0xcfc;

/// One segment's configuration space.
#[derive(Debug)]
pub enum Space {
    /// In memory.
    Ecam {
        /// Segment group.
        segment: u16,
        /// Buses.
        buses: RangeInclusive<u8>,
        /// Registers of all of them.
        registers: Registers,
    },
    /// Behind ports 0xcf8 and 0xcfc; 256 bytes of each function.
    Ports,
}

impl ConfigSpace for Space {
    fn read(&self, address: Address, offset: u16) -> u32 {
        match self {
            Self::Ecam { buses, registers, .. } => registers.read(address.ecam_offset(*buses.start()) + u64::from(offset & 0xffc)),
            Self::Ports => {
                let ports = IoPorts::new(slot::IO_PORTS);
                ports
                    .write_u32(SELECTOR, address.port_selector(offset))
                    .and_then(|()| ports.read_u32(DATA))
                    .unwrap_or(u32::MAX)
            }
        }
    }

    fn write(&self, address: Address, offset: u16, value: u32) {
        match self {
            Self::Ecam { buses, registers, .. } => registers.write(address.ecam_offset(*buses.start()) + u64::from(offset & 0xffc), value),
            Self::Ports => {
                let ports = IoPorts::new(slot::IO_PORTS);
                // init has all ports: this cannot be refused.
                let _ = ports
                    .write_u32(SELECTOR, address.port_selector(offset))
                    .and_then(|()| ports.write_u32(DATA, value));
            }
        }
    }

    fn buses(&self) -> (u16, RangeInclusive<u8>) {
        match self {
            Self::Ecam { segment, buses, .. } => (*segment, buses.clone()),
            Self::Ports => (0, 0..=255),
        }
    }
}

/// The firmware's tables lie in what the kernel hands over as device memory: everything that is not RAM.
pub struct Tables<'a>(pub &'a Machine);

impl Physical for Tables<'_> {
    fn bytes(&self, address: u64, length: u64) -> Option<Vec<u8>> {
        let (memory, offset) = self.0.device(address, length)?;
        window::read_device(memory, offset, length).ok()
    }
}

/// All ways that the machine has, one for each segment.
pub fn find(machine: &Machine) -> Vec<Space> {
    let rsdp = window::boot_info().rsdp;
    let windows = if rsdp == 0 {
        Vec::new()
    } else {
        ecam_windows(&Tables(machine), rsdp)
    };
    let mut spaces = Vec::new();
    for window in windows {
        let Some((memory, offset)) = machine.device(window.base, window.length()) else {
            continue;
        };
        if let Ok(registers) = Registers::map(memory, offset, window.length()) {
            spaces.push(Space::Ecam {
                segment: window.segment,
                buses: window.buses,
                registers,
            });
        }
    }
    if spaces.is_empty() {
        spaces.push(Space::Ports);
    }
    spaces
}
