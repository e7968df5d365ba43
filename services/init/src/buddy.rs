//! Who has which memory: a buddy allocator over `Untyped` capabilities. Blocks are powers of two of pages. Splitting a block makes two `Untyped` halves
//! out of it; when both halves are free again they are deleted, and the block is whole.
//!
//! The capability work is behind [`Blocks`], so that the book-keeping can be tested without a kernel.

use alloc::vec::Vec;

/// Largest order: 2^18 pages, 1 GiB.
pub const MAX_ORDER: u32 = 18;
/// Orders from 0 to [`MAX_ORDER`].
const ORDERS: usize = MAX_ORDER as usize + 1;

/// What the allocator does to capabilities.
pub trait Blocks {
    /// Makes two halves of `pages` pages each out of the block in `slot`; returns their slots, lower address first. `None`: no slots left.
    fn split(&mut self, slot: u32, pages: u64) -> Option<[u32; 2]>;
    /// Deletes both halves and gives their slots back.
    fn merge(&mut self, slot: u32, halves: [u32; 2]);
}

/// A block in use. It is given back with [`Buddy::free`], after everything made of it was revoked.
#[derive(Debug, PartialEq, Eq)]
pub struct Block {
    node: usize,
    /// Slot of its `Untyped`.
    pub slot: u32,
    /// Length: 2^order pages.
    pub order: u32,
}

impl Block {
    /// Length in pages.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        1 << self.order
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Used,
    Split {
        low: usize,
    },
    /// The place in `nodes` can be used again.
    Vacant,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    slot: u32,
    order: u32,
    state: State,
    /// The block that this is a half of.
    parent: Option<usize>,
}

/// The allocator.
#[derive(Debug, Default)]
pub struct Buddy {
    nodes: Vec<Node>,
    /// First nodes of vacant pairs.
    vacant: Vec<usize>,
    /// Free blocks by order, by node number.
    free: [Vec<usize>; ORDERS],
    free_pages: u64,
    total_pages: u64,
}

impl Buddy {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the block of 2^`order` pages in `slot`.
    pub fn add(&mut self, slot: u32, order: u32) {
        let order = order.min(MAX_ORDER);
        self.nodes.push(Node {
            slot,
            order,
            state: State::Free,
            parent: None,
        });
        self.free[order as usize].push(self.nodes.len() - 1);
        self.free_pages += 1 << order;
        self.total_pages += 1 << order;
    }

    /// Free pages.
    #[must_use]
    pub const fn free_pages(&self) -> u64 {
        self.free_pages
    }

    /// Pages that it was given.
    #[must_use]
    pub const fn total_pages(&self) -> u64 {
        self.total_pages
    }

    /// Pages of the largest free block.
    #[must_use]
    pub fn largest_free(&self) -> u64 {
        self.free
            .iter()
            .rposition(|blocks| !blocks.is_empty())
            .map_or(0, |order| 1 << order)
    }

    /// Free blocks of at least 2^`order` pages, the smaller ones first: slot and pages.
    pub fn free_blocks(&self, order: u32) -> impl Iterator<Item = (u32, u64)> {
        let nodes = self.free.iter().skip(order as usize).flatten().map(|node| &self.nodes[*node]);
        nodes.map(|node| (node.slot, 1 << node.order))
    }

    /// Takes a block of 2^`order` pages. `None`: no such block is free (or no slots to split one).
    pub fn take(&mut self, blocks: &mut impl Blocks, order: u32) -> Option<Block> {
        let found = (order..=MAX_ORDER).find(|order| !self.free[*order as usize].is_empty())?;
        let mut node = self.free[found as usize].pop()?;
        while self.nodes[node].order > order {
            let half = self.nodes[node].order - 1;
            let Some(slots) = blocks.split(self.nodes[node].slot, 1 << half) else {
                // What was split on the way becomes whole again.
                self.settle(blocks, node);
                return None;
            };
            let low = self.vacant.pop().unwrap_or_else(|| {
                self.nodes.extend(
                    [Node {
                        slot: 0,
                        order: 0,
                        state: State::Vacant,
                        parent: None,
                    }; 2],
                );
                self.nodes.len() - 2
            });
            for (index, slot) in slots.into_iter().enumerate() {
                self.nodes[low + index] = Node {
                    slot,
                    order: half,
                    state: State::Free,
                    parent: Some(node),
                };
            }
            self.nodes[node].state = State::Split { low };
            self.free[half as usize].push(low + 1);
            node = low;
        }
        self.nodes[node].state = State::Used;
        self.free_pages -= 1 << order;
        Some(Block {
            node,
            slot: self.nodes[node].slot,
            order,
        })
    }

