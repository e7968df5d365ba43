use super::*;
use crate::apic::lapic_registers::register;
use crate::apic::routing::tests::Kicks;
use crate::apic::{Delivery, Interrupts, Message};
use crate::boot::Start;
use crate::boot::layout;
use crate::boot::registers::tests::blank;
use crate::clock::Clock;
use crate::cpuid::{CpuidTable, Policy, tests::everything};
use crate::devices::Request;
use crate::devices::chipset::tests::Terminal;
use crate::memory::tests::ram;
use core::fmt;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::string::{String, ToString};
use std::vec::Vec;
use tessera_abi::vcpu::{EVENT_ERROR, EVENT_EXCEPTION, EVENT_INTERRUPT, EVENT_NMI, IO_IN, IO_WIDTH_SHIFT, WINDOW_DELIVER, gpr, segment};

std::thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// One entry: the guest does this, and this is the exit.
type Step = Box<dyn FnOnce(&mut VcpuState) -> Run>;

/// A guest that follows a script. At its end the machine is stopped, so that the loop ends.
#[derive(Default)]
struct Script {
    steps: VecDeque<Step>,
    /// Events that were injected, by entry.
    injected: Vec<u32>,
    deadlines: Vec<u64>,
    windows: Vec<u32>,
    slept_until: Vec<u64>,
    /// Bits that the next wait takes.
    signal: u64,
    warnings: RefCell<Vec<String>>,
    /// EFER, CR0 and XCR0 that the processor holds.
    held: (u64, u64, u64),
}

impl Script {
    fn then(mut self, step: impl FnOnce(&mut VcpuState) + 'static) -> Self {
        self.steps.push_back(Box::new(|state| {
            step(state);
            Run::Exit
        }));
        self
    }
}

impl Host for Script {
    type Kick = Kicks;
    type Console = Terminal;

    fn now() -> u64 {
        NOW.get()
    }

    fn nap() {
        panic!("one thread never waits for itself");
    }

    fn run(&mut self, state: &mut VcpuState, deadline: u64) -> Run {
        self.injected.push(core::mem::take(&mut state.inject));
        self.deadlines.push(deadline);
        self.windows.push(state.request_window);
        self.held = (state.efer, state.cr0, state.xcr0);
        state.dirty = 0;
        state.reason = ExitReason::Halt as u32;
        match self.steps.pop_front() {
            Some(step) => step(state),
            None => Run::Refused(12),
        }
    }

    /// What the processor holds replaces what was written to the page and not yet taken over.
    fn sync(&mut self, state: &mut VcpuState) {
        (state.efer, state.cr0, state.xcr0) = self.held;
    }

    fn wait(&mut self, deadline: u64) -> u64 {
        self.slept_until.push(deadline);
        assert!(self.slept_until.len() < 1000, "asleep for ever");
        if deadline != u64::MAX {
            NOW.set(deadline);
        }
        core::mem::take(&mut self.signal)
    }

    fn wake_control(&self) {}

    fn warn(&self, text: fmt::Arguments<'_>) {
        self.warnings.borrow_mut().push(text.to_string());
    }
}

fn machine(vcpus: usize) -> Box<Machine<Script>> {
    NOW.set(1_000_000);
    let clock = Clock::new(1_000_000_000, 1_000_000);
    let cpuid = CpuidTable::new(
        &Policy {
            vcpus,
            tsc_khz: clock.khz(),
            xcr0: 7,
        },
        everything,
    );
    let interrupts = Interrupts::new(vcpus, Kicks::default());
    let machine = Machine::new(ram(&[1 << 20]), interrupts, Terminal::default(), clock, cpuid, 1_700_000_000);
    machine.start(Start::Linux {
        entry: 0xffff_ffff_8100_0000,
    });
    Box::new(machine)
}

/// Runs a script on vCPU 0 after `prepare`, and gives everything back to be looked at.
fn play<'m>(
    machine: &'m Machine<Script>,
    prepare: impl FnOnce(&mut Vcpu<'m, Script>, &mut VcpuState),
    mut script: Script,
) -> (Vcpu<'m, Script>, Box<VcpuState>, Script) {
    let mut state = blank();
    let mut vcpu = Vcpu::new(machine, 0, Box::leak(Box::default()));
    vcpu.power_on(&mut state);
    prepare(&mut vcpu, &mut state);
    vcpu.run(&mut script, &mut state);
    (vcpu, state, script)
}

