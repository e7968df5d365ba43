//! Debug registers and single steps (SDM volume 3, chapter 17).

use crate::{
    code, ensure, machine,
    report::Outcome,
    same,
    start::Test,
    trap::{self, Frame, Trap},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    ("debug-registers", registers),
    ("debug-aliases", aliases),
    ("debug-instruction-breakpoint", instruction),
    ("debug-data-breakpoints", data),
    ("debug-general-detect", general_detect),
    ("debug-step", step),
    ("debug-step-over-exits", step_over_exits),
    ("debug-step-through-strings", step_through_strings),
    ("debug-step-and-stack-switch", step_and_shadow),
    ("debug-icebp", icebp),
];

const STEP: u64 = 1 << 14;

fn resume(frame: &mut Frame) -> bool {
    frame.vector == 1
}

/// Resumes behind a breakpoint at an instruction.
fn resume_once(frame: &mut Frame) -> bool {
    frame.flags |= 1 << 16;
    frame.vector == 1
}

fn registers() -> Outcome {
    machine::set_dr0(0x1234_5678_9abc_def0);
    same!(machine::dr0(), 0x1234_5678_9abc_def0, "DR0");
    machine::set_dr6(0);
    same!(machine::dr6() & !0x1_f00f & !0x800, 0xfffe_07f0, "DR6, fixed bits");
    machine::set_dr7(0);
    same!(machine::dr7(), 0x400, "DR7, fixed bit");
    machine::set_dr7(0xffff_0000);
    let seen = machine::dr7();
    machine::set_dr7(0x400);
    same!(seen, 0xffff_0400, "DR7");
    let at = |trap: Option<Trap>| trap.map(|t| (t.vector, t.error, t.rip == trap::fault_at()));
    same!(
        at(trap::probe(code!("mov rax, 1", "shl rax, 32"; "mov dr7, rax"), 0)),
        Some((13, 0, true)),
        "upper half of DR7"
    );
    same!(
        at(trap::probe(code!("mov rax, 1", "shl rax, 32"; "mov dr6, rax"), 0)),
        Some((13, 0, true)),
        "upper half of DR6"
    );
    Ok(())
}

fn aliases() -> Outcome {
    let cr4 = machine::cr4();
    machine::set_cr4(cr4 & !8);
    let without = trap::probe(
        code!(; ".byte 0x0f, 0x21, 0xe0"; "mov [SCRATCH], rax", "mov rax, dr6", "mov [SCRATCH + 8], rax"),
        0,
    );
    machine::set_cr4(cr4 | 8);
    let with = trap::probe(code!(; ".byte 0x0f, 0x21, 0xe0"), 0);
    machine::set_cr4(cr4);
    same!(without, None, "DR4 without CR4.DE");
    let [a, b] = machine::peek::<[u64; 2]>(machine::scratch(0));
    same!(a, b, "DR4 and DR6");
    same!(with.map(|t| (t.vector, t.rip)), Some((6, trap::fault_at())), "DR4 with CR4.DE");
    Ok(())
}

fn instruction() -> Outcome {
    trap::handle(resume_once);
    machine::set_dr6(0xffff_0ff0);
    let run = code!("lea rax, [rip + 2f]", "mov dr0, rax", "mov eax, 0x402", "mov dr7, rax", "xor eax, eax"; "inc eax"; "mov [SCRATCH], rax", "mov eax, 0x400", "mov dr7, rax");
    let trap = trap::probe(run, 0);
    same!(trap.map(|t| (t.vector, t.rip)), Some((1, trap::fault_at())), "vector and address");
    same!(trap.map(|t| t.dr6 & 0xf00f), Some(1), "DR6");
    same!(trap.map(|t| t.flags >> 16 & 1), Some(1), "the resume flag is set on the stack");
    same!(trap::log().len(), 1, "with RF it comes once");
    same!(machine::peek::<u64>(machine::scratch(0)), 1, "the instruction ran once");
    // On an instruction that a virtual machine monitor carries out.
    machine::set_dr6(0xffff_0ff0);
    let run = code!("lea rax, [rip + 2f]", "mov dr0, rax", "mov eax, 0x402", "mov dr7, rax", "xor eax, eax", "mov r8, rbx"; "cpuid"; "mov rbx, r8", "mov eax, 0x400", "mov dr7, rax");
    let trap = trap::probe(run, 0);
    same!(
        trap.map(|t| (t.vector, t.rip, t.dr6 & 0xf00f)),
        Some((1, trap::fault_at(), 1)),
        "on CPUID"
    );
    same!(trap::log().len(), 1, "on CPUID, times");
    Ok(())
}

