use super::*;
use proptest::prelude::*;

/// Memory for tests, leaked.
pub(crate) fn memory(bytes: usize) -> Memory {
    let words = std::vec![0u64; bytes / 8].leak();
    // SAFETY: leaked, so valid for ever, and the reference is gone.
    unsafe { Memory::new(words.as_mut_ptr().cast(), bytes) }
}

fn set(registers: &mut Registers, values: &[(usize, u16)]) {
    for (index, value) in values {
        registers.vbe[*index] = *value;
    }
}

/// Registers of 80 by 25 characters with a palette of greys.
pub(crate) fn text_registers() -> Registers {
    let mut registers = Registers {
        lit: true,
        ..Registers::default()
    };
    (registers.crtc[1], registers.crtc[9], registers.crtc[0x13]) = (79, 0x4f, 40);
    (registers.crtc[0x12], registers.crtc[7], registers.crtc[0x18]) = (0x8f, 0x12, 0xff);
    (registers.crtc[0x0a], registers.crtc[0x0b], registers.crtc[0x0f]) = (13, 14, 2);
    for index in 0..16u8 {
        registers.attribute[usize::from(index)] = index;
        registers.dac[usize::from(index) * 3..][..3].fill(index * 4);
    }
    registers
}

#[test]
fn text_has_a_font_colours_and_a_cursor() {
    let video = memory(1 << 20);
    let registers = text_registers();
    video.set_word(0, 0x1741);
    video.set_word(1, 0x1742);
    video.set_byte((0x41 * 32 + 3) * 4 + 2, 0b1000_0001);
    let picture = Picture::of(&registers);
    assert_eq!((picture.size(), picture.text_size()), ((720, 400), Some((80, 25))));
    let mut line = [0; 27];
    picture.draw(&video, 0, 3, 27, &mut line);
    let (back, front) = (0x10_1010, 0x71_7171);
    assert_eq!(line[..10], [front, back, back, back, back, back, back, front, back, back]);
    picture.draw(&video, 18, 13, 9, &mut line[..9]);
    assert!(line[..9].iter().all(|pixel| *pixel == line[0]), "the cursor is a bar");
    assert_eq!(picture.text_row(&video, 0).as_deref(), Some("AB"));
    assert_eq!(picture.text_row(&video, 25), None);
}

#[test]
fn a_frame_buffer_is_shown_as_it_is() {
    let video = memory(1 << 20);
    let mut registers = Registers::default();
    set(
        &mut registers,
        &[
            (vbe::ENABLE, 1),
            (vbe::WIDTH, 64),
            (vbe::HEIGHT, 48),
            (vbe::BITS, 32),
            (vbe::VIRTUAL_WIDTH, 72),
        ],
    );
    video.set_word(72 * 2 + 5, 0xff12_3456);
    let picture = Picture::of(&registers);
    let mut pixels = [9; 8];
    picture.draw(&video, 4, 2, 4, &mut pixels);
    assert_eq!(pixels, [0, 0x12_3456, 0, 0, 0, 0, 0, 0]);
    picture.draw(&video, 62, 47, 4, &mut pixels);
    assert_eq!(pixels[2..], [0; 6], "black outside");
    registers.vbe[vbe::BITS] = 16;
    video.set_byte(0, 0xe0);
    video.set_byte(1, 0xff);
    Picture::of(&registers).draw(&video, 0, 0, 1, &mut pixels[..1]);
    assert_eq!(pixels[0], 0xff_ff00);
}

proptest! {
    #[test]
    fn text_is_the_same_drawn_at_once_and_line_by_line(
        words in prop::collection::vec(any::<u32>(), 2048), wide: bool, height in 1u8..20, x in 0usize..80, y in 0usize..60, width in 1usize..70,
    ) {
        let mut registers = text_registers();
        registers.crtc[9] = height - 1;
        registers.sequencer[1] = u8::from(wide) << 3;
        let video = memory(1 << 20);
        (0..).zip(&words).for_each(|(place, word)| video.set_word(place, *word));
        (0..8192).for_each(|place| video.set_byte(place * 4 + 2, ((place * 37) >> 3) as u8));
        let picture = Picture::of(&registers);
        let mut whole = std::vec![0; width * 40];
        picture.draw(&video, x, y, width, &mut whole);
        for (line, pixels) in whole.chunks(width).enumerate() {
            let mut alone = std::vec![0; width];
            picture.draw(&video, x, y + line, width, &mut alone);
            prop_assert_eq!(pixels, &alone[..]);
        }
    }

    #[test]
    fn any_registers_mean_a_picture_within_bounds(
        crtc: [u8; 32], sequencer: [u8; 8], graphics: [u8; 16], attribute: [u8; 32], vbe: [u16; 10], lit: bool, x in 0usize..3000, y in 0usize..2000,
    ) {
        let registers = Registers { lit, crtc, sequencer, graphics, attribute, vbe, ..Registers::default() };
        let video = memory(4096);
        let picture = Picture::of(&registers);
        let (width, height) = picture.size();
        prop_assert!((8..=MOST_WIDTH).contains(&width) && (1..=MOST_HEIGHT).contains(&height));
        picture.draw(&video, x, y, 64, &mut [0; 4096]);
        if let Some((columns, rows)) = picture.text_size() {
            prop_assert!(columns <= width && rows <= height);
            prop_assert!(picture.text_row(&video, rows - 1).is_some());
        }
    }
}
