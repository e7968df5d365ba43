//! Which blocks are in use.
//!
//! A group's bitmap is in memory twice: `used` as it goes onto the device with the next commit, and `busy`, which also marks blocks that may not be
//! given out yet: those freed since the last commit (a power cut would bring their owner back), and those given to a write that is under way.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::bytes::{checksum, put, u16_at, u32_at};
use crate::layout::{BLOCK, GROUP_BLOCKS, ZONE_BLOCKS, ZONE_GROUPS, reserved};
use crate::pointer::Block;
use crate::superblock::groups;

const WORDS: usize = BLOCK / 8;

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub start: u64,
    /// How many.
    pub count: u64,
}

/// What a zone's index says of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The bitmap's checksum.
    pub crc: u32,
    /// Free blocks.
    pub free: u16,
    /// Which of the two bitmaps; none where it is as it was made.
    pub slot: Option<u8>,
}

impl Descriptor {
    /// Reads the 8 bytes.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let slot = match bytes[6] {
            slot @ 0..=1 => Some(slot),
            0xff => None,
            _ => return None,
        };
        let free = u16_at(bytes, 4);
        (u64::from(free) <= GROUP_BLOCKS).then_some(Self {
            crc: u32_at(bytes, 0),
            free,
            slot,
        })
    }

    /// Writes the 8 bytes.
    pub fn write(&self, bytes: &mut [u8]) {
        put(bytes, 0, &self.crc.to_le_bytes());
        put(bytes, 4, &self.free.to_le_bytes());
        bytes[6] = self.slot.map_or(0xff, |slot| slot);
    }
}

struct Group {
    used: Box<[u64; WORDS]>,
    busy: Box<[u64; WORDS]>,
    dirty: bool,
    /// Runs given out whose write is under way.
    pins: u32,
    touched: bool,
}

struct Freed {
    epoch: u64,
    runs: Vec<Run>,
}

/// The space of a datastore.
pub struct Space {
    total: u64,
    log_blocks: u32,
    descriptors: Vec<Descriptor>,
    /// Blocks per group that can be given out.
    available: Vec<u16>,
    available_total: u64,
    free_total: u64,
    loaded: BTreeMap<u32, Group>,
    limit: usize,
    /// Freed since the last commit.
    freed: Vec<Run>,
    /// Freed by commits whose older requests are still under way.
    waiting: VecDeque<Freed>,
    waiting_blocks: u64,
    node_hint: u64,
}

/// Bits `range` of a word.
const fn mask(range: &Range<u32>) -> u64 {
    if range.end - range.start == 64 {
        u64::MAX
    } else {
        ((1 << (range.end - range.start)) - 1) << range.start
    }
}

/// Sets or clears a range of bits; gives how many changed.
fn fill(words: &mut [u64; WORDS], range: Range<u64>, set: bool) -> u64 {
    let mut changed = 0;
    let mut at = range.start;
    while at < range.end {
        let bit = (at % 64) as u32;
        let end = (64_u64).min(u64::from(bit) + range.end - at) as u32;
        let bits = mask(&(bit..end));
        let word = &mut words[(at / 64) as usize];
        let new = if set { *word | bits } else { *word & !bits };
        changed += u64::from((new ^ *word).count_ones());
        *word = new;
        at += u64::from(end - bit);
    }
    changed
}

/// The first bit of a range that is (not) set, or the range's end.
fn next(words: &[u64; WORDS], range: Range<u64>, set: bool) -> u64 {
    let mut at = range.start;
    while at < range.end {
        let word = words[(at / 64) as usize];
        let word = if set { word } else { !word } >> (at % 64);
        if word != 0 {
            return (at + u64::from(word.trailing_zeros())).min(range.end);
        }
        at = (at / 64 + 1) * 64;
    }
    range.end
}

impl Space {
    /// All of a datastore that was never used.
    pub fn new(total: u64, log_blocks: u32, limit: usize) -> Self {
        let mut space = Self {
            total,
            log_blocks,
            descriptors: Vec::new(),
            available: Vec::new(),
            available_total: 0,
            free_total: 0,
            loaded: BTreeMap::new(),
            limit,
            freed: Vec::new(),
            waiting: VecDeque::new(),
            waiting_blocks: 0,
            node_hint: 0,
        };
        space.extend();
        space
    }

    /// Adds what groups are missing, as never used.
    fn extend(&mut self) {
        for number in self.descriptors.len() as u64..groups(self.total) {
            let free = self.initial_free(number);
            self.descriptors.push(Descriptor { crc: 0, free, slot: None });
            self.available.push(free);
            self.free_total += u64::from(free);
            self.available_total += u64::from(free);
        }
    }

