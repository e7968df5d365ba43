//! One generator (ChaCha20, RFC 8439) for everything that nobody may guess: keys, nonces, sessions, passwords.

use chacha20::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use rustls::crypto::{GetRandomFailed, SecureRandom};
use spin::Mutex;

static GENERATOR: Mutex<Option<ChaCha20Rng>> = Mutex::new(None);

/// Starts the generator with 256 bits that nobody knows, or stirs these in if it runs.
pub fn seed(bytes: [u8; 32]) {
    let mut generator = GENERATOR.lock();
    let mut seed = bytes;
    if let Some(old) = generator.as_mut() {
        let mut mixed = [0; 32];
        old.fill_bytes(&mut mixed);
        seed.iter_mut().zip(mixed).for_each(|(byte, old)| *byte ^= old);
    }
    *generator = Some(ChaCha20Rng::from_seed(seed));
}

/// Fills `bytes`.
///
/// # Panics
/// Without [`seed`] before it: there is no safe way to go on.
pub fn fill(bytes: &mut [u8]) {
    GENERATOR.lock().as_mut().expect("the generator has its seed").fill_bytes(bytes);
}

#[derive(Debug)]
pub struct Random;

impl SecureRandom for Random {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        GENERATOR.lock().as_mut().ok_or(GetRandomFailed)?.fill_bytes(bytes);
        Ok(())
    }
}
