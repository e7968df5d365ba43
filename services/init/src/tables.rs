//! How many page-table pages a process needs.

use alloc::collections::BTreeSet;
use tessera_abi::{LARGE_PAGE_SIZE, layout};

const LARGE: u64 = LARGE_PAGE_SIZE as u64;
const GIB: u64 = 1 << 30;
const TOP: u64 = 512 * GIB;
/// Tables for what nobody foresees: mappings that straddle a boundary, a few threads' stacks.
const SLACK: u64 = 4;

/// Counts page tables.
#[derive(Debug, Default)]
pub struct Tables {
    levels: [BTreeSet<u64>; 3],
    /// Bytes that the runtime will place by itself in small pages, and in large ones.
    dynamic: (u64, u64),
}

impl Tables {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Something at a known address, in 4 KiB pages.
    pub fn fixed(&mut self, address: u64, length: u64) {
        if length == 0 {
            return;
        }
        for (level, size) in self.levels.iter_mut().zip([LARGE, GIB, TOP]) {
            level.extend(address / size..=(address + (length - 1)) / size);
        }
    }

    /// Something that the runtime maps where it likes, in 4 KiB pages.
    pub fn small(&mut self, length: u64) {
        self.dynamic.0 += length.next_multiple_of(LARGE);
    }

    /// Something that the runtime maps where it likes, in 2 MiB pages.
    pub fn large(&mut self, length: u64) {
        // An unmapped page on both sides costs another large page.
        self.dynamic.1 += length.next_multiple_of(LARGE) + LARGE;
    }

    /// Pages of the pool.
    #[must_use]
    pub fn pages(&self) -> u64 {
        let (small, large) = self.dynamic;
        let mut levels = self.levels.clone();
        let reach = small + large + SLACK * LARGE;
        levels[1].extend(layout::DYNAMIC_BASE / GIB..=(layout::DYNAMIC_BASE + reach) / GIB);
        levels[2].extend(layout::DYNAMIC_BASE / TOP..=(layout::DYNAMIC_BASE + reach) / TOP);
        levels.iter().map(|level| level.len() as u64).sum::<u64>() + small / LARGE + SLACK
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_table_once() {
        let mut tables = Tables::new();
        tables.fixed(0x40_0000, 0x1000);
        tables.fixed(0x40_1000, 0x5000);
        tables.fixed(layout::START_INFO, 0x1000);
        tables.fixed(layout::STACK_TOP - 0x8000, 0x8000);
        // Three page tables, one directory for them and one for what the runtime maps, one directory-pointer table.
        assert_eq!(tables.pages(), 3 + 2 + 1 + SLACK);
    }

    #[test]
    fn guest_memory_in_large_pages_costs_directories_only() {
        let mut tables = Tables::new();
        tables.large(2 * GIB);
        assert_eq!(tables.pages(), 3 + 1 + SLACK);
        tables.small(5 * LARGE);
        assert_eq!(tables.pages(), 3 + 1 + 5 + SLACK);
    }
}