fn exit(reason: ExitReason) -> impl Fn(&mut VcpuState) {
    move |state| state.reason = reason as u32
}

fn write_msr(number: u32, value: u64) -> impl Fn(&mut VcpuState) {
    move |state| {
        state.reason = ExitReason::WriteMsr as u32;
        state.gpr[gpr::RCX] = number.into();
        state.gpr[gpr::RAX] = value & 0xffff_ffff;
        state.gpr[gpr::RDX] = value >> 32;
    }
}

fn read_msr(number: u32) -> impl Fn(&mut VcpuState) {
    move |state| {
        state.reason = ExitReason::ReadMsr as u32;
        state.gpr[gpr::RCX] = number.into();
    }
}

/// x2APIC mode, software-enabled, interrupts on.
fn ready(vcpu: &mut Vcpu<'_, Script>, state: &mut VcpuState) {
    assert!(vcpu.lapic.set_base(vcpu.lapic.base() | 1 << 10));
    vcpu.lapic.write_msr(register::SVR, 0x1ff, 0).unwrap();
    state.rflags |= 1 << 9;
}

const BASE: u64 = 0xffff_ffff_8100_0000;

#[test]
fn cpuid_answers_and_moves_on() {
    let machine = machine(2);
    let (_, state, script) = play(
        &machine,
        |_, _| (),
        Script::default().then(|state| {
            state.reason = ExitReason::Cpuid as u32;
            state.gpr[gpr::RAX] = 0x4000_0000 | 0xffff_ffff_0000_0000;
        }),
    );
    assert_eq!(state.gpr[gpr::RBX], u64::from(u32::from_le_bytes(*b"KVMK")));
    assert_eq!(state.rip, BASE + 2);
    assert_eq!(script.deadlines, [NEVER, NEVER]);
    assert_eq!(machine.statistics(0).exits(ExitReason::Cpuid as usize), 1);
}

#[test]
fn unknown_msrs_raise_gp_and_are_logged_a_few_times() {
    let machine = machine(1);
    let script = (0..30).fold(Script::default(), |script, _| {
        script.then(read_msr(0xdead)).then(write_msr(0xbeef, 1))
    });
    let (_, state, script) = play(&machine, |_, _| (), script);
    assert_eq!(state.rip, BASE, "the instruction did not complete");
    assert_eq!(script.injected[1], EVENT_VALID | EVENT_ERROR | EVENT_EXCEPTION | 13);
    assert_eq!(script.warnings.borrow().len(), 16);
}

#[test]
fn every_msr_number_is_survived() {
    let machine = machine(1);
    for range in [
        0..0x1000,
        0x4b56_4d00..0x4b56_4d10,
        0xc000_0000..0xc000_0200,
        0xc001_0000..0xc001_2000,
    ] {
        for value in [0, 1, u64::MAX, 0x1234_5678_9abc_def1] {
            let script = range.clone().fold(Script::default(), |script, number| {
                script.then(read_msr(number)).then(write_msr(number, value))
            });
            let (_, _, script) = play(&machine, ready, script);
            assert!(script.steps.is_empty() || machine.phase() != Phase::Running);
            machine.reset_devices(0);
            machine.start(Start::Linux { entry: BASE });
        }
    }
}

#[test]
fn efer_hides_nothing_and_allows_no_svm() {
    let machine = machine(1);
    let (_, state, script) = play(
        &machine,
        |_, _| (),
        Script::default()
            .then(write_msr(0xc000_0080, 0xd01))
            .then(write_msr(0xc000_0080, 0x1d01)),
    );
    assert_eq!(state.efer, 0xd01);
    assert_eq!(script.injected[2] & 0xff, 13, "EFER.SVME is refused");
}

