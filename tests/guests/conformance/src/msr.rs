//! Model-specific registers (SDM volume 4, chapter 2).

use crate::{
    absent, code, ensure, machine,
    report::Outcome,
    same,
    start::Test,
    trap::{self, Trap},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    ("msr-efer", efer),
    ("msr-system-calls", system_calls),
    ("msr-bases", bases),
    ("msr-not-canonical", not_canonical),
    ("msr-unknown", unknown),
    ("msr-ring-3", ring3),
    ("msr-upper-halves", upper_halves),
    ("msr-apic-base", apic_base),
    ("msr-pat", pat),
    ("msr-mtrr", mtrr),
    ("msr-tsc", tsc),
    ("msr-tsc-adjust", tsc_adjust),
    ("msr-tsc-aux", tsc_aux),
    ("swapgs", swapgs),
    ("syscall", syscall),
];

const STAR: u32 = 0xc000_0081;
const LSTAR: u32 = 0xc000_0082;
const CSTAR: u32 = 0xc000_0083;
const SFMASK: u32 = 0xc000_0084;
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;

/// Writes the MSR in the argument's upper half, with the value in the scratch page.
fn write(number: u32, value: u64) -> Option<Trap> {
    machine::poke(machine::scratch(0), value);
    trap::probe(
        code!("mov ecx, edi", "mov eax, [SCRATCH]", "mov edx, [SCRATCH + 4]"; "wrmsr"),
        number.into(),
    )
}

fn read(number: u32) -> Option<Trap> {
    trap::probe(code!("mov ecx, edi"; "rdmsr"), number.into())
}

/// Whether a trap is #GP(0) at the instruction.
fn is_refusal(trap: Option<Trap>) -> bool {
    trap.is_some_and(|trap| (trap.vector, trap.error, trap.rip) == (13, 0, trap::fault_at()))
}

fn round_trip(number: u32, values: &[u64]) -> Outcome {
    let old = machine::rdmsr(number);
    for &value in values {
        same!(write(number, value), None, "write of {value:#x} to MSR {number:#x}");
        let seen = machine::rdmsr(number);
        if seen != value {
            machine::wrmsr(number, old);
        }
        same!(seen, value, "MSR {number:#x}");
    }
    machine::wrmsr(number, old);
    Ok(())
}

fn efer() -> Outcome {
    const EFER: u32 = 0xc000_0080;
    let efer = machine::rdmsr(EFER);
    same!(efer & 0xd01, 0xd01, "SCE, LME, LMA, NXE");
    same!(write(EFER, efer & !1), None, "SCE cleared");
    let seen = machine::rdmsr(EFER);
    machine::wrmsr(EFER, efer);
    same!(seen, efer & !1, "without SCE");
    let refused = |value: u64| {
        let refused = is_refusal(write(EFER, value));
        machine::wrmsr(EFER, efer);
        refused
    };
    ensure!(refused(efer | 1 << 63), "reserved bit 63");
    ensure!(refused(efer | 1 << 9), "reserved bit 9");
    ensure!(refused(efer & !(1 << 8)), "LME cleared with paging on");
    Ok(())
}

fn system_calls() -> Outcome {
    round_trip(STAR, &[0, u64::MAX, 0x0023_0010_1234_5678])?;
    round_trip(LSTAR, &[0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000])?;
    round_trip(CSTAR, &[0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000])?;
    round_trip(SFMASK, &[0, 0xffff_ffff, 0x4_7700])?;
    round_trip(0x174, &[0, 0x10])?;
    round_trip(0x175, &[0, 0xffff_8000_1234_5678])?;
    round_trip(0x176, &[0, 0xffff_8000_1234_5678])
}

