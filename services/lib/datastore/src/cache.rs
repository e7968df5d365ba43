//! Nodes in memory, found by what they are of, not by where they stand: a node keeps its place here when it moves on the device.

use alloc::collections::BTreeSet;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::hash::{BuildHasherDefault, Hasher};
use hashbrown::HashMap;

use crate::layout::FANOUT_BITS;
use crate::pointer::Block;

/// A node: its object (24 bits), level (4) and place in the level (36). They sort by object, then from the leaves upwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

impl Key {
    /// A node of an object.
    #[inline]
    pub const fn new(object: u32, level: u8, index: u64) -> Self {
        Self((object as u64) << 40 | (level as u64) << 36 | index)
    }

    /// The leaf that points to a block of an object.
    #[inline]
    pub const fn leaf(object: u32, block: u64) -> Self {
        Self::new(object, 0, block >> FANOUT_BITS)
    }

    /// Whose it is.
    pub const fn object(self) -> u32 {
        (self.0 >> 40) as u32
    }

    /// 0 for a leaf.
    pub const fn level(self) -> u8 {
        (self.0 >> 36) as u8 & 15
    }

    /// Place in its level.
    pub const fn index(self) -> u64 {
        self.0 & ((1 << 36) - 1)
    }

    /// The node that points to it.
    pub const fn parent(self) -> Self {
        Self::new(self.object(), self.level() + 1, self.index() >> FANOUT_BITS)
    }

    /// Which of its parent's pointers leads here.
    pub const fn place(self) -> usize {
        (self.index() & ((1 << FANOUT_BITS) - 1)) as usize
    }

    /// The first block behind those that it leads to.
    pub const fn end(self) -> u64 {
        (self.index() + 1) << (FANOUT_BITS * (self.level() as u32 + 1))
    }
}

/// Keys are spread by one multiplication.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, word: u64) {
        let product = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = product ^ product >> 32;
    }
}

struct Slot {
    key: Key,
    node: Rc<Block>,
    dirty: bool,
    /// Pending writes that will change it.
    pins: u32,
    /// Used since the clock's hand came by.
    used: bool,
}

/// The nodes in memory. Dirty and pinned ones stay; of the others the least used go when there are more than the limit.
pub struct Cache {
    places: HashMap<Key, u32, BuildHasherDefault<Spread>>,
    slots: Vec<Slot>,
    hand: usize,
    limit: usize,
    dirty: BTreeSet<Key>,
}

impl Cache {
    /// A cache of `limit` nodes.
    pub fn new(limit: usize) -> Self {
        Self {
            places: HashMap::default(),
            slots: Vec::new(),
            hand: 0,
            limit,
            dirty: BTreeSet::new(),
        }
    }

    /// How many nodes it should hold at most.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Whether the node is there.
    pub fn contains(&self, key: Key) -> bool {
        self.places.contains_key(&key)
    }

    /// The node, used now.
    #[inline]
    pub fn get(&mut self, key: Key) -> Option<&Block> {
        let slot = &mut self.slots[*self.places.get(&key)? as usize];
        slot.used = true;
        Some(&slot.node)
    }

    /// The node, without using it.
    pub fn peek(&self, key: Key) -> Option<&Rc<Block>> {
        Some(&self.slots[*self.places.get(&key)? as usize].node)
    }

    /// The node, to be changed.
    pub fn change(&mut self, key: Key) -> Option<&mut Block> {
        let slot = &mut self.slots[*self.places.get(&key)? as usize];
        slot.used = true;
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.insert(key);
        }
        Some(Rc::make_mut(&mut slot.node))
    }

    /// Puts in a node that was read.
    pub fn insert(&mut self, key: Key, node: Rc<Block>) {
        self.places.insert(key, self.slots.len() as u32);
        self.slots.push(Slot {
            key,
            node,
            dirty: false,
            pins: 0,
            used: true,
        });
    }

    /// Keeps a node in memory until `unpin`.
    pub fn pin(&mut self, key: Key) {
        if let Some(&place) = self.places.get(&key) {
            self.slots[place as usize].pins += 1;
        }
    }

    /// Takes a `pin` back.
    pub fn unpin(&mut self, key: Key) {
        if let Some(&place) = self.places.get(&key) {
            let slot = &mut self.slots[place as usize];
            slot.pins = slot.pins.saturating_sub(1);
        }
    }

    /// The changed nodes in order.
    pub fn dirty(&self) -> &BTreeSet<Key> {
        &self.dirty
    }

    /// The node is on the device now.
    pub fn clean(&mut self, key: Key) {
        if self.dirty.remove(&key) {
            if let Some(&place) = self.places.get(&key) {
                self.slots[place as usize].dirty = false;
            }
        }
    }

    fn remove_slot(&mut self, place: usize) {
        let slot = self.slots.swap_remove(place);
        self.places.remove(&slot.key);
        self.dirty.remove(&slot.key);
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.key, place as u32);
        }
    }

    /// Forgets all nodes of an object.
    pub fn forget(&mut self, object: u32) {
        let mut place = 0;
        while place < self.slots.len() {
            if self.slots[place].key.object() == object {
                self.remove_slot(place);
            } else {
                place += 1;
            }
        }
    }

    /// Drops the least used until the limit holds, or all that may go are gone.
    pub fn trim(&mut self) {
        let mut looked = 0;
        while self.slots.len() > self.limit && looked < 2 * self.slots.len() {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let slot = &mut self.slots[self.hand];
            looked += 1;
            if slot.dirty || slot.pins > 0 {
                self.hand += 1;
            } else if slot.used {
                slot.used = false;
                self.hand += 1;
            } else {
                self.remove_slot(self.hand);
            }
        }
    }
}
