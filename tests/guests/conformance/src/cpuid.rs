//! CPUID: what it says is consistent, and follows the control registers (SDM volume 2, CPUID).

use crate::{code, ensure, machine, report::Outcome, same, start::Test, trap};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    ("cpuid-ranges", ranges),
    ("cpuid-features-of-long-mode", long_mode),
    ("cpuid-osxsave", osxsave),
    ("cpuid-apic-id", apic_id),
    ("cpuid-registers", registers),
    ("cpuid-address-widths", widths),
    ("xgetbv-and-xsave-size", xsave),
];

fn ranges() -> Outcome {
    let basic = machine::cpuid(0, 0);
    ensure!((1..0x100).contains(&basic[0]), "last basic leaf {:#x}", basic[0]);
    let extended = machine::cpuid(0x8000_0000, 0);
    ensure!(
        (0x8000_0008..0x8000_0100).contains(&extended[0]),
        "last extended leaf {:#x}",
        extended[0]
    );
    let amd = basic[1] == u32::from_le_bytes(*b"Auth");
    // AMD repeats the vendor, Intel reserves the registers.
    same!(extended[1], if amd { basic[1] } else { 0 }, "vendor in the extended range");
    Ok(())
}

fn long_mode() -> Outcome {
    let (one, extended) = (machine::cpuid(1, 0), machine::cpuid(0x8000_0001, 0));
    for (bit, what) in [
        (0, "FPU"),
        (4, "TSC"),
        (5, "MSR"),
        (6, "PAE"),
        (8, "CX8"),
        (9, "APIC"),
        (13, "PGE"),
        (15, "CMOV"),
        (24, "FXSR"),
        (26, "SSE2"),
    ] {
        ensure!(one[3] >> bit & 1 != 0, "{what} is missing in a processor with long mode");
    }
    ensure!(extended[3] >> 29 & 1 != 0, "LM is missing in a processor that is in long mode");
    Ok(())
}

fn osxsave() -> Outcome {
    let bit = |n: u32| machine::cpuid(1, 0)[2] >> n & 1;
    if bit(26) == 0 {
        same!(bit(27), 0, "OSXSAVE without XSAVE");
        return Ok(());
    }
    let cr4 = machine::cr4();
    same!(bit(27), 0, "before");
    machine::set_cr4(cr4 | 1 << 18);
    let set = bit(27);
    machine::set_cr4(cr4);
    same!(set, 1, "with CR4.OSXSAVE");
    same!(bit(27), 0, "after");
    Ok(())
}

fn apic_id() -> Outcome {
    let id = machine::cpuid(1, 0)[1] >> 24;
    same!(id, machine::apic(0x20) >> 24, "leaf 1 against the APIC");
    if machine::cpuid(0, 0)[0] >= 0xb && machine::cpuid(0xb, 0)[1] != 0 {
        same!(machine::cpuid(0xb, 0)[3], id, "leaf 0xb");
    }
    Ok(())
}

fn registers() -> Outcome {
    extern "C" fn upper(_: u64) {
        // SAFETY: registers that C does not preserve, and rbx, which is put back.
        unsafe {
            core::arch::asm!(
                "push rbx", "mov rax, 0xffffffff00000000", "mov rcx, rax", "mov rdx, -1", "mov rbx, -1", "cpuid",
                "or rax, rbx", "or rax, rcx", "or rax, rdx", "shr rax, 32", "mov [{}], rax", "pop rbx",
                in(reg) machine::scratch(0), out("rax") _, out("rcx") _, out("rdx") _
            );
        }
    }
    ensure!(trap::probe(upper, 0).is_none(), "fault");
    same!(machine::peek::<u64>(machine::scratch(0)), 0, "upper halves");
    // Superfluous prefixes, flags untouched.
    let prefixed = code!("mov r8, rbx", "stc"; ".byte 0x66, 0xf2, 0x48, 0x0f, 0xa2"; "mov rbx, r8", "setc byte ptr [0x500]");
    machine::poke(0x500, 0u8);
    same!(trap::probe(prefixed, 0), None, "with prefixes");
    same!(machine::peek::<u8>(0x500), 1, "carry after CPUID");
    Ok(())
}

fn widths() -> Outcome {
    let eax = machine::cpuid(0x8000_0008, 0)[0];
    ensure!((32..=52).contains(&(eax & 0xff)), "{} physical bits", eax & 0xff);
    ensure!(matches!(eax >> 8 & 0xff, 48 | 57), "{} linear bits", eax >> 8 & 0xff);
    Ok(())
}

fn xsave() -> Outcome {
    if machine::cpuid(1, 0)[2] >> 26 & 1 == 0 {
        crate::absent!("no XSAVE");
    }
    let cr4 = machine::cr4();
    let without = trap::probe(code!("xor ecx, ecx"; "xgetbv"), 0);
    same!(
        without.map(|t| (t.vector, t.rip == trap::fault_at())),
        Some((6, true)),
        "XGETBV without CR4.OSXSAVE"
    );
    machine::set_cr4(cr4 | 1 << 18);
    let set = |argument: u64| {
        trap::probe(
            code!("mov rax, rdi", "mov rdx, rdi", "shr rdx, 32", "xor ecx, ecx"; "xsetbv"),
            argument,
        )
    };
    let outcome = (|| {
        same!(set(3), None, "XSETBV of x87 and SSE");
        let small = machine::cpuid(0xd, 0);
        same!(small[1], 576, "size of x87 and SSE");
        let gp = |t: Option<trap::Trap>| t.map(|t| (t.vector, t.error, t.rip == trap::fault_at()));
        same!(gp(set(0)), Some((13, 0, true)), "XSETBV without x87");
        same!(gp(set(5)), Some((13, 0, true)), "XSETBV of AVX without SSE");
        same!(gp(set(1 << 62 | 3)), Some((13, 0, true)), "XSETBV of what is unknown");
        let one = trap::probe(code!("mov ecx, 1", "mov eax, 3", "xor edx, edx"; "xsetbv"), 0);
        same!(gp(one), Some((13, 0, true)), "XSETBV of register 1");
        let user = trap::probe_user(code!("mov eax, 3", "xor edx, edx", "xor ecx, ecx"; "xsetbv"), 0);
        same!((user.vector, user.error), (13, 0), "XSETBV in ring 3");
        if small[0] & 4 != 0 {
            same!(set(7), None, "XSETBV of AVX");
            let area = machine::cpuid(0xd, 2);
            same!(machine::cpuid(0xd, 0)[1], area[0] + area[1], "size with AVX");
        }
        Ok(())
    })();
    set(1);
    machine::set_cr4(cr4);
    outcome
}
