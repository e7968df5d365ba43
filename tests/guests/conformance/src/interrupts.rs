//! Interrupts of one processor: shadows, NMI, the local APIC's priorities and timer (SDM volume 3, 6.7, 6.8.3, chapter 11).

use crate::{absent, code, ensure, machine, report::Outcome, same, start::Test, trap};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    ("interrupt-flag", flag),
    ("interrupt-shadow-of-sti", shadow_of_sti),
    ("interrupt-shadow-of-mov-ss", shadow_of_mov_ss),
    ("interrupt-ends-hlt", ends_hlt),
    ("interrupt-between-strings", between_strings),
    ("nmi", nmi),
    ("nmi-blocked-until-iret", nmi_blocked),
    ("nmi-shadow-of-mov-ss", nmi_shadow),
    ("nmi-ends-hlt", nmi_ends_hlt),
    ("apic-self-ipi", self_ipi),
    ("apic-destinations", destinations),
    ("apic-priorities", priorities),
    ("apic-cr8", cr8),
    ("apic-cr8-lets-through-at-once", cr8_at_once),
    ("apic-registers", registers),
    ("apic-errors", errors),
    ("apic-disabled", disabled),
    ("apic-timer-one-shot", one_shot),
    ("apic-timer-periodic", periodic),
    ("apic-timer-masked", masked),
    ("apic-timer-count", count_down),
    ("apic-timer-deadline", deadline),
];

const VECTOR: u8 = 0x61;

fn id() -> u32 {
    machine::apic(0x20) >> 24
}

/// A fixed interrupt for this processor, by the shorthand.
fn pend(vector: u8) {
    machine::set_apic(0x300, 0x4_0000 | u32::from(vector));
    machine::wait(|| machine::apic(0x200 + u64::from(vector / 32) * 0x10) >> (vector % 32) & 1 != 0);
}

fn flag() -> Outcome {
    pend(VECTOR);
    // SAFETY: interrupts are off.
    unsafe { core::arch::asm!("nop", "nop") };
    same!(trap::count(VECTOR), 0, "with interrupts off");
    // STI and CLI next to each other let nothing in.
    // SAFETY: handlers are installed.
    unsafe { core::arch::asm!("sti", "cli", "nop") };
    same!(trap::count(VECTOR), 0, "between STI and CLI");
    machine::open();
    same!(trap::count(VECTOR), 1, "with interrupts on");
    // POPFQ has no shadow.
    pend(VECTOR);
    let run = code!("push 0x202"; "popfq"; "cli");
    let trap = trap::probe(run, 0);
    same!(trap.map(|t| (t.vector, t.rip)), Some((VECTOR, trap::next_at())), "POPFQ");
    Ok(())
}

fn shadow_of_sti() -> Outcome {
    pend(VECTOR);
    let trap = trap::probe(code!("sti"; "nop"; "nop", "cli"), 0);
    same!(
        trap.map(|t| (t.vector, t.rip)),
        Some((VECTOR, trap::next_at())),
        "one instruction after STI"
    );
    // Over an instruction that leaves the guest.
    pend(VECTOR);
    let trap = trap::probe(code!("mov r8, rbx", "sti"; "cpuid"; "nop", "cli", "mov rbx, r8"), 0);
    same!(
        trap.map(|t| (t.vector, t.rip)),
        Some((VECTOR, trap::next_at())),
        "CPUID in the shadow"
    );
    pend(VECTOR);
    let trap = trap::probe(code!("sti"; "mov eax, [0xfee00030]"; "nop", "cli"), 0);
    same!(
        trap.map(|t| (t.vector, t.rip)),
        Some((VECTOR, trap::next_at())),
        "MMIO in the shadow"
    );
    Ok(())
}