fn data() -> Outcome {
    trap::handle(resume);
    let word = machine::scratch(1);
    machine::poke(word, 0u64);
    let write = code!(; "mov [rdi], eax");
    let read = code!(; "mov eax, [rdi]");
    let byte = code!(; "mov byte ptr [rdi + 3], 1");
    let beyond = code!(; "mov byte ptr [rdi + 4], 1");
    let locked = code!(; "lock inc dword ptr [rdi]");
    for (name, kind, function, comes) in [
        ("write on a write", 1u64, write, true),
        ("write on a read", 1, read, false),
        ("access on a read", 3, read, true),
        ("access on a write", 3, write, true),
        ("write on its last byte", 1, byte, true),
        ("write behind it", 1, beyond, false),
        ("write on a locked addition", 1, locked, true),
    ] {
        // DR1, four bytes.
        machine::set_dr1(word);
        machine::set_dr6(0xffff_0ff0);
        machine::set_dr7(0x408 | kind << 20 | 3 << 22);
        let trap = trap::probe(function, word);
        machine::set_dr7(0x400);
        let wanted = comes.then(|| (1, trap::next_at(), 2));
        same!(trap.map(|t| (t.vector, t.rip, t.dr6 & 0xf00f)), wanted, "{name}");
    }
    Ok(())
}

fn general_detect() -> Outcome {
    trap::handle(|frame| {
        // The processor cleared GD, or this would come again.
        machine::poke(machine::scratch(0), machine::dr7());
        frame.vector == 1
    });
    machine::set_dr6(0xffff_0ff0);
    let run = code!("mov eax, 0x2400", "mov dr7, rax"; "mov rax, dr0");
    let trap = trap::probe(run, 0);
    machine::set_dr7(0x400);
    same!(trap.map(|t| (t.vector, t.rip)), Some((1, trap::fault_at())), "vector and address");
    same!(trap.map(|t| t.dr6 & 0xf00f), Some(1 << 13), "DR6");
    same!(machine::peek::<u64>(machine::scratch(0)), 0x400, "DR7 in the handler");
    same!(trap::log().len(), 1, "times");
    Ok(())
}

/// A step over one instruction: its trap is behind it, with DR6.BS.
macro_rules! stepped {
    ($name:literal, $($before:literal),* ; $($at:literal),+ $(; $($after:literal),*)?) => {
        ($name, code!($($before,)* "pushfq", "or qword ptr [rsp], 0x100", "popfq"; $($at),+; "pushfq", "and qword ptr [rsp], 0xfffffffffffffeff", "popfq" $($(, $after)*)?))
    };
}

fn run_steps(steps: &[(&str, extern "C" fn(u64))], argument: u64) -> Outcome {
    trap::handle(resume);
    for (name, function) in steps {
        machine::set_dr6(0xffff_0ff0);
        let trap = trap::probe(*function, argument);
        same!(
            trap.map(|t| (t.vector, t.rip.wrapping_sub(trap::fault_at()), t.dr6 & 0xf00f)),
            Some((1, trap::next_at() - trap::fault_at(), STEP)),
            "{name}"
        );
        // One for the instruction, three for those that clear the flag.
        same!(trap::log().len(), 4, "{name}: steps");
    }
    Ok(())
}

fn step() -> Outcome {
    run_steps(
        &[
            stepped!("NOP", ; "nop"),
            stepped!("MOV to memory", ; "mov [SCRATCH], rax"),
            stepped!("PUSHFQ", ; "pushfq"; "pop rax"),
        ],
        0,
    )?;
    // The flags of the step's handler do not have the flag, those on the stack do.
    same!(trap::log()[0].flags >> 8 & 1, 1, "TF on the stack");
    // An interrupt instruction clears it, and what it interrupts goes on stepping.
    trap::handle(|frame| matches!(frame.vector, 1 | 0x80));
    let (_, function) = stepped!("INT", ; "int 0x80");
    let trap = trap::probe(function, 0);
    same!(
        trap.map(|t| (t.vector, t.rip)),
        Some((0x80, trap::next_at())),
        "INT 80 comes, its handler is not stepped"
    );
    Ok(())
}

