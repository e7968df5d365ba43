//! PCI functions of the host that the guest has: their pages in its memory, their interrupts, and what init does for them.

use super::devices::Devices;
use super::host::Kernel;
use super::setup::failed;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use tessera_abi::object::Rights;
use tessera_abi::{Error, PAGE_SIZE};
use tessera_manifest::{StartDevice, slots as fixed};
use tessera_proto::init;
use tessera_rt::{CNode, Connection, Endpoint, Frame, GuestSpace, Irq, Mutex, Notification, log, slots, start_info, sys, time};
use tessera_vmm::MAX_VCPUS;
use tessera_vmm::devices::pci::passthrough::{Area, Backing, Description, Passthrough, SLOTS, hidden};
use tessera_vmm::machine::Machine;

const PAGE: u64 = PAGE_SIZE as u64;
/// Pages of the nested page tables' pool for each function: tables for its ranges, wherever the guest puts them.
pub const TABLES: u64 = 24;

/// Pages of a range that the guest reaches by itself.
struct Part {
    bar: u8,
    /// Where in the range they begin.
    start: u32,
    /// A capability for the guest's mapping alone.
    frame: Frame,
    mapped: bool,
}

/// The outside of a function.
struct Outside {
    /// Its place among this server's.
    number: u32,
    address: &'static str,
    guest: GuestSpace,
    parts: Vec<Part>,
    interrupts: Vec<Irq>,
    /// Bound to the vCPUs' threads.
    threads: heapless::Vec<Notification, MAX_VCPUS>,
    first_signal: u32,
    /// Something that did not work was said.
    told: bool,
}

fn init() -> init::Client<Connection> {
    init::Client(Connection::new(Endpoint::new(fixed::INIT)))
}

impl core::fmt::Debug for Outside {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("Outside")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Outside {
    /// A guest may try as often as it likes.
    fn tell(&mut self, what: core::fmt::Arguments<'_>) {
        if !core::mem::replace(&mut self.told, true) {
            log::warn!("PCI function {}: {what}", self.address);
        }
    }

    fn try_point(&self, vector: u16, vcpu: usize) -> Result<(), Error> {
        let (Some(irq), Some(thread)) = (self.interrupts.get(usize::from(vector)), self.threads.get(vcpu)) else {
            return Err(Error::BadArgument);
        };
        let slot = slots::take()?;
        let bit = 1 << (self.first_signal + u32::from(vector));
        let bound = CNode::OWN
            .copy(slot, CNode::OWN, thread.slot(), Rights::SEND, bit)
            .and_then(|()| irq.bind(Notification::new(slot)));
        slots::free(slot);
        bound
    }
}

impl Backing for Outside {
    fn place(&mut self, bar: u8, address: Option<u32>) {
        let mut trouble = None;
        for part in self.parts.iter_mut().filter(|part| part.bar == bar) {
            if core::mem::take(&mut part.mapped) {
                // It fails only when nothing is mapped, which is as good.
                let _ = part.frame.unmap();
            }
            let Some(address) = address else { continue };
            let place = u64::from(address) + u64::from(part.start);
            let rights = Rights::READ | Rights::WRITE;
            match part
                .frame
                .map_guest(self.guest, place, rights, tessera_abi::object::frame::UNCACHED)
            {
                Ok(()) => part.mapped = true,
                // Something else is there: what the guest does with the range reads as zeros.
                Err(error) => trouble = Some((place, error)),
            }
        }
        if let Some((place, error)) = trouble {
            self.tell(format_args!("its range {bar} is not at {place:#x}: {}", error.text()));
        }
    }

    fn bus_master(&mut self, may: bool) {
        let outcome = if may {
            init().bus_master(self.number)
        } else {
            init().no_bus_master(self.number)
        };
        if let Err(error) = outcome {
            self.tell(format_args!("its access to memory cannot be changed: {error}"));
        }
    }