fn bases() -> Outcome {
    for number in [FS_BASE, GS_BASE, KERNEL_GS_BASE] {
        round_trip(number, &[0, 0x1234_5678_9abc, 0xffff_8000_0000_0001])?;
    }
    // The base is what addresses are made with.
    machine::poke(machine::scratch(1) + 0x18, 0x5eed_u64);
    for number in [FS_BASE, GS_BASE] {
        machine::wrmsr(number, machine::scratch(1));
        let seen: u64;
        // SAFETY: reads the scratch page through the base that was just set.
        unsafe {
            if number == FS_BASE {
                core::arch::asm!("mov {}, fs:[0x18]", out(reg) seen);
            } else {
                core::arch::asm!("mov {}, gs:[0x18]", out(reg) seen);
            }
        }
        machine::wrmsr(number, 0);
        same!(seen, 0x5eed, "through the base of MSR {number:#x}");
    }
    Ok(())
}

fn not_canonical() -> Outcome {
    for number in [LSTAR, CSTAR, FS_BASE, GS_BASE, KERNEL_GS_BASE] {
        for value in [0x8000_0000_0000, 1 << 63, 0xffff_7fff_ffff_ffff] {
            let old = machine::rdmsr(number);
            let refused = is_refusal(write(number, value));
            machine::wrmsr(number, old);
            ensure!(refused, "{value:#x} to MSR {number:#x}");
        }
    }
    Ok(())
}

fn unknown() -> Outcome {
    for number in [0x5, 0x123, 0x4000_1234, 0x8000_0000, 0xc000_1234, 0xc002_0000, 0xffff_ffff] {
        ensure!(is_refusal(read(number)), "read of {number:#x}");
        ensure!(is_refusal(write(number, 0)), "write of {number:#x}");
    }
    Ok(())
}

fn ring3() -> Outcome {
    let trap = trap::probe_user(code!("mov ecx, 0x10"; "rdmsr"), 0);
    same!((trap.vector, trap.error, trap.rip == trap::fault_at()), (13, 0, true), "RDMSR");
    let trap = trap::probe_user(code!("mov ecx, 0xc0000100", "xor eax, eax", "xor edx, edx"; "wrmsr"), 0);
    same!((trap.vector, trap.error, trap.rip == trap::fault_at()), (13, 0, true), "WRMSR");
    Ok(())
}

fn upper_halves() -> Outcome {
    let read =
        code!("mov rax, -1", "mov rdx, -1", "mov rcx, 0xffffffff00000277"; "rdmsr"; "or rax, rdx", "shr rax, 32", "mov [SCRATCH], rax");
    same!(trap::probe(read, 0), None, "RDMSR");
    same!(machine::peek::<u64>(machine::scratch(0)), 0, "upper halves of rax and rdx");
    Ok(())
}

fn apic_base() -> Outcome {
    let base = machine::rdmsr(0x1b);
    same!(base & !0x400, 0xfee0_0900, "enabled, the processor that boots");
    // Where a refused value is taken, this program must be able to go on.
    let refused = |value: u64| {
        let refused = is_refusal(write(0x1b, value));
        machine::wrmsr(0x1b, base);
        machine::set_apic(0xf0, 0x1ff);
        refused
    };
    ensure!(refused(base | 1), "reserved bit 0");
    ensure!(refused(base & !0x800 | 0x400), "x2APIC without enable");
    same!(machine::rdmsr(0x1b), base, "after refusals");
    Ok(())
}

fn pat() -> Outcome {
    same!(machine::rdmsr(0x277), 0x0007_0406_0007_0406, "after reset");
    round_trip(0x277, &[0x0706_0504_0100_0706, 0])?;
    for kind in [2, 3, 8, 0x10, 0x80] {
        ensure!(is_refusal(write(0x277, 0x0007_0406_0007_0400 | kind)), "memory type {kind}");
        ensure!(is_refusal(write(0x277, kind << 56)), "memory type {kind} in the last entry");
    }
    Ok(())
}

