use super::*;
use crate::picture::tests::{memory, text_registers};
use proptest::prelude::*;
use std::string::String;
use std::vec::Vec;
use tessera_screen::{Registers, vbe};

#[derive(Default)]
struct Sink(Vec<Event>, String);

impl Input for Sink {
    fn send(&mut self, event: Event) {
        self.0.push(event);
    }
    fn type_text(&mut self, text: &str) {
        self.1.push_str(text);
    }
}

/// A viewer that is past the handshake, with what it got so far taken away.
fn open(picture: &Picture) -> Rfb {
    let mut rfb = Rfb::new(&Compressor::default());
    rfb.take(b"RFB 003.008\n\x01\x01", picture, &mut Sink::default()).unwrap();
    assert_eq!(&rfb.output()[..18], b"RFB 003.008\n\x01\x01\0\0\0\0");
    assert_eq!(&rfb.output()[18..22], [2, 0xd0, 1, 0x90], "720 by 400");
    rfb.output().clear();
    rfb
}

fn request(incremental: u8) -> [u8; 10] {
    [3, incremental, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]
}

fn encodings(numbers: &[i32]) -> Vec<u8> {
    let mut bytes = std::vec![2, 0, 0, numbers.len() as u8];
    bytes.extend(numbers.iter().flat_map(|number| number.to_be_bytes()));
    bytes
}

/// A picture as a viewer puts it together.
struct Viewer {
    width: usize,
    pixels: Vec<u32>,
    inflate: Box<miniz_oxide::inflate::stream::InflateState>,
}

use std::boxed::Box;

impl Viewer {
    fn new(width: usize, height: usize) -> Self {
        let inflate = miniz_oxide::inflate::stream::InflateState::new_boxed(miniz_oxide::DataFormat::Zlib);
        Self {
            width,
            pixels: std::vec![1; width * height],
            inflate,
        }
    }

    fn unzip(&mut self, mut input: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut piece = [0; 70_000];
        while !input.is_empty() {
            let result = miniz_oxide::inflate::stream::inflate(&mut self.inflate, input, &mut piece, miniz_oxide::MZFlush::None);
            input = &input[result.bytes_consumed..];
            plain.extend_from_slice(&piece[..result.bytes_written]);
            result.status.unwrap();
        }
        plain
    }

    /// Reads all updates; the rectangles' encodings.
    fn show(&mut self, mut bytes: &[u8]) -> Vec<i32> {
        let mut seen = Vec::new();
        let number = |bytes: &[u8], place: usize| usize::from(u16::from_be_bytes([bytes[place], bytes[place + 1]]));
        while !bytes.is_empty() {
            assert_eq!(bytes[0], 0);
            let count = number(bytes, 2);
            bytes = &bytes[4..];
            for _ in 0..count {
                let [x, y, width, height] = [0, 2, 4, 6].map(|place| number(bytes, place));
                let encoding = i32::from_be_bytes(bytes[8..12].try_into().unwrap());
                seen.push(encoding);
                bytes = &bytes[12..];
                let mut tile = Vec::new();
                match encoding {
                    encoding::RAW => {
                        tile.extend(
                            bytes[..4 * width * height]
                                .chunks(4)
                                .map(|pixel| u32::from_le_bytes(pixel.try_into().unwrap())),
                        );
                        bytes = &bytes[4 * width * height..];
                    }
                    encoding::ZRLE => {
                        let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
                        let plain = self.unzip(&bytes[4..4 + length]);
                        bytes = &bytes[4 + length..];
                        let colour = |place: usize| u32::from_le_bytes([plain[place], plain[place + 1], plain[place + 2], 0]);
                        let colours = usize::from(plain[0]);
                        match colours {
                            0 => tile.extend((0..width * height).map(|place| colour(1 + 3 * place))),
                            1 => tile.resize(width * height, colour(1)),
                            _ => {
                                let bits = if colours == 2 {
                                    1
                                } else if colours <= 4 {
                                    2
                                } else {
                                    4
                                };
                                let line = (width * bits).div_ceil(8);
                                for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                                    let byte = plain[1 + 3 * colours + y * line + x * bits / 8];
                                    let index = byte >> (8 - bits - x * bits % 8) & ((1 << bits) - 1);
                                    tile.push(colour(1 + 3 * usize::from(index)));
                                }
                            }
                        }
                    }
                    _ => continue,
                }
                for (line, from) in tile.chunks(width).enumerate() {
                    self.pixels[(y + line) * self.width + x..][..width].copy_from_slice(from);
                }
            }
        }
        seen
    }
}

