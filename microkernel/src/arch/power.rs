//! Restarting and switching off.

use spin::Once;
use tessera_boot::acpi::{Machine, ResetRegister, SoftOff};
use x86_64::instructions::port::Port;

use super::{cpu, memory, timer};

static REGISTERS: Once<(Option<ResetRegister>, Option<SoftOff>)> = Once::new();

/// Remembers what ACPI says.
pub fn configure(machine: &Machine) {
    REGISTERS.call_once(|| (machine.reset, machine.soft_off));
}

/// Restarts the machine: by ACPI, by the keyboard controller, by a triple fault, whichever works first.
pub fn reset() -> ! {
    match REGISTERS.get().and_then(|registers| registers.0) {
        // SAFETY: firmware names the port for this; the machine restarts.
        Some(ResetRegister::Port(port, value)) => unsafe { Port::new(port).write(value) },
        // SAFETY: as above; below 4 GiB all memory is mapped.
        Some(ResetRegister::Memory(address, value)) if address < 1 << 32 => unsafe { memory::phys_to_virt(address).write_volatile(value) },
        _ => {}
    }
    timer::busy_wait_us(50_000);
    // SAFETY: the keyboard controller's command to pulse the processor's reset line.
    unsafe { Port::new(0x64).write(0xfeu8) };
    timer::busy_wait_us(50_000);
    cpu::triple_fault()
}

/// Switches the machine off, by ACPI or as emulators have it; stands still if nothing does.
pub fn power_off() -> ! {
    const SLEEP_ENABLE: u16 = 1 << 13;
    if let Some(off) = REGISTERS.get().and_then(|registers| registers.1) {
        // SAFETY: firmware names these ports for switching off; the other bits of the register do not matter any more.
        unsafe {
            Port::new(off.pm1a).write(u16::from(off.type_a) << 10 | SLEEP_ENABLE);
            if off.pm1b != 0 {
                Port::new(off.pm1b).write(u16::from(off.type_b) << 10 | SLEEP_ENABLE);
            }
        }
        timer::busy_wait_us(50_000);
    }
    for &byte in b"Shutdown" {
        // SAFETY: Bochs' port for it; elsewhere nothing answers there.
        unsafe { Port::new(0x8900).write(byte) };
    }
    cpu::halt_loop()
}