fn shadow_of_mov_ss() -> Outcome {
    // The command is written by the instruction before MOV SS; whenever it arrives, it is not taken right behind MOV SS.
    for _ in 0..20 {
        let run = code!("mov ecx, ss", "mov edx, 0xfee00300", "sti", "nop", "mov dword ptr [rdx], 0x40061", "mov ss, ecx"; "nop"; "nop", "nop", "cli");
        trap::probe(run, 0);
        machine::wait(|| {
            machine::open();
            trap::count(VECTOR) == 1
        });
        same!(trap::count(VECTOR), 1, "interrupts");
        ensure!(
            trap::log()[0].rip != trap::fault_at(),
            "it came between MOV SS and the next instruction"
        );
    }
    Ok(())
}

fn ends_hlt() -> Outcome {
    pend(VECTOR);
    let trap = trap::probe(code!("sti"; "hlt"; "cli"), 0);
    same!(trap.map(|t| (t.vector, t.rip)), Some((VECTOR, trap::next_at())), "STI, HLT");
    // And one that comes later, by the timer.
    machine::set_apic(0x3e0, 0xb);
    machine::set_apic(0x320, u32::from(VECTOR));
    machine::set_apic(0x380, 2_000_000);
    let trap = trap::probe(code!("sti"; "hlt"; "cli"), 0);
    machine::set_apic(0x320, 0x1_0000);
    same!(trap.map(|t| (t.vector, t.rip)), Some((VECTOR, trap::next_at())), "the timer");
    Ok(())
}

/// An interrupt during a long string: it goes on where it was, and all of it is done. When the timer fires nobody knows, so whether it met the string does not matter.
fn between_strings() -> Outcome {
    machine::set_apic(0x3e0, 0xb);
    for attempt in 0..4 {
        machine::set_apic(0x320, u32::from(VECTOR));
        machine::set_apic(0x380, 20_000 << attempt);
        let run = code!("mov edi, 0x1000000", "mov ecx, 0x100000", "mov al, 0x5a", "sti"; "rep stosb"; "nop", "cli", "mov [SCRATCH], rdi", "mov [SCRATCH + 8], rcx");
        let trap = trap::probe(run, 0);
        machine::set_apic(0x320, 0x1_0000);
        machine::open();
        same!(machine::peek::<[u64; 2]>(machine::scratch(0)), [0x110_0000, 0], "registers");
        ensure!(trap.is_none_or(|trap| trap.vector == VECTOR), "exception");
    }
    Ok(())
}

fn nmi() -> Outcome {
    machine::send(id(), 0x4400);
    ensure!(machine::wait(|| trap::count(2) == 1), "it did not come with interrupts off");
    same!(trap::log().len(), 1, "traps");
    Ok(())
}

fn nmi_blocked() -> Outcome {
    trap::handle(|frame| {
        if frame.vector == 2 && trap::count(2) == 1 {
            machine::send(machine::apic(0x20) >> 24, 0x4400);
            for _ in 0..1000 {
                machine::apic(0x30);
            }
            machine::poke(machine::scratch(0), trap::count(2) as u64);
        }
        frame.vector == 2
    });
    machine::send(id(), 0x4400);
    let both = machine::wait(|| trap::count(2) == 2);
    same!(machine::peek::<u64>(machine::scratch(0)), 1, "NMIs within the handler");
    ensure!(both, "the second did not come after IRET");
    let log = trap::log();
    same!(log[0].frame, log[1].frame, "the second came on the same level of the stack");
    Ok(())
}

fn nmi_shadow() -> Outcome {
    // Neither does an NMI come right behind MOV SS. The command is written by the instruction before it.
    machine::set_apic(0x310, id() << 24);
    for _ in 0..20 {
        trap::clear();
        trap::handle(|frame| frame.vector == 2);
        let run = code!("mov ecx, ss", "mov edx, 0xfee00300", "mov dword ptr [rdx], 0x4400", "mov ss, ecx"; "nop"; "nop");
        trap::probe(run, 0);
        machine::wait(|| trap::count(2) == 1);
        same!(trap::count(2), 1, "NMIs");
        ensure!(
            trap::log()[0].rip != trap::fault_at(),
            "it came between MOV SS and the next instruction"
        );
    }
    Ok(())
}