/// Has the viewer ask until nothing new comes.
fn follow(rfb: &mut Rfb, picture: &Picture, video: &Memory, viewer: &mut Viewer, clock: &mut u64) -> Vec<i32> {
    let mut seen = Vec::new();
    loop {
        *clock += 1_000_000;
        let now = *clock;
        rfb.work(picture, video, &|| now);
        let bytes = core::mem::take(rfb.output());
        if bytes.is_empty() {
            return seen;
        }
        seen.extend(viewer.show(&bytes));
        rfb.take(&request(1), picture, &mut Sink::default()).unwrap();
    }
}

#[test]
fn a_viewer_sees_what_is_there_and_then_what_changed() {
    for spoken in [encoding::RAW, encoding::ZRLE] {
        let video = memory(1 << 20);
        let picture = Picture::of(&text_registers());
        for place in 0..2000 {
            video.set_word(place, place as u32 * 0x55);
            video.set_byte(place * 4 + 2, (place * 7) as u8);
        }
        let (mut rfb, mut viewer, mut clock) = (open(&picture), Viewer::new(720, 400), 0);
        rfb.take(&encodings(&[spoken, encoding::EXTENDED_KEYS]), &picture, &mut Sink::default())
            .unwrap();
        rfb.take(&request(0), &picture, &mut Sink::default()).unwrap();
        let seen = follow(&mut rfb, &picture, &video, &mut viewer, &mut clock);
        assert_eq!(seen.len(), 12 * 7 + 1, "each tile once");
        assert_eq!(seen[0], encoding::EXTENDED_KEYS);
        assert!(seen[1..].iter().all(|kind| *kind == spoken));
        let mut truth = std::vec![0; 720 * 400];
        picture.draw(&video, 0, 0, 720, &mut truth);
        assert!(viewer.pixels == truth);
        video.set_word(0, 0x7041);
        assert_eq!(
            follow(&mut rfb, &picture, &video, &mut viewer, &mut clock).len(),
            1,
            "one tile changed"
        );
        picture.draw(&video, 0, 0, 720, &mut truth);
        assert!(viewer.pixels == truth);
    }
}

#[test]
fn a_change_of_size_is_told_to_who_knows_it() {
    let video = memory(1 << 20);
    let small = Picture::of(&text_registers());
    let mut registers = Registers::default();
    for (index, value) in [(vbe::ENABLE, 1), (vbe::WIDTH, 800), (vbe::HEIGHT, 600), (vbe::BITS, 32)] {
        registers.vbe[index] = value;
    }
    let large = Picture::of(&registers);
    let (mut rfb, mut clock) = (open(&small), 0);
    rfb.take(&encodings(&[encoding::ZRLE, encoding::DESKTOP_SIZE]), &small, &mut Sink::default())
        .unwrap();
    rfb.take(&request(0), &small, &mut Sink::default()).unwrap();
    rfb.work(&large, &video, &|| 1);
    assert_eq!(
        rfb.output()[..16],
        [0, 0, 0, 1, 0, 0, 0, 0, 3, 0x20, 2, 0x58, 0xff, 0xff, 0xff, 0x21]
    );
    rfb.output().clear();
    rfb.take(&request(1), &large, &mut Sink::default()).unwrap();
    assert_eq!(
        follow(&mut rfb, &large, &video, &mut Viewer::new(800, 600), &mut clock).len(),
        13 * 10
    );
    // Who does not know it keeps its size.
    let mut rfb = open(&small);
    rfb.take(&request(0), &large, &mut Sink::default()).unwrap();
    assert_eq!(
        follow(&mut rfb, &large, &video, &mut Viewer::new(720, 400), &mut clock).len(),
        12 * 7
    );
}

