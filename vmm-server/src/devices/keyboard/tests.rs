use super::*;

#[test]
fn resets() {
    assert_eq!(Keyboard::default().write(0x64, 0xfe), Some(Request::Reset));
    assert_eq!(Keyboard::default().write_system_port(1), Some(Request::Reset));
    let mut keyboard = Keyboard::default();
    assert_eq!(keyboard.write(0x64, 0xd1), None);
    assert_eq!(keyboard.write(0x60, 0xdf), None);
    keyboard.write(0x64, 0xd1);
    assert_eq!(keyboard.write(0x60, 0xfe), Some(Request::Reset));
}

#[test]
fn answers_probes() {
    let mut keyboard = Keyboard::default();
    assert_eq!(keyboard.read(0x64) & 3, 0, "ready, nothing there");
    assert_eq!(keyboard.read(0x64) & NOBODY, NOBODY);
    assert_eq!(Keyboard::new(true).read(0x64) & NOBODY, 0);
    keyboard.write(0x64, 0xaa);
    assert_eq!(keyboard.read(0x64) & FULL, FULL);
    assert_eq!(keyboard.read(0x60), PASSED);
    keyboard.write(0x64, 0x60);
    keyboard.write(0x60, 0x12);
    keyboard.write(0x64, 0x20);
    assert_eq!(keyboard.read(0x60), 0x12);
    keyboard.write(0x64, 0xab);
    assert_eq!(keyboard.read(0x60), ABSENT);
}

#[test]
fn any_byte_anywhere() {
    let mut keyboard = Keyboard::default();
    for command in 0..=255 {
        for data in [0, 1, 0xff] {
            keyboard.write(0x64, command);
            keyboard.write(0x60, data);
            keyboard.read(0x60);
            keyboard.read(0x64);
        }
    }
}

/// All that can be read now.
fn bytes(keyboard: &mut Keyboard) -> std::vec::Vec<u8> {
    let mut bytes = std::vec::Vec::new();
    keyboard.fill();
    while keyboard.read(0x64) & FULL != 0 {
        bytes.push(keyboard.read(0x60));
        keyboard.fill();
    }
    bytes
}

fn told(keyboard: &mut Keyboard, mouse: bool, byte: u8) -> std::vec::Vec<u8> {
    if mouse {
        keyboard.write(0x64, 0xd4);
    }
    keyboard.write(0x60, byte);
    bytes(keyboard)
}

#[test]
fn keys_come_translated_or_as_they_are() {
    let mut keyboard = Keyboard::new(true);
    let press = |keyboard: &mut Keyboard| {
        for (code, down) in [(0x1e, true), (0x1e, false), (0xe053, true), (0xe053, false)] {
            keyboard.event(Event::Key { code, down });
        }
        bytes(keyboard)
    };
    assert_eq!(press(&mut keyboard), [0x1e, 0x9e, 0xe0, 0x53, 0xe0, 0xd3]);
    keyboard.write(0x64, 0x60);
    keyboard.write(0x60, 0x05);
    assert_eq!(press(&mut keyboard), [0x1c, 0xf0, 0x1c, 0xe0, 0x71, 0xe0, 0xf0, 0x71]);
    assert_eq!(
        (told(&mut keyboard, false, 0xf0), told(&mut keyboard, false, 1)),
        (std::vec![0xfa], std::vec![0xfa])
    );
    assert_eq!(press(&mut keyboard), [0x1e, 0x9e, 0xe0, 0x53, 0xe0, 0xd3]);
    assert_eq!(told(&mut keyboard, false, 0xf5), [0xfa]);
    assert_eq!(press(&mut keyboard), [], "it does not scan");
}

#[test]
fn every_key_of_set_1_survives_translation() {
    for code in (1..0x54).chain(0x56..0x59) {
        let mut keyboard = Keyboard::new(true);
        keyboard.event(Event::Key { code, down: true });
        keyboard.event(Event::Key { code, down: false });
        assert_eq!(bytes(&mut keyboard), [code as u8, code as u8 | 0x80], "{code:#x}");
    }
}

