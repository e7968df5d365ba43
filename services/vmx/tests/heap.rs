//! How much memory the views of one screen take at most: the heap that the manifest gives a VMX has to have it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tessera_screen::{Event, Memory, Registers, VIDEO_BYTES, vbe};
use tessera_vmx::deflate::Compressor;
use tessera_vmx::picture::Picture;
use tessera_vmx::png::Png;
use tessera_vmx::rfb::Input;
use tessera_vmx::views::{MOST, Views};

/// What is there now, and the most that ever was.
struct Counted(AtomicUsize, AtomicUsize);

// SAFETY: the system's, with its sizes added up.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.1.fetch_max(self.0.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        self.0.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static HEAP: Counted = Counted(AtomicUsize::new(0), AtomicUsize::new(0));

struct Nobody;
impl Input for Nobody {
    fn send(&mut self, _: Event) {}
    fn type_text(&mut self, _: &str) {}
}

/// Bytes of the heap that `system.toml` gives, without what the rest of a VMX and the allocator need.
const ROOM: usize = (1280 - 256) << 10;

#[test]
fn the_most_views_of_the_largest_picture_fit() {
    let words = vec![0u64; VIDEO_BYTES as usize / 8].leak();
    let mut state = 1u64;
    for word in words.iter_mut() {
        // Nothing that can be compressed.
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        *word = state ^ state >> 32;
    }
    // SAFETY: leaked, and not used otherwise.
    let video = unsafe { Memory::new(words.as_mut_ptr().cast(), VIDEO_BYTES as usize) };
    let mut registers = Registers::default();
    for (index, value) in [
        (vbe::ENABLE, vbe::ON),
        (vbe::WIDTH, vbe::MOST_WIDTH),
        (vbe::HEIGHT, vbe::MOST_HEIGHT),
        (vbe::BITS, 16),
        (vbe::VIRTUAL_WIDTH, vbe::MOST_WIDTH),
    ] {
        registers.vbe[index] = value;
    }
    let picture = Picture::of(&registers);
    let before = HEAP.0.load(Relaxed);
    HEAP.1.store(before, Relaxed);
    let compressor = Compressor::default();
    let mut views = Views::new(1, compressor.clone());
    let opened: Vec<u64> = (0..MOST)
        .map(|number| {
            let png = (number == 0).then(|| Png::new(picture.clone(), 8, &compressor));
            views.open(png, 0, &mut Nobody).unwrap()
        })
        .collect();
    for (place, view) in opened.iter().enumerate().skip(1) {
        let mut said = b"RFB 003.008\n\x01\x01".to_vec();
        // Half of them speak ZRLE, the others get pixels as they are.
        said.extend([2, 0, 0, 1, 0, 0, 0, if place % 2 == 0 { 16 } else { 0 }]);
        // As much text as is taken at once, and a part of a message.
        said.extend([6, 0, 0, 0, 0, 0, 16, 0]);
        said.extend([b'x'; 4000]);
        views.write(*view, &said, &picture, &mut Nobody).unwrap();
        views.write(*view, &[b'x'; 96], &picture, &mut Nobody).unwrap();
    }
    let (mut from, mut clock) = ([0; MOST], 0);
    let request = [3, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
    for _ in 0..3000 {
        for (view, from) in opened.iter().zip(&mut from) {
            clock += 100;
            let (data, _) = views.read(*view, *from, 3072, &picture, &video, &|| clock).unwrap();
            *from += data.len() as u64;
            views.write(*view, &request, &picture, &mut Nobody).unwrap();
        }
    }
    let most = HEAP.1.load(Relaxed) - before;
    println!("the most was {} KiB", most >> 10);
    assert!(from.iter().all(|bytes| *bytes > 100_000), "{from:?}");
    assert!(most < ROOM, "{} KiB", most >> 10);
}
