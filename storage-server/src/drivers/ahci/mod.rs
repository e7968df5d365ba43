//! AHCI controllers (Serial ATA Advanced Host Controller Interface 1.3.1) with disks and CD-ROM drives.

mod fis;
mod port;
#[cfg(test)]
mod tests;

use crate::controller::{Controller, Done, Refused, Request, Unit};
use crate::drivers::Device;
use alloc::{boxed::Box, format, rc::Rc, string::String, vec::Vec};
use port::{Attached, Common, Port};
use tessera_block::{Geometry, IoError};
use tessera_device::hardware::{Platform, Registers, wait_until};
use tessera_rt::log;

/// Bytes that a command transfers at most.
const MAX_TRANSFER: u32 = 1 << 20;

/// Registers of the controller.
mod register {
    pub const CAPABILITIES: u64 = 0x00;
    pub const CONTROL: u64 = 0x04;
    pub const INTERRUPTS: u64 = 0x08;
    pub const PORTS: u64 = 0x0c;
    pub const CAPABILITIES_2: u64 = 0x24;
    pub const HAND_OVER: u64 = 0x28;
}

/// Bits of the control register: reset, interrupts, AHCI mode.
const RESET: u32 = 1 << 0;
const INTERRUPTS: u32 = 1 << 1;
const AHCI: u32 = 1 << 31;

struct Ahci {
    registers: Rc<dyn Registers>,
    platform: Rc<dyn Platform>,
    ports: Vec<(String, Port)>,
    interrupts: u16,
}

/// How many disks and drives there are, for their names.
pub struct Names<'a> {
    /// Disks.
    pub disks: &'a mut u32,
    /// CD-ROM drives.
    pub drives: &'a mut u32,
}

/// Starts the driver.
///
/// # Errors
/// Why it cannot.
pub fn start(device: &Device, names: Names<'_>) -> Result<Box<dyn Controller>, String> {
    let registers = device.memory[5].clone().ok_or("its registers are missing")?;
    let platform = device.platform.clone();
    registers.write32(register::CONTROL, AHCI);
    take_over(&*registers, &*platform);
    registers.write32(register::CONTROL, AHCI | RESET);
    if !wait_until(&*platform, 1000, || registers.read32(register::CONTROL) & RESET == 0) {
        return Err("it does not come out of its reset".into());
    }
    registers.write32(register::CONTROL, AHCI);
    let capabilities = registers.read32(register::CAPABILITIES);
    let implemented = registers.read32(register::PORTS);
    // Bit 31: addresses of 64 bits, without which it does not reach all memory.
    if capabilities >> 31 == 0 {
        return Err("it reaches 4 GiB of memory only".into());
    }
    platform.allow_memory_access()?;
    let common = Common {
        registers: registers.clone(),
        platform: platform.clone(),
        slots: (capabilities >> 8 & 31) as usize + 1,
        queues: capabilities >> 30 & 1 != 0,
    };
    // Devices that are there show within milliseconds; a second settles those that take longer.
    let ports: Vec<u32> = (0..32).filter(|port| implemented >> port & 1 != 0).collect();
    let link = |port: u32| registers.read32(0x128 + u64::from(port) * 0x80) & 15;
    for port in &ports {
        // Spin up, for controllers that do so one by one.
        registers.write32(0x118 + u64::from(*port) * 0x80, 6);
    }
    wait_until(&*platform, 50, || ports.iter().all(|port| link(*port) == 3));
    wait_until(&*platform, 1000, || ports.iter().all(|port| matches!(link(*port), 0 | 3 | 4)));
    let mut found = Vec::new();
    for number in ports {
        match Port::start(&common, number) {
            None => {}
            Some(Err(reason)) => log::error!("AHCI port {number}: {reason}"),
            Some(Ok(port)) => {
                let (prefix, next) = match port.attached {
                    Attached::Disk(_) => ("sata", &mut *names.disks),
                    Attached::Cd { .. } => ("cd", &mut *names.drives),
                };
                found.push((format!("{prefix}{next}"), port));
                *next += 1;
            }
        }
    }
    registers.write32(register::INTERRUPTS, u32::MAX);
    registers.write32(register::CONTROL, AHCI | INTERRUPTS);
    Ok(Box::new(Ahci {
        registers,
        platform,
        ports: found,
        interrupts: device.interrupts,
    }))
}

/// Takes the controller over from the firmware (10.6.3).
fn take_over(registers: &dyn Registers, platform: &dyn Platform) {
    if registers.read32(register::CAPABILITIES_2) & 1 == 0 {
        return;
    }
    registers.write32(register::HAND_OVER, registers.read32(register::HAND_OVER) | 2);
    // Should the firmware not let go, the reset takes it from it.
    wait_until(platform, 100, || registers.read32(register::HAND_OVER) & 1 == 0);
}

impl Controller for Ahci {
    fn driver(&self) -> &'static str {
        "ahci"
    }

    fn unit(&self, unit: u32) -> Option<Unit> {
        let (name, port) = self.ports.get(unit as usize)?;
        let (names, geometry) = match &port.attached {
            Attached::Disk(info) => (
                [info.model.clone(), info.serial.clone(), info.firmware.clone()],
                Geometry {
                    sector_size: info.sector_size,
                    sectors: info.sectors,
                    max_transfer: MAX_TRANSFER.min(if info.wide { MAX_TRANSFER } else { 128 << 10 }),
                    discard: info.trim,
                    write_cache: info.write_cache,
                    read_only: false,
                },
            ),
            Attached::Cd { names, sectors } => (
                names.clone(),
                Geometry {
                    sector_size: 2048,
                    sectors: *sectors,
                    max_transfer: 128 << 10,
                    discard: false,
                    write_cache: false,
                    read_only: true,
                },
            ),
        };
        let [model, serial, firmware] = names;
        Some(Unit {
            name: name.clone(),
            model,
            serial,
            firmware,
            geometry,
            queues: 1,
            state: port.state(),
            health: port.health,
            resets: port.resets,
        })
    }

    fn fits(&self, unit: u32, request: &Request<'_>) -> bool {
        self.ports.get(unit as usize).is_some_and(|(_, port)| port.fits(request))
    }

    fn zeroes(&self, _unit: u32) -> bool {
        false
    }

    fn submit(&mut self, unit: u32, request: &Request<'_>, tag: u32, now: u64) -> Result<(), Refused> {
        let (_, port) = self.ports.get_mut(unit as usize).ok_or(IoError::Gone)?;
        port.submit(request, tag, now)
    }

    fn poll(&mut self, done: &mut Done<'_>) {
        let now = self.platform.now();
        let news = self.registers.read32(register::INTERRUPTS);
        for (_, port) in &mut self.ports {
            port.poll(now, done);
        }
        self.registers.write32(register::INTERRUPTS, news);
    }

    fn watch(&mut self, now: u64, done: &mut Done<'_>) {
        for (_, port) in &mut self.ports {
            port.watch(now, done);
        }
    }

    fn has_interrupts(&self) -> bool {
        self.interrupts > 0
    }
}