#[test]
fn what_a_write_changes_survives_the_look_for_the_instruction_length() {
    let machine = machine(2);
    let low = |step: Box<dyn Fn(&mut VcpuState)>| {
        move |state: &mut VcpuState| {
            // Code in the lower half, whose instruction lengths must be looked up.
            state.rip = 0x9_a000;
            step(state);
        }
    };
    let xsetbv = |state: &mut VcpuState| {
        state.reason = ExitReason::XSetBv as u32;
        (state.gpr[gpr::RCX], state.gpr[gpr::RAX], state.gpr[gpr::RDX]) = (0, 7, 0);
    };
    let script = Script::default()
        .then(low(Box::new(write_msr(0xc000_0080, 0xd01))))
        .then(low(Box::new(xsetbv)));
    let (_, state, script) = play(&machine, |_, _| (), script);
    assert_eq!((state.efer & 0xb01, state.xcr0), (0x901, 7));
    assert!(script.steps.is_empty());
}

#[test]
fn deadline_timer_interrupts() {
    let machine = machine(1);
    let script = Script::default()
        .then(write_msr(0x832, 0x4_00ec))
        .then(write_msr(0x6e0, 5000))
        .then(|state| {
            NOW.set(1_005_000);
            state.reason = ExitReason::Deadline as u32;
        })
        .then(write_msr(0x80b, 0));
    let (vcpu, _, script) = play(&machine, ready, script);
    assert_eq!(script.deadlines[2], 1_005_000, "guest TSC 5000 is host TSC 1005000");
    assert_eq!(script.injected, [0, 0, 0, EVENT_VALID | EVENT_INTERRUPT | 0xec, 0]);
    assert_eq!(script.deadlines[3], NEVER);
    assert!(vcpu.lapic.page.in_service.is_empty());
    assert_eq!(machine.statistics(0).injected(), 1);
}

#[test]
fn an_interrupt_in_the_shadow_of_sti_ends_the_halt_behind_it() {
    const CODE: u64 = 0x2000;
    let message = Message {
        destination: 0,
        logical: false,
        wide: true,
        delivery: Delivery::Fixed,
        vector: 0x55,
        level: false,
    };
    // HLT is done with; what is something else runs first, behind a window.
    for (code, injected, rip) in [(0xf4, EVENT_VALID | 0x55, CODE + 1), (0x90, 0, CODE)] {
        let machine = machine(1);
        machine.memory.write_slice(CODE, &[code]).unwrap();
        let script = Script::default().then(|state| {
            state.rip = CODE;
            state.rflags |= 1 << 9;
            state.interrupt_shadow = 1;
            state.reason = ExitReason::Deadline as u32;
        });
        let (_, state, script) = play(
            &machine,
            |vcpu, state| {
                ready(vcpu, state);
                (state.cr0, state.efer) = (0x10, 0);
                (state.rflags, state.segments[segment::CS].base) = (2, 0);
                machine.interrupts.send(&message, None);
            },
            script,
        );
        assert_eq!((script.injected[1], state.rip), (injected, rip), "{code:#x}");
        assert_eq!(script.windows[1], if injected == 0 { WINDOW_DELIVER } else { 0 });
    }
}

#[test]
fn interrupts_wait_for_the_window() {
    let machine = machine(1);
    let script = Script::default()
        .then(|state| {
            state.rflags &= !(1 << 9);
            state.reason = ExitReason::Deadline as u32;
        })
        .then(|state| {
            state.rflags |= 1 << 9;
            state.interrupt_shadow = 1;
            state.reason = ExitReason::InterruptWindow as u32;
        })
        .then(|state| {
            state.interrupt_shadow = 0;
            state.reason = ExitReason::InterruptWindow as u32;
        });
    let message = Message {
        destination: 0,
        logical: false,
        wide: true,
        delivery: Delivery::Fixed,
        vector: 0x55,
        level: false,
    };
    let (_, _, script) = play(
        &machine,
        |vcpu, state| {
            ready(vcpu, state);
            state.rflags &= !(1 << 9);
            machine.interrupts.send(&message, None);
        },
        script,
    );
    assert_eq!(script.windows, [WINDOW_DELIVER, WINDOW_DELIVER, WINDOW_DELIVER, 0]);
    assert_eq!(script.injected, [0, 0, 0, EVENT_VALID | EVENT_INTERRUPT | 0x55]);
}