    /// What of a group can hold anything, in blocks from its start.
    fn allocatable(&self, group: u64) -> Range<u64> {
        let start = group * GROUP_BLOCKS;
        let from = if group.is_multiple_of(ZONE_GROUPS) {
            reserved(start / ZONE_BLOCKS, self.log_blocks).min(GROUP_BLOCKS)
        } else {
            0
        };
        from..self.total.saturating_sub(start).min(GROUP_BLOCKS).max(from)
    }

    fn initial_free(&self, group: u64) -> u16 {
        let range = self.allocatable(group);
        (range.end - range.start) as u16
    }

    /// Takes over what a zone's index says.
    ///
    /// # Errors
    /// `Err(())` where it makes no sense.
    pub fn set_index(&mut self, zone: u64, index: &Block) -> Result<(), ()> {
        for (place, bytes) in index.as_chunks::<8>().0.iter().enumerate() {
            let group = zone * ZONE_GROUPS + place as u64;
            let Some(old) = self.descriptors.get(group as usize).copied() else {
                break;
            };
            let mut new = Descriptor::read(bytes).ok_or(())?;
            if new.slot.is_none() {
                new = old;
            }
            if new.free > self.initial_free(group) {
                return Err(());
            }
            self.free_total = self.free_total - u64::from(old.free) + u64::from(new.free);
            self.available_total = self.available_total - u64::from(old.free) + u64::from(new.free);
            self.available[group as usize] = new.free;
            self.descriptors[group as usize] = new;
        }
        Ok(())
    }

