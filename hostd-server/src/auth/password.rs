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

/// There was no memory for it; it says nothing about the password.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

fn derive(password: &str, salt: &[u8], memory: u32, passes: u32) -> Result<[u8; 32], NoMemory> {
    let mut out = [0; 32];
    let params = Params::new(memory, passes, 1, Some(32)).map_err(|_| NoMemory)?;
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), salt, &mut out)
        .map_err(|_| NoMemory)?;
    Ok(out)
}

impl PasswordHash {
    pub(crate) fn new(password: &str, salt: [u8; 16]) -> Result<Self, NoMemory> {
        let hash = derive(password, &salt, MEMORY_KIB, PASSES)?;
        Ok(Self {
            salt: hex(&salt),
            hash: hex(&hash),
            memory: MEMORY_KIB,
            passes: PASSES,
        })
    }

    pub(crate) fn matches(&self, password: &str) -> Result<bool, NoMemory> {
        let (Some(salt), Some(expected)) = (unhex(&self.salt), unhex(&self.hash)) else {
            return Ok(false);
        };
        let found = derive(password, &salt, self.memory.min(65536), self.passes.min(16))?;
        let difference = found.iter().zip(&expected).fold(0, |all, (a, b)| all | (a ^ b));
        // A hash of zeros is one that an older version could not make.
        Ok(expected.len() == found.len() && difference == 0 && expected != [0; 32])
    }

    /// Takes as long as `matches`, for accounts that do not exist, and fails as it does.
    pub(crate) fn waste(password: &str) -> Result<bool, NoMemory> {
        core::hint::black_box(derive(password, &[0; 16], MEMORY_KIB, PASSES)).map(|_| false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_hash_alone() {
        let hash = PasswordHash::new("correct horse", [1; 16]).unwrap();
        assert_eq!(hash.matches("correct horse"), Ok(true));
        assert_eq!(hash.matches("correct house"), Ok(false));
        assert_eq!(PasswordHash::waste("correct horse"), Ok(false));
    }

    #[test]
    fn what_could_not_be_computed_is_not_a_wrong_password() {
        let mut hash = PasswordHash::new("correct horse", [1; 16]).unwrap();
        // Less memory than the algorithm has: it refuses, as it does without any.
        hash.memory = 1;
        assert_eq!(hash.matches("correct horse"), Err(NoMemory));
    }
}