#[test]
fn an_interrupted_delivery_begins_again() {
    let machine = machine(1);
    let script = Script::default().then(|state| {
        state.reason = ExitReason::Deadline as u32;
        state.vectoring = EVENT_VALID | EVENT_ERROR | EVENT_EXCEPTION | 14;
        state.vectoring_error = 2;
    });
    let (_, state, script) = play(&machine, ready, script);
    assert_eq!(script.injected[1], EVENT_VALID | EVENT_ERROR | EVENT_EXCEPTION | 14);
    assert_eq!((state.inject_error, state.vectoring), (2, 0));
}

#[test]
fn halts_until_the_timer() {
    let machine = machine(1);
    let script = Script::default()
        .then(write_msr(0x832, 0x4_00ec))
        .then(write_msr(0x6e0, 70_000))
        .then(exit(ExitReason::Halt));
    let (_, state, script) = play(&machine, ready, script);
    assert_eq!(script.slept_until, [1_070_000]);
    assert_eq!(script.injected[3], EVENT_VALID | EVENT_INTERRUPT | 0xec);
    assert_eq!(
        state.rip,
        BASE + 5,
        "wrmsr, wrmsr, hlt are 2, 2 and 1 bytes; the length of hlt is the plain one"
    );
}

#[test]
fn nmi_wakes_and_goes_first() {
    let machine = machine(1);
    let message = Message {
        destination: 0,
        logical: false,
        wide: true,
        delivery: Delivery::Nmi,
        vector: 0,
        level: false,
    };
    let (_, _, script) = play(
        &machine,
        |vcpu, state| {
            ready(vcpu, state);
            machine.interrupts.send(&message, None);
            machine.interrupts.send(
                &Message {
                    delivery: Delivery::Fixed,
                    vector: 0x44,
                    ..message
                },
                None,
            );
        },
        Script::default().then(exit(ExitReason::InterruptWindow)),
    );
    assert_eq!(script.injected, [EVENT_VALID | EVENT_NMI | 2, EVENT_VALID | EVENT_INTERRUPT | 0x44]);
    assert_eq!(script.windows, [WINDOW_DELIVER, 0]);
}

#[test]
fn a_routed_signal_wakes_a_halted_guest_and_interrupts_a_running_one() {
    let machine = machine(1);
    let script = Script {
        signal: 1 << 5 | 1 << 6,
        ..Script::default()
    };
    let script = script.then(exit(ExitReason::Halt)).then(exit(ExitReason::Cpuid));
    let mut script = script;
    // The kernel leaves a bit to the monitor that it could have delivered.
    script.steps.push_back(Box::new(|_| Run::Kicked(1 << 6)));
    let (vcpu, _, script) = play(
        &machine,
        |vcpu, state| {
            ready(vcpu, state);
            machine.interrupts.set_route(0, 5, 0x45);
            machine.interrupts.set_route(0, 6, 0x56);
        },
        script,
    );
    assert_eq!(
        script.injected[..2],
        [0, EVENT_VALID | 0x56],
        "the more important one ends the sleep"
    );
    assert_eq!(script.windows[1], WINDOW_DELIVER, "the other one is left to the kernel");
    assert!(vcpu.lapic.page.requests.contains(0x45) && vcpu.lapic.page.requests.contains(0x56));
}

#[test]
fn a_processor_that_delivers_by_itself_is_left_to_it() {
    let machine = machine(1);
    let (vcpu, _, script) = play(
        &machine,
        |vcpu, state| {
            ready(vcpu, state);
            state.processor_delivers = 1;
            vcpu.lapic.accept(0x44, false);
        },
        Script::default(),
    );
    assert_eq!((script.injected[0], script.windows[0]), (0, WINDOW_DELIVER));
    assert!(vcpu.lapic.page.requests.contains(0x44) && !vcpu.lapic.page.in_service.contains(0x44));
}

