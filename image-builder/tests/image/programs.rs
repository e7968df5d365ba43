//! Executables: what is taken, what is refused, and that nothing crashes the reader.

use crate::common::{Load, elf, elf_of_kind, program};
use image_builder::program::{Program, strip};
use proptest::prelude::*;
use tessera_abi::object::Rights;

fn refusal(file: &[u8]) -> String {
    format!("{:#}", Program::parse(file).expect_err("refused"))
}

#[test]
fn segments_are_laid_out_on_pages() {
    let parsed = Program::parse(&program()).expect("good program");
    assert_eq!(parsed.entry, 0x40_1004);
    let [constants, text, data] = parsed.segments.as_slice() else {
        panic!("three segments")
    };
    assert_eq!(
        (constants.address, constants.bytes.len(), constants.memory_length),
        (0x40_0000, 4096, 4096)
    );
    assert_eq!(&constants.bytes[0x100..0x109], b"constants");
    assert!(constants.bytes[..0x100].iter().all(|&byte| byte == 0));
    assert_eq!(
        (text.address, text.bytes.len(), text.rights),
        (0x40_1000, 8192, Rights::READ | Rights::EXECUTE)
    );
    assert_eq!((data.address, data.bytes.len(), data.memory_length), (0x40_3000, 4096, 12288));
    assert_eq!(data.rights, Rights::READ | Rights::WRITE);
    assert_eq!(&data.bytes[0x10..0x24], &[7; 20]);
    assert_eq!(data.bytes[0x24], 0);
}

#[test]
fn zero_memory_takes_no_room_in_the_file() {
    let file = elf(
        0x40_0000,
        &[
            Load::new(0x40_0000, 5, &[1; 10]),
            Load {
                address: 0x40_2000,
                data: Vec::new(),
                memory: 5000,
                flags: 6,
            },
        ],
    );
    let parsed = Program::parse(&file).expect("good program");
    assert_eq!((parsed.segments[1].bytes.len(), parsed.segments[1].memory_length), (0, 8192));
}

#[test]
fn what_cannot_run_is_refused_with_the_reason() {
    let text = || Load::new(0x40_0000, 5, &[1; 10]);
    assert!(refusal(b"").contains("ELF"));
    assert!(refusal(&elf(0x40_0000, &[Load::new(0x40_0000, 7, &[1; 10])])).contains("writable and executable"));
    assert!(refusal(&elf(0x40_0000, &[text(), Load::new(0x40_0800, 6, &[1; 10])])).contains("share a page"));
    assert!(refusal(&elf(0x50_0000, &[text()])).contains("entry point"));
    assert!(refusal(&elf(0x40_0000, &[])).contains("nothing to load"));
    assert!(refusal(&elf(0x100, &[Load::new(0x100, 5, &[1; 10])])).contains("outside"));
    assert!(refusal(&elf(0x1000_0000, &[Load::new(0x1000_0000, 5, &[1; 10])])).contains("outside"));
    assert!(
        refusal(&elf(
            0x40_0000,
            &[Load {
                address: 0x40_0000,
                data: vec![1; 10],
                memory: 5,
                flags: 5
            }]
        ))
        .contains("more bytes")
    );
    assert!(
        refusal(&elf(
            0x40_0000,
            &[Load {
                address: u64::MAX - 4,
                data: vec![1; 10],
                memory: 10,
                flags: 5
            }]
        ))
        .contains("past the end")
    );
    for (kind, reason) in [(2, "dynamically"), (3, "dynamically"), (7, "thread-local")] {
        assert!(refusal(&elf_of_kind(0x40_0000, &[text()], kind)).contains(reason));
    }
    let mut other = elf(0x40_0000, &[text()]);
    other[18] = 183;
    assert!(refusal(&other).contains("x86-64"));
    let mut shared = elf(0x40_0000, &[text()]);
    shared[16] = 3;
    assert!(refusal(&shared).contains("static"));
}

#[test]
fn a_stripped_program_loads_the_same() {
    let mut file = program();
    file.extend_from_slice(b"symbols and debug information");
    let stripped = strip(&file).expect("strip");
    assert!(stripped.len() < file.len());
    assert_eq!(Program::parse(&stripped).expect("stripped"), Program::parse(&file).expect("whole"));
}

#[test]
fn without_program_headers_there_is_nothing_to_strip() {
    for (offset, value) in [(0x38, 0), (0x20, 0)] {
        let mut file = program();
        file[offset] = value;
        assert!(strip(&file).is_err(), "byte {offset:#x} is {value}");
    }
}

proptest! {
    #[test]
    fn a_damaged_program_is_refused_or_safe(changes in prop::collection::vec((0_usize..300, any::<u8>()), 1..8), cut in 0_usize..6000) {
        let mut file = program();
        for (at, value) in changes {
            file[at] = value;
        }
        file.truncate(file.len().saturating_sub(cut.saturating_sub(5000)));
        let _ = strip(&file);
        if let Ok(parsed) = Program::parse(&file) {
            let mut end = 0;
            for segment in &parsed.segments {
                prop_assert!(!segment.rights.contains(Rights::WRITE | Rights::EXECUTE));
                prop_assert!(segment.address % 4096 == 0 && segment.address >= end);
                prop_assert!(segment.bytes.len() as u64 <= segment.memory_length);
                end = segment.address + segment.memory_length;
            }
        }
    }

    #[test]
    fn any_bytes_are_answered(file in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = (Program::parse(&file), strip(&file));
    }
}
