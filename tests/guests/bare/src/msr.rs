//! Reads and writes model-specific registers.

use crate::{
    println,
    trap::{Random, Raw, survive},
};
use core::arch::asm;

/// Value of the last read, value of the next write.
static VALUE: Raw<u64> = Raw::new(0);

extern "C" fn read(number: u64) {
    let (low, high): (u32, u32);
    // SAFETY: the caller recovers from the exception.
    unsafe { asm!("rdmsr", in("ecx") number as u32, out("eax") low, out("edx") high) };
    // SAFETY: single-threaded.
    unsafe { VALUE.get().write(u64::from(high) << 32 | u64::from(low)) };
}

extern "C" fn write(number: u64) {
    // SAFETY: single-threaded.
    let value = unsafe { VALUE.get().read() };
    // SAFETY: the caller recovers from the exception and restores the value.
    unsafe { asm!("wrmsr", in("ecx") number as u32, in("eax") value as u32, in("edx") (value >> 32) as u32) };
}

fn write_value(number: u64, value: u64) -> bool {
    // SAFETY: single-threaded.
    unsafe { VALUE.get().write(value) };
    survive(write, number).is_none()
}

/// Registers through which a guest hands over addresses of its own memory: writing random numbers would let the host overwrite this program, as asked.
fn is_paravirtual(number: u64) -> bool {
    matches!(number, 0x11 | 0x12) || (0x4b56_4d00..0x4b56_4e00).contains(&number)
}

/// Every register of the architectural ranges with several values each, and a sample of all other numbers. Every value is put back.
pub fn walk() {
    let ranges = [
        (0, 0x2000),
        (0x4000_0000, 0x4000_0400),
        (0x4b56_4d00, 0x4b56_4d40),
        (0xc000_0000, 0xc000_2000),
        (0xc001_0000, 0xc001_2000),
    ];
    let (mut readable, mut accepted, mut writes) = (0u32, 0u32, 0u32);
    let mut random = Random::new(0x5eed_0001);
    let mut one = |number: u64| {
        let old = survive(read, number).is_none().then(|| {
            readable += 1;
            // SAFETY: single-threaded.
            unsafe { VALUE.get().read() }
        });
        let values = if is_paravirtual(number) {
            // Nowhere, beyond all memory, across a page, with reserved bits.
            [0, u64::MAX, 0xffff_ffff_ffff_f001, 0xf_ffff_f001, 0xfff0_0000_0000_0ffd]
        } else {
            [0, u64::MAX, random.next(), random.next() & 0xffff_ffff, 1 << 63]
        };
        for value in values {
            // The x2APIC's INIT and SIPI commands would stop this processor, as asked.
            if number == 0x830 && matches!(value >> 8 & 7, 5 | 6) {
                continue;
            }
            writes += 1;
            accepted += u32::from(write_value(number, value));
        }
        if let Some(old) = old {
            write_value(number, old);
        }
    };
    for (first, end) in ranges {
        println!("BARE msr next {first:#x}");
        (first..end).for_each(&mut one);
    }
    println!("BARE msr next sample");
    let mut other = Random::new(0x5eed_0002);
    for _ in 0..20_000 {
        one(other.next() >> 32);
    }
    println!("BARE msr end readable {readable} writes {writes} accepted {accepted}");
}