/// A guest with a page for the paravirtual end of interrupt takes an interrupt and then leaves by `step`.
fn with_end_of_interrupt_page(machine: &Machine<Script>, step: impl FnOnce(&mut VcpuState) + 'static) -> bool {
    let message = Message {
        destination: 0,
        logical: false,
        wide: true,
        delivery: Delivery::Fixed,
        vector: 0x44,
        level: false,
    };
    let prepare = |vcpu: &mut Vcpu<'_, Script>, state: &mut VcpuState| {
        ready(vcpu, state);
        assert!(vcpu.paravirt.set_end_of_interrupt(0x3001, &vcpu.machine.memory));
        vcpu.machine.interrupts.send(&message, None);
    };
    let (vcpu, ..) = play(machine, prepare, Script::default().then(step));
    vcpu.lapic.page.in_service.contains(0x44)
}

#[test]
fn paravirtual_end_of_interrupt_spares_the_write() {
    let machine = machine(1);
    assert!(with_end_of_interrupt_page(&machine, exit(ExitReason::Deadline)));
    assert_eq!(
        machine.memory.read_u32(0x3000),
        Some(0),
        "the exit took the unused offer back: the guest must write"
    );
    let machine: &'static Machine<Script> = Box::leak(self::machine(1));
    let in_service = with_end_of_interrupt_page(machine, |state| {
        assert_eq!(machine.memory.read_u32(0x3000), Some(1), "offered");
        machine.memory.write_u32(0x3000, 0).unwrap();
        state.reason = ExitReason::Deadline as u32;
    });
    assert!(!in_service, "ended without a write");
}

#[test]
fn start_up_messages_bring_a_processor_up() {
    let machine = machine(2);
    let mut state = blank();
    let mut vcpu = Vcpu::new(&machine, 1, Box::leak(Box::default()));
    vcpu.power_on(&mut state);
    let to = |delivery, vector| Message {
        destination: 1,
        logical: false,
        wide: true,
        delivery,
        vector,
        level: false,
    };
    machine.interrupts.send(&to(Delivery::Init, 0), Some(0));
    machine.interrupts.send(&to(Delivery::StartUp, 0x9a), Some(0));
    let mut script = Script::default();
    vcpu.run(&mut script, &mut state);
    assert_eq!((state.segments[segment::CS].base, state.rip), (0x9_a000, 0));
    assert_eq!(script.injected.len(), 1, "it ran");
}

#[test]
fn interprocessor_interrupts_by_shorthand_and_destination() {
    let machine = machine(4);
    let script = Script::default()
        .then(write_msr(0x830, 0xc_0041)) // all but self
        .then(write_msr(0x830, 3 << 32 | 0x42));
    let (vcpu, ..) = play(&machine, ready, script);
    assert!(vcpu.lapic.page.requests.is_empty());
    let vectors = |index: usize| {
        let mut all = Vec::new();
        machine
            .interrupts
            .inbox(index)
            .take_vectors(|word, vectors, _| all.extend((0..64).filter(|bit| vectors >> bit & 1 != 0).map(|bit| word * 64 + bit)));
        all
    };
    assert_eq!(
        (vectors(1), vectors(2), vectors(3)),
        (Vec::from([0x41]), Vec::from([0x41]), Vec::from([0x41, 0x42]))
    );
}

#[test]
fn port_access_merges_into_rax() {
    let machine = machine(1);
    let script = Script::default().then(|state| {
        state.reason = ExitReason::Io as u32;
        state.info = [0x4321 | 1 << IO_WIDTH_SHIFT | IO_IN, BASE + 77, 0, 0];
        state.gpr[gpr::RAX] = 0x1234_5678_9abc_de00;
    });
    let (_, state, _) = play(&machine, |_, _| (), script);
    assert_eq!((state.gpr[gpr::RAX], state.rip), (0x1234_5678_9abc_deff, BASE + 77));
}

