//! Walks physical memory, and puts page tables and code where nothing is.

use crate::{
    println,
    trap::{Random, Raw, survive, window},
};
use core::arch::asm;

/// Result of the last access.
static RESULT: Raw<u64> = Raw::new(0);

extern "C" fn read(address: u64) {
    // SAFETY: the caller recovers from the exception, and only looks.
    let value = unsafe {
        u64::from((address as *const u8).read_volatile())
            ^ u64::from((address as *const u16).read_volatile())
            ^ u64::from((address as *const u32).read_volatile())
            ^ (address as *const u64).read_volatile()
    };
    // SAFETY: single-threaded.
    unsafe { RESULT.get().write(value) };
}

extern "C" fn write(address: u64) {
    // SAFETY: the caller chose an address outside of RAM.
    unsafe {
        (address as *mut u8).write_volatile(0);
        (address as *mut u32).write_volatile(0);
        (address as *mut u64).write_volatile(u64::MAX);
        asm!("lock add dword ptr [{}], 1", in(reg) address);
        asm!("movnti [{}], {}", in(reg) address, in(reg) 0u64);
        asm!("rep stosb", inout("rdi") address => _, inout("rcx") 16u64 => _, in("al") 0u8);
        asm!("xchg [{}], {}", in(reg) address, inout(reg) 5u64 => _);
    }
}

/// Reads all of physical memory: each 2 MiB of the low 4 GiB, each 64 KiB of the device hole, and places up to the last address that the processor has. Writes above RAM.
pub fn walk() {
    let bits = crate::trap::physical_bits().clamp(32, 52);
    let (mut looked, mut faults) = (0u32, 0u32);
    let mut look = |physical: u64, change: bool| {
        let address = window(physical);
        looked += 1;
        faults += u32::from(survive(read, address).is_some());
        if change {
            faults += u32::from(survive(write, address).is_some());
        }
    };
    for i in 0..2048 {
        look(i << 21, false);
    }
    println!("BARE memory next hole");
    for i in 0..(0x1_0000_0000u64 - 0xc000_0000) >> 16 {
        let physical = 0xc000_0000 + (i << 16);
        // The interrupt controllers have a test of their own.
        let controller = (0xfec0_0000..0xfef0_0000).contains(&physical);
        look(physical, !controller);
    }
    println!("BARE memory next high");
    for bit in 33..bits {
        for offset in [0, 0x1000, 0x1f_fff8] {
            look((1 << bit) + offset, true);
        }
    }
    look((1 << bits) - 4096, true);
    let mut random = Random::new(0x5eed_0003);
    for _ in 0..2000 {
        // Above 128 GiB there is no RAM in any test.
        look((random.next() & ((1 << bits) - 1) | 1 << 37) & !7, true);
    }
    println!("BARE memory end looked {looked} faulted {faults}");
}

/// Jumps to where no memory is.
pub fn execute_hole() {
    let address = window(0xd000_0000);
    // SAFETY: this ends the virtual machine, as wanted.
    unsafe { asm!("call {}", in(reg) address) };
    println!("BARE execute-hole end");
}

/// Puts the page tables where no memory is.
pub fn page_table_hole() {
    // SAFETY: this ends the virtual machine, as wanted.
    unsafe { asm!("mov cr3, {}", "nop", in(reg) 0xd000_0000u64) };
    println!("BARE page-table-hole end");
}

extern "C" fn write_register(argument: u64) {
    let (address, value) = (argument & 0xffff_ffff, argument >> 32);
    // SAFETY: an interrupt controller's register; interrupts are off.
    unsafe { (address as *mut u32).write_volatile(value as u32) };
}

/// Random writes to all registers of the local APIC and the I/O APIC, of all widths, interrupts off.
pub fn apic_registers() {
    const APIC: u64 = 0xfee0_0000;
    const IO_APIC: u64 = 0xfec0_0000;
    let mut random = Random::new(0x5eed_0004);
    let mut faults = 0u32;
    for round in 0..40_000u64 {
        let value = match round % 4 {
            0 => 0,
            1 => 0xffff_ffff,
            _ => random.next() & 0xffff_ffff,
        };
        let (address, value) = if round % 2 == 0 {
            (APIC + (random.next() & 0xff0), value)
        } else {
            (IO_APIC + (random.next() & 0x10), value)
        };
        // INIT and SIPI would stop this processor, as asked.
        if address == APIC + 0x300 && matches!(value >> 8 & 7, 5 | 6) {
            continue;
        }
        faults += u32::from(survive(write_register, value << 32 | address).is_some());
        faults += u32::from(survive(read, APIC + (random.next() & 0xff8)).is_some());
    }
    println!("BARE apic end faulted {faults}");
}