    fn point(&mut self, vector: u16, vcpu: usize) {
        if let Err(error) = self.try_point(vector, vcpu) {
            self.tell(format_args!("interrupt {vector} has no way to processor {vcpu}: {}", error.text()));
        }
    }
}

/// Cuts the pages of a frame that begins at `start` in a range into parts without what is hidden of it.
fn cut(bar: u8, start: u64, frame: Frame, hidden: &[Area]) -> Result<Vec<Part>, Error> {
    let pages = frame.info()?.pages;
    let is_hidden = |page: u64| {
        let offset = start + page * PAGE;
        hidden.iter().filter(|area| area.bar == bar).any(|area| {
            let (first, end) = area.pages();
            (u64::from(first)..u64::from(end)).contains(&offset)
        })
    };
    let mut parts = Vec::new();
    let mut first = 0;
    while first < pages {
        let length = (first..pages).take_while(|page| !is_hidden(*page)).count() as u64;
        if length > 0 {
            let slot = slots::take()?;
            parts.push(Part {
                bar,
                start: (start + first * PAGE) as u32,
                frame: frame.slice(first, length, CNode::OWN, slot, Rights::READ | Rights::WRITE)?,
                mapped: false,
            });
        }
        first += length.max(1);
    }
    Ok(parts)
}

fn description(device: &StartDevice) -> Description {
    let whole = device.ranges.iter().filter(|range| range.slot == 0 && !range.ports);
    Description {
        configuration: device.configuration.clone(),
        ranges: whole.map(|range| (range.bar, range.length)).collect(),
        vectors: device.interrupts.len() as u16,
    }
}

/// The functions, as the machine stops and starts anew.
pub struct Functions {
    /// How many there are.
    count: u32,
    /// Held while they are reset.
    busy: Mutex<()>,
}

impl Functions {
    /// Puts what init granted on the bus, before any virtio device. `threads` are bound to the vCPUs' threads.
    pub fn connect(
        machine: &Machine<Kernel>,
        guest: GuestSpace,
        threads: &heapless::Vec<Notification, MAX_VCPUS>,
    ) -> Result<&'static Self, String> {
        let devices = &start_info().devices;
        let mut address = Passthrough::first_address();
        let mut next_signal = u64::BITS;
        for ((number, device), slot) in (0..).zip(devices).zip(SLOTS) {
            let description = description(device);
            let hidden = hidden(&description);
            next_signal -= u32::from(description.vectors);
            let mut parts = Vec::new();
            for range in device.ranges.iter().filter(|range| range.slot != 0 && !range.ports) {
                let cut = cut(range.bar, range.start, Frame::new(range.slot), &hidden);
                parts.extend(cut.map_err(failed("a range of a PCI function cannot be cut"))?);
            }
            let outside = Outside {
                number,
                address: &device.address,
                guest,
                parts,
                interrupts: device.interrupts.iter().map(|interrupt| Irq::new(interrupt.slot)).collect(),
                threads: threads.clone(),
                first_signal: next_signal,
                told: false,
            };
            for vector in 0..description.vectors {
                outside
                    .try_point(vector, 0)
                    .map_err(failed("an interrupt of a PCI function cannot be taken"))?;
            }
            let passed = Passthrough::new(slot, next_signal, &mut address, &description, Box::new(outside));
            let passed = passed.map_err(|why| format!("PCI function {} cannot be shown to the guest: {why}", device.address))?;
            log::info!("PCI function {} of the host is the guest's 00:{slot:02x}.0", device.address);
            machine.chipset().pci().add_passed(passed);
        }
        Ok(Box::leak(Box::new(Self {
            count: devices.len() as u32,
            busy: Mutex::new(()),
        })))
    }

    /// Resets all of them: none works in the guest's memory any more.
    fn reset(&self) {
        for number in 0..self.count {
            let mut begin = true;
            loop {
                match init().reset_device(number, begin) {
                    Ok(0) => break,
                    Ok(milliseconds) => {
                        let _ = sys::wait(0, Some(time::after(time::milliseconds(milliseconds.into()))));
                    }
                    Err(error) => {
                        // It may access no memory, so the machine can go on without it.
                        log::error!("PCI function {number} of the guest's is not reset: {error}");
                        break;
                    }
                }
                begin = false;
            }
        }
    }
}

impl Devices for Functions {
    fn stopped(&self, act: &mut dyn FnMut()) {
        let busy = self.busy.lock();
        self.reset();
        act();
        drop(busy);
    }

    fn paused(&self, act: &mut dyn FnMut()) {
        // A machine with such functions is not suspended.
        act();
    }
}

/// Why a machine with functions of the host cannot be suspended; `None`: it has none.
pub fn keeps_from_suspending() -> Option<String> {
    let device = start_info().devices.first()?;
    Some(format!(
        "the machine has PCI function {} of the host, and nobody can read the state of that: shut the guest down instead",
        device.address
    ))
}
