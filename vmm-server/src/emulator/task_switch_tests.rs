use super::*;
use crate::boot::registers::tests::blank;
use crate::memory::tests::ram;
use proptest::prelude::*;
use std::boxed::Box;
use tessera_abi::vcpu::Table;

const GDT: u64 = 0x1000;
const FIRST: u64 = 0x2000;
/// Across two pages.
const SECOND: u64 = 0x3fe0;
const STACK: u32 = 0x8000;

const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;
const FIRST_SELECTOR: u16 = 0x18;
const SECOND_SELECTOR: u16 = 0x20;

fn describe(base: u64, limit: u64, attributes: u64) -> u64 {
    limit & 0xffff | (base & 0xff_ffff) << 16 | attributes << 40 | (limit >> 16 & 15) << 48 | base >> 24 << 56
}

fn set(memory: &GuestMemory, address: u64, value: u32) {
    memory.write_slice(address, &value.to_le_bytes()).unwrap();
}

fn get(memory: &GuestMemory, address: u64) -> u32 {
    u32::from_le_bytes(memory.read::<4>(address).unwrap())
}

fn type_of(memory: &GuestMemory, selector: u16) -> u8 {
    memory.read::<1>(GDT + u64::from(selector) + 5).unwrap()[0] & 15
}

/// Flat protected mode without paging, in a first task, with a second one beside it.
fn tasks() -> (Box<VcpuState>, GuestMemory) {
    let memory = ram(&[1 << 16]);
    let mut state = blank();
    let entries = [
        0,
        describe(0, 0xf_ffff, 0xc09a),
        describe(0, 0xf_ffff, 0xc092),
        describe(FIRST, 0x67, 0x8b),
        describe(SECOND, 0x67, 0x89),
    ];
    for (index, entry) in entries.iter().enumerate() {
        memory.write_slice(GDT + index as u64 * 8, &entry.to_le_bytes()).unwrap();
    }
    state.gdtr = Table {
        base: GDT,
        limit: entries.len() as u64 * 8 - 1,
    };
    let flat = |selector, attributes| Segment {
        selector,
        attributes,
        limit: u32::MAX,
        ..Segment::default()
    };
    state.segments = [flat(DATA_SELECTOR, 0xc093); 8];
    state.segments[segment::CS] = flat(CODE_SELECTOR, 0xc09b);
    state.segments[segment::LDTR] = Segment {
        attributes: SEGMENT_UNUSABLE,
        ..Segment::default()
    };
    state.segments[segment::TR] = Segment {
        selector: FIRST_SELECTOR,
        attributes: 0x8b,
        limit: 0x67,
        base: FIRST,
        ..Segment::default()
    };
    state.cr0 = 0x11;
    state.rip = 0x5000;
    state.rflags = 0x202;
    state.dr7 = 0x455;
    state.gpr = core::array::from_fn(|number| 0x1111_1111 * number as u64);
    // The second task.
    set(&memory, SECOND + 0x20, 0x6000);
    set(&memory, SECOND + 0x24, 0x42);
    for number in 0..8 {
        set(&memory, SECOND + 0x28 + number * 4, 0x100 + number as u32);
    }
    set(&memory, SECOND + 0x28 + 4 * gpr::RSP as u64, STACK);
    for number in 0..6 {
        let selector = if number == segment::CS { CODE_SELECTOR } else { DATA_SELECTOR };
        set(&memory, SECOND + 0x48 + number as u64 * 4, selector.into());
    }
    set(&memory, SECOND + 0x48 + 4 * segment::GS as u64, 0);
    (state, memory)
}

const fn to_second(source: Source) -> Switch {
    Switch {
        selector: SECOND_SELECTOR,
        source,
        error: None,
        length: 7,
        external: false,
    }
}