fn nmi_ends_hlt() -> Outcome {
    machine::set_apic(0x310, id() << 24);
    trap::handle(|frame| {
        // If it came before HLT, nothing else would wake it.
        if frame.vector == 2 && frame.rip <= trap::fault_at() {
            frame.rip = trap::next_at();
        }
        frame.vector == 2
    });
    let trap = trap::probe(
        code!("mov ecx, ss", "mov edx, 0xfee00300", "mov dword ptr [rdx], 0x4400", "mov ss, ecx"; "hlt"),
        0,
    );
    same!(trap.map(|t| t.vector), Some(2), "vector");
    Ok(())
}

fn self_ipi() -> Outcome {
    machine::set_apic(0x300, 0x4_0000 | u32::from(VECTOR));
    let word = u64::from(VECTOR / 32) * 0x10;
    let bit = 1 << (VECTOR % 32);
    ensure!(machine::wait(|| machine::apic(0x200 + word) & bit != 0), "it is not requested");
    trap::handle(|_| {
        machine::poke(
            machine::scratch(0),
            [machine::apic(0x130), machine::apic(0x230), machine::apic(0xa0)],
        );
        machine::end_of_interrupt();
        machine::poke(machine::scratch(0) + 12, machine::apic(0x130));
        true
    });
    machine::open();
    let seen: [u32; 4] = machine::peek(machine::scratch(0));
    same!(seen, [bit, 0, 0x60, 0], "in service, requested, priority, after its end");
    same!(machine::apic(0xa0), 0, "priority afterwards");
    Ok(())
}

fn destinations() -> Outcome {
    machine::set_apic(0xe0, 0xffff_ffff);
    machine::set_apic(0xd0, 0x0100_0000);
    let mut vector = 0x62;
    let mut comes = |destination: u32, command: u32| {
        trap::clear();
        machine::send(destination, command | vector);
        machine::wait(|| machine::apic(0x230) != 0);
        machine::open();
        vector += 1;
        trap::count(vector as u8 - 1)
    };
    same!(comes(id(), 0), 1, "physical");
    same!(comes(1, 0x800), 1, "logical, flat");
    same!(comes(0xff, 0x800), 1, "logical, everyone");
    same!(comes(0, 0x4_0000), 1, "shorthand: self");
    same!(comes(0, 0x8_0000), 1, "shorthand: all with self");
    same!(comes(id(), 0x100), 1, "lowest priority");
    machine::set_apic(0xe0, 0x0fff_ffff);
    machine::set_apic(0xd0, 0x1200_0000);
    let (own, other) = (comes(0x12, 0x800), comes(0x13, 0x800));
    machine::set_apic(0xe0, 0xffff_ffff);
    machine::set_apic(0xd0, 0x0100_0000);
    same!((own, other), (1, 1), "logical, cluster");
    Ok(())
}

fn priorities() -> Outcome {
    // Higher vectors first; inside a handler only those of a higher class.
    trap::handle(|frame| {
        if frame.vector == 0x81 {
            pend(0x85);
            pend(0x91);
            machine::open();
        }
        machine::end_of_interrupt();
        true
    });
    pend(0x71);
    pend(0x81);
    machine::open();
    machine::open();
    let mut order = [0; 4];
    for (slot, trap) in order.iter_mut().zip(trap::log()) {
        *slot = trap.vector;
    }
    same!(order, [0x81, 0x91, 0x85, 0x71], "order");
    // The task priority holds its own class and what is below.
    trap::clear();
    machine::set_apic(0x80, 0x70);
    pend(0x75);
    pend(0x81);
    machine::open();
    let held = (trap::count(0x75), trap::count(0x81));
    machine::set_apic(0x80, 0);
    machine::open();
    same!(held, (0, 1), "with task priority 7");
    same!(trap::count(0x75), 1, "without");
    Ok(())
}