fn mtrr() -> Outcome {
    if machine::cpuid(1, 0)[3] >> 12 & 1 == 0 {
        absent!("no MTRRs");
    }
    let cap = machine::rdmsr(0xfe);
    ensure!(is_refusal(write(0xfe, cap)), "MTRRcap is read-only");
    for pair in 0..(cap & 0xff) as u32 {
        round_trip(0x200 + 2 * pair, &[0, 0x8000_0006])?;
        round_trip(0x201 + 2 * pair, &[0, 0xf_8000_0800])?;
    }
    if cap & 0x100 != 0 {
        for number in [0x250, 0x258, 0x259, 0x268, 0x26f] {
            round_trip(number, &[0x0606_0606_0606_0606, 0x0001_0405_0600_0506])?;
            ensure!(is_refusal(write(number, 2)), "memory type 2 in MTRR {number:#x}");
        }
    }
    let default = machine::rdmsr(0x2ff);
    round_trip(0x2ff, &[0xc06, 0x800, 0])?;
    ensure!(is_refusal(write(0x2ff, 0xc02)), "memory type 2 as default");
    ensure!(is_refusal(write(0x2ff, 0x1c06)), "reserved bit 12 of the default type");
    same!(machine::rdmsr(0x2ff), default, "default type after refusals");
    Ok(())
}

fn tsc() -> Outcome {
    let mut last = machine::rdtsc();
    for _ in 0..200 {
        let by_instruction = machine::rdtsc();
        ensure!(by_instruction >= last, "RDTSC went back from {last:#x} to {by_instruction:#x}");
        last = machine::rdmsr(0x10);
        ensure!(last >= by_instruction, "RDMSR gave {last:#x} after {by_instruction:#x}");
    }
    let adjustable = machine::cpuid(0, 0)[0] >= 7 && machine::cpuid(7, 0)[1] & 2 != 0;
    let adjust = if adjustable { machine::rdmsr(0x3b) } else { 0 };
    let old = machine::rdtsc();
    machine::wrmsr(0x10, 1 << 40);
    let new = machine::rdtsc();
    machine::wrmsr(0x10, old);
    ensure!(
        (1 << 40..(1 << 40) + (1 << 36)).contains(&new),
        "{new:#x} after 1 << 40 was written"
    );
    let back = machine::rdtsc();
    // The processors had the same time before, and have it again.
    if adjustable {
        machine::wrmsr(0x3b, adjust);
    }
    ensure!(back >= old && back < old + (1 << 36), "{back:#x} after {old:#x} was written");
    Ok(())
}

fn tsc_adjust() -> Outcome {
    if machine::cpuid(0, 0)[0] < 7 || machine::cpuid(7, 0)[1] & 2 == 0 {
        absent!("no TSC_ADJUST");
    }
    let adjust = machine::rdmsr(0x3b);
    let before = machine::rdtsc();
    machine::wrmsr(0x3b, adjust.wrapping_add(1 << 42));
    let (after, seen) = (machine::rdtsc(), machine::rdmsr(0x3b));
    machine::wrmsr(0x10, machine::rdmsr(0x10).wrapping_sub(1 << 42));
    let followed = machine::rdmsr(0x3b);
    machine::wrmsr(0x3b, adjust);
    same!(seen, adjust.wrapping_add(1 << 42), "TSC_ADJUST");
    let step = after.wrapping_sub(before);
    ensure!((1 << 42..(1 << 42) + (1 << 36)).contains(&step), "the TSC went on by {step:#x}");
    let difference = followed.wrapping_sub(adjust) as i64;
    ensure!(difference.abs() < 1 << 36, "a write to the TSC left TSC_ADJUST {difference:#x} off");
    Ok(())
}

