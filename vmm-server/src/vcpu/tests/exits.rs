//! What an instruction that is carried out here leaves behind.

use super::*;

#[test]
fn refused_msr_writes_change_nothing() {
    for (number, good, bad) in [(0x2ff, 0x806, 0x1c06), (0x250, 0x0101_0101_0101_0101, 2), (0x17a, 4, 8)] {
        let machine = machine(1);
        let script = Script::default()
            .then(write_msr(number, good))
            .then(write_msr(number, bad))
            .then(read_msr(number));
        let (_, state, script) = play(&machine, |_, _| (), script);
        assert_eq!(
            script.injected[2],
            EVENT_VALID | EVENT_ERROR | EVENT_EXCEPTION | 13,
            "MSR {number:#x}"
        );
        assert_eq!(state.gpr[gpr::RDX] << 32 | state.gpr[gpr::RAX], good, "MSR {number:#x}");
    }
}

#[test]
fn a_single_step_over_an_exit_ends_with_its_trap() {
    const TRAP: u64 = 1 << 8;
    const RESUME: u64 = 1 << 16;
    let play = |step: &dyn Fn(&mut VcpuState)| {
        let machine = machine(1);
        let mut state = blank();
        step(&mut state);
        let (reason, rcx, flags) = (state.reason, state.gpr[gpr::RCX], state.rflags);
        let script = Script::default().then(move |state| {
            (state.reason, state.gpr[gpr::RCX]) = (reason, rcx);
            state.rflags |= flags;
        });
        let (_, state, script) = play(&machine, |_, _| (), script);
        (state, script)
    };
    let (state, script) = play(&|state| {
        exit(ExitReason::Cpuid)(state);
        state.rflags = TRAP | RESUME;
    });
    assert_eq!(script.injected[1], EVENT_VALID | EVENT_EXCEPTION | 1);
    assert_eq!((state.rip, state.dr6 >> 14 & 1), (BASE + 2, 1));
    assert_eq!(state.rflags & (TRAP | RESUME), TRAP, "the resume flag ends with the instruction");
    let (state, script) = play(&|state| {
        read_msr(0xdead)(state);
        state.rflags = TRAP | RESUME;
    });
    assert_eq!(
        script.injected[1],
        EVENT_VALID | EVENT_ERROR | EVENT_EXCEPTION | 13,
        "a fault is no end"
    );
    assert_eq!(state.rflags & RESUME, RESUME);
    let (_, script) = play(&|state| {
        exit(ExitReason::Halt)(state);
        state.rflags = TRAP;
    });
    assert_eq!(
        (script.injected[1], script.slept_until.len()),
        (EVENT_VALID | EVENT_EXCEPTION | 1, 0),
        "HLT does not sleep"
    );
    let (_, script) = play(&|state| {
        exit(ExitReason::InterruptWindow)(state);
        state.rflags = TRAP;
    });
    assert_eq!(script.injected[1], 0, "what ends no instruction is no step");
}

#[test]
fn a_fault_has_the_resume_flag_on_the_stack() {
    let machine = machine(1);
    let (_, state, _) = play(&machine, |_, _| (), Script::default().then(read_msr(0xdead)));
    assert_eq!(state.rflags >> 16 & 1, 1);
}

#[test]
fn xsetbv_is_for_ring_0() {
    for (ring, xcr0) in [(0, 3), (3, 1)] {
        let machine = machine(1);
        let ready = |_: &mut Vcpu<'_, Script>, state: &mut VcpuState| state.segments[segment::SS].attributes |= ring << 5;
        let script = Script {
            held: (0, 0, 1),
            ..Script::default()
        };
        let script = script.then(|state| {
            exit(ExitReason::XSetBv)(state);
            state.gpr[gpr::RAX] = 3;
        });
        let (_, state, _) = play(&machine, ready, script);
        assert_eq!(state.xcr0, xcr0, "ring {ring}");
    }
}

#[test]
fn task_priority_follows_cr8() {
    let read = |state: &mut VcpuState| {
        read_msr(0x808)(state);
        state.cr8 = 9;
    };
    let first = machine(1);
    let (_, state, _) = play(&first, ready, Script::default().then(read));
    assert_eq!(state.gpr[gpr::RAX], 0x90);
    // And CR8 follows a write, although the APIC had that value before CR8 changed.
    let write = |state: &mut VcpuState| {
        write_msr(0x808, 0)(state);
        state.cr8 = 9;
    };
    let second = machine(1);
    let (_, state, _) = play(&second, ready, Script::default().then(write));
    assert_eq!(state.cr8, 0);
}