/// What leaves the guest in a virtual machine is one instruction like all others.
fn step_over_exits() -> Outcome {
    run_steps(
        &[
            stepped!("CPUID", "mov r8, rbx"; "cpuid"; "mov rbx, r8"),
            stepped!("RDMSR", "mov ecx, 0x1b"; "rdmsr"),
            stepped!("WRMSR", "mov ecx, 0xc0000102", "xor edx, edx"; "wrmsr"),
            stepped!("IN", "mov edx, 0x3ff"; "in al, dx"),
            stepped!("OUT", "mov edx, 0x3ff"; "out dx, al"),
            stepped!("OUT 80", ; "out 0x80, al"),
            stepped!("MOV from the APIC", ; "mov eax, [0xfee00030]"),
            stepped!("MOV to the APIC", "mov ecx, 0xfee00080"; "mov dword ptr [rcx], 0"),
            stepped!("RDTSC", ; "rdtsc"),
            stepped!("MOV from CR0", ; "mov rax, cr0"),
            stepped!("MOV to CR3", "mov rcx, cr3"; "mov cr3, rcx"),
            stepped!("WBINVD", ; "wbinvd"),
            stepped!("INVLPG", ; "invlpg [SCRATCH]"),
            stepped!("OUTSB", "mov esi, offset SCRATCH", "mov edx, 0x3ff"; "outsb"),
            stepped!("INSB", "mov edi, offset SCRATCH", "mov edx, 0x3ff"; "insb"),
        ],
        0,
    )
}

/// A repeated string instruction is stepped by iteration: all but the last trap are at the instruction itself.
fn step_through_strings() -> Outcome {
    trap::handle(resume);
    for (name, function) in [
        stepped!("REP MOVSB", "mov esi, offset SCRATCH", "mov edi, offset SCRATCH + 64", "mov ecx, 3"; "rep movsb"),
        stepped!("REP OUTSB", "mov esi, offset SCRATCH", "mov edx, 0x3ff", "mov ecx, 3"; "rep outsb"),
        stepped!("REP INSB", "mov edi, offset SCRATCH", "mov edx, 0x3ff", "mov ecx, 3"; "rep insb"),
        stepped!("REP STOSD to the APIC", "mov edi, 0xfee003e0", "mov ecx, 3", "mov eax, 11"; "rep stosd"),
    ] {
        machine::set_dr6(0xffff_0ff0);
        trap::probe(function, 0);
        let (at, next) = (trap::fault_at(), trap::next_at());
        let seen = trap::log();
        same!(seen.len(), 6, "{name}: steps");
        for (number, trap) in seen[..3].iter().enumerate() {
            same!(
                (trap.vector, trap.rip),
                (1, if number < 2 { at } else { next }),
                "{name}: step {number}"
            );
        }
    }
    Ok(())
}

fn step_and_shadow() -> Outcome {
    trap::handle(resume);
    machine::set_dr6(0xffff_0ff0);
    let (_, function) = stepped!("MOV SS", "mov eax, ss"; "mov ss, eax", "nop");
    let trap = trap::probe(function, 0);
    same!(
        trap.map(|t| (t.vector, t.rip)),
        Some((1, trap::next_at())),
        "MOV SS and the instruction after it are one step"
    );
    let (_, function) = stepped!("STI", ; "sti"; "cli");
    let trap = trap::probe(function, 0);
    same!(
        trap.map(|t| (t.vector, t.rip)),
        Some((1, trap::next_at())),
        "STI is a step of its own"
    );
    Ok(())
}

fn icebp() -> Outcome {
    let trap = trap::probe(code!(; ".byte 0xf1"), 0);
    same!(trap.map(|t| (t.vector, t.rip)), Some((1, trap::next_at())), "vector and address");
    ensure!(trap.is_some_and(|t| t.dr6 & STEP == 0 || t.dr6 & 0xf == 0), "DR6");
    Ok(())
}