fn cr8() -> Outcome {
    machine::set_cr8(9);
    same!(machine::apic(0x80), 0x90, "TPR after CR8");
    pend(0x95);
    machine::open();
    let held = trap::count(0x95);
    machine::set_apic(0x80, 0x30);
    same!(machine::cr8(), 3, "CR8 after TPR");
    machine::open();
    machine::set_cr8(0);
    same!(held, 0, "an interrupt of the class");
    same!(trap::count(0x95), 1, "after TPR was lowered");
    // And when it is CR8 that lets it through.
    trap::clear();
    machine::set_cr8(15);
    pend(0x95);
    machine::set_cr8(0);
    let came = machine::wait(|| {
        machine::open();
        trap::count(0x95) == 1
    });
    ensure!(came, "it did not come after CR8");
    Ok(())
}

fn cr8_at_once() -> Outcome {
    machine::set_cr8(15);
    pend(0x95);
    let run = code!("sti", "nop", "xor eax, eax"; "mov cr8, rax"; "nop", "cli");
    let trap = trap::probe(run, 0);
    machine::wait(|| {
        machine::open();
        trap::count(0x95) == 1
    });
    same!(trap.map(|t| t.rip), Some(trap::next_at()), "right behind MOV to CR8");
    Ok(())
}

fn registers() -> Outcome {
    // The version's number of entries, and each entry's mask after power-on or as it was left.
    let entries = machine::apic(0x30) >> 16 & 0xff;
    ensure!((3..=6).contains(&entries), "{entries} entries");
    machine::set_apic(0xd0, 0xffff_ffff);
    same!(machine::apic(0xd0), 0xff00_0000, "logical destination");
    machine::set_apic(0xd0, 0x0100_0000);
    machine::set_apic(0xe0, 0);
    same!(machine::apic(0xe0), 0x0fff_ffff, "destination format");
    machine::set_apic(0xe0, 0xffff_ffff);
    for offset in [0x320u64, 0x350, 0x360, 0x370] {
        let old = machine::apic(offset);
        machine::set_apic(offset, 0x1_0042);
        let seen = machine::apic(offset);
        machine::set_apic(offset, old);
        same!(seen, 0x1_0042, "entry {offset:#x}");
    }
    Ok(())
}

fn errors() -> Outcome {
    machine::set_apic(0x280, 0);
    machine::set_apic(0x280, 0);
    same!(machine::apic(0x280), 0, "none");
    // Vector 5 cannot be sent. Where it is sent nevertheless, it comes as an interrupt.
    trap::handle(|_| {
        machine::end_of_interrupt();
        true
    });
    machine::set_apic(0x300, 0x4_0005);
    machine::open();
    machine::set_apic(0x280, 0);
    let error = machine::apic(0x280);
    ensure!(error & 0x20 != 0, "error {error:#x} after sending vector 5");
    machine::set_apic(0x280, 0);
    same!(machine::apic(0x280), 0, "gone");
    Ok(())
}

fn disabled() -> Outcome {
    machine::set_apic(0x320, u32::from(VECTOR));
    machine::set_apic(0xf0, 0xff);
    let lvt = machine::apic(0x320);
    machine::set_apic(0x320, u32::from(VECTOR));
    let still = machine::apic(0x320);
    machine::set_apic(0xf0, 0x1ff);
    machine::set_apic(0x320, 0x1_0000);
    same!(lvt >> 16 & 1, 1, "masked by software disable");
    same!(still >> 16 & 1, 1, "and stays masked");
    Ok(())
}

fn one_shot() -> Outcome {
    machine::set_apic(0x3e0, 0xb);
    machine::set_apic(0x320, u32::from(VECTOR));
    machine::set_apic(0x380, 1_000_000);
    ensure!(
        machine::wait(|| {
            machine::open();
            trap::count(VECTOR) == 1
        }),
        "it did not come"
    );
    same!(machine::apic(0x390), 0, "count afterwards");
    let start = machine::rdtsc();
    while machine::rdtsc() - start < 50_000_000 {
        machine::open();
    }
    machine::set_apic(0x320, 0x1_0000);
    same!(trap::count(VECTOR), 1, "times");
    Ok(())
}

