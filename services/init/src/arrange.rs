//! Where a process's objects go in its memory: kernel objects whole and first, frames in the gaps, so that nothing is wasted but the rest of a page.

use alloc::vec::Vec;
use tessera_abi::PAGE_SIZE;
use tessera_abi::object::{ObjectKind, size};

const PAGE: u64 = PAGE_SIZE as u64;
/// Frames from this length on would be aligned to large pages and leave gaps; longer ones are put together from shorter.
const MAX_PIECE: u64 = 511;

/// Something to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Kind.
    pub kind: ObjectKind,
    /// Size in the kind's unit, as RETYPE takes it.
    pub size: u64,
    /// May come in several pieces; frames only.
    pub pieces: bool,
}

impl Item {
    /// An object; a frame may come in pieces.
    #[must_use]
    pub const fn new(kind: ObjectKind, size: u64) -> Self {
        Self {
            kind,
            size,
            pieces: matches!(kind, ObjectKind::Frame),
        }
    }

    /// A frame in one piece, at most 511 pages long.
    #[must_use]
    pub const fn whole_frame(pages: u64) -> Self {
        Self {
            kind: ObjectKind::Frame,
            size: pages,
            pieces: false,
        }
    }

    /// Bytes that it takes.
    fn bytes(self) -> u64 {
        (match self.kind {
            ObjectKind::Untyped | ObjectKind::Frame => return self.size * PAGE,
            ObjectKind::CNode => size::SLOT << self.size,
            // One page for the object, one for the root table, and the pool.
            ObjectKind::AddressSpace | ObjectKind::GuestSpace => return (self.size + 2) * PAGE,
            ObjectKind::Thread => size::THREAD,
            ObjectKind::SchedContext => size::SCHED_CONTEXT,
            ObjectKind::Endpoint => size::ENDPOINT,
            ObjectKind::Reply => size::REPLY,
            ObjectKind::Notification => size::NOTIFICATION,
            ObjectKind::Vcpu => size::VCPU,
            _ => 0,
        }) as u64
    }

    fn alignment(self) -> u64 {
        match self.kind {
            ObjectKind::CNode => size::SLOT as u64,
            ObjectKind::Untyped | ObjectKind::Frame | ObjectKind::AddressSpace | ObjectKind::GuestSpace | ObjectKind::Vcpu => PAGE,
            _ => self.bytes().next_power_of_two(),
        }
    }
}

/// One call of RETYPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Index of the item.
    pub item: usize,
    /// Index of the block.
    pub block: usize,
    /// Size in the kind's unit: the item's own, or a piece of a frame.
    pub size: u64,
}

/// Which blocks (in pages, descending) and what to make of them, in order.
#[derive(Debug, Default)]
pub struct Arrangement {
    /// Pages of each block, powers of two.
    pub blocks: Vec<u64>,
    /// Placements. Pieces of one frame come in order.
    pub placements: Vec<Placement>,
}

impl Arrangement {
    /// All pages together.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.blocks.iter().sum()
    }
}

/// Finds an arrangement for all items.
#[must_use]
pub fn arrange(items: &[Item]) -> Arrangement {
    let order = order_of(items);
    let frames: u64 = items.iter().filter(|item| item.pieces).map(|item| item.size).sum();
    let objects: u64 = items.iter().filter(|item| !item.pieces).map(|item| item.bytes()).sum();
    let mut pages = (frames + objects.div_ceil(PAGE)).max(1);
    loop {
        if let Some(arrangement) = try_arrange(items, &order, pages) {
            return arrangement;
        }
        pages += 1;
    }
}

fn order_of(items: &[Item]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..items.len()).collect();
    // Frames last, since they can be cut; the others by size, so that small objects share the last page.
    order.sort_by_key(|index| {
        let item = items[*index];
        (item.pieces, if item.pieces { 0 } else { u64::MAX - item.bytes() }, *index)
    });
    order
}

