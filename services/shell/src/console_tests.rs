use super::*;
use crate::{
    commands::Memory,
    terminal::Output,
    testing::{FakeHost, Screen},
};

fn attach_to(host: &mut FakeHost, screen: &mut Screen) {
    let mut memory = Memory::default();
    let mut context = Context {
        host,
        out: Output::new(screen, false),
        memory: &mut memory,
    };
    attach(&mut context, "debian").unwrap();
}

#[test]
fn scrollback_and_live_output_come_raw_and_keys_go_to_the_guest() {
    let mut host = FakeHost {
        printed: b"old \x1b[1mline\r\n".to_vec(),
        console: [b"new".to_vec()].into(),
        ..FakeHost::default()
    };
    let mut screen = Screen::default();
    screen.later = [b"ls\r\x03".to_vec(), b"more\x1dps".to_vec()].into();
    attach_to(&mut host, &mut screen);
    assert!(screen.text().contains("old \x1b[1mline\nnew"));
    assert!(screen.text().ends_with("Left the console of debian.\n"));
    assert_eq!(host.typed, b"ls\r\x03more");
    assert_eq!(host.done, ["open debian", "close"]);
    assert_eq!(screen.read_all(), b"ps");
}

#[test]
fn a_slow_guest_gets_everything_in_order() {
    let mut host = FakeHost {
        takes: [3, 0, 0, 2, 0].into(),
        ..FakeHost::default()
    };
    let mut screen = Screen::typed(b"abcdefghij");
    screen.later = [b"".to_vec(), b"".to_vec(), b"".to_vec(), b"\x1d".to_vec()].into();
    attach_to(&mut host, &mut screen);
    assert_eq!(host.typed, b"abcdefghij");
}

#[test]
fn a_deaf_guest_does_not_lock_the_terminal() {
    let mut host = FakeHost {
        takes: vec![0; 100_000].into(),
        ..FakeHost::default()
    };
    let mut input = vec![b'x'; 50_000];
    input.push(LEAVE);
    let mut screen = Screen::typed(&input);
    attach_to(&mut host, &mut screen);
    assert!(host.typed.is_empty());
    assert!(screen.text().ends_with("Left the console of debian.\n"));
}

#[test]
fn the_end_of_the_machine_closes_the_console() {
    let mut host = FakeHost {
        console_reads: Some(3),
        ..FakeHost::default()
    };
    let mut screen = Screen::default();
    screen.event = true;
    attach_to(&mut host, &mut screen);
    assert!(
        screen.text().contains("The console of debian has closed: the machine has ended."),
        "{}",
        screen.text()
    );
    // Each event attached again, in case the VMX had been started anew.
    assert!(host.done.iter().filter(|done| *done == "open debian").count() > 1);
}

#[test]
fn a_guest_that_prints_without_end_can_be_left() {
    let mut host = FakeHost {
        console: vec![b"y\r\n".to_vec(); 5].into(),
        ..FakeHost::default()
    };
    let mut screen = Screen::typed(&[LEAVE]);
    attach_to(&mut host, &mut screen);
    assert!(host.printed.is_empty());
}

#[test]
fn a_console_that_is_late_is_waited_for_and_can_be_left() {
    let mut host = FakeHost {
        console_late: 3,
        printed: b"up".to_vec(),
        ..FakeHost::default()
    };
    let mut screen = Screen::default();
    screen.later = [b"".to_vec(), b"".to_vec(), b"x".to_vec(), vec![LEAVE]].into();
    attach_to(&mut host, &mut screen);
    assert!(screen.text().contains("up"));
    assert_eq!(host.typed, b"x");
    assert_eq!(host.done.first().map(String::as_str), Some("open debian"));

    let mut host = FakeHost {
        console_late: u32::MAX,
        ..FakeHost::default()
    };
    let mut screen = Screen::default();
    screen.later = [b"".to_vec(), vec![LEAVE]].into();
    attach_to(&mut host, &mut screen);
    assert_eq!(screen.text().matches("does not answer yet").count(), 1);
    assert!(screen.text().ends_with("Left the console of debian.\n"));
}
