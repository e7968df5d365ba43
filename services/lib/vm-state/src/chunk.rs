//! A chunk of RAM: which of its pages are in the file.

use crate::{BLOCK, Damage, checksum, is_sealed, put, seal, word};

/// Pages of a chunk.
pub const CHUNK_PAGES: usize = 256;
/// Bytes of RAM that a chunk stands for.
pub const CHUNK: u64 = (CHUNK_PAGES * BLOCK) as u64;
const MAGIC: [u8; 8] = *b"TSRchunk";
const PAGES: usize = 32;
const CHECKS: usize = PAGES + CHUNK_PAGES / 8;

/// Whether all bytes are zero, looked at by the cache line.
fn is_zero(bytes: &[u8]) -> bool {
    let (lines, rest) = bytes.as_chunks::<64>();
    let line = |line: &[u8; 64]| line.iter().fold(0, |all, byte| all | byte) == 0;
    lines.iter().all(line) && rest.iter().all(|byte| *byte == 0)
}

/// The head of a chunk. The pages that it names follow it in the file, in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The file's number.
    pub id: u64,
    /// Guest-physical address, a multiple of [`CHUNK`].
    pub address: u64,
    /// Which pages follow: a bit each.
    pages: [u64; CHUNK_PAGES / 64],
    /// CRC-32C of each of them.
    checks: [u32; CHUNK_PAGES],
}

impl Chunk {
    /// One of which no page follows.
    #[must_use]
    pub const fn new(id: u64, address: u64) -> Self {
        Self {
            id,
            address,
            pages: [0; CHUNK_PAGES / 64],
            checks: [0; CHUNK_PAGES],
        }
    }

    /// Page `number` follows, behind those that were added before, with these bytes; unless they are all zero, which the answer says.
    pub fn add(&mut self, number: usize, bytes: &[u8]) -> bool {
        if number >= CHUNK_PAGES || is_zero(bytes) {
            return false;
        }
        self.pages[number / 64] |= 1 << (number % 64);
        self.checks[number] = checksum(bytes);
        true
    }

    /// The pages that follow, in order.
    pub fn pages(&self) -> impl Iterator<Item = usize> + '_ {
        (0..CHUNK_PAGES).filter(|number| self.pages[number / 64] >> (number % 64) & 1 != 0)
    }

    /// How many follow.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pages.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether these are the bytes of page `number`.
    #[must_use]
    pub fn is_right(&self, number: usize, bytes: &[u8]) -> bool {
        self.checks.get(number) == Some(&checksum(bytes))
    }

    /// The block.
    #[must_use]
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..8].copy_from_slice(&MAGIC);
        put(&mut block, 8, self.id);
        put(&mut block, 16, self.address);
        for (place, word) in self.pages.iter().enumerate() {
            put(&mut block, PAGES + 8 * place, *word);
        }
        for (place, check) in block[CHECKS..].chunks_exact_mut(4).zip(&self.checks) {
            place.copy_from_slice(&check.to_le_bytes());
        }
        seal(&mut block);
        block
    }

    /// Reads the block of the file with number `id` of a machine with `memory` bytes of RAM. Chunks come in the order of their addresses: this one's is `from` at least.
    ///
    /// # Errors
    /// It is something else, or damaged.
    pub fn decode(block: &[u8; BLOCK], id: u64, memory: u64, from: u64) -> Result<Self, Damage> {
        if block[..8] != MAGIC || word(block, 8) != id {
            return Err(Damage::Nonsense("a chunk of memory is missing"));
        }
        if !is_sealed(block) {
            return Err(Damage::Checksum("a chunk of memory"));
        }
        let mut chunk = Self::new(id, word(block, 16));
        for (place, word_of) in chunk.pages.iter_mut().enumerate() {
            *word_of = word(block, PAGES + 8 * place);
        }
        for (check, place) in chunk.checks.iter_mut().zip(block[CHECKS..].chunks_exact(4)) {
            *check = place.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
        }
        let last = chunk.pages().last().map_or(0, |page| page as u64);
        let end = chunk.address.checked_add((last + 1) * BLOCK as u64);
        if !chunk.address.is_multiple_of(CHUNK) || chunk.address < from || end.is_none_or(|end| end > memory) {
            return Err(Damage::Nonsense(
                "a chunk of memory is for an address that the machine does not have",
            ));
        }
        Ok(chunk)
    }
}