#[test]
fn there_by_call_and_back_by_return() {
    let (mut state, memory) = tasks();
    let before = *state;
    task_switch(&mut state, &memory, &to_second(Source::Call)).unwrap();
    assert_eq!((state.rip, state.rflags), (0x6000, 0x42 | u64::from(NESTED_TASK)));
    assert_eq!((state.gpr[0], state.gpr[7], state.gpr[gpr::RSP]), (0x100, 0x107, STACK.into()));
    assert_eq!(state.segments[segment::TR].selector, SECOND_SELECTOR);
    assert_eq!(state.segments[segment::CS].attributes, 0xc09b, "accessed");
    assert_ne!(state.segments[segment::GS].attributes & SEGMENT_UNUSABLE, 0);
    assert_ne!(state.cr0 & CR0_TS, 0);
    assert_eq!(state.dr7, 0x400);
    assert_eq!((get(&memory, SECOND) as u16, get(&memory, FIRST + 0x20)), (FIRST_SELECTOR, 0x5007));
    assert_eq!((type_of(&memory, FIRST_SELECTOR), type_of(&memory, SECOND_SELECTOR)), (11, 11));

    // The first task's TSS says where it goes on; the tables that the processor does not write come from the system.
    state.rip = 0x6002;
    let back = Switch {
        selector: FIRST_SELECTOR,
        source: Source::Return,
        length: 1,
        ..to_second(Source::Return)
    };
    task_switch(&mut state, &memory, &back).unwrap();
    assert_eq!(
        (state.rip, state.rflags, state.gpr[..8].to_vec()),
        (0x5007, 0x202, before.gpr[..8].to_vec())
    );
    assert_eq!((type_of(&memory, FIRST_SELECTOR), type_of(&memory, SECOND_SELECTOR)), (11, 9));
    assert_eq!(
        get(&memory, SECOND + 0x24) & NESTED_TASK,
        0,
        "the saved flags have lost the nesting"
    );
    assert_eq!(get(&memory, SECOND + 0x20), 0x6003);
}

#[test]
fn jumps_do_not_nest() {
    let (mut state, memory) = tasks();
    task_switch(&mut state, &memory, &to_second(Source::Jump)).unwrap();
    assert_eq!(state.rflags, 0x42);
    assert_eq!((get(&memory, SECOND), type_of(&memory, FIRST_SELECTOR)), (0, 9));
}

#[test]
fn gates_push_error_codes() {
    let (mut state, memory) = tasks();
    let switch = Switch {
        error: Some(0xabcd),
        length: 0,
        external: true,
        ..to_second(Source::Gate)
    };
    task_switch(&mut state, &memory, &switch).unwrap();
    assert_eq!(state.gpr[gpr::RSP], u64::from(STACK) - 4);
    assert_eq!((get(&memory, u64::from(STACK) - 4), get(&memory, FIRST + 0x20)), (0xabcd, 0x5000));
}

#[test]
fn narrow_tasks() {
    let (mut state, memory) = tasks();
    memory
        .write_slice(GDT + u64::from(SECOND_SELECTOR), &describe(SECOND, 0x2b, 0x81).to_le_bytes())
        .unwrap();
    for offset in (0..0x2c).step_by(2) {
        let value: u16 = match offset {
            0x0e => 0x6000,
            0x10 => 2,
            0x22 | 0x26 | 0x28 => DATA_SELECTOR,
            0x24 => CODE_SELECTOR,
            0x2a => 0,
            _ => offset as u16,
        };
        memory.write_slice(SECOND + offset, &value.to_le_bytes()).unwrap();
    }
    task_switch(&mut state, &memory, &to_second(Source::Jump)).unwrap();
    assert_eq!((state.rip, state.gpr[0], state.gpr[7]), (0x6000, 0xffff_0012, 0xffff_0020));
    assert_ne!(state.segments[segment::FS].attributes & SEGMENT_UNUSABLE, 0);
}

