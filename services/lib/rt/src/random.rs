//! Random numbers of the processor (Intel SDM, "RDRAND"; AMD APM volume 3, "RDRAND").
#![allow(unsafe_code)]

use core::arch::x86_64::{__cpuid, _rdrand64_step};

/// CPUID leaf 1, ECX.
const RDRAND: u32 = 1 << 30;
/// How often a number is asked for that is not ready.
const TRIES: u32 = 1000;

#[target_feature(enable = "rdrand")]
fn rdrand() -> Option<u64> {
    let mut number = 0;
    (0..TRIES).find(|_| _rdrand64_step(&mut number) == 1).map(|_| number)
}

/// Whether the processor makes random numbers.
#[must_use]
pub fn is_there() -> bool {
    __cpuid(1).ecx & RDRAND != 0
}

/// A number. None: the processor makes none, or not now.
#[must_use]
pub fn number() -> Option<u64> {
    if !is_there() {
        return None;
    }
    // SAFETY: the processor has the instruction.
    unsafe { rdrand() }
}