    /// Takes blocks that are `pages` pages together, as few as there are, none larger than 2^`largest` pages. All or nothing.
    pub fn take_pages(&mut self, blocks: &mut impl Blocks, pages: u64, largest: u32) -> Option<Vec<Block>> {
        let mut taken = Vec::new();
        let mut wanted = pages;
        let mut order = largest.min(MAX_ORDER);
        while wanted > 0 {
            order = order.min(wanted.ilog2());
            match self.take(blocks, order) {
                Some(block) => {
                    wanted -= block.pages();
                    taken.push(block);
                }
                None if order > 0 => order -= 1,
                None => {
                    self.free_all(blocks, taken);
                    return None;
                }
            }
        }
        Some(taken)
    }

    /// Gives a block back.
    pub fn free(&mut self, blocks: &mut impl Blocks, block: Block) {
        debug_assert_eq!(self.nodes[block.node].state, State::Used);
        self.free_pages += block.pages();
        self.nodes[block.node].state = State::Free;
        self.settle(blocks, block.node);
    }

    /// Enters a block that became free into the books, joined with its other half as long as that is free too.
    fn settle(&mut self, blocks: &mut impl Blocks, mut node: usize) {
        while let Some(parent) = self.nodes[node].parent {
            let State::Split { low } = self.nodes[parent].state else { break };
            let other = if node == low { low + 1 } else { low };
            if self.nodes[other].state != State::Free {
                break;
            }
            let order = self.nodes[other].order as usize;
            self.free[order].retain(|free| *free != other);
            blocks.merge(self.nodes[parent].slot, [self.nodes[low].slot, self.nodes[low + 1].slot]);
            self.nodes[low].state = State::Vacant;
            self.nodes[low + 1].state = State::Vacant;
            self.vacant.push(low);
            self.nodes[parent].state = State::Free;
            node = parent;
        }
        self.free[self.nodes[node].order as usize].push(node);
    }

    /// Gives blocks back.
    pub fn free_all(&mut self, blocks: &mut impl Blocks, all: Vec<Block>) {
        for block in all {
            self.free(blocks, block);
        }
    }
}

