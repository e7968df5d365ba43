//! What a tree's node consists of.

use crate::layout::{BLOCK, FANOUT, POINTER};

/// A block of the device in memory.
pub type Block = [u8; BLOCK];

/// Where a block is, since when, and what it must contain; or a hole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pointer {
    /// The block on the device; 0 (where a superblock is) means a hole, which reads as zeroes.
    pub block: u64,
    /// The generation in which this was written; for a hole, in which it became one.
    pub birth: u64,
    /// Checksum of the block. 0 for data of objects without checksums, and for holes.
    pub crc: u32,
}

impl Pointer {
    /// A hole since `birth`.
    pub const fn hole(birth: u64) -> Self {
        Self { block: 0, birth, crc: 0 }
    }

    /// Whether it reads as zeroes.
    pub const fn is_hole(&self) -> bool {
        self.block == 0
    }

    /// Reads the 16 bytes: block (5), zero (1), birth (6), checksum (4).
    #[inline]
    pub fn read(bytes: &[u8; POINTER]) -> Self {
        let word = u128::from_le_bytes(*bytes);
        Self {
            block: word as u64 & 0xff_ffff_ffff,
            birth: (word >> 48) as u64 & 0xffff_ffff_ffff,
            crc: (word >> 96) as u32,
        }
    }

    /// Writes the 16 bytes.
    pub fn bytes(&self) -> [u8; POINTER] {
        (u128::from(self.block) | u128::from(self.birth) << 48 | u128::from(self.crc) << 96).to_le_bytes()
    }
}

/// The pointer at a place of a node.
#[inline]
pub fn pointer(node: &Block, at: usize) -> Pointer {
    Pointer::read(&node.as_chunks::<POINTER>().0[at])
}

/// Sets the pointer at a place of a node.
pub fn set_pointer(node: &mut Block, at: usize, pointer: Pointer) {
    node.as_chunks_mut::<POINTER>().0[at] = pointer.bytes();
}

/// A node all of whose pointers are the same hole.
pub fn empty_node(birth: u64) -> Block {
    let mut node = [0; BLOCK];
    for at in 0..FANOUT as usize {
        set_pointer(&mut node, at, Pointer::hole(birth));
    }
    node
}