fn periodic() -> Outcome {
    machine::set_apic(0x3e0, 0xb);
    machine::set_apic(0x320, 0x2_0000 | u32::from(VECTOR));
    machine::set_apic(0x380, 1_000_000);
    let came = machine::wait(|| {
        machine::open();
        trap::count(VECTOR) >= 4
    });
    machine::set_apic(0x380, 0);
    machine::set_apic(0x320, 0x1_0000);
    machine::open();
    ensure!(came, "{} times", trap::count(VECTOR));
    Ok(())
}

fn masked() -> Outcome {
    machine::set_apic(0x3e0, 0xb);
    machine::set_apic(0x320, 0x1_0000 | u32::from(VECTOR));
    machine::set_apic(0x380, 100_000);
    ensure!(
        machine::wait(|| machine::apic(0x390) == 0),
        "the count stays at {:#x}",
        machine::apic(0x390)
    );
    machine::set_apic(0x320, u32::from(VECTOR));
    for _ in 0..100 {
        machine::open();
    }
    machine::set_apic(0x320, 0x1_0000);
    same!(trap::count(VECTOR), 0, "times");
    Ok(())
}

fn count_down() -> Outcome {
    machine::set_apic(0x320, 0x1_0000);
    machine::set_apic(0x3e0, 0xa);
    machine::set_apic(0x380, 0xffff_ffff);
    let mut last = u32::MAX;
    for _ in 0..100 {
        let now = machine::apic(0x390);
        ensure!(now <= last, "from {last:#x} to {now:#x}");
        last = now;
    }
    ensure!(machine::wait(|| machine::apic(0x390) < last), "it does not count");
    same!(machine::apic(0x380), 0xffff_ffff, "initial count");
    machine::set_apic(0x380, 0);
    same!(machine::apic(0x390), 0, "stopped");
    Ok(())
}

fn deadline() -> Outcome {
    if machine::cpuid(1, 0)[2] >> 24 & 1 == 0 {
        absent!("no TSC deadline");
    }
    machine::set_apic(0x320, 0x4_0000 | u32::from(VECTOR));
    let wanted = machine::rdtsc() + 200_000_000;
    machine::wrmsr(0x6e0, wanted);
    let seen = machine::rdmsr(0x6e0);
    ensure!(
        seen == wanted || machine::rdtsc() >= wanted,
        "the deadline reads {seen:#x} instead of {wanted:#x}"
    );
    let came = machine::wait(|| {
        machine::open();
        trap::count(VECTOR) == 1
    });
    let after = machine::rdtsc();
    ensure!(came, "it did not come");
    ensure!(after >= wanted, "too early by {}", wanted - after);
    same!(machine::rdmsr(0x6e0), 0, "the deadline afterwards");
    // One that is past comes at once, 0 disarms.
    machine::wrmsr(0x6e0, 1);
    ensure!(
        machine::wait(|| {
            machine::open();
            trap::count(VECTOR) == 2
        }),
        "a deadline that is past"
    );
    // Far enough that it cannot come before it is disarmed.
    machine::wrmsr(0x6e0, machine::rdtsc() + 50_000_000_000);
    machine::wrmsr(0x6e0, 0);
    let start = machine::rdtsc();
    while machine::rdtsc() - start < 30_000_000 {
        machine::open();
    }
    machine::set_apic(0x320, 0x1_0000);
    same!(trap::count(VECTOR), 2, "disarmed");
    // Out of the mode, writes are ignored.
    machine::wrmsr(0x6e0, machine::rdtsc() + 1000);
    same!(machine::rdmsr(0x6e0), 0, "in another mode");
    Ok(())
}