fn try_arrange(items: &[Item], order: &[usize], pages: u64) -> Option<Arrangement> {
    let blocks: Vec<u64> = (0..u64::BITS)
        .rev()
        .map(|bit| 1 << bit)
        .filter(|block| pages & block != 0)
        .collect();
    let mut used: Vec<u64> = blocks.iter().map(|_| 0).collect();
    let mut placements = Vec::new();
    for index in order {
        let item = items[*index];
        if item.pieces {
            let mut left = item.size;
            for (block, length) in blocks.iter().enumerate() {
                let start = used[block].div_ceil(PAGE);
                let mut room = length.saturating_sub(start);
                while left > 0 && room > 0 {
                    let piece = left.min(room).min(MAX_PIECE);
                    placements.push(Placement {
                        item: *index,
                        block,
                        size: piece,
                    });
                    used[block] = used[block].next_multiple_of(PAGE) + piece * PAGE;
                    left -= piece;
                    room -= piece;
                }
            }
            if left > 0 {
                return None;
            }
        } else {
            let (block, start) = blocks.iter().enumerate().find_map(|(block, length)| {
                let mut alignment = item.alignment();
                if item.kind == ObjectKind::Untyped && item.size > MAX_PIECE {
                    alignment = 512 * PAGE;
                }
                let start = used[block].next_multiple_of(alignment);
                (start + item.bytes() <= length * PAGE).then_some((block, start))
            })?;
            used[block] = start + item.bytes();
            placements.push(Placement {
                item: *index,
                block,
                size: item.size,
            });
        }
    }
    Some(Arrangement { blocks, placements })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn item() -> impl Strategy<Value = Item> {
        prop_oneof![
            (1u64..900).prop_map(|pages| Item::new(ObjectKind::Frame, pages)),
            (1u64..=MAX_PIECE).prop_map(Item::whole_frame),
            (1u64..700).prop_map(|pages| Item::new(ObjectKind::Untyped, pages)),
            (4u64..12).prop_map(|bits| Item::new(ObjectKind::CNode, bits)),
            (4u64..60).prop_map(|pool| Item::new(ObjectKind::AddressSpace, pool)),
            Just(Item::new(ObjectKind::Thread, 0)),
            Just(Item::new(ObjectKind::SchedContext, 0)),
            Just(Item::new(ObjectKind::Reply, 0)),
            Just(Item::new(ObjectKind::Endpoint, 0)),
            Just(Item::new(ObjectKind::Notification, 0)),
        ]
    }

    proptest! {
        /// Replays the placements as the kernel makes objects: one after another, aligned.
        #[test]
        fn everything_fits_where_it_is_put(items in proptest::collection::vec(item(), 0..14)) {
            let arrangement = arrange(&items);
            let mut used = vec![0; arrangement.blocks.len()];
            let mut made = vec![0; items.len()];
            for placement in &arrangement.placements {
                let part = Item::new(items[placement.item].kind, placement.size);
                let paged = matches!(part.kind, ObjectKind::Frame | ObjectKind::Untyped);
                let alignment = if paged && part.size >= 512 { 512 * PAGE } else { part.alignment() };
                // Blocks are aligned to their size, so alignment counts from their start.
                let start = u64::next_multiple_of(used[placement.block], alignment);
                used[placement.block] = start + part.bytes();
                prop_assert!(used[placement.block] <= arrangement.blocks[placement.block] * PAGE);
                prop_assert!(items[placement.item].pieces || placement.size == items[placement.item].size);
                made[placement.item] += if part.kind == ObjectKind::Frame { part.size } else { 1 };
            }
            for (item, made) in items.iter().zip(made) {
                prop_assert_eq!(made, if item.kind == ObjectKind::Frame { item.size } else { 1 });
            }
        }
    }

    #[test]
    fn a_usual_server_wastes_less_than_a_page() {
        let items = [
            Item::new(ObjectKind::CNode, 8),
            Item::new(ObjectKind::AddressSpace, 20),
            Item::new(ObjectKind::Thread, 0),
            Item::new(ObjectKind::SchedContext, 0),
            Item::new(ObjectKind::Reply, 0),
            Item::new(ObjectKind::Notification, 0),
            Item::new(ObjectKind::Untyped, 32),
            Item::new(ObjectKind::Frame, 1),
            Item::new(ObjectKind::Frame, 64),
            Item::new(ObjectKind::Frame, 8),
        ];
        // 4 + 22 + 2 pages of large objects, one of small ones, 32, 73.
        assert_eq!(arrange(&items).pages(), 4 + 22 + 2 + 1 + 32 + 73);
    }
}