#[test]
fn bad_tasks_are_refused_before_anything_changes() {
    let cases: [(u64, u16, Source, Fault); 7] = [
        (
            describe(SECOND, 0x67, 0x8b),
            SECOND_SELECTOR,
            Source::Jump,
            Fault::Exception(GENERAL_PROTECTION, Some(0x20)),
        ),
        (
            describe(SECOND, 0x67, 0x89),
            SECOND_SELECTOR,
            Source::Return,
            Fault::Exception(INVALID_TSS, Some(0x20)),
        ),
        (
            describe(SECOND, 0x67, 0x09),
            SECOND_SELECTOR,
            Source::Call,
            Fault::Exception(NOT_PRESENT, Some(0x20)),
        ),
        (
            describe(SECOND, 0x66, 0x89),
            SECOND_SELECTOR,
            Source::Call,
            Fault::Exception(INVALID_TSS, Some(0x20)),
        ),
        (
            describe(0, 0xf_ffff, 0xc092),
            SECOND_SELECTOR,
            Source::Call,
            Fault::Exception(GENERAL_PROTECTION, Some(0x20)),
        ),
        (
            describe(SECOND, 0x67, 0x89),
            0x28,
            Source::Jump,
            Fault::Exception(GENERAL_PROTECTION, Some(0x28)),
        ),
        (
            describe(SECOND, 0x67, 0x89),
            0x24,
            Source::Jump,
            Fault::Exception(GENERAL_PROTECTION, Some(0x24)),
        ),
    ];
    for (raw, selector, source, fault) in cases {
        let (mut state, memory) = tasks();
        memory.write_slice(GDT + u64::from(SECOND_SELECTOR), &raw.to_le_bytes()).unwrap();
        let switch = Switch {
            selector,
            ..to_second(source)
        };
        assert_eq!(task_switch(&mut state, &memory, &switch), Err(fault), "{raw:#x}");
        assert_eq!((state.rip, state.segments[segment::TR].selector), (0x5000, FIRST_SELECTOR));
        assert_eq!((get(&memory, FIRST + 0x20), type_of(&memory, FIRST_SELECTOR)), (0, 11));
    }
}

#[test]
fn bad_segments_fault_in_the_new_task() {
    for (register, selector, fault) in [
        (segment::CS, DATA_SELECTOR, Fault::Exception(INVALID_TSS, Some(0x10))),
        (segment::CS, 0, Fault::Exception(INVALID_TSS, Some(0))),
        (segment::SS, CODE_SELECTOR, Fault::Exception(INVALID_TSS, Some(8))),
        (segment::DS, 0x30, Fault::Exception(INVALID_TSS, Some(0x30))),
        (segment::ES, FIRST_SELECTOR, Fault::Exception(INVALID_TSS, Some(0x18))),
    ] {
        let (mut state, memory) = tasks();
        set(&memory, SECOND + 0x48 + register as u64 * 4, selector.into());
        assert_eq!(task_switch(&mut state, &memory, &to_second(Source::Call)), Err(fault));
        assert_eq!(state.segments[segment::TR].selector, SECOND_SELECTOR);
    }
    let (mut state, memory) = tasks();
    set(&memory, SECOND + TRAP as u64, 1);
    assert_eq!(
        task_switch(&mut state, &memory, &to_second(Source::Call)),
        Err(Fault::Exception(DEBUG, None))
    );
    assert_ne!(state.dr6 & DR6_TASK, 0);
}

proptest! {
    /// Whatever a guest puts there.
    #[test]
    fn any_tables(
        tables in prop::collection::vec(any::<u8>(), 40), task in prop::collection::vec(any::<u8>(), 0x68), selector: u16, source in 0..4u8,
        error: Option<u32>, cr0: u64, cr3: u64, cr4: u64, base: u64, limit: u64,
    ) {
        let (mut state, memory) = tasks();
        memory.write_slice(GDT, &tables).unwrap();
        memory.write_slice(SECOND, &task).unwrap();
        (state.cr0, state.cr3, state.cr4) = (cr0, cr3, cr4);
        let source = [Source::Call, Source::Return, Source::Jump, Source::Gate][usize::from(source)];
        let switch = Switch { selector, source, error, length: 2, external: error.is_some() };
        let _ = task_switch(&mut state, &memory, &switch);
        state.gdtr = Table { base, limit };
        state.segments[segment::TR].base = base;
        let _ = task_switch(&mut state, &memory, &switch);
    }
}
