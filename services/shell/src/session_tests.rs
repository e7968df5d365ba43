use super::*;
use crate::{
    terminal::COLUMNS,
    testing::{FakeHost, Screen},
};
use proptest::prelude::*;

fn session(input: &[u8]) -> (Session, FakeHost, Screen) {
    let (mut session, mut host, mut screen) = (Session::new(), FakeHost::default(), Screen::default());
    session.begin(&mut host, &mut screen);
    screen.clear();
    screen.type_in(input);
    session.input(&mut host, &mut screen);
    (session, host, screen)
}

#[test]
fn greeting_tells_what_there_is() {
    let (mut session, mut screen) = (Session::new(), Screen::default());
    let mut host = FakeHost {
        panic: "panicked at the disco\nrip 0\n".into(),
        ..FakeHost::default()
    };
    session.begin(&mut host, &mut screen);
    let text = screen.text();
    for expected in [
        "Tessera 0.1.0\n",
        "2 processors, 2 GiB of memory, virtualisation: AMD-V\n",
        "    0.500000 init: line 0",
        "    0.500029 init: line 29",
        "The kernel panicked before this boot. It left this record:\npanicked at the disco\n",
        "`vm console debian` opens its console",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(text.ends_with("Type `help` for a list of commands.\ntessera> "));
    assert!(
        text.trim_start_matches("\x1b[5n")
            .lines()
            .all(|line| line.chars().count() <= COLUMNS && !line.contains('\x1b'))
    );
}

#[test]
fn a_terminal_that_answers_gets_colours() {
    let (mut session, mut host, mut screen) = (Session::new(), FakeHost::default(), Screen::default());
    screen.later = [b"\x1b".to_vec(), b"[0n".to_vec()].into();
    session.begin(&mut host, &mut screen);
    assert!(screen.text().contains("\x1b[1mTessera 0.1.0\x1b[0m"));
}

#[test]
fn a_system_that_does_not_answer_still_gets_a_prompt() {
    let (mut session, mut screen) = (Session::new(), Screen::default());
    let mut host = FakeHost {
        broken: Some(tessera_abi::Error::ServerDied),
        ..FakeHost::default()
    };
    session.begin(&mut host, &mut screen);
    assert!(
        screen
            .text()
            .contains("error: cannot read about the system: the server ended before it answered\n")
    );
    assert!(screen.text().ends_with(PROMPT));
}

#[test]
fn commands_answer_and_mistakes_are_complained_about() {
    let (_, _, screen) = session(b"uptime\rpss\rve\t\r");
    let text = screen.text();
    assert!(text.starts_with("uptime\nUp 5."), "{text}");
    assert!(
        text.contains("tessera> pss\nerror: unknown command `pss`\n  try: Did you mean `ps`?\ntessera> "),
        "{text}"
    );
    assert!(text.contains("version \nTessera 0.1.0\n"), "{text}");
}

#[test]
fn leaving_a_console_that_is_gone_gives_a_fresh_prompt() {
    let (_, _, screen) = session(b"\x1d");
    assert_eq!(screen.text(), "\ntessera> ");
}

#[test]
fn a_paste_of_a_mebibyte_is_survived() {
    let mut paste = vec![b'a'; 1 << 20];
    paste.push(b'\r');
    let (_, _, screen) = session(&paste);
    assert!(screen.text().contains("error: unknown command `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa`"));
}

proptest! {
    #[test]
    fn noise_never_ends_the_shell(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (mut session, mut host, mut screen) = session(&noise);
        screen.clear();
        // Ctrl-C twice ends sequences, searches, and whatever waits.
        screen.type_in(b"\x07\x03\x03version\r");
        session.input(&mut host, &mut screen);
        prop_assert!(screen.text().contains("Tessera 0.1.0"), "{}", screen.text());
    }
}
