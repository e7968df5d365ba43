//! What tests write on disks: each sector different, and different for each seed.

use alloc::vec::Vec;

/// The content of `count` sectors of `size` bytes from `first` on: words of SplitMix64, begun anew in each sector from seed and sector number.
#[must_use]
pub fn sectors(seed: u64, first: u64, count: usize, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count * size);
    for sector in (first..).take(count) {
        let mut state = seed ^ sector.wrapping_mul(0xd6e8_feb8_6659_fd93);
        for _ in 0..size / 8 {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.extend((word ^ word >> 31).to_le_bytes());
        }
    }
    bytes
}
