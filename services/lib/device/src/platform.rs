//! Devices on the running system: mapped registers, granted memory, the clock, and init.
#![allow(unsafe_code)]

use crate::{
    dma::DmaBuffer,
    function::Device,
    hardware::{Platform, Ports, Registers},
};
use alloc::{rc::Rc, string::String, vec::Vec};
use core::ptr::NonNull;
use tessera_proto::{Slots, init};
use tessera_rt::{
    CNode, Connection, Endpoint, Frame, IoPorts, Irq, Notification,
    abi::{
        Error, PAGE_SIZE,
        object::{Rights, frame},
    },
    exit, log,
    manifest::{StartDevice, StartRange, slots},
    slots as free_slots, start, time, vm,
};

const READ_WRITE: Rights = Rights::READ.union(Rights::WRITE);

/// Memory that a device and the server share. It is init's, which lends it: what the server could make kernel objects of, no device may reach.
pub fn allocate(bytes: usize) -> Option<DmaBuffer> {
    let pages = bytes.div_ceil(PAGE_SIZE).max(1);
    let slot = free_slots::take().ok()?;
    let mut init = init::Client(Connection::new(Endpoint::new(slots::INIT)));
    if let Err(error) = init.device_memory(u32::try_from(pages).ok()?, Slots(slot)) {
        log::error!("there is no memory for devices: {error}");
        free_slots::free(slot);
        return None;
    }
    let frame = Frame::new(slot);
    let physical = frame.info().ok()?.physical;
    let mapping = vm::map(frame, READ_WRITE, 0).ok()?;
    let base = NonNull::new(mapping.as_ptr())?;
    // SAFETY: the frame is fresh and zeroed, mapped for the life of the process, page-aligned, and nothing else knows of it.
    Some(unsafe { DmaBuffer::new(base, physical, pages * PAGE_SIZE) })
}

/// Milliseconds since the kernel was entered.
pub fn now() -> u64 {
    time::from_ticks(time::now(), 1000, time::hz())
}

struct System {
    device: u32,
}

impl Platform for System {
    fn allocate(&self, bytes: usize) -> Option<DmaBuffer> {
        allocate(bytes)
    }

    fn now(&self) -> u64 {
        now()
    }

    fn pause(&self, milliseconds: u64) {
        if milliseconds > 0 {
            time::sleep_until(time::after(time::milliseconds(milliseconds)));
        }
    }

    fn allow_memory_access(&self) -> Result<(), &'static str> {
        let mut init = init::Client(Connection::new(Endpoint::new(slots::INIT)));
        init.bus_master(self.device)
            .map_err(|_| "init does not let the device access memory")
    }

    fn deny_memory_access(&self) {
        let mut init = init::Client(Connection::new(Endpoint::new(slots::INIT)));
        if init.no_bus_master(self.device).is_err() {
            // Its memory must not be used by others then. init takes the access away when this server ends.
            exit(1, "a device that does not stop keeps its access to memory");
        }
    }
}

/// A part of a range: where it begins in the range, its length, where it is mapped.
struct Part {
    start: u64,
    length: u64,
    base: *mut u8,
}

/// A range of a device's registers, without the parts that init keeps.
struct Mapped(Vec<Part>);

impl Mapped {
    fn add(&mut self, range: &StartRange) {
        let mapped = vm::map(Frame::new(range.slot), READ_WRITE, frame::UNCACHED);
        match mapped {
            Ok(mapping) if range.offset + range.length <= mapping.length as u64 => self.0.push(Part {
                start: range.start,
                length: range.length,
                base: mapping.as_ptr().wrapping_add(range.offset as usize),
            }),
            Ok(_) => {}
            Err(error) => log::error!("registers cannot be mapped: {}", error.text()),
        }
    }

    fn at<T>(&self, offset: u64) -> Option<*mut T> {
        let size = size_of::<T>() as u64;
        let part = self
            .0
            .iter()
            .find(|part| offset >= part.start && offset - part.start + size <= part.length)?;
        offset
            .is_multiple_of(size)
            .then(|| part.base.wrapping_add((offset - part.start) as usize).cast())
    }

    fn read<T: Copy>(&self, offset: u64, outside: T) -> T {
        // SAFETY: `at` gives an aligned address inside of a mapping that lasts as long as the process; registers hold no Rust object.
        self.at::<T>(offset).map_or(outside, |register| unsafe { register.read_volatile() })
    }

    fn write<T>(&self, offset: u64, value: T) {
        if let Some(register) = self.at::<T>(offset) {
            // SAFETY: as in `read`.
            unsafe { register.write_volatile(value) };
        }
    }
}

