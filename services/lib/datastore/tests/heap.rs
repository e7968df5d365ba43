//! What a storage server's heap must hold: the most objects that there is memory for, mounted, listed and changed. Counted by an allocator that rounds as a small one would.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use tessera_block::{MemoryDevice, block_on};
use tessera_datastore::{Error, FormatOptions, Memory, MountOptions, Store};

/// Heap of the storage server in the manifest, and its cache for each datastore.
const HEAP: usize = 16 << 20;
const CACHE: usize = 1 << 20;

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// With eight bytes for the allocator, and in multiples of 16.
const fn rounded(layout: &Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16)
}

// SAFETY: all is done by the system's allocator; this only counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(rounded(&layout), Ordering::Relaxed) + rounded(&layout);
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        NOW.fetch_sub(rounded(&layout), Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that are taken while something is done, beyond those that were taken before.
fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = NOW.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let done = work();
    (done, PEAK.load(Ordering::Relaxed) - before)
}

fn mount(device: MemoryDevice) -> Result<Store<MemoryDevice>, Error> {
    let options = MountOptions {
        cache: CACHE,
        memory: Memory::of_heap(HEAP as u64),
        ..MountOptions::default()
    };
    block_on(Store::mount(device, options))
}

/// Makes files with names of that length until there is no room; their number, and what a server needs for them.
fn most(length: usize) -> (usize, usize) {
    let options = FormatOptions {
        memory: Memory::of_heap(HEAP as u64),
        ..FormatOptions::default()
    };
    let store = block_on(Store::format(MemoryDevice::new(4096, (1 << 30) / 4096), &options)).unwrap();
    let mut count = 0;
    while store.create_file(&format!("{count:0length$}"), 1) != Err(Error::TooMany) {
        count += 1;
        if count % 64 == 0 {
            block_on(store.flush()).unwrap();
        }
    }
    block_on(store.sync()).unwrap();
    let device = store.into_device();
    let ((), peak) = peak(|| {
        let store = mount(device).unwrap();
        for part in 0..4 {
            assert_eq!(store.list_part("", part * 100, 100).unwrap().len(), 100);
        }
        assert_eq!(store.create_file(&"x".repeat(length), 1), Err(Error::TooMany));
        block_on(store.remove(&format!("{:0length$}", 0))).unwrap();
        block_on(store.sync()).unwrap();
    });
    (count, peak)
}

/// One test alone, for others in this process would be counted.
#[test]
fn a_storage_server_has_heap_for_what_it_lets_be_made() {
    for (length, least) in [(6, 16_000), (32, 15_000), (255, 8_000)] {
        let (count, peak) = most(length);
        println!("{count} files with names of {length} bytes: {peak} bytes");
        assert!(count >= least, "only {count} files with names of {length} bytes");
        // A quarter stays for requests, guests, and other datastores' caches.
        assert!(peak <= HEAP / 4 * 3, "{count} files with names of {length} bytes need {peak} bytes");
    }
}
