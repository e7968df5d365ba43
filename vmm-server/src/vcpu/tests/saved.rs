//! A processor's state, taken down and taken over.

use super::*;
use crate::machine::Phase;
use proptest::prelude::*;
use tessera_abi::vcpu::Dirty;
use tessera_vm_state::{decode, encode};

/// What the two instructions do: what is in the processor goes to RDI, or comes from there.
fn extended(machine: &'static Machine<Script>, byte: u8, load: bool) -> Script {
    Script::default().then(move |state| {
        assert_eq!((state.rflags & 0x200, state.xcr0, state.cr4 & 0x4_0200), (0, 7, 0x4_0200));
        let at = state.gpr[gpr::RDI];
        let mut code = [0; 5];
        machine.memory.read_slice(state.rip, &mut code).unwrap();
        assert_eq!(
            code,
            if load {
                [0x48, 0x0f, 0xae, 0x2f, 0xf4]
            } else {
                [0x48, 0x0f, 0xae, 0x27, 0xf4]
            }
        );
        let mut there = [0; 832];
        machine.memory.read_slice(at, &mut there).unwrap();
        if load {
            assert_eq!(there, [byte; 832]);
        } else {
            machine.memory.write_slice(at, &[byte; 832]).unwrap();
        }
        state.gpr = [0xdead; 16];
        state.reason = ExitReason::Halt as u32;
    })
}

fn leaked(vcpus: usize) -> &'static Machine<Script> {
    Box::leak(machine(vcpus))
}

fn save(machine: &'static Machine<Script>, vcpu: &mut Vcpu<'static, Script>, state: &mut VcpuState, byte: u8) -> SavedVcpu {
    machine.begin_exchange(Phase::Saving, Vec::new(), NOW.get());
    vcpu.save(&mut extended(machine, byte, false), state).unwrap()
}

fn vcpu(machine: &'static Machine<Script>) -> (Vcpu<'static, Script>, Box<VcpuState>) {
    let mut state = blank();
    let mut vcpu = Vcpu::new(machine, 0, Box::leak(Box::default()));
    vcpu.power_on(&mut state);
    (vcpu, state)
}

#[test]
fn a_processor_goes_on_elsewhere_where_it_was() {
    let here = leaked(1);
    here.memory.write_slice(0x1000, &[0x77; 0x5000]).unwrap();
    let (mut first, mut state) = vcpu(here);
    // Its time stamp counter was set, its timer runs, an interrupt waits and another is in service.
    first.lapic.set_virtual_wire();
    first.lapic.page.requests.insert(0x41);
    first.lapic.page.in_service.insert(0x31);
    first.halted = true;
    state.rip = 0x1234;
    state.gpr[gpr::RBX] = 42;
    state.efer = 0xd01;
    state.inject = EVENT_VALID | EVENT_EXCEPTION | EVENT_ERROR | 14;
    state.inject_error = 6;
    // The monitor changed this, and the kernel has not taken it: what the kernel holds is older.
    state.dirty = Dirty::CONTROL.bits();
    NOW.set(5_001_000_000);
    let saved = save(here, &mut first, &mut state, 9);
    assert_eq!(
        (state.rip, state.gpr[gpr::RBX], state.efer),
        (0x1234, 42, 0xd01),
        "it could go on here too"
    );
    assert_eq!(state.dirty, Dirty::all().bits());
    let mut page = [0; 0x5000];
    here.memory.read_slice(0x1000, &mut page).unwrap();
    assert!(page.iter().all(|byte| *byte == 0x77), "the guest's RAM is what it was");
    let saved: SavedVcpu = decode(&encode(&saved).unwrap()).unwrap();

    let there = leaked(1);
    there.memory.write_slice(0x1000, &[0x77; 0x5000]).unwrap();
    let (mut second, mut state) = vcpu(there);
    NOW.set(77_000);
    there.begin_exchange(Phase::Restoring, Vec::new(), NOW.get());
    second.restore(&mut extended(there, 9, true), &mut state, &saved).unwrap();
    assert_eq!((state.rip, state.gpr[gpr::RBX], state.efer), (0x1234, 42, 0xd01));
    assert_eq!(
        (state.inject, state.inject_error),
        (EVENT_VALID | EVENT_EXCEPTION | EVENT_ERROR | 14, 6)
    );
    assert_eq!(
        77_000_u64.wrapping_add(state.tsc_offset),
        5_000_000_000,
        "the guest's counter goes on"
    );
    assert!(second.lapic.page.requests.contains(0x41) && second.lapic.page.in_service.contains(0x31));
    assert!(second.halted);
    there.memory.read_slice(0x1000, &mut page).unwrap();
    assert!(page.iter().all(|byte| *byte == 0x77));
}

#[test]
fn an_interrupt_that_comes_with_the_suspension_is_in_the_state() {
    let message = Message {
        destination: 0,
        logical: false,
        wide: false,
        delivery: Delivery::Fixed,
        vector: 0x23,
        level: false,
    };
    let here = leaked(1);
    let (mut first, mut state) = vcpu(here);
    first.lapic.set_virtual_wire();
    here.start(Start::Firmware);
    here.interrupts.send(&message, None);
    assert!(here.suspend());
    assert!(!first.prepare(&mut Script::default(), &mut state), "it is to stand still");
    let saved = save(here, &mut first, &mut state, 3);

    let there = leaked(1);
    let (mut second, mut state) = vcpu(there);
    there.begin_exchange(Phase::Restoring, Vec::new(), NOW.get());
    second.restore(&mut extended(there, 3, true), &mut state, &saved).unwrap();
    let requests = &second.lapic.page.requests;
    assert!(requests.contains(0x23), "{requests:?}");
}

#[test]
fn a_state_that_the_processor_refuses_is_refused() {
    let machine = leaked(1);
    let (mut first, mut state) = vcpu(machine);
    let saved = save(machine, &mut first, &mut state, 1);
    let fault = Script::default().then(exit(ExitReason::Shutdown));
    let mut fault = fault;
    assert!(first.restore(&mut fault, &mut state, &saved).is_err());
    state.xsave_size = 576;
    assert!(
        first.restore(&mut Script::default(), &mut state, &saved).is_err(),
        "another processor's"
    );
    let mut fails = Script::default().then(exit(ExitReason::Memory));
    state.xsave_size = 832;
    assert!(first.save(&mut fails, &mut state).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000), place in any::<prop::sample::Index>(), bit in 0u8..8) {
        let _ = decode::<SavedVcpu>(&bytes);
        let machine = leaked(1);
        let (mut first, mut state) = vcpu(machine);
        let saved = save(machine, &mut first, &mut state, 1);
        let mut bytes = encode(&saved).unwrap();
        let at = place.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(saved) = decode::<SavedVcpu>(&bytes) {
            let mut script = Script::default().then(exit(ExitReason::Halt));
            let _ = first.restore(&mut script, &mut state, &saved);
            first.run(&mut Script::default(), &mut state);
        }
    }
}
