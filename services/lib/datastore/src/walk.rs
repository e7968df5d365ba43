//! Going through trees without going where nothing is of interest.

use crate::cache::Key;
use crate::layout::{FANOUT_BITS, MAX_LEVELS};
use crate::pointer::{Pointer, pointer};
use crate::state::{Need, Place, State, Stop, Try};

/// What is at a place of a tree.
pub enum Step {
    /// Nothing of interest until `end`; found out at a node of this level.
    Skip {
        /// The first block behind it.
        end: u64,
        /// Level of the node, all of whose blocks it is about.
        level: u8,
    },
    /// A leaf, in memory.
    Leaf(Key),
}

/// Blocks that a tree of that many levels can lead to.
pub const fn capacity(levels: u8) -> u64 {
    1 << (FANOUT_BITS * levels as u32)
}

/// The node of a level that leads to a block.
pub const fn node_over(object: u32, level: u8, block: u64) -> Key {
    Key::new(object, level, block >> (FANOUT_BITS * (level as u32 + 1)))
}

impl State {
    /// The pointer to a node, as of the last commit that wrote the node; a hole where none leads there.
    pub fn pointer_at(&self, key: Key) -> Try<Pointer> {
        let (root, levels) = self.root(key.object())?;
        if key.level() + 1 >= levels {
            return Ok(if key.level() + 1 == levels && key.index() == 0 {
                root
            } else {
                Pointer::default()
            });
        }
        let parent = key.parent();
        Ok(match self.locate(parent)? {
            Place::Cached => self
                .cache
                .peek(parent)
                .map_or(Pointer::default(), |node| pointer(node, key.place())),
            Place::Hole { birth, .. } => Pointer::hole(birth),
        })
    }

    /// Whether a node, or one below it, changed since the last commit.
    pub fn is_dirty(&self, key: Key) -> bool {
        let start = key.end() - capacity(key.level() + 1);
        (0..=key.level().min(MAX_LEVELS)).any(|level| {
            let (first, last) = (node_over(key.object(), level, start), node_over(key.object(), level, key.end() - 1));
            self.cache.dirty().range(first..=last).next().is_some()
        })
    }

    /// Goes down from the top to the leaf over a block, as long as `prune` does not say that a node and all below it are of no interest. It is
    /// asked only about nodes that did not change since the last commit, with the pointers to them.
    pub fn descend(&self, object: u32, block: u64, mut prune: impl FnMut(&Self, Key, Pointer) -> Try<bool>) -> Try<Step> {
        let (_, levels) = self.root(object)?;
        if block >= capacity(levels) {
            return Ok(Step::Skip {
                end: u64::MAX,
                level: levels,
            });
        }
        for level in (0..levels).rev() {
            let key = node_over(object, level, block);
            let pointer = self.pointer_at(key)?;
            let cached = self.cache.contains(key);
            if !self.is_dirty(key) && (pointer.is_hole() || prune(self, key, pointer)?) {
                return Ok(Step::Skip { end: key.end(), level });
            }
            if !cached && !pointer.is_hole() {
                return Err(Stop::Need(Need::Node(key, pointer)));
            }
        }
        Ok(Step::Leaf(Key::leaf(object, block)))
    }
}
