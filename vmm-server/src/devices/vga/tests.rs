use super::*;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use tessera_screen::{PIECE_BYTES, PIECES, pieces, vbe};

/// Remembers where the video RAM was placed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Desk {
    pub(crate) placed: Arc<Mutex<std::vec::Vec<Option<u32>>>>,
    pub(crate) events: Arc<Mutex<std::collections::VecDeque<Event>>>,
    /// How many pieces of video RAM there is memory for, and those that were made.
    room: Arc<Mutex<usize>>,
    made: Arc<Mutex<std::vec::Vec<usize>>>,
}

impl Surroundings for Desk {
    fn place(&mut self, address: Option<u32>) {
        self.placed.lock().unwrap().push(address);
    }
    fn make(&mut self, video: &mut Memory, piece: usize) {
        let (mut room, mut made) = (self.room.lock().unwrap(), self.made.lock().unwrap());
        if *room > 0 {
            *room -= 1;
            made.push(piece);
            // SAFETY: it is part of what was leaked.
            #[allow(unsafe_code)]
            unsafe {
                video.add(piece);
            }
        }
    }
    fn shows(&self, piece: usize) -> bool {
        self.placed.lock().unwrap().last().is_some_and(Option::is_some) && self.made.lock().unwrap().contains(&piece)
    }
    fn event(&mut self) -> Option<Event> {
        self.events.lock().unwrap().pop_front()
    }
}

fn memory(bytes: usize) -> Memory {
    let words = std::vec![0u64; bytes / 8].leak();
    // SAFETY: leaked, so valid for ever, and the reference is gone.
    #[allow(unsafe_code)]
    unsafe {
        Memory::new(words.as_mut_ptr().cast(), bytes)
    }
}

pub(crate) fn display(desk: &Desk) -> Display {
    display_with(desk, VIDEO_BYTES as usize)
}

/// One with less video RAM, for tests that make many.
pub(crate) fn display_with(desk: &Desk, bytes: usize) -> Display {
    Display {
        video: memory(bytes),
        registers: memory(4096),
        surroundings: Box::new(desk.clone()),
    }
}

fn card() -> (Vga, Desk) {
    let desk = Desk::default();
    (Vga::new(display(&desk), true), desk)
}

/// A card with video RAM that is made in pieces, and memory for so many.
fn card_in_pieces(room: usize) -> (Vga, Desk) {
    let desk = Desk::default();
    *desk.room.lock().unwrap() = room;
    let words = std::vec![0u64; VIDEO_BYTES as usize / 8].leak();
    // SAFETY: as in `memory`.
    #[allow(unsafe_code)]
    let video = unsafe { Memory::in_pieces(words.as_mut_ptr().cast(), VIDEO_BYTES as usize) };
    let display = Display {
        video,
        ..display_with(&desk, 8)
    };
    (Vga::new(display, true), desk)
}

#[test]
fn a_piece_of_video_ram_is_made_when_it_is_touched() {
    const PIECE: u64 = PIECE_BYTES;
    let (mut vga, desk) = card_in_pieces(PIECES);
    let made = || desk.made.lock().unwrap().clone();
    assert_eq!(made(), [0], "text is in the first piece");
    assert_eq!(pieces(&vga.display.registers), 1, "VMX knows");
    // A mode that would be cleared in all pieces: those that are not there are zero.
    for (index, value) in [(vbe::WIDTH, 1920), (vbe::HEIGHT, 1080), (vbe::BITS, 32), (vbe::ENABLE, vbe::ON)] {
        vga.set_extension(index as u16, value);
    }
    assert_eq!(vga.range_read(0xd000_0000 + 3 * PIECE, 8), Some(0));
    assert_eq!(made(), [0], "neither clearing nor reading makes one");
    assert!(vga.touch(0xd000_0000 + PIECE) && vga.touch(0xd000_0000 + 2 * PIECE - 1));
    assert_eq!(made(), [0, 1]);
    // Into the next one, across its border, and through the legacy window.
    assert!(vga.range_write(0xd000_0000 + 2 * PIECE - 4, 8, u64::MAX));
    assert_eq!(made(), [0, 1, 2]);
    assert_eq!(vga.range_read(0xd000_0000 + 2 * PIECE - 8, 8), Some(0xffff_ffff_0000_0000));
    assert_eq!(vga.range_read(0xd000_0000 + 2 * PIECE, 8), Some(0xffff_ffff));
    graphics(&mut vga, 6, 4);
    vga.set_extension(vbe::BANK as u16, ((3 * PIECE) >> 16) as u16);
    vga.window_write(5, 0x77);
    assert_eq!(
        (made(), vga.display.video.byte(3 * PIECE as usize + 5)),
        (std::vec![0, 1, 2, 3], 0x77)
    );
    assert_eq!(pieces(&vga.display.registers), 0xf);
    assert!(
        !vga.touch(0xd000_0000 + VIDEO_BYTES) && !vga.touch(0xcfff_ffff),
        "what is not video RAM"
    );
    vga.reset();
    vga.function.write(1, u32::MAX, 0);
    vga.settle();
    assert!(!vga.touch(0xd000_0000), "nor when it is nowhere");
    assert_eq!(made().len(), PIECES);
}