#[test]
fn keys_and_pointer_arrive() {
    let picture = Picture::of(&text_registers());
    let (mut rfb, mut sink) = (open(&picture), Sink::default());
    rfb.take(
        &[4, 1, 0, 0, 0, 0, 0, b'a', 255, 0, 0, 1, 0, 0, 0, b'z', 0, 0, 0, 0xd3],
        &picture,
        &mut sink,
    )
    .unwrap();
    rfb.take(&[5, 0, 0, 10, 0, 20, 5, 5, 0, 12, 0, 15, 5, 8, 0, 12, 0, 15], &picture, &mut sink)
        .unwrap();
    rfb.take(b"\x06\0\0\0\0\0\0\x02hi", &picture, &mut sink).unwrap();
    let mouse = |dx, dy, wheel, buttons| Event::Mouse { dx, dy, wheel, buttons };
    let key = |code, down| Event::Key { code, down };
    // In parts of 7FFF of 719 columns and 399 lines.
    let point = |x, y, wheel, buttons| Event::Point { x, y, wheel, buttons };
    let expected = [
        key(0x1e, true),
        key(0xe053, true),
        point(455, 1642, 0, 0),
        point(546, 1231, 0, 3),
        mouse(2, -5, 0, 3),
        point(546, 1231, -1, 0),
        mouse(0, 0, -1, 0),
    ];
    assert_eq!(sink.0, expected);
    assert_eq!(sink.1, "hi");
    sink.0.clear();
    rfb.end(&mut sink);
    assert_eq!(sink.0, [key(0x1e, false), key(0xe053, false)], "nothing stays pressed");
}

#[test]
fn the_pointer_reaches_each_edge_and_lets_go() {
    let picture = Picture::of(&text_registers());
    let (mut rfb, mut sink) = (open(&picture), Sink::default());
    let (x, y) = (719_u16.to_be_bytes(), 399_u16.to_be_bytes());
    let far = [5, 1, x[0], x[1], y[0], y[1]];
    for message in [[5, 0, 0, 0, 0, 0], far, [5, 1, 255, 255, 255, 255]] {
        rfb.take(&message, &picture, &mut sink).unwrap();
    }
    rfb.end(&mut sink);
    let points: Vec<_> = sink
        .0
        .iter()
        .filter(|event| matches!(event, Event::Point { .. }))
        .copied()
        .collect();
    let point = |x, y, buttons| Event::Point { x, y, wheel: 0, buttons };
    let edge = MOST_PLACE;
    assert_eq!(
        points,
        [point(0, 0, 0), point(edge, edge, 1), point(edge, edge, 1), point(edge, edge, 0)]
    );
}

#[test]
fn what_is_no_rfb_is_refused() {
    let picture = Picture::of(&text_registers());
    let refused = |bytes: &[u8]| Rfb::new(&Compressor::default()).take(bytes, &picture, &mut Sink::default());
    assert_eq!(refused(b"GET / HTTP/1.1\r\n"), Err(Broken));
    assert_eq!(refused(b"RFB 003.008\n\x02"), Err(Broken));
    assert_eq!(refused(b"RFB 003.008\n\x01\x01\x07"), Err(Broken));
    assert_eq!(
        open(&picture).take(&[0; 20], &picture, &mut Sink::default()),
        Err(Broken),
        "no pixels"
    );
}

proptest! {
    #[test]
    fn no_viewer_breaks_it(
        messages in prop::collection::vec((prop::sample::select(&[0u8, 2, 3, 4, 5, 6, 255, 9]), prop::collection::vec(any::<u8>(), 0..40)), 0..40),
        pieces in 1usize..9, valid: bool,
    ) {
        let (video, picture) = (memory(1 << 20), Picture::of(&text_registers()));
        let (mut rfb, mut clock) = (open(&picture), 0u64);
        let mut stream = Vec::new();
        for (kind, body) in messages {
            stream.push(kind);
            stream.extend(body);
        }
        if valid {
            stream.splice(0..0, encodings(&[encoding::ZRLE]));
        }
        for piece in stream.chunks(pieces) {
            if rfb.take(piece, &picture, &mut Sink::default()).is_err() {
                break;
            }
            clock += 5000;
            rfb.work(&picture, &video, &|| clock);
            prop_assert!(rfb.output().len() < ENOUGH + (64 << 10));
            if rfb.output().len() > 4096 { rfb.output().clear(); }
        }
        rfb.end(&mut Sink::default());
    }

    #[test]
    fn messages_come_out_however_they_are_cut(length in 0usize..6000, cut in 1usize..50) {
        let mut stream = Vec::from([6, 0, 0, 0]);
        stream.extend((length as u32).to_be_bytes());
        stream.resize(8 + length, b'x');
        stream.extend([4, 1, 0, 0, 0, 0, 0, b'q']);
        let picture = Picture::of(&text_registers());
        let (mut rfb, mut sink) = (open(&picture), Sink::default());
        for piece in stream.chunks(cut) {
            rfb.take(piece, &picture, &mut sink).unwrap();
        }
        prop_assert_eq!(sink.1.len(), length.min(4096));
        prop_assert_eq!(sink.0, [Event::Key { code: 0x10, down: true }]);
    }
}