impl Registers for Mapped {
    fn read8(&self, offset: u64) -> u8 {
        self.read(offset, u8::MAX)
    }

    fn read16(&self, offset: u64) -> u16 {
        self.read(offset, u16::MAX)
    }

    fn read32(&self, offset: u64) -> u32 {
        self.read(offset, u32::MAX)
    }

    fn write8(&self, offset: u64, value: u8) {
        self.write(offset, value);
    }

    fn write16(&self, offset: u64, value: u16) {
        self.write(offset, value);
    }

    fn write32(&self, offset: u64, value: u32) {
        self.write(offset, value);
    }
}

/// A range of a device's I/O ports.
struct GivenPorts {
    ports: IoPorts,
    first: u16,
    length: u64,
}

impl GivenPorts {
    fn at(&self, offset: u16) -> u16 {
        self.first.wrapping_add(offset)
    }
}

// The kernel refuses ports outside of the range.
impl Ports for GivenPorts {
    fn length(&self) -> u64 {
        self.length
    }

    fn read8(&self, offset: u16) -> u8 {
        self.ports.read_u8(self.at(offset)).unwrap_or(u8::MAX)
    }

    fn read16(&self, offset: u16) -> u16 {
        self.ports.read_u16(self.at(offset)).unwrap_or(u16::MAX)
    }

    fn write8(&self, offset: u16, value: u8) {
        let _ = self.ports.write_u8(self.at(offset), value);
    }

    fn write32(&self, offset: u16, value: u32) {
        let _ = self.ports.write_u32(self.at(offset), value);
    }
}

/// Makes what a driver works with out of what init gave.
pub fn device(number: u32, given: &StartDevice) -> (Device, String) {
    let mut memory: [Option<Mapped>; 6] = [const { None }; 6];
    for range in given.ranges.iter().filter(|range| !range.ports) {
        if let Some(place) = memory.get_mut(usize::from(range.bar)) {
            place.get_or_insert_with(|| Mapped(Vec::new())).add(range);
        }
    }
    let mut ports: [Option<Rc<dyn Ports>>; 6] = [const { None }; 6];
    for range in given.ranges.iter().filter(|range| range.ports) {
        if let Some(place) = ports.get_mut(usize::from(range.bar)) {
            *place = Some(Rc::new(GivenPorts {
                ports: IoPorts::new(range.slot),
                first: range.start as u16,
                length: range.length,
            }));
        }
    }
    let messages = given.interrupts.iter().filter(|interrupt| interrupt.message).count() as u16;
    let device = Device {
        configuration: given.configuration.clone(),
        memory: memory.map(|range| range.map(|range| Rc::new(range) as Rc<dyn Registers>)),
        ports,
        interrupts: messages,
        lines: given.interrupts.len() as u16 - messages,
        platform: Rc::new(System { device: number }),
    };
    (device, given.address.clone())
}

/// A copy of the server's own notification that sets `bits`.
///
/// # Errors
/// The kernel's, when the table of capabilities is full.
pub fn signal(bits: u64) -> Result<Notification, Error> {
    let slot = free_slots::take()?;
    CNode::OWN.copy(slot, CNode::OWN, slots::NOTIFICATION, Rights::SEND, bits)?;
    Ok(Notification::new(slot))
}

/// Has a device's interrupts set `bits`; answers those that have to be acknowledged.
pub fn bind(device: &StartDevice, bits: u64) -> Vec<Irq> {
    let mut lines = Vec::new();
    for interrupt in &device.interrupts {
        let irq = Irq::new(interrupt.slot);
        match signal(bits).and_then(|notification| irq.bind(notification)) {
            Ok(()) if !interrupt.message => lines.push(irq),
            Ok(()) => {}
            Err(error) => log::error!("{}: an interrupt cannot be bound: {}", device.address, error.text()),
        }
    }
    lines
}

/// Memory that this server shares with another one by the manifest, mapped here. `None`: it is not granted under that name, or cannot be mapped. To be called once for each name.
pub fn shared(name: &str) -> Option<DmaBuffer> {
    let grant = start::find(name).filter(|grant| grant.length > 0)?;
    let mapping = vm::map(Frame::new(grant.slot), READ_WRITE, 0)
        .inspect_err(|error| log::error!("{name} cannot be mapped: {}", error.text()))
        .ok()?;
    let base = NonNull::new(mapping.as_ptr())?;
    // SAFETY: mapped for the life of the process, on a page's start, and no Rust object: the other server writes there at any moment. No device is told of it, so its physical address does not matter.
    Some(unsafe { DmaBuffer::new(base, 0, mapping.length) })
}