#[test]
fn without_memory_what_is_drawn_is_lost_and_the_card_goes_on() {
    let (mut vga, desk) = card_in_pieces(1);
    let place = 0xd000_0000 + PIECE_BYTES;
    assert!(!vga.touch(place), "its accesses are emulated");
    assert!(vga.range_write(place, 8, u64::MAX));
    assert_eq!(vga.range_read(place, 8), Some(0));
    *desk.room.lock().unwrap() = 1;
    assert!(vga.touch(place));
    assert!(vga.range_write(place, 8, u64::MAX));
    assert_eq!(vga.range_read(place, 8), Some(u64::MAX));
}

fn graphics(vga: &mut Vga, index: u8, value: u8) {
    vga.write(0x3ce, index);
    vga.write(0x3cf, value);
}

fn sequencer(vga: &mut Vga, index: u8, value: u8) {
    vga.write(0x3c4, index);
    vga.write(0x3c5, value);
}

#[test]
fn a_saved_card_is_shown_and_placed_where_it_was() {
    let (mut one, _) = card();
    for (index, value) in [(vbe::WIDTH, 640), (vbe::HEIGHT, 480), (vbe::BITS, 32), (vbe::ENABLE, vbe::ON)] {
        one.set_extension(index as u16, value);
    }
    one.function.write(4 + VIDEO_BAR, u32::MAX, 0xe000_0000);
    one.settle();
    let (mut two, desk) = card();
    two.restore(&one.save());
    assert_eq!(&Registers::load(&two.display.registers), one.registers());
    assert_eq!(desk.placed.lock().unwrap().last(), Some(&Some(0xe000_0000)));
}

#[test]
fn text_is_characters_and_attributes_in_two_planes() {
    let (mut vga, _) = card();
    for (place, byte) in (0x1_8000..).zip(*b"H\x1fi\x2e") {
        vga.window_write(place, byte);
    }
    assert_eq!(vga.display.video.word(0) & 0xffff, 0x1f48);
    assert_eq!(vga.display.video.word(1) & 0xffff, 0x2e69);
    assert_eq!(vga.window_read(0x1_8003), 0x2e);
    assert_eq!(vga.window_read(0), 0xff, "only B8000 answers");
    assert_ne!(vga.display.video.byte((32 * usize::from(b'A') + 4) * 4 + 2), 0, "there is a font");
}

#[test]
fn planes_have_latches_masks_and_logic() {
    let (mut vga, _) = card();
    // As mode 12h: all planes, no chaining, window at A0000.
    sequencer(&mut vga, 4, 6);
    sequencer(&mut vga, 2, 0xf);
    graphics(&mut vga, 5, 0);
    graphics(&mut vga, 6, 5);
    vga.window_write(7, 0xa5);
    assert_eq!(vga.display.video.word(7), 0xa5a5_a5a5);
    // Write mode 2 with a bit mask: one pixel in colour 6, the rest from the latches.
    graphics(&mut vga, 5, 2);
    graphics(&mut vga, 8, 0x01);
    vga.window_read(7);
    vga.window_write(7, 6);
    assert_eq!(vga.display.video.word(7), 0xa4a5_a5a4);
    // Read mode 1: which pixels are colour 6.
    graphics(&mut vga, 2, 6);
    graphics(&mut vga, 7, 0xf);
    graphics(&mut vga, 5, 8);
    assert_eq!(vga.window_read(7), 0x01);
    // Write mode 1 copies the latches.
    graphics(&mut vga, 5, 1);
    vga.window_write(9, 0);
    assert_eq!(vga.display.video.word(9), 0xa4a5_a5a4);
    // XOR in one plane.
    graphics(&mut vga, 5, 0);
    graphics(&mut vga, 8, 0xff);
    graphics(&mut vga, 3, 3 << 3);
    sequencer(&mut vga, 2, 2);
    vga.window_read(9);
    vga.window_write(9, 0xff);
    assert_eq!(vga.display.video.word(9), 0xa4a5_5aa4);
}