#[test]
fn drivers_find_keyboard_and_mouse() {
    let mut keyboard = Keyboard::new(true);
    assert_eq!(told(&mut keyboard, false, 0xf2), [0xfa, 0xab, 0x41], "translated");
    assert_eq!(told(&mut keyboard, false, 0xff), [0xfa, 0xaa]);
    keyboard.write(0x64, 0xa8);
    assert_eq!(told(&mut keyboard, true, 0xff), [0xfa, 0xaa, 0]);
    for rate in [200, 100, 80] {
        assert_eq!(
            (told(&mut keyboard, true, 0xf3), told(&mut keyboard, true, rate)),
            (std::vec![0xfa], std::vec![0xfa])
        );
    }
    assert_eq!(told(&mut keyboard, true, 0xf2), [0xfa, 3], "it has a wheel");
    assert_eq!(told(&mut keyboard, true, 0xf4), [0xfa]);
    keyboard.event(Event::Mouse {
        dx: 5,
        dy: 3,
        wheel: -1,
        buttons: 1,
    });
    keyboard.event(Event::Mouse {
        dx: -200,
        dy: 0,
        wheel: 0,
        buttons: 0,
    });
    assert_eq!(
        bytes(&mut keyboard),
        [0x29, 5, 0xfd, 0xff, 0x18, 0x81, 0, 0, 0x18, 0xb7, 0, 0],
        "more than a packet holds is two"
    );
    keyboard.write(0x64, 0xa9);
    assert_eq!(bytes(&mut keyboard), [0]);
}

#[test]
fn each_byte_interrupts() {
    let mut keyboard = Keyboard::new(true);
    assert_eq!(keyboard.lines(), [false, false]);
    keyboard.event(Event::Key { code: 0xe048, down: true });
    keyboard.fill();
    assert_eq!(keyboard.lines(), [true, false]);
    assert_eq!(keyboard.read(0x60), 0xe0);
    assert_eq!(keyboard.lines(), [false, false], "down between two bytes");
    keyboard.fill();
    assert_eq!(keyboard.lines(), [true, false]);
    keyboard.write(0x64, 0x60);
    keyboard.write(0x60, 0x02);
    assert_eq!(keyboard.lines(), [false, false], "switched off");
    keyboard.read(0x60);
    told(&mut keyboard, true, 0xf4);
    keyboard.event(Event::Mouse {
        dx: 1,
        dy: 0,
        wheel: 0,
        buttons: 0,
    });
    keyboard.fill();
    assert_eq!((keyboard.lines(), keyboard.read(0x64) & FROM_MOUSE), ([false, true], FROM_MOUSE));
}

use proptest::prelude::*;

proptest! {
    #[test]
    fn nothing_that_is_written_or_typed_breaks_it(steps in prop::collection::vec((0u8..5, any::<u8>(), any::<u16>()), 0..300)) {
        let mut keyboard = Keyboard::new(true);
        for (kind, byte, word) in steps {
            match kind {
                0 => { keyboard.write(0x60, byte); }
                1 => { keyboard.write(0x64, byte); }
                2 => { keyboard.read(0x60); }
                3 if keyboard.has_room() => keyboard.event(Event::Key { code: word, down: byte & 1 != 0 }),
                _ => keyboard.event(Event::Mouse { dx: word as i16, dy: byte.into(), wheel: byte as i8, buttons: byte & 7 }),
            }
            keyboard.fill();
            let full = keyboard.lines();
            prop_assert!(!(full[0] && full[1]));
        }
        // Whatever happened, a reader gets to the end.
        for _ in 0..100_000 {
            keyboard.read(0x60);
            keyboard.write(0x64, 0x60);
            keyboard.write(0x60, 0x47);
            if keyboard.read(0x64) & FULL == 0 { return Ok(()); }
        }
        prop_assert!(false, "it never ends");
    }
}
