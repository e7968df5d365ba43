use super::*;
use crate::{key::Decoder, testing::Screen};
use proptest::prelude::*;

struct Words(&'static [&'static str]);

impl Complete for Words {
    fn candidates(&mut self, line: &str) -> Vec<String> {
        let word = &line[line.rfind(' ').map_or(0, |space| space + 1)..];
        self.0
            .iter()
            .filter(|candidate| candidate.starts_with(word))
            .map(|&candidate| candidate.into())
            .collect()
    }
}

const WORDS: Words = Words(&["start", "status", "stop", "vm", "vmm.debian"]);

/// Feeds bytes; returns the lines entered, the editor and the screen.
fn feed(bytes: &[u8]) -> (Vec<String>, Editor, Screen) {
    let (mut decoder, mut editor, mut screen) = (Decoder::default(), Editor::new("> "), Screen::default());
    editor.show(&mut screen);
    let mut lines = Vec::new();
    for &byte in bytes {
        if let Some(key) = decoder.feed(byte) {
            match editor.feed(key, &mut Words(WORDS.0), &mut screen) {
                Edit::Line(line) => {
                    lines.push(line);
                    editor.show(&mut screen);
                }
                Edit::Cancelled | Edit::Clear => editor.show(&mut screen),
                Edit::Continue => {}
            }
        }
    }
    (lines, editor, screen)
}

fn entered(bytes: &[u8]) -> String {
    let mut bytes = bytes.to_vec();
    bytes.push(b'\r');
    feed(&bytes).0.pop().unwrap()
}

#[test]
fn keys_do_what_they_do_elsewhere() {
    for (typed, line) in [
        (&b"hello"[..], "hello"),
        (b"hello\x7f\x7fp", "help"),
        (b"ello\x01h", "hello"),
        (b"hllo\x1b[D\x1b[D\x1b[De", "hello"),
        (b"hello world\x17", "hello "),
        (b"hello world\x15x", "x"),
        (b"hello world\x01\x0bx", "x"),
        (b"hello world\x17\x19\x19", "hello worldworld"),
        (b"a b\x1b[1;5D\x1b[3~c", "a c"),
        (b"ab\x14", "ba"),
        (b"one two\x1bb\x1bbX", "Xone two"),
        (b"one two\x01\x1bfX", "oneX two"),
        (b"sta\ts\t", "stas"),
        (b"sto\t", "stop "),
        (b"vm star\t", "vm start "),
        (b"x\x04\x01\x04", ""),
    ] {
        assert_eq!(entered(typed), line, "{typed:?}");
    }
}

#[test]
fn history_and_search() {
    assert_eq!(feed(b"ps\rmem\r\x1b[A\x1b[A\r").0, ["ps", "mem", "ps"]);
    assert_eq!(feed(b"ps\rmem\rne\x1b[A\x1b[A\x1b[A\x1b[B\x1b[Bw\r").0, ["ps", "mem", "new"]);
    assert_eq!(feed(b"vm list\rps\rvm start a\r\x12vm\x12\r").0.last().unwrap(), "vm list");
    assert_eq!(feed(b"vm list\rps\rkeep\x12vm\x07\r").0.last().unwrap(), "keep");
    assert_eq!(feed(b"vm list\r\x12nothing like it\r").0, ["vm list", ""]);
}

#[test]
fn second_tab_lists_the_candidates() {
    let (_, editor, screen) = feed(b"st\t\t");
    assert_eq!(editor.line(), "st");
    let (rows, column) = screen.rows();
    assert_eq!(rows, ["> st", "start   status  stop", "> st"]);
    assert_eq!(column, 4);
}

#[test]
fn cancel_gives_a_fresh_line() {
    let (lines, editor, screen) = feed(b"abc\x03");
    assert!(lines.is_empty() && editor.line().is_empty());
    assert_eq!(screen.rows().0, ["> abc^C", ">"]);
}

#[test]
fn a_paste_without_line_end_is_cut_and_a_long_one_with_line_ends_runs_line_by_line() {
    let (_, editor, _) = feed(&[b'a'; 100_000]);
    assert_eq!(editor.line().len(), MAX_LINE);
    let (lines, editor, _) = feed(&b"command\n".repeat(10_000));
    assert_eq!(lines.len(), 10_000);
    assert!(editor.history.len() <= 64);
}

proptest! {
    #[test]
    fn the_screen_always_shows_the_line(bytes in proptest::collection::vec(
        prop_oneof![
            8 => 0x20u8..0x7f,
            1 => any::<u8>(),
            1 => proptest::sample::select(vec![1u8, 2, 4, 5, 6, 8, 9, 11, 13, 14, 16, 18, 20, 21, 23, 25, 27]),
        ], 0..400)
    ) {
        let (lines, editor, screen) = feed(&bytes);
        for line in lines {
            prop_assert!(line.len() <= MAX_LINE);
        }
        prop_assert!(editor.cursor() <= editor.line().len());
        let (rows, column) = screen.rows();
        prop_assert!(column < COLUMNS);
        if editor.search.is_none() {
            let visible = &editor.line[editor.scroll..editor.line.len().min(editor.scroll + 77)];
            let shown = format!("> {visible}");
            prop_assert_eq!(rows.last().unwrap().trim_end(), shown.trim_end());
            prop_assert_eq!(column, 2 + editor.cursor() - editor.scroll);
        }
    }
}
