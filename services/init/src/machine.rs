//! What init has from the kernel: memory and devices.

use crate::buddy::{Block, Blocks, Buddy, cut};
use crate::window;
use alloc::string::String;
use alloc::vec::Vec;
use tessera_abi::boot::{INIT_CNODE_BITS, MAX_UNTYPED, slot};
use tessera_abi::object::ObjectKind;
use tessera_abi::{Error, MAX_CPUS, PAGE_SIZE};
use tessera_rt::{CNode, Frame, Untyped, slots, time};

const PAGE: u64 = PAGE_SIZE as u64;
/// Pages of init's heap.
const HEAP_PAGES: u64 = 256;
/// Smaller blocks than of 2^this many pages, 64 KiB, are not zeroed ahead.
const SMALLEST_ZEROED: u32 = 4;
/// The first slot that is init's own to use, before there is a heap to keep account of them.
const FIRST_FREE: u32 = slot::UNTYPED + MAX_UNTYPED as u32;

/// A range of device memory.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Physical address.
    pub base: u64,
    /// Length in bytes.
    pub length: u64,
    /// Its `Untyped`.
    pub untyped: Untyped,
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    /// Free memory.
    memory: Buddy,
    /// TSC when memory was taken or given back last.
    pub changed: u64,
    /// Device memory.
    pub devices: Vec<Device>,
    /// Pages that init took for itself.
    pub own_pages: u64,
    /// Running processors.
    pub cpus: u32,
    /// Kernel command line.
    pub command_line: String,
    /// Virtual processors that run on each processor, to spread them.
    pub vcpus_on: [u32; MAX_CPUS],
}

/// Splits and joins blocks through the kernel.
struct Kernel;

impl Blocks for Kernel {
    fn split(&mut self, slot: u32, pages: u64) -> Option<[u32; 2]> {
        let first = slots::take_range(2).ok()?;
        match Untyped::new(slot).retype(ObjectKind::Untyped, pages, CNode::OWN, first, 2) {
            Ok(()) => Some([first, first + 1]),
            Err(_) => {
                slots::free_range(first, 2);
                None
            }
        }
    }

    fn merge(&mut self, _slot: u32, halves: [u32; 2]) {
        for half in halves {
            slots::free(half);
        }
    }
}

/// Pages of a free block that are known to be zero.
fn zeroed(slot: u32) -> u64 {
    Untyped::new(slot).info().map_or(0, |info| info.zeroed / PAGE)
}

impl Machine {
    /// Takes over what the kernel gave. Makes the heap first, since everything else needs it.
    ///
    /// # Errors
    /// The kernel's; `NoMemory` when no memory is large enough for the heap.
    pub fn take_over() -> Result<Self, Error> {
        let boot = window::boot_info();
        let given = &boot.untyped[..(boot.untyped_count as usize).min(MAX_UNTYPED)];
        let heap = given
            .iter()
            .position(|part| part.device == 0 && part.pages > 2 * HEAP_PAGES)
            .ok_or(Error::NoMemory)?;
        Untyped::new(slot::UNTYPED + heap as u32).retype(ObjectKind::Frame, HEAP_PAGES, CNode::OWN, FIRST_FREE, 1)?;
        window::claim_heap(Frame::new(FIRST_FREE), HEAP_PAGES)?;
        slots::init(FIRST_FREE + 1, 1 << INIT_CNODE_BITS);

        let line = &boot.command_line;
        let end = line.iter().position(|byte| *byte == 0).unwrap_or(line.len());
        let mut machine = Self {
            memory: Buddy::new(),
            changed: 0,
            devices: Vec::new(),
            own_pages: HEAP_PAGES,
            cpus: boot.cpu_count.clamp(1, MAX_CPUS as u32),
            command_line: String::from_utf8_lossy(&line[..end]).into_owned(),
            vcpus_on: [0; MAX_CPUS],
        };
        for (index, part) in given.iter().enumerate() {
            let untyped = Untyped::new(slot::UNTYPED + index as u32);
            if part.device != 0 {
                machine.devices.push(Device {
                    base: part.base,
                    length: part.pages * PAGE,
                    untyped,
                });
                continue;
            }
            let taken = if index == heap { HEAP_PAGES } else { 0 };
            for (_, order) in cut(part.base / PAGE + taken, part.pages - taken) {
                let slot = slots::take()?;
                untyped.retype(ObjectKind::Untyped, 1 << order, CNode::OWN, slot, 1)?;
                machine.memory.add(slot, order);
            }
        }
        Ok(machine)
    }

    /// Free pages, and those of the largest free block.
    #[must_use]
    pub fn free(&self) -> (u64, u64) {
        (self.memory.free_pages(), self.memory.largest_free())
    }

    /// Slots of free blocks that are not known to be zero, the smaller ones first.
    pub fn not_zeroed(&self) -> impl Iterator<Item = u32> {
        let blocks = self.memory.free_blocks(SMALLEST_ZEROED);
        blocks.filter(|(slot, pages)| zeroed(*slot) < *pages).map(|(slot, _)| slot)
    }

    /// Pages of free blocks that are known to be zero.
    #[must_use]
    pub fn zeroed(&self) -> u64 {
        self.memory.free_blocks(SMALLEST_ZEROED).map(|(slot, _)| zeroed(slot)).sum()
    }

    /// Takes a block of 2^`order` pages.
    pub fn take(&mut self, order: u32) -> Option<Block> {
        self.changed = time::now();
        self.memory.take(&mut Kernel, order)
    }

    /// Takes blocks of together `pages` pages, none smaller than 2^`smallest` nor larger than 2^`largest` pages.
    pub fn take_pages(&mut self, pages: u64, smallest: u32, largest: u32) -> Option<Vec<Block>> {
        self.changed = time::now();
        let blocks = self.memory.take_pages(&mut Kernel, pages, largest)?;
        if blocks.iter().any(|block| block.order < smallest) {
            self.memory.free_all(&mut Kernel, blocks);
            return None;
        }
        Some(blocks)
    }

    /// Takes back blocks with everything that was made of them.
    pub fn reclaim(&mut self, blocks: Vec<Block>) {
        self.changed = time::now();
        for block in &blocks {
            // It cannot fail: the slot holds the block's Untyped as long as the block is in use.
            let _ = CNode::OWN.revoke(block.slot);
        }
        self.memory.free_all(&mut Kernel, blocks);
    }

    /// Device memory that holds the range, with the offset in it.
    #[must_use]
    pub fn device(&self, address: u64, length: u64) -> Option<(Untyped, u64)> {
        let end = address.checked_add(length)?;
        let device = self
            .devices
            .iter()
            .find(|device| address >= device.base && end <= device.base + device.length)?;
        Some((device.untyped, address - device.base))
    }

    /// The processor of a server's first thread: the one that its declaration wants, else they are spread by their places.
    #[must_use]
    pub fn cpu_for(&self, wanted: Option<u32>, place: u32) -> u32 {
        wanted.filter(|cpu| *cpu < self.cpus).unwrap_or(place % self.cpus)
    }

    /// The processor with the fewest virtual processors, the last of several: the first ones have the servers.
    pub fn place_vcpu(&mut self) -> u32 {
        let cpus = &mut self.vcpus_on[..self.cpus as usize];
        let place = (0..cpus.len()).rev().min_by_key(|cpu| cpus[*cpu]).unwrap_or(0);
        cpus[place] += 1;
        place as u32
    }
}