    /// A zone's index.
    pub fn index(&self, zone: u64) -> Block {
        let mut block = [0; BLOCK];
        for (place, bytes) in block.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            match self.descriptors.get((zone * ZONE_GROUPS) as usize + place) {
                Some(descriptor) => descriptor.write(bytes),
                None => bytes[6] = 0xff,
            }
        }
        block
    }

    /// What is known of a group.
    pub fn descriptor(&self, group: u64) -> Option<Descriptor> {
        self.descriptors.get(group as usize).copied()
    }

    /// Blocks of the datastore.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Blocks that are in use for nothing.
    pub fn free(&self) -> u64 {
        self.free_total
    }

    /// Blocks that can be given out now.
    pub fn available(&self) -> u64 {
        self.available_total
    }

    /// Blocks that were freed and can be given out after a commit.
    pub fn waiting(&self) -> u64 {
        self.waiting_blocks
    }

    /// How many runs wait for a commit.
    pub fn freed_runs(&self) -> usize {
        self.freed.len()
    }

    /// Runs that were freed since the last commit.
    pub fn freed(&self) -> &[Run] {
        &self.freed
    }

    /// The groups that the next commit has to change for what was freed.
    pub fn freed_groups(&self) -> impl Iterator<Item = u32> + '_ {
        self.freed.iter().map(|run| (run.start / GROUP_BLOCKS) as u32)
    }

    /// Whether a group's bitmap is in memory.
    pub fn is_loaded(&self, group: u32) -> bool {
        self.loaded.contains_key(&group)
    }

    /// Puts a group's bitmap in memory; none for one that was never used.
    ///
    /// # Errors
    /// `Err(())` where it contradicts the index or gives away reserved blocks.
    pub fn load(&mut self, group: u32, bitmap: Option<&Block>) -> Result<(), ()> {
        if self.is_loaded(group) {
            return Ok(());
        }
        let mut used = Box::new([u64::MAX; WORDS]);
        match bitmap {
            Some(bitmap) => {
                for (word, bytes) in used.iter_mut().zip(bitmap.as_chunks::<8>().0) {
                    *word = u64::from_le_bytes(*bytes);
                }
                let range = self.allocatable(u64::from(group));
                let clear: u64 = used.iter().map(|word| u64::from(word.count_zeros())).sum();
                let mut probe = used.clone();
                let outside = fill(&mut probe, 0..range.start, true) + fill(&mut probe, range.end..GROUP_BLOCKS, true);
                let known = self.descriptors.get(group as usize).ok_or(())?;
                if outside != 0 || clear != u64::from(known.free) {
                    return Err(());
                }
            }
            None => {
                fill(&mut used, self.allocatable(u64::from(group)), false);
            }
        }
        let mut busy = used.clone();
        for run in self.waiting.iter().flat_map(|freed| &freed.runs).chain(&self.freed) {
            if run.start / GROUP_BLOCKS == u64::from(group) {
                let at = run.start % GROUP_BLOCKS;
                fill(&mut busy, at..at + run.count, true);
            }
        }
        self.loaded.insert(
            group,
            Group {
                used,
                busy,
                dirty: false,
                pins: 0,
                touched: true,
            },
        );
        Ok(())
    }

    /// Drops bitmaps that are not needed now until the limit holds.
    pub fn trim(&mut self) {
        for _ in 0..2 {
            let mut over = self.loaded.len().saturating_sub(self.limit);
            self.loaded.retain(|_, group| {
                let stays = over == 0 || group.dirty || group.pins > 0 || core::mem::take(&mut group.touched);
                over -= usize::from(!stays);
                stays
            });
        }
    }

    /// Gives out up to `want` blocks in one run, near `hint` if possible, for a write that is under way: `publish` or `abandon` follows.
    ///
    /// # Errors
    /// `Err(Some(group))` where that group's bitmap must be loaded first, `Err(None)` where nothing is left.
    pub fn allocate(&mut self, hint: u64, want: u64) -> Result<Run, Option<u32>> {
        let count = self.available.len() as u64;
        let wanted = want.min(GROUP_BLOCKS);
        let first = (hint / GROUP_BLOCKS).min(count.saturating_sub(1));
        let find = |least: u64| {
            (0..count)
                .map(|step| (first + step) % count)
                .find(|&group| u64::from(self.available[group as usize]) >= least.max(1))
        };
        // A group that has room for the whole run is worth going to; else any.
        let number = find(wanted).or_else(|| find(1)).ok_or(None)?;
        let group = self.loaded.get_mut(&(number as u32)).ok_or(Some(number as u32))?;
        group.touched = true;
        let from = if number == hint / GROUP_BLOCKS { hint % GROUP_BLOCKS } else { 0 };
        let mut best = 0..0;
        for range in [from..GROUP_BLOCKS, 0..from] {
            let mut at = range.start;
            while at < range.end && best.end - best.start < wanted {
                let start = next(&group.busy, at..range.end, false);
                // No further than what is wanted: free space behind it may be all of the group.
                let end = next(&group.busy, start..(start + wanted).min(GROUP_BLOCKS), true);
                if end - start > best.end - best.start {
                    best = start..end;
                }
                at = end + 1;
            }
            if best.end - best.start == wanted {
                break;
            }
        }
        let taken = best.end - best.start;
        if taken == 0 {
            // The count promised something that is not there: take the bitmap's word.
            self.available_total -= u64::from(self.available[number as usize]);
            self.available[number as usize] = 0;
            return self.allocate(hint, want);
        }
        group.pins += 1;
        let run = Run {
            start: number * GROUP_BLOCKS + best.start,
            count: taken,
        };
        fill(&mut group.busy, best, true);
        self.available[number as usize] -= taken as u16;
        self.available_total -= taken;
        Ok(run)
    }

    /// The write of a run came to its end and something points to it.
    pub fn publish(&mut self, run: Run) {
        let number = (run.start / GROUP_BLOCKS) as u32;
        if let Some(group) = self.loaded.get_mut(&number) {
            let at = run.start % GROUP_BLOCKS;
            let changed = fill(&mut group.used, at..at + run.count, true);
            group.dirty = true;
            group.pins = group.pins.saturating_sub(1);
            self.descriptors[number as usize].free -= changed as u16;
            self.free_total -= changed;
        }
    }

    /// Nothing will point to a run. Where its blocks may be `bad`, they are not given out again until the next mount.
    pub fn abandon(&mut self, run: Run, bad: bool) {
        let number = (run.start / GROUP_BLOCKS) as u32;
        if let Some(group) = self.loaded.get_mut(&number) {
            if bad {
                // The pin stays, or a new reading of the bitmap would forget.
                return;
            }
            let at = run.start % GROUP_BLOCKS;
            fill(&mut group.busy, at..at + run.count, false);
            group.pins = group.pins.saturating_sub(1);
            self.available[number as usize] += run.count as u16;
            self.available_total += run.count;
        }
    }

    /// Marks blocks as used that the log says are, while nothing is under way.
    ///
    /// # Errors
    /// `Err(Some(group))` where that group's bitmap must be loaded first, `Err(None)` where they are in use already.
    pub fn claim(&mut self, run: Run) -> Result<(), Option<u32>> {
        let number = (run.start / GROUP_BLOCKS) as u32;
        let at = run.start % GROUP_BLOCKS;
        if at + run.count > GROUP_BLOCKS {
            return Err(None);
        }
        let group = self.loaded.get_mut(&number).ok_or(Some(number))?;
        if next(&group.busy, at..at + run.count, true) < at + run.count {
            return Err(None);
        }
        fill(&mut group.busy, at..at + run.count, true);
        group.pins += 1;
        self.available[number as usize] -= run.count as u16;
        self.available_total -= run.count;
        self.publish(run);
        Ok(())
    }

    /// Nothing points to a run any more. It is given out again after the next commit.
    pub fn free_run(&mut self, mut run: Run) {
        self.waiting_blocks += run.count;
        while run.count > 0 {
            let part = run.count.min(GROUP_BLOCKS - run.start % GROUP_BLOCKS);
            match self.freed.last_mut() {
                Some(last) if last.start + last.count == run.start && !run.start.is_multiple_of(GROUP_BLOCKS) => last.count += part,
                _ => self.freed.push(Run {
                    start: run.start,
                    count: part,
                }),
            }
            run.start += part;
            run.count -= part;
        }
    }

    /// Blocks that can be given out from bitmaps in memory.
    pub fn available_loaded(&self) -> u64 {
        self.loaded.keys().map(|&group| u64::from(self.available[group as usize])).sum()
    }

    /// A group with blocks to give out whose bitmap is not in memory.
    pub fn next_to_load(&self) -> Option<u32> {
        (0..self.available.len() as u32)
            .filter(|group| !self.is_loaded(*group) && self.available[*group as usize] > 0)
            .max_by_key(|&group| self.available[group as usize])
    }

    /// A block for a node, from a bitmap in memory.
    pub fn allocate_node(&mut self) -> Option<u64> {
        let hint = self.node_hint;
        let group = match self.loaded.get(&((hint / GROUP_BLOCKS) as u32)) {
            Some(_) if self.available[(hint / GROUP_BLOCKS) as usize] > 0 => hint,
            _ => u64::from(*self.loaded.keys().find(|&&group| self.available[group as usize] > 0)?) * GROUP_BLOCKS,
        };
        let run = self.allocate(group, 1).ok()?;
        self.publish(run);
        self.node_hint = run.start + 1;
        Some(run.start)
    }

    /// The moment of a commit: what was freed goes into the bitmaps. Gives the bitmaps to be written with their groups; their descriptors change
    /// to the slots that they go to. All of [`Space::freed_groups`] are in memory.
    pub fn commit(&mut self, epoch: u64) -> Vec<(u64, Block)> {
        let runs = core::mem::take(&mut self.freed);
        for run in &runs {
            let number = (run.start / GROUP_BLOCKS) as u32;
            if let Some(group) = self.loaded.get_mut(&number) {
                let at = run.start % GROUP_BLOCKS;
                let changed = fill(&mut group.used, at..at + run.count, false);
                group.dirty = true;
                self.descriptors[number as usize].free += changed as u16;
                self.free_total += changed;
            }
        }
        if !runs.is_empty() {
            self.waiting.push_back(Freed { epoch, runs });
        }
        let mut bitmaps = Vec::new();
        for (&number, group) in &mut self.loaded {
            if !core::mem::take(&mut group.dirty) {
                continue;
            }
            let mut block = [0; BLOCK];
            for (bytes, word) in block.as_chunks_mut::<8>().0.iter_mut().zip(group.used.iter()) {
                *bytes = word.to_le_bytes();
            }
            let descriptor = &mut self.descriptors[number as usize];
            descriptor.crc = checksum(&block);
            descriptor.slot = Some(descriptor.slot.map_or(0, |slot| 1 - slot));
            bitmaps.push((u64::from(number), block));
        }
        bitmaps
    }

    /// The oldest runs that wait, when no request that began before they were freed is under way any more. Their commit must be on the device.
    pub fn releasable(&self, ended: impl Fn(u64) -> bool) -> Option<&[Run]> {
        self.waiting.front().filter(|freed| ended(freed.epoch)).map(|freed| &freed.runs[..])
    }

    /// The runs that [`Space::releasable`] gave can be given out again.
    pub fn release(&mut self) {
        for run in self.waiting.pop_front().into_iter().flat_map(|freed| freed.runs) {
            let number = (run.start / GROUP_BLOCKS) as u32;
            if let Some(group) = self.loaded.get_mut(&number) {
                let at = run.start % GROUP_BLOCKS;
                fill(&mut group.busy, at..at + run.count, false);
            }
            self.waiting_blocks -= run.count;
            self.available[number as usize] += run.count as u16;
            self.available_total += run.count;
        }
    }

    /// Whether a block is marked as used, where its bitmap is in memory.
    pub fn is_used(&self, block: u64) -> Option<bool> {
        let group = self.loaded.get(&((block / GROUP_BLOCKS) as u32))?;
        let at = block % GROUP_BLOCKS;
        Some(group.used[(at / 64) as usize] >> (at % 64) & 1 != 0)
    }

    /// Marks as used exactly the blocks that `is_used` says, in a group whose bitmap is in memory or was unreadable (repair).
    pub fn rebuild(&mut self, number: u32, is_used: impl Fn(u64) -> bool) {
        let range = self.allocatable(u64::from(number));
        let mut used = Box::new([u64::MAX; WORDS]);
        let start = u64::from(number) * GROUP_BLOCKS;
        let mut free = 0_u64;
        for at in range {
            if !is_used(start + at) {
                fill(&mut used, at..at + 1, false);
                free += 1;
            }
        }
        let descriptor = &mut self.descriptors[number as usize];
        self.free_total = self.free_total - u64::from(descriptor.free) + free;
        self.available_total = self.available_total - u64::from(self.available[number as usize]) + free;
        descriptor.free = free as u16;
        self.available[number as usize] = free as u16;
        let busy = used.clone();
        self.loaded.insert(
            number,
            Group {
                used,
                busy,
                dirty: true,
                pins: 0,
                touched: true,
            },
        );
    }

    /// The last block in use, from descriptors and bitmaps in memory; `Err` names a group that must be loaded to know.
    pub fn last_used(&self) -> Result<u64, u32> {
        for number in (0..self.descriptors.len() as u64).rev() {
            let initial = self.initial_free(number);
            if self.descriptors[number as usize].free == initial && self.available[number as usize] == initial {
                if number == 0 { break } else { continue }
            }
            let group = self.loaded.get(&(number as u32)).ok_or(number as u32)?;
            let range = self.allocatable(number);
            let last = (range.start..range.end)
                .rev()
                .find(|at| group.busy[(at / 64) as usize] >> (at % 64) & 1 != 0);
            if let Some(last) = last {
                return Ok(number * GROUP_BLOCKS + last);
            }
        }
        Ok(reserved(0, self.log_blocks) - 1)
    }

    /// Changes the size. Growing needs the group that was the last in memory, unless it was never used; shrinking, that nothing is in use behind the
    /// new end, and the group that becomes the last in memory as well.
    pub fn resize(&mut self, total: u64) {
        let old = self.total;
        // The zone's index is written anew in any case: it may know of groups that come or go.
        if let Some(edge) = self.loaded.get_mut(&(((old.min(total) - 1) / GROUP_BLOCKS) as u32)) {
            edge.dirty = true;
        }
        if total > old {
            self.total = total;
            self.reshape((old - 1) / GROUP_BLOCKS, old, total, false);
            self.extend();
        } else if total < old {
            while self.descriptors.len() as u64 > groups(total) {
                let number = self.descriptors.len() - 1;
                self.free_total -= u64::from(self.descriptors[number].free);
                self.available_total -= u64::from(self.available[number]);
                self.descriptors.pop();
                self.available.pop();
                self.loaded.remove(&(number as u32));
            }
            let end = old.min(groups(total) * GROUP_BLOCKS);
            self.total = total;
            self.reshape((total - 1) / GROUP_BLOCKS, total, end, true);
        }
    }

    /// Marks blocks of one group, from `from` to `to` or the group's end, as being behind the end (`used`) or not.
    fn reshape(&mut self, number: u64, from: u64, to: u64, used: bool) {
        let to = to.min((number + 1) * GROUP_BLOCKS);
        let count = to.saturating_sub(from);
        if count == 0 {
            return;
        }
        if let Some(group) = self.loaded.get_mut(&(number as u32)) {
            let range = from % GROUP_BLOCKS..from % GROUP_BLOCKS + count;
            fill(&mut group.used, range.clone(), used);
            fill(&mut group.busy, range, used);
            group.dirty = true;
        }
        let (free, available) = (&mut self.descriptors[number as usize].free, &mut self.available[number as usize]);
        if used {
            *free -= count as u16;
            *available -= count as u16;
            self.free_total -= count;
            self.available_total -= count;
        } else {
            *free += count as u16;
            *available += count as u16;
            self.free_total += count;
            self.available_total += count;
        }
    }

    /// Every group.
    pub fn group_count(&self) -> u32 {
        self.descriptors.len() as u32
    }
}

/// Bits of one memory word per group, for whoever needs a vector of flags over all blocks.
pub fn bitset(blocks: u64) -> Vec<u64> {
    vec![0; blocks.div_ceil(64) as usize]
}
