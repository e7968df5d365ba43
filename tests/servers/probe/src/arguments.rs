//! What a fuzzer passes to a system call: mostly numbers that mean something to the kernel, some that mean nothing.

use crate::random::Random;
use tessera_abi::{layout, syscall::FLAG_DEADLINE};

/// Numbers at which kernels break.
pub const EDGES: [u64; 24] = [
    0,
    1,
    2,
    7,
    63,
    64,
    65,
    4095,
    4096,
    0xffff,
    0x1_0000,
    1 << 20,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 47,
    layout::USER_TOP,
    0xffff_8000_0000_0000,
    0xffff_ffff_8000_0000,
    1 << 62,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX - 1,
    u64::MAX,
];

/// One system call.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// Call number and flags.
    pub rax: u64,
    /// Slot of the object.
    pub rdi: u64,
    /// Message information.
    pub rsi: u64,
    /// Operation, or slot of the Reply.
    pub rdx: u64,
    /// Deadline.
    pub r8: u64,
    /// Words.
    pub words: [u64; 6],
}

/// A word argument: a slot, an address in `area`, a small number, an edge, or noise.
fn word(random: &mut Random, slots: u64, area: u64) -> u64 {
    match random.below(16) {
        0..=5 => random.below(slots),
        6 | 7 => random.below(8),
        8 | 9 => area + (random.below(64) << 12),
        10 => random.pick(&EDGES),
        11 => random.pick(&EDGES).wrapping_add(random.below(4096)),
        12 => 1 << random.below(64),
        13 => random.below(300),
        14 => random.below(1 << 24),
        _ => random.next(),
    }
}

/// Makes up a call. `slots` is the size of the capability table, `area` an address range where mappings hurt nobody, `now` the TSC. A call that may wait has a near deadline in
/// all but one of 256 cases: those the fuzzer's watcher has to end.
pub fn attempt(random: &mut Random, slots: u64, area: u64, now: u64) -> Attempt {
    let number = match random.below(32) {
        0 => random.next() & 0xff,
        1..=2 => 0,
        3..=4 => 1,
        5 => 2,
        6..=7 => 3,
        8 => 4,
        9 => 5,
        10 => 6,
        11 => 7,
        12 => 8,
        13 => 10,
        _ => 9,
    };
    let flags = match random.below(256) {
        0 => 0,
        1 => random.next() << 8,
        _ => FLAG_DEADLINE,
    };
    let rsi = match random.below(4) {
        0 => random.next() & 0xff_ffff,
        1 => random.pick(&EDGES),
        2 => random.below(5) << 16 | random.below(4000),
        _ => random.below(100),
    };
    Attempt {
        rax: number | flags,
        rdi: if random.below(32) == 0 {
            word(random, slots, area)
        } else {
            random.below(slots)
        },
        rsi,
        rdx: if random.below(16) == 0 {
            word(random, slots, area)
        } else {
            random.below(if number == 9 { 8 } else { slots })
        },
        r8: if random.below(8) == 0 {
            random.pick(&EDGES).min(now + 20_000)
        } else {
            now + random.below(20_000)
        },
        words: core::array::from_fn(|_| word(random, slots, area)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_call_and_operation_is_tried() {
        let mut random = Random::new(1);
        let attempts: Vec<Attempt> = (0..20_000).map(|_| attempt(&mut random, 128, 0x5000_0000, 1_000_000)).collect();
        let numbers: HashSet<u64> = attempts.iter().map(|a| a.rax & 0xff).collect();
        assert!((0..=10).all(|n| numbers.contains(&n)));
        let operations: HashSet<u64> = attempts.iter().filter(|a| a.rax & 0xff == 9).map(|a| a.rdx).collect();
        assert!((0..8).all(|n| operations.contains(&n)));
    }

    #[test]
    fn waits_are_short() {
        let mut random = Random::new(2);
        let now = 1_000_000;
        let endless = (0..100_000)
            .map(|_| attempt(&mut random, 128, 0, now))
            .filter(|a| a.rax & FLAG_DEADLINE == 0 || a.r8 > now + 20_000)
            .count();
        assert!(endless < 1000, "{endless}");
    }

    #[test]
    fn seeds_repeat() {
        let run = |seed| {
            let mut random = Random::new(seed);
            (0..100).map(|_| attempt(&mut random, 64, 0, 5).words).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
