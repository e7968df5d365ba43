//! Random numbers of the processor (Intel SDM, "RDRAND"), which seed those of the crypto library.
#![allow(unsafe_code)]

use core::arch::x86_64::{__cpuid, _rdrand64_step};
use tessera_rt::time;

/// CPUID leaf 1, ECX.
const RDRAND: u32 = 1 << 30;
/// How often a number is asked for that is not ready.
const TRIES: u32 = 1000;

fn has_rdrand() -> bool {
    __cpuid(1).ecx & RDRAND != 0
}

#[target_feature(enable = "rdrand")]
fn rdrand() -> Option<u64> {
    let mut number = 0;
    (0..TRIES).find(|_| _rdrand64_step(&mut number) == 1).map(|_| number)
}

fn hardware() -> Option<u64> {
    if !has_rdrand() {
        return None;
    }
    // SAFETY: the processor has the instruction.
    unsafe { rdrand() }
}

/// Seeds the crypto library. False: not by the processor.
pub fn seed() -> bool {
    let mut seed = [0; 32];
    let mut good = true;
    for part in seed.chunks_exact_mut(8) {
        let number = hardware().unwrap_or_else(|| {
            good = false;
            jitter()
        });
        part.copy_from_slice(&number.to_le_bytes());
    }
    tessera_crypto::seed(seed);
    good
}

/// The clock's lowest bits, gathered over a while.
fn jitter() -> u64 {
    (0..256).fold(0u64, |number, _| {
        time::sleep_until(time::after(1000));
        number.rotate_left(7) ^ time::now()
    })
}

/// A number.
pub fn number() -> u64 {
    let mut bytes = [0; 8];
    tessera_crypto::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
