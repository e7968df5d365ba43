//! Random numbers of the processor, which seed those of the crypto library.

use tessera_rt::{random, time};

/// Seeds the crypto library. False: not by the processor.
pub fn seed() -> bool {
    let mut seed = [0; 32];
    let mut good = true;
    for part in seed.chunks_exact_mut(8) {
        let number = random::number().unwrap_or_else(|| {
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