#[test]
fn a_mode_of_the_extensions() {
    let (mut vga, _) = card();
    let mut set = |index: usize, value: u16| {
        vga.extension_write(EXTENSIONS, index as u16);
        vga.extension_write(EXTENSIONS + 1, value);
        vga.extension_read(EXTENSIONS + 1)
    };
    use vbe::*;
    assert_eq!(set(ID, 0xb0c4), 0xb0c4);
    assert_eq!(set(WIDTH, 640), 640);
    assert_eq!(set(HEIGHT, 480), 480);
    assert_eq!(set(BITS, 32), 32);
    assert_eq!(set(ENABLE, ON | 0x40), ON | 0x40);
    assert_eq!(vga.extension(VIRTUAL_WIDTH as u16), 640);
    assert_eq!(vga.extension(VIRTUAL_HEIGHT as u16), 3276);
    assert_eq!(vga.display.video.word(0), 0, "the text is gone");
    vga.settle();
    assert_eq!(&Registers::load(&vga.display.registers), vga.registers());
    assert_eq!(vga.range_read(0xd100_0502, 2), Some(640), "the page shows the same registers");
}

#[test]
fn the_video_ram_is_where_the_guest_places_it() {
    let (mut vga, desk) = card();
    vga.function.write(4, u32::MAX, 0xe000_0000);
    vga.settle();
    vga.function.write(1, u32::MAX, 0);
    vga.settle();
    assert_eq!(*desk.placed.lock().unwrap(), [Some(0xd000_0000), Some(0xe000_0000), None]);
    assert_eq!(vga.range_read(0xe000_0000, 4), None);
}

proptest! {
    #[test]
    fn nothing_that_a_guest_does_breaks_it(
        operations in prop::collection::vec((0u8..9, any::<u32>(), prop::sample::select(&[1u8, 2, 4, 8]), any::<u64>()), 1..300),
    ) {
        let (mut vga, desk) = card_in_pieces(2);
        for (kind, place, width, value) in operations {
            let port = FIRST_PORT + (place % 0x30) as u16;
            match kind {
                0 => vga.write(port, value as u8),
                1 => { vga.read(port); }
                2 => vga.extension_write(EXTENSIONS + (place & 1) as u16, value as u16 % if place & 1 == 0 { 12 } else { u16::MAX }),
                3 => vga.window_write(place % 0x2_0000, value as u8),
                4 => { vga.window_read(place % 0x2_0000); }
                5 => { vga.range_write(0xd000_0000 + u64::from(place % 0x100_1000), width, value); }
                6 => { vga.range_read(0xd000_0000 + u64::from(place % 0x100_1000), width); }
                7 => { vga.touch(0xd000_0000 + u64::from(place % 0x100_1000)); }
                _ => vga.function.write((place % 64) as usize, u32::MAX, value as u32),
            }
            vga.settle();
            prop_assert_eq!(&Registers::load(&vga.display.registers), vga.registers());
            let made = desk.made.lock().unwrap().iter().fold(0, |made, piece| made | 1 << piece);
            prop_assert_eq!(pieces(&vga.display.registers), made);
            prop_assert!(vga.display.video.pieces() == made && made.count_ones() <= 2);
            let [width, height] = [vbe::VIRTUAL_WIDTH, vbe::HEIGHT].map(|index| u64::from(vga.registers().vbe[index]));
            prop_assert!(vga.registers().vbe[vbe::ENABLE] & vbe::ON == 0 || width * height / 2 <= VIDEO_BYTES);
        }
    }
}
