//! A set of interrupt vectors: the 256-bit ISR, IRR and TMR of a local APIC.

/// A set of vectors 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vectors(pub [u64; 4]);

impl Vectors {
    /// Adds a vector.
    #[inline]
    pub const fn insert(&mut self, vector: u8) {
        self.0[(vector >> 6) as usize] |= 1 << (vector & 63);
    }

    /// Removes a vector.
    #[inline]
    pub const fn remove(&mut self, vector: u8) {
        self.0[(vector >> 6) as usize] &= !(1 << (vector & 63));
    }

    /// Whether the vector is in the set.
    #[inline]
    #[must_use]
    pub const fn contains(&self, vector: u8) -> bool {
        self.0[(vector >> 6) as usize] >> (vector & 63) & 1 != 0
    }

    /// The highest vector.
    #[inline]
    #[must_use]
    pub const fn highest(&self) -> Option<u8> {
        let mut i = 4;
        while i > 0 {
            i -= 1;
            if self.0[i] != 0 {
                return Some((i as u8) << 6 | (63 - self.0[i].leading_zeros() as u8));
            }
        }
        None
    }

    /// Whether the set is empty.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0[0] | self.0[1] | self.0[2] | self.0[3] == 0
    }

    /// Number of vectors.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.0[0].count_ones() + self.0[1].count_ones() + self.0[2].count_ones() + self.0[3].count_ones()
    }

    /// The 32-bit register `index` (0 to 7) of the set, as a local APIC shows it.
    #[inline]
    #[must_use]
    pub const fn register(&self, index: u32) -> u32 {
        (self.0[(index >> 1 & 3) as usize] >> ((index & 1) * 32)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_a_set(operations in prop::collection::vec((any::<bool>(), any::<u8>()), 0..200)) {
            let mut set = Vectors::default();
            let mut model = BTreeSet::new();
            for (insert, vector) in operations {
                if insert {
                    set.insert(vector);
                    model.insert(vector);
                } else {
                    set.remove(vector);
                    model.remove(&vector);
                }
                prop_assert_eq!(set.highest(), model.last().copied());
                prop_assert_eq!(set.is_empty(), model.is_empty());
                prop_assert_eq!(set.len() as usize, model.len());
            }
            for vector in 0..=255u8 {
                prop_assert_eq!(set.contains(vector), model.contains(&vector));
                prop_assert_eq!(set.register(u32::from(vector) / 32) >> (vector % 32) & 1 != 0, model.contains(&vector));
            }
        }
    }
}
