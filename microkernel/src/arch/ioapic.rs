//! I/O interrupt controllers, and the two legacy ones that are switched off.

use heapless::Vec;
use spin::{Mutex, Once};
use tessera_boot::acpi::{IoApic, MAX_IOAPICS, Override};
use x86_64::instructions::port::Port;

use super::{apic, memory, vector};
use crate::klog;

const REGISTER_VERSION: u32 = 1;
const ENTRY_MASKED: u32 = 1 << 16;
const LEVEL_BIT: u32 = 15;
const ACTIVE_LOW_BIT: u32 = 13;

struct Controller {
    address: u64,
    first: u32,
    lines: u32,
}

impl Controller {
    fn select(&self, register: u32) -> *mut u32 {
        let base = memory::phys_to_virt(self.address);
        // SAFETY: the registers are in the direct map, uncached; the window is 16 bytes after the selector.
        unsafe {
            base.cast::<u32>().write_volatile(register);
            base.add(16).cast()
        }
    }

    #[inline(never)]
    fn read(&self, register: u32) -> u32 {
        // SAFETY: `select` gives the controller's window.
        unsafe { self.select(register).read_volatile() }
    }

    #[inline(never)]
    fn write(&self, register: u32, value: u32) {
        // SAFETY: as in `read`.
        unsafe { self.select(register).write_volatile(value) }
    }

    fn entry(line: u32) -> u32 {
        0x10 + line * 2
    }
}

// A register access is two steps, so the controllers have a lock. It is a leaf: nothing else is locked under it.
static CONTROLLERS: Mutex<Vec<Controller, MAX_IOAPICS>> = Mutex::new(Vec::new());
static OVERRIDES: Once<Vec<Override, 16>> = Once::new();

/// Masks everything: both legacy controllers and every line of the controllers found.
pub(super) fn init(ioapics: &[IoApic], overrides: &Vec<Override, 16>) {
    mask_legacy();
    OVERRIDES.call_once(|| overrides.clone());
    let mut controllers = CONTROLLERS.lock();
    // The direct map has devices below 4 GiB only.
    for ioapic in ioapics.iter().filter(|ioapic| ioapic.address < 1 << 32 && ioapic.address.is_multiple_of(16)) {
        let mut controller = Controller { address: ioapic.address, first: ioapic.first_gsi, lines: 0 };
        controller.lines = (controller.read(REGISTER_VERSION) >> 16 & 0xff) + 1;
        for line in 0..controller.lines {
            controller.write(Controller::entry(line), ENTRY_MASKED);
            controller.write(Controller::entry(line) + 1, 0);
        }
        klog!("ioapic: lines {} to {}", controller.first, u64::from(controller.first) + u64::from(controller.lines) - 1);
        // There are at most as many as the list that they come from.
        let _ = controllers.push(controller);
    }
}

fn mask_legacy() {
    // SAFETY: the sequence of the 8259A data sheet; a spurious interrupt would arrive at vectors that nothing uses.
    unsafe {
        for (port, first, cascade) in [(0x20, vector::LEGACY_FIRST, 4), (0xa0, vector::LEGACY_FIRST + 8, 2)] {
            Port::new(port).write(0x11_u8);
            for value in [first, cascade, 1, 0xff] {
                Port::new(port + 1).write(value);
            }
        }
    }
}

/// One past the highest line of all controllers; there may be gaps.
pub fn count() -> u32 {
    CONTROLLERS.lock().iter().map(|controller| controller.first.saturating_add(controller.lines)).max().unwrap_or(0)
}

fn with_line<T>(gsi: u32, act: impl FnOnce(&Controller, u32) -> T) -> Option<T> {
    let controllers = CONTROLLERS.lock();
    let controller = controllers.iter().find(|controller| gsi.checked_sub(controller.first).is_some_and(|line| line < controller.lines))?;
    Some(act(controller, Controller::entry(gsi - controller.first)))
}

/// Sends line `gsi` to processor `cpu` as `vector`, or to where the IOMMU's entry of that number says. It stays masked.
/// Nothing if no controller has such a line, or if the processor does not run or has an identity that does not fit into 8 bits.
pub fn route(gsi: u32, vector: u8, cpu: usize, level: bool, active_low: bool, remapped: bool) -> Option<()> {
    let target = apic::id_of(cpu).filter(|&id| id < 0xff)?;
    let low = ENTRY_MASKED | u32::from(vector) | u32::from(level) << LEVEL_BIT | u32::from(active_low) << ACTIVE_LOW_BIT;
    with_line(gsi, |controller, entry| {
        controller.write(entry, low);
        controller.write(entry + 1, if remapped { u32::from(vector) << 17 | 1 << 16 } else { target << 24 });
    })
}

/// Holds a line back. A line that does not exist is held back already.
pub fn mask(gsi: u32) {
    let _ = with_line(gsi, |controller, entry| controller.write(entry, controller.read(entry) | ENTRY_MASKED));
}

/// Lets a line through that was routed.
pub fn unmask(gsi: u32) {
    let _ = with_line(gsi, |controller, entry| controller.write(entry, controller.read(entry) & !ENTRY_MASKED));
}

/// Where ISA line `line` arrives: global line, level-triggered, active low. Without an override of the firmware's it is the line itself, edge-triggered, active high.
pub fn isa_to_gsi(line: u8) -> (u32, bool, bool) {
    let found = OVERRIDES.get().and_then(|overrides| overrides.iter().find(|entry| entry.line == line));
    found.map_or((line.into(), false, false), |entry| (entry.gsi, entry.level, entry.active_low))
}