#[test]
fn requests_stop_the_machine() {
    let write = |port: u64, width: u64, value: u64| {
        move |state: &mut VcpuState| {
            state.reason = ExitReason::Io as u32;
            state.info = [port | width << IO_WIDTH_SHIFT, BASE, 0, 0];
            state.gpr[gpr::RAX] = value;
        }
    };
    let off = machine(1);
    play(&off, |_, _| (), Script::default().then(write(0x604, 2, 0x3400)));
    assert_eq!(off.phase(), Phase::PoweredOff);
    let asleep = machine(1);
    play(&asleep, |_, _| (), Script::default().then(write(0x604, 2, 0x2c00)));
    assert_eq!(asleep.phase(), Phase::Sleeping);
    assert!(asleep.suspend(), "who sleeps can be suspended");
    asleep.go_on();
    assert_eq!(asleep.phase(), Phase::Sleeping, "and sleeps on");
    asleep.sleep_devices(0);
    asleep.chipset().press_power_button(0, &asleep.interrupts);
    assert!(asleep.chipset().is_woken());
    asleep.wake(Start::Firmware, 0);
    assert_eq!((asleep.phase(), asleep.first_instruction()), (Phase::Running, Start::Firmware));
    assert!(!off.suspend(), "who is off cannot");
    let reset = machine(1);
    play(&reset, |_, _| (), Script::default().then(write(0xcf9, 1, 6)));
    assert_eq!(reset.phase(), Phase::Resetting);
    assert!(!reset.request(Request::PowerOff), "the first request counts");
}

#[test]
fn what_cannot_be_handled_stops_the_machine_with_a_report() {
    for (reason, words) in [
        (ExitReason::Shutdown, "triple fault"),
        (ExitReason::EntryFailed, "refused to enter"),
        (ExitReason::Unknown, "not known"),
    ] {
        let machine = machine(1);
        play(&machine, |_, _| (), Script::default().then(exit(reason)));
        assert_eq!(machine.phase(), Phase::Failed);
        let report = machine.report();
        assert!(report.contains(words), "{report}");
        assert!(report.contains("rip ffffffff81000000") && report.contains("code"), "{report}");
        assert!(report.lines().all(|line| line.len() <= 100), "{report}");
    }
}

#[test]
fn instructions_of_the_extensions_raise_ud() {
    let machine = machine(1);
    let script = Script::default()
        .then(exit(ExitReason::Virtualisation))
        .then(exit(ExitReason::Mwait))
        .then(exit(ExitReason::ReadPmc));
    let (_, _, script) = play(&machine, |_, _| (), script);
    let events: Vec<_> = script.injected.iter().map(|event| event & 0xff).collect();
    assert_eq!(events, [0, 6, 6, 13]);
}

#[test]
fn a_task_switch_to_nowhere_raises_gp_and_ends_the_event_behind_it() {
    let machine = machine(1);
    let gate = |state: &mut VcpuState| {
        exit(ExitReason::TaskSwitch)(state);
        state.info = [0x77 | 3 << 32, 0, 0, 0];
        state.vectoring = EVENT_VALID | EVENT_INTERRUPT | 0x40;
    };
    let (_, _, script) = play(&machine, |_, _| (), Script::default().then(gate));
    assert_eq!(script.injected[1], EVENT_VALID | EVENT_EXCEPTION | EVENT_ERROR | 13);
}

#[test]
fn device_memory_is_emulated() {
    let machine = machine(1);
    // mov eax, [rbx]; at the entry point through boot-like page tables.
    machine.memory.write_slice(layout::PAGE_TABLES, &(0x9003u64).to_le_bytes()).unwrap();
    for i in 0..4u64 {
        machine.memory.write_slice(0x9000 + i * 8, &(i << 30 | 0x83).to_le_bytes()).unwrap();
    }
    machine.memory.write_slice(0x4_0000, &[0x8b, 0x03]).unwrap();
    let script = Script::default().then(|state| {
        state.reason = ExitReason::Memory as u32;
        state.rip = 0x4_0000;
        state.gpr[gpr::RBX] = 0xfee0_0030;
        state.info = [0xfee0_0030, 0, 0, 0];
    });
    let (_, state, _) = play(&machine, |_, _| (), script);
    assert_eq!(state.gpr[gpr::RAX] & 0xff, 0x14, "version of the local APIC");
    assert_eq!(state.rip, 0x4_0002);
}

mod exits;
mod saved;
