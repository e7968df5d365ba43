//! Passwords, kept as argon2id (RFC 9106).

use super::session::{hex, unhex};
use alloc::string::String;
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};

/// 7 MiB and five passes: the smallest memory of those that OWASP finds equally good, for hostd is to fit in 32 MiB.
const MEMORY_KIB: u32 = 7168;
const PASSES: u32 = 5;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PasswordHash {
    salt: String,
    hash: String,
    memory: u32,
    passes: u32,
}

fn derive(password: &str, salt: &[u8], memory: u32, passes: u32) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    let params = Params::new(memory, passes, 1, Some(32)).ok()?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut out)
        .ok()?;
    Some(out)
}

impl PasswordHash {
    pub(crate) fn new(password: &str, salt: [u8; 16]) -> Self {
        let hash = derive(password, &salt, MEMORY_KIB, PASSES).unwrap_or([0; 32]);
        Self {
            salt: hex(&salt),
            hash: hex(&hash),
            memory: MEMORY_KIB,
            passes: PASSES,
        }
    }

    pub(crate) fn matches(&self, password: &str) -> bool {
        let (Some(salt), Some(expected)) = (unhex(&self.salt), unhex(&self.hash)) else {
            return false;
        };
        // A hash of zeros stands for one that could not be made.
        let Some(found) = derive(password, &salt, self.memory.min(65536), self.passes.min(16)) else {
            return false;
        };
        let difference = found.iter().zip(&expected).fold(0, |all, (a, b)| all | (a ^ b));
        expected.len() == found.len() && difference == 0 && expected != [0; 32]
    }

    /// Takes as long as `matches`, for accounts that do not exist.
    pub(crate) fn waste(password: &str) {
        core::hint::black_box(derive(password, &[0; 16], MEMORY_KIB, PASSES));
    }
}
