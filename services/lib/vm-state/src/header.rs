//! The first block.

use crate::{BLOCK, Damage, MAX_STATE, blocks, is_sealed, put, seal, word};

/// Version of the format.
pub const VERSION: u32 = 2;
const MAGIC: [u8; 8] = *b"TSRvmss\n";
/// Bytes for the machine's name.
pub const MAX_NAME: usize = 64;
/// Where it stands in the block.
const NAME: usize = 64;
/// Most bytes of RAM that are believed: 1 TiB.
const MAX_MEMORY: u64 = 1 << 40;

/// What the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The machine's name, padded with zeros.
    pub name: [u8; MAX_NAME],
    /// A number that no other file has.
    pub id: u64,
    /// Bytes of RAM of the machine, with its video RAM behind it.
    pub memory: u64,
    /// Bytes of the monitor's part.
    pub state: u64,
    /// Their CRC-32C.
    pub state_check: u32,
    /// Chunks of RAM.
    pub chunks: u64,
    /// Bytes of the file.
    pub length: u64,
}

/// A machine's name as it stands in the header; `None`: it is too long, or holds a zero.
#[must_use]
pub fn named(name: &str) -> Option<[u8; MAX_NAME]> {
    let mut padded = [0; MAX_NAME];
    padded.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    (!name.contains('\0')).then_some(padded)
}

impl Header {
    /// The machine's name; empty if what stands there is none.
    #[must_use]
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|byte| *byte == 0).unwrap_or(MAX_NAME);
        core::str::from_utf8(&self.name[..end]).unwrap_or("")
    }

    /// Where the monitor's part begins.
    pub const STATE: u64 = BLOCK as u64;

    /// Where the first chunk of RAM begins.
    #[must_use]
    pub const fn ram(&self) -> u64 {
        Self::STATE + blocks(self.state)
    }

    /// The block.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(&MAGIC);
        let words = [
            VERSION.into(),
            self.id,
            self.memory,
            self.state,
            self.state_check.into(),
            self.chunks,
            self.length,
        ];
        for (place, value) in (1..).zip(words) {
            put(&mut block, place * 8, value);
        }
        block[NAME..NAME + MAX_NAME].copy_from_slice(&self.name);
        seal(&mut block);
        block
    }

    /// Reads the block of a file of `length` bytes.
    ///
    /// # Errors
    /// It is something else, or damaged.
    pub fn decode(block: &[u8; BLOCK], length: u64) -> Result<Self, Damage> {
        if block[..8] != MAGIC {
            return Err(Damage::NotState);
        }
        if !is_sealed(block) {
            return Err(Damage::Checksum("the header"));
        }
        let version = word(block, 8);
        if version != VERSION.into() {
            return Err(Damage::Version(version as u32));
        }
        let mut name = [0; MAX_NAME];
        name.copy_from_slice(&block[NAME..NAME + MAX_NAME]);
        let header = Self {
            name,
            id: word(block, 16),
            memory: word(block, 24),
            state: word(block, 32),
            state_check: word(block, 40) as u32,
            chunks: word(block, 48),
            length: word(block, 56),
        };
        if header.length != length {
            return Err(Damage::Nonsense("the file has another length than it had when it was written"));
        }
        let fits = !header.name().is_empty()
            && named(header.name()) == Some(name)
            && header.memory <= MAX_MEMORY
            && header.state <= MAX_STATE
            && header.chunks <= header.memory.div_ceil(crate::CHUNK);
        if !fits || header.ram() > length {
            return Err(Damage::Nonsense("its header says what cannot be"));
        }
        Ok(header)
    }
}
