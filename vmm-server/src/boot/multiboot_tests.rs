//! Tests of Multiboot kernels.

use super::*;
use crate::memory::tests::ram;
use proptest::prelude::*;
use std::vec;

/// A Multiboot header with these flags and address fields.
pub(crate) fn header(flags: u32, fields: &[u32]) -> vec::Vec<u8> {
    let sum = MAGIC.wrapping_add(flags).wrapping_neg();
    [MAGIC, flags, sum]
        .iter()
        .chain(fields)
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

/// A flat kernel for `address`, which is entered behind its header.
pub(crate) fn flat(address: u32, length: u32) -> vec::Vec<u8> {
    let mut file = header(
        ADDRESSES | SATISFIED,
        &[address, address, address + length, address + 2 * length, address + 32],
    );
    file.resize(length as usize, 0x90);
    file
}

/// An ELF32 kernel: program headers of `(type, linear, physical, bytes, memory)`, contents of ones from 0x1000 on, the Multiboot header at 0x800.
fn elf(entry: u32, segments: &[(u32, u32, u32, u32, u32)]) -> vec::Vec<u8> {
    let mut file = vec![0u8; 0x800];
    file[..6].copy_from_slice(b"\x7fELF\x01\x01");
    file[16..20].copy_from_slice(&[2, 0, 3, 0]);
    file[24..28].copy_from_slice(&entry.to_le_bytes());
    file[28..32].copy_from_slice(&52u32.to_le_bytes());
    file[42..46].copy_from_slice(&[32, 0, segments.len() as u8, 0]);
    for (i, &(kind, linear, physical, bytes, memory)) in segments.iter().enumerate() {
        let words = [kind, 0x1000, linear, physical, bytes, memory, 7, 0x1000];
        for (j, word) in words.into_iter().enumerate() {
            file[52 + i * 32 + j * 4..][..4].copy_from_slice(&word.to_le_bytes());
        }
    }
    file.extend_from_slice(&header(0, &[]));
    file.resize(0x1000, 0);
    file.resize(0x2000, 1);
    file
}

fn parse(file: &[u8]) -> Result<Multiboot, MultibootError> {
    Multiboot::parse(file, file.len() as u64, find(file).expect("a header"))
}

fn start(memory: &GuestMemory, file: &[u8], module: &[u8], line: &str) -> Result<Start, LoadError> {
    load(memory, &file, &parse(file)?, &module, line)
}

#[test]
fn header_is_found_where_the_specification_says() {
    let at = |offset: usize, length: usize| {
        let mut file = vec![0u8; length];
        file[offset..offset + 12].copy_from_slice(&header(0, &[]));
        find(&file)
    };
    assert_eq!(at(0, 12), Some(0));
    assert_eq!(at(8180, 9000), Some(8180), "the last place in the first 8192 bytes");
    assert_eq!(at(8184, 9000), None, "reaches beyond");
    assert_eq!(at(2, 100), None, "not aligned");
    let mut wrong = header(3, &[]);
    wrong[8] ^= 1;
    assert_eq!(find(&wrong), None, "checksum");
    assert_eq!(find(&[]), None);
}

#[test]
fn flat_kernel() {
    let memory = ram(&[4 << 20]);
    memory.write_slice(0x20_0040, &[0xff; 64]).unwrap();
    let start = start(&memory, &flat(0x20_0000, 0x40), &[], "").unwrap();
    assert_eq!(start.entry(), 0x20_0020);
    assert_eq!(memory.read_u32(0x20_0000), Some(MAGIC));
    assert_eq!(memory.read::<1>(0x20_003f), Some([0x90]));
    assert_eq!(memory.read::<64>(0x20_0040), Some([0; 64]), "uninitialised data is zero");
}

#[test]
fn elf_kernel() {
    let memory = ram(&[4 << 20]);
    let file = elf(
        0xc010_0010,
        &[
            (1, 0xc010_0000, 0x10_0000, 0x100, 0x200),
            (4, 0, 0, 0x1000, 0x1000),
            (1, 0xc020_0000, 0x20_0000, 0, 0x10),
        ],
    );
    memory.write_slice(0x10_0100, &[0xff; 0x100]).unwrap();
    let start = start(&memory, &file, &[], "").unwrap();
    assert_eq!(start.entry(), 0x10_0010, "a linear entry point becomes physical");
    assert_eq!(memory.read::<4>(0x10_00fe), Some([1, 1, 0, 0]));
    assert_eq!(memory.read::<1>(0x10_01ff), Some([0]));
}

#[test]
fn tells_the_kernel_what_it_has() {
    let memory = ram(&[8 << 20]);
    let file = flat(0x20_0000, 0x40);
    let Ok(Start::Multiboot { information, .. }) = start(&memory, &file, b"module!", "one two") else {
        panic!("not loaded")
    };
    let word = |offset: u32| memory.read_u32(u64::from(information + offset)).unwrap();
    assert_eq!(word(0), 0x24d);
    assert_eq!((word(4), word(8)), (639, 7 * 1024));
    assert_eq!(memory.read::<8>(word(16).into()), Some(*b"one two\0"));
    assert_eq!(word(20), 1, "one module");
    let module: [u32; 4] = core::array::from_fn(|i| memory.read_u32(u64::from(word(24)) + 4 * i as u64).unwrap());
    assert_eq!((module[0], module[1], module[3]), (0x20_1000, 0x20_1007, 0));
    assert_eq!(memory.read::<10>(module[2].into()), Some(*b"initramfs\0"));
    assert_eq!(memory.read::<7>(0x20_1000), Some(*b"module!"));
    assert_eq!(word(44), 3 * 24);
    let last = u64::from(word(48)) + 48;
    assert_eq!(memory.read_u32(last), Some(20));
    assert_eq!(
        (memory.read_u64(last + 4), memory.read_u64(last + 12)),
        (Some(1 << 20), Some(7 << 20))
    );
    assert_eq!(memory.read::<8>(word(64).into()), Some(*b"Tessera\0"));
    // With the longest command line it still ends below the end of conventional memory.
    let longest = information_end(&memory, &"x".repeat(2047));
    assert!(longest <= layout::LOW_END, "{longest:#x}");
}

fn information_end(memory: &GuestMemory, line: &str) -> u64 {
    layout::MULTIBOOT + information(memory, Some((0, 0)), line).len() as u64
}

#[test]
fn without_a_module() {
    let memory = ram(&[8 << 20]);
    start(&memory, &flat(0x20_0000, 0x40), &[], "").unwrap();
    assert_eq!(memory.read_u32(layout::MULTIBOOT + 20), Some(0));
}

#[test]
fn refuses() {
    let error = |file: &[u8]| parse(file).err();
    assert_eq!(error(&header(4, &[])), Some(MultibootError::Video));
    assert_eq!(error(&header(0x28, &[])), Some(MultibootError::Requirements(0x28)));
    assert_eq!(error(&header(0, &[])), Some(MultibootError::NoAddresses));
    assert_eq!(error(&header(ADDRESSES, &[])), Some(MultibootError::Truncated));
    let fields = |fields: [u32; 5]| error(&header(ADDRESSES, &fields));
    assert_eq!(fields([0x10_0000, 0x20_0000, 0, 0, 0]), Some(MultibootError::Inconsistent));
    assert_eq!(
        fields([0x20_0000, 0x10_0000, 0, 0, 0]),
        Some(MultibootError::Inconsistent),
        "before the file"
    );
    assert_eq!(fields([0x10_0000, 0x10_0000, 0x10_1000, 0, 0]), Some(MultibootError::Truncated));
    assert_eq!(fields([0x10_0000, 0x10_0000, 0, 0x10_0004, 0]), Some(MultibootError::Inconsistent));
    assert_eq!(fields([0xa_0000, 0xa_0000, 0, 0, 0]), Some(MultibootError::Place(0xa_0000)));
    assert_eq!(
        fields([0x9_f000, 0x9_f000, 0, 0, 0]),
        Some(MultibootError::Place(0x9_f000)),
        "over what it is told"
    );
    let segment = (1, 0x10_0000, 0x10_0000, 0x100, 0x100);
    let mut file = elf(0x10_0000, &[segment]);
    file[4] = 2;
    assert_eq!(error(&file), Some(MultibootError::NotElf32));
    assert_eq!(error(&elf(0, &[])), Some(MultibootError::Inconsistent));
    assert_eq!(
        error(&elf(0, &[(1, 0, 0x10_0000, 0x200, 0x100)])),
        Some(MultibootError::Inconsistent)
    );
    assert_eq!(
        error(&elf(0, &[(1, 0, 0x10_0000, 0x1001, 0x1001)])),
        Some(MultibootError::Truncated)
    );
}

#[test]
fn says_what_does_not_fit() {
    let file = flat(0x20_0000, 0x40);
    assert_eq!(start(&ram(&[2 << 20]), &file, &[], ""), Err(LoadError::TooSmall(0x20_1000)));
    assert_eq!(
        start(&ram(&[0x20_1000]), &file, &[1; 5000], ""),
        Err(LoadError::TooSmall(0x20_1000 + 5000))
    );
    assert_eq!(
        start(&ram(&[4 << 20]), &file, &[], &"x".repeat(2048)),
        Err(LoadError::CommandLine(2047))
    );
    let wild = header(ADDRESSES, &[0x10_0000, 0x10_0000, 0, 0, 0xffff_0000]);
    assert_eq!(
        start(&ram(&[4 << 20]), &wild, &[], ""),
        Err(MultibootError::Place(0xffff_0000).into())
    );
}

proptest! {
    #[test]
    fn hostile_address_fields(fields in prop::collection::vec(prop_oneof![any::<u32>(), 0x0f_f000u32..0x30_0000], 5), at in 0usize..100, rest in 0usize..5000) {
        let mut file = vec![0u8; at * 4];
        file.extend_from_slice(&header(ADDRESSES, &fields));
        file.resize(file.len() + rest, 1);
        let memory = ram(&[3 << 20]);
        if let Ok(start) = start(&memory, &file, &[7; 10], "line") {
            prop_assert!(memory.contains(start.entry(), 1));
            prop_assert_eq!(memory.read_u32(layout::MULTIBOOT), Some(0x24d), "the kernel was loaded over what it is told");
        }
    }

    #[test]
    fn hostile_elf(
        entry: u32,
        segments in prop::collection::vec((0u32..3, any::<u32>(), prop_oneof![any::<u32>(), 0u32..0x30_0000], 0u32..0x1100, prop_oneof![any::<u32>(), 0u32..0x2000]), 0..5),
        (offset, byte) in (0usize..0x100, any::<u8>()),
    ) {
        let mut file = elf(entry, &segments);
        file[offset] = byte;
        let memory = ram(&[3 << 20]);
        if let Ok(start) = start(&memory, &file, &[], "") {
            prop_assert!(memory.contains(start.entry(), 1));
        }
    }
}