/// Cuts a range of pages into the largest blocks that are aligned to their own size, in order of address: (first page, order).
pub fn cut(first: u64, pages: u64) -> impl Iterator<Item = (u64, u32)> {
    let end = first.saturating_add(pages);
    let mut next = first;
    core::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        let aligned = if next == 0 { MAX_ORDER } else { next.trailing_zeros() };
        let order = aligned.min((end - next).ilog2()).min(MAX_ORDER);
        let block = (next, order);
        next += 1 << order;
        Some(block)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Knows which page ranges the capabilities in the slots name.
    #[derive(Default)]
    struct Fake {
        ranges: BTreeMap<u32, (u64, u64)>,
        split: BTreeSet<u32>,
        next: u32,
        slots_left: usize,
    }

    impl Blocks for Fake {
        fn split(&mut self, slot: u32, pages: u64) -> Option<[u32; 2]> {
            let (start, length) = self.ranges[&slot];
            assert_eq!(length, 2 * pages);
            assert!(self.split.insert(slot), "split twice");
            if self.slots_left < 2 {
                self.split.remove(&slot);
                return None;
            }
            self.slots_left -= 2;
            let halves = [self.next, self.next + 1];
            self.next += 2;
            self.ranges.insert(halves[0], (start, pages));
            self.ranges.insert(halves[1], (start + pages, pages));
            Some(halves)
        }

        fn merge(&mut self, slot: u32, halves: [u32; 2]) {
            assert!(self.split.remove(&slot));
            for half in halves {
                assert!(!self.split.contains(&half));
                assert!(self.ranges.remove(&half).is_some());
            }
            self.slots_left += 2;
        }
    }

    fn filled(first: u64, pages: u64, slots: usize) -> (Buddy, Fake) {
        let mut buddy = Buddy::new();
        let mut fake = Fake {
            slots_left: slots,
            ..Fake::default()
        };
        for (start, order) in cut(first, pages) {
            fake.ranges.insert(fake.next, (start, 1 << order));
            buddy.add(fake.next, order);
            fake.next += 1;
        }
        (buddy, fake)
    }

    proptest! {
        #[test]
        fn cutting_covers_the_range(first in 0u64..1 << 30, pages in 0u64..1 << 22) {
            let mut next = first;
            for (start, order) in cut(first, pages) {
                prop_assert_eq!(start, next);
                prop_assert!(start.is_multiple_of(1 << order));
                next += 1 << order;
            }
            prop_assert_eq!(next, first + pages);
        }

        #[test]
        fn blocks_never_overlap_and_all_comes_back(first in 0u64..5000, pages in 1u64..5000, slots in 0usize..200,
            steps in proptest::collection::vec((any::<bool>(), 1u64..600, 0u32..9, any::<prop::sample::Index>()), 0..80)) {
            let (mut buddy, mut fake) = filled(first, pages, slots);
            let largest = buddy.largest_free();
            let mut held: Vec<Vec<Block>> = Vec::new();
            for (take, wanted, order, which) in steps {
                if take {
                    let before = buddy.free_pages();
                    match buddy.take_pages(&mut fake, wanted, order) {
                        Some(blocks) => {
                            prop_assert_eq!(blocks.iter().map(Block::pages).sum::<u64>(), wanted);
                            prop_assert_eq!(buddy.free_pages(), before - wanted);
                            held.push(blocks);
                        }
                        None => prop_assert_eq!(buddy.free_pages(), before),
                    }
                } else if !held.is_empty() {
                    let blocks = held.swap_remove(which.index(held.len()));
                    buddy.free_all(&mut fake, blocks);
                }
                let mut ranges: Vec<_> = held.iter().flatten().map(|block| fake.ranges[&block.slot]).collect();
                ranges.sort_unstable();
                for pair in ranges.windows(2) {
                    prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0);
                }
            }
            for blocks in held {
                buddy.free_all(&mut fake, blocks);
            }
            prop_assert_eq!(buddy.free_pages(), pages);
            prop_assert_eq!(buddy.largest_free(), largest);
            prop_assert!(fake.split.is_empty());
            prop_assert_eq!(fake.slots_left, slots);
        }
    }

    #[test]
    fn free_blocks_come_by_size() {
        let (mut buddy, mut fake) = filled(0, 1024, 1000);
        let taken = buddy.take(&mut fake, 4).unwrap();
        assert!(buddy.free_blocks(0).map(|(_, pages)| pages).eq([16, 32, 64, 128, 256, 512]));
        assert!(buddy.free_blocks(7).map(|(_, pages)| pages).eq([128, 256, 512]));
        assert!(
            buddy
                .free_blocks(0)
                .all(|(slot, pages)| fake.ranges[&slot].1 == pages && slot != taken.slot)
        );
        buddy.free(&mut fake, taken);
        assert_eq!(buddy.free_blocks(0).count(), 1);
    }

    #[test]
    fn takes_as_few_blocks_as_there_are() {
        let (mut buddy, mut fake) = filled(0, 1024, 1000);
        let blocks = buddy.take_pages(&mut fake, 256 + 64 + 1, MAX_ORDER).unwrap();
        assert_eq!(blocks.iter().map(Block::pages).collect::<Vec<_>>(), [256, 64, 1]);
        assert!(buddy.take_pages(&mut fake, 1024, MAX_ORDER).is_none());
        buddy.free_all(&mut fake, blocks);
        assert_eq!(buddy.take_pages(&mut fake, 1024, MAX_ORDER).unwrap().len(), 1);
    }
}