fn tsc_aux() -> Outcome {
    if machine::cpuid(0x8000_0001, 0)[3] >> 27 & 1 == 0 {
        absent!("no RDTSCP");
    }
    round_trip(0xc000_0103, &[0, 0x89ab_cdef])?;
    machine::wrmsr(0xc000_0103, 0x1234);
    let aux: u64;
    // SAFETY: only looks.
    unsafe { core::arch::asm!("mov rcx, -1", "rdtscp", out("rcx") aux, out("rax") _, out("rdx") _) };
    machine::wrmsr(0xc000_0103, 0);
    same!(aux, 0x1234, "RDTSCP");
    Ok(())
}

fn swapgs() -> Outcome {
    machine::wrmsr(GS_BASE, 0x1111_0000);
    machine::wrmsr(KERNEL_GS_BASE, 0xffff_8000_2222_0000);
    // SAFETY: nothing here uses GS.
    unsafe { core::arch::asm!("swapgs") };
    let (gs, kernel) = (machine::rdmsr(GS_BASE), machine::rdmsr(KERNEL_GS_BASE));
    machine::wrmsr(GS_BASE, 0);
    machine::wrmsr(KERNEL_GS_BASE, 0);
    same!((gs, kernel), (0xffff_8000_2222_0000, 0x1111_0000), "GS base, kernel GS base");
    let trap = trap::probe_user(code!(; "swapgs"), 0);
    same!((trap.vector, trap.error), (13, 0), "in ring 3");
    Ok(())
}

/// `syscall` from ring 3 and `sysretq` back to it (SDM volume 2, SYSCALL).
fn syscall() -> Outcome {
    extern "C" fn enter(_: u64) {
        // SAFETY: the handler below returns behind SYSCALL; what it clobbers is said.
        unsafe {
            core::arch::asm!(
                "lea rax, [rip + 3f]", "mov [NEXT_AT], rax", "mov r8, rsp", "stc", "std", "syscall", "3:", "mov [SCRATCH + 0x18], rsp", "pushfq", "pop rax",
                "mov [SCRATCH + 0x20], rax", "cld", "mov eax, cs", "mov [SCRATCH + 0x28], rax", "mov eax, ss", "mov [SCRATCH + 0x30], rax",
                out("rax") _, out("rcx") _, out("r11") _, out("r8") _
            );
        }
    }
    unsafe extern "C" {
        fn syscall_entry();
    }
    for word in 0..9 {
        machine::poke(machine::scratch(0) + word * 8, 0u64);
    }
    // Kernel 0x10 and 0x18; user: code at 0x1b + 16, stack at 0x1b + 8 in the table, so that it needs its own order: 0x28 is code, 0x20 would be the stack.
    machine::wrmsr(STAR, 0x0018_0010_0000_0000);
    machine::wrmsr(LSTAR, syscall_entry as *const () as u64);
    machine::wrmsr(SFMASK, 0x401);
    let trap = trap::probe_user(enter, 0);
    machine::wrmsr(STAR, 0);
    machine::wrmsr(SFMASK, 0);
    let word = |offset: u64| machine::peek::<u64>(machine::scratch(0) + offset);
    same!((trap.vector, trap.error), (0x80, 0), "it ends as a user's function ends");
    same!(word(0), trap::next_at(), "rcx");
    same!(word(8) & 0x401, 0x401, "r11 has the flags");
    same!(word(0x10) & 0x401, 0, "flags in the handler");
    same!((word(0x38), word(0x40)), (0x10, 0x18), "code and stack in the handler");
    same!(word(0x20) & 0x401, 0x401, "flags after SYSRET");
    same!((word(0x28), word(0x30)), (0x2b, 0x23), "code and stack after SYSRET");
    Ok(())
}

core::arch::global_asm!(
    ".global syscall_entry",
    "syscall_entry:",
    "mov [SCRATCH], rcx",
    "mov [SCRATCH + 8], r11",
    "pushfq",
    "pop rax",
    "mov [SCRATCH + 0x10], rax",
    "mov eax, cs",
    "mov [SCRATCH + 0x38], rax",
    "mov eax, ss",
    "mov [SCRATCH + 0x40], rax",
    "sysretq",
);
