//! Every exception that can be provoked in long mode: vector, error code, return address (SDM volume 3, 6.15).

use crate::{
    code, ensure, machine,
    report::Outcome,
    same,
    start::Test,
    trap::{self, Trap},
};

/// The tests of this file.
pub const TESTS: &[Test] = &[
    ("exception-divide", divide),
    ("exception-breakpoint", breakpoint),
    ("exception-overflow", overflow),
    ("exception-bound", bound),
    ("exception-undefined", undefined),
    ("exception-no-device", no_device),
    ("exception-double-fault", double_fault),
    ("exception-not-present", not_present),
    ("exception-stack", stack),
    ("exception-protection-of-selectors", selectors),
    ("exception-protection-of-gates", gates),
    ("exception-protection-of-registers", registers),
    ("exception-alignment", alignment),
    ("exception-from-ring-3", from_ring_3),
    ("exception-resume-flag", resume_flag),
    ("exception-x87-and-sse", floating_point),
    ("page-fault-error-codes", page_fault),
    ("page-fault-across-pages", across_pages),
    ("page-fault-of-supervisor-modes", supervisor_modes),
    ("instruction-length", instruction_length),
];

/// Vector, error code, and whether the return address is that of the instruction. To be asked before the next one is tried.
fn at(trap: Option<Trap>) -> Option<(u8, u32, bool)> {
    trap.map(|trap| (trap.vector, trap.error, trap.rip == trap::fault_at()))
}

/// Vector, error code, and whether the return address is behind the instruction.
fn behind(trap: Option<Trap>) -> Option<(u8, u32, bool)> {
    trap.map(|trap| (trap.vector, trap.error, trap.rip == trap::next_at()))
}

fn divide() -> Outcome {
    same!(at(trap::probe(code!("xor ecx, ecx"; "div ecx"), 0)), Some((0, 0, true)), "by zero");
    let overflow = code!("mov rax, 1", "shl rax, 63", "cqo", "mov rcx, -1"; "idiv rcx");
    same!(at(trap::probe(overflow, 0)), Some((0, 0, true)), "overflow");
    Ok(())
}

fn breakpoint() -> Outcome {
    same!(behind(trap::probe(code!(; "int3"), 0)), Some((3, 0, true)), "INT3");
    same!(behind(trap::probe(code!(; ".byte 0xcd, 3"), 0)), Some((3, 0, true)), "INT 3");
    same!(behind(trap::probe(code!(; "int 0x80"), 0)), Some((0x80, 0, true)), "INT 80");
    Ok(())
}

core::arch::global_asm!(
    ".code32",
    "into32: mov eax, 0x7fffffff",
    "add eax, 1",
    "mov dword ptr [FAULT_AT], offset into32_at",
    "mov dword ptr [NEXT_AT], offset into32_next",
    "into32_at: .byte 0xce",
    "into32_next: ret",
    "bound32: mov dword ptr [SCRATCH], 5",
    "mov dword ptr [SCRATCH + 4], 7",
    "mov dword ptr [FAULT_AT], offset bound32_at",
    "mov eax, 5",
    "bound32_first: .byte 0x62, 0x05",
    ".long SCRATCH",
    "mov eax, 7",
    ".byte 0x62, 0x05",
    ".long SCRATCH",
    "mov eax, 8",
    "bound32_at: .byte 0x62, 0x05",
    ".long SCRATCH",
    "ret",
    ".code64",
);

unsafe extern "C" {
    fn into32();
    fn bound32();
}

fn overflow() -> Outcome {
    let trap = trap::probe_compatibility(into32 as *const () as u64);
    same!(behind(trap), Some((4, 0, true)), "INTO");
    same!(trap.map(|trap| trap.cs), Some(machine::CODE32 as u16), "code segment");
    Ok(())
}

fn bound() -> Outcome {
    same!(
        at(trap::probe_compatibility(bound32 as *const () as u64)),
        Some((5, 0, true)),
        "BOUND"
    );
    Ok(())
}

fn undefined() -> Outcome {
    same!(at(trap::probe(code!(; "ud2"), 0)), Some((6, 0, true)), "UD2");
    same!(at(trap::probe(code!(; ".byte 0x0f, 0xff, 0xc0"), 0)), Some((6, 0, true)), "UD0");
    same!(
        at(trap::probe(code!(; ".byte 0xf0, 0x89, 0xc0"), 0)),
        Some((6, 0, true)),
        "LOCK MOV"
    );
    same!(at(trap::probe(code!(; ".byte 0xce"), 0)), Some((6, 0, true)), "INTO in 64-bit code");
    same!(
        at(trap::probe(code!(; ".byte 0x0f, 0x20, 0xc8"), 0)),
        Some((6, 0, true)),
        "MOV from CR1"
    );
    Ok(())
}

fn no_device() -> Outcome {
    let cr0 = machine::cr0();
    machine::set_cr0(cr0 | 8);
    let (x87, sse) = (trap::probe(code!(; "fld1"), 0), trap::probe(code!(; "xorps xmm0, xmm0"), 0));
    // SAFETY: clears the flag that was just set.
    unsafe { core::arch::asm!("clts") };
    let after = machine::cr0();
    machine::set_cr0(cr0);
    same!(x87.map(|t| (t.vector, t.error)), Some((7, 0)), "x87");
    same!(sse.map(|t| (t.vector, t.error)), Some((7, 0)), "SSE");
    same!(after, cr0 & !8, "CR0 after CLTS");
    Ok(())
}

fn double_fault() -> Outcome {
    // The page fault's gate is not present: the second fault is contributory.
    machine::set_gate(14, [0, 0]);
    let trap = trap::probe(code!("mov rax, 0x7f0000000000"; "mov rax, [rax]"), 0);
    machine::set_gate(14, machine::gate(14, 0, 0, 14));
    same!(trap.map(|t| (t.vector, t.error)), Some((8, 0)), "vector and error code");
    let (stack, frame) = (machine::IST_STACK.get() as u64, trap.map_or(0, |t| t.frame));
    ensure!(
        (stack..stack + 0x2000).contains(&frame),
        "not on its interrupt stack but at {frame:#x}"
    );
    // Two contributory exceptions.
    machine::set_gate(13, [0, 0]);
    let trap = trap::probe(code!("mov eax, 0x1f8"; "mov ds, eax"), 0);
    machine::set_gate(13, machine::gate(13, 0, 0, 14));
    same!(trap.map(|t| (t.vector, t.error)), Some((8, 0)), "after #GP and #NP");
    Ok(())
}

fn not_present() -> Outcome {
    same!(
        at(trap::probe(code!("mov eax, 0x60"; "mov ds, eax"), 0)),
        Some((11, 0x60, true)),
        "DS"
    );
    same!(
        at(trap::probe(code!("mov eax, 0x63"; "mov fs, eax"), 0)),
        Some((13, 0x60, true)),
        "FS, requested in ring 3: privilege comes first"
    );
    same!(
        at(trap::probe(code!("push 0x68", "push 0"; "retfq"), 0)),
        Some((11, 0x68, true)),
        "far return"
    );
    machine::set_gate(0x81, [machine::gate(0x81, 0, 0, 14)[0] & !(1 << 47), 0]);
    let trap = trap::probe(code!(; "int 0x81"), 0);
    machine::set_gate(0x81, machine::gate(0x81, 0, 0, 14));
    same!(at(trap), Some((11, 0x81 * 8 + 2, true)), "gate");
    // An exception, not an instruction: the external bit.
    machine::set_gate(6, [machine::gate(6, 0, 0, 14)[0] & !(1 << 47), 0]);
    let trap = trap::probe(code!(; "ud2"), 0);
    machine::set_gate(6, machine::gate(6, 0, 0, 14));
    same!(at(trap), Some((11, 6 * 8 + 3, true)), "gate of an exception");
    Ok(())
}

fn stack() -> Outcome {
    same!(
        at(trap::probe(code!("mov eax, 0x60"; "mov ss, eax"), 0)),
        Some((12, 0x60, true)),
        "SS not present"
    );
    let read = code!("mov rcx, rsp", "mov rsp, 0x7ffffffffff0", "shl rsp, 4"; "mov rax, [rsp]"; "mov rsp, rcx");
    // The exception's own stack is the interrupt stack table's: this one is bad.
    machine::set_gate(12, machine::gate(12, 0, 1, 14));
    machine::set_gate(13, machine::gate(13, 0, 1, 14));
    let trap = at(trap::probe(read, 0));
    let base = at(trap::probe(code!("mov rbp, 1", "shl rbp, 63"; "mov rax, [rbp]"), 0));
    machine::set_gate(12, machine::gate(12, 0, 0, 14));
    machine::set_gate(13, machine::gate(13, 0, 0, 14));
    same!(trap, Some((12, 0, true)), "stack pointer not canonical");
    same!(base, Some((12, 0, true)), "frame pointer not canonical");
    Ok(())
}

fn selectors() -> Outcome {
    let ds = code!("mov eax, edi"; "mov ds, eax");
    let ss = code!("mov eax, edi"; "mov ss, eax");
    for selector in [0x1f8u64, 0x1fb, 0xfff8, 0x0c, 0x70, 0x40] {
        same!(
            at(trap::probe(ds, selector)),
            Some((13, selector as u32 & 0xfffc, true)),
            "DS with {selector:#x}"
        );
    }
    for selector in [0x10u64, 0x30, 0x1a, 0x1f8] {
        same!(
            at(trap::probe(ss, selector)),
            Some((13, selector as u32 & 0xfffc, true)),
            "SS with {selector:#x}"
        );
    }
    let far = code!("push rdi", "push 0"; "retfq");
    for selector in [0x18u64, 0x28, 0x1f8, 0] {
        same!(
            at(trap::probe(far, selector)),
            Some((13, selector as u32 & 0xfffc, true)),
            "far return to {selector:#x}"
        );
    }
    same!(
        at(trap::probe(code!("mov eax, 0x40"; "ltr ax"), 0)),
        Some((13, 0x40, true)),
        "LTR of a busy TSS"
    );
    same!(
        at(trap::probe(code!("mov eax, 0x18"; "ltr ax"), 0)),
        Some((13, 0x18, true)),
        "LTR of data"
    );
    same!(
        at(trap::probe(code!("mov eax, 0x18"; "lldt ax"), 0)),
        Some((13, 0x18, true)),
        "LLDT of data"
    );
    same!(at(trap::probe(code!("xor eax, eax"; "mov ds, eax"), 0)), None, "DS null");
    Ok(())
}

fn gates() -> Outcome {
    let user = |function| at(Some(trap::probe_user(function, 0)));
    same!(
        user(code!(; "int 0x20")),
        Some((13, 0x20 * 8 + 2, true)),
        "gate of ring 0 from ring 3"
    );
    machine::set_gate(0x82, [machine::gate(0x82, 0, 0, 2)[0], 0]);
    let trap = trap::probe(code!(; "int 0x82"), 0);
    machine::set_gate(0x82, machine::gate(0x82, 0, 0, 14));
    same!(at(trap), Some((13, 0x82 * 8 + 2, true)), "no gate at all");
    // Beyond the table's end.
    let idt = machine::Pointer {
        limit: 0x81 * 16 - 1,
        base: machine::IDT.get() as u64,
    };
    // SAFETY: the first vectors are all there, and the whole table comes back.
    unsafe { core::arch::asm!("lidt [{}]", in(reg) &idt) };
    let trap = trap::probe(code!(; "int 0x90"), 0);
    machine::load_idt();
    same!(at(trap), Some((13, 0x90 * 8 + 2, true)), "beyond the table");
    Ok(())
}

fn registers() -> Outcome {
    // CR4.PAE cleared in long mode is not among these: what lets it pass cannot go on. The hostile guest tries it.
    let (cr0, cr3, cr4) = (machine::cr0(), machine::cr3(), machine::cr4());
    // First what does no harm where it is let pass: the last ones leave a state in which a virtual machine cannot be entered again.
    for (name, function) in [
        ("CR8 16", code!("mov eax, 16"; "mov cr8, rax")),
        ("not canonical", code!("mov rax, 1", "shl rax, 47"; "mov rax, [rax]")),
        ("far not canonical", code!("mov rax, 1", "shl rax, 63"; "jmp rax")),
        ("SSE not aligned", code!("mov rax, offset SCRATCH + 1"; "movaps xmm0, [rax]")),
        ("CR0 bit 40", code!("mov rax, cr0", "bts rax, 40"; "mov cr0, rax")),
        ("CR4 bit 40", code!("mov rax, cr4", "bts rax, 40"; "mov cr4, rax")),
        ("CR4 bit 31", code!("mov rax, cr4", "bts rax, 31"; "mov cr4, rax")),
        ("CR3 bit 62", code!("mov rax, cr3", "bts rax, 62"; "mov cr3, rax")),
        (
            "CR0 NW without CD",
            code!("mov rax, cr0", "or eax, 0x20000000", "and eax, 0xbfffffff"; "mov cr0, rax"),
        ),
        (
            "CR0 paging without protection",
            code!("mov rax, cr0", "and eax, 0xfffffffe"; "mov cr0, rax"),
        ),
    ] {
        let trap = trap::probe(function, 0);
        machine::set_cr0(cr0);
        machine::set_cr3(cr3);
        machine::set_cr4(cr4);
        machine::set_cr8(0);
        same!(trap.map(|t| (t.vector, t.error)), Some((13, 0)), "{name}");
        // A jump may have been done before its target is looked at.
        if name != "far not canonical" {
            same!(trap.map(|t| t.rip), Some(trap::fault_at()), "{name}: return address");
        }
    }
    Ok(())
}

fn alignment() -> Outcome {
    let cr0 = machine::cr0();
    let read = code!("pushfq", "or dword ptr [rsp], 0x40000", "popfq"; "mov eax, [SCRATCH + 1]"; "xor eax, eax");
    machine::set_cr0(cr0 | 1 << 18);
    let (user, ring0) = (
        at(Some(trap::probe_user(read, 0))),
        trap::probe(
            code!("pushfq", "or dword ptr [rsp], 0x40000", "popfq"; "mov eax, [SCRATCH + 1]"; "push 2", "popfq"),
            0,
        ),
    );
    machine::set_cr0(cr0);
    same!(ring0, None, "in ring 0");
    same!(user, Some((17, 0, true)), "in ring 3");
    Ok(())
}

fn from_ring_3() -> Outcome {
    let stack = machine::RING0_STACK.get() as u64;
    for (name, function, vector) in [
        ("HLT", code!(; "hlt"), 13),
        ("CLI", code!(; "cli"), 13),
        ("IN", code!("mov edx, 0x80"; "in al, dx"), 13),
        ("MOV from CR0", code!(; "mov rax, cr0"), 13),
        ("LGDT", code!(; "lgdt [SCRATCH]"), 13),
        ("INVLPG", code!(; "invlpg [SCRATCH]"), 13),
        ("WBINVD", code!(; "wbinvd"), 13),
        ("MOV from DR0", code!(; "mov rax, dr0"), 13),
        ("UD2", code!(; "ud2"), 6),
    ] {
        let trap = trap::probe_user(function, 0);
        same!(at(Some(trap)), Some((vector, 0, true)), "{name}");
        same!(u64::from(trap.cs), machine::USER_CODE, "{name}: code segment");
        ensure!((stack..stack + 0x4000).contains(&trap.frame), "{name}: stack at {:#x}", trap.frame);
    }
    same!(trap::probe_user(code!(; "nop"), 0).vector, 0x80, "nothing");
    Ok(())
}

/// A fault's flags on the stack have RF set, so that a breakpoint at the instruction does not come again (SDM volume 3, 17.3.1.1).
fn resume_flag() -> Outcome {
    let flags = |trap: Option<Trap>| trap.map(|trap| trap.flags >> 16 & 1);
    same!(flags(trap::probe(code!(; "ud2"), 0)), Some(1), "#UD");
    same!(
        flags(trap::probe(code!("mov rax, 0x7f0000000000"; "mov rax, [rax]"), 0)),
        Some(1),
        "#PF"
    );
    same!(flags(trap::probe(code!("mov ecx, 0x123"; "rdmsr"), 0)), Some(1), "#GP of RDMSR");
    same!(flags(trap::probe(code!(; "int3"), 0)), Some(0), "INT3");
    Ok(())
}

fn floating_point() -> Outcome {
    let x87 = code!("fninit", "push 0x37b", "fldcw [rsp]", "pop rax", "fld1", "fldz", "fdivp"; "fwait"; "fninit");
    let trap = trap::probe(x87, 0);
    // SAFETY: back to the state after power-on.
    unsafe { core::arch::asm!("fninit") };
    same!(at(trap), Some((16, 0, true)), "x87 division by zero");
    let sse = code!("push 0x1d80", "ldmxcsr [rsp]", "pop rax", "mov eax, 1", "cvtsi2ss xmm0, eax", "xorps xmm1, xmm1"; "divss xmm0, xmm1");
    let trap = trap::probe(sse, 0);
    machine::poke(machine::scratch(0), 0x1f80u32);
    // SAFETY: the value after power-on.
    unsafe { core::arch::asm!("ldmxcsr [{}]", in(reg) machine::scratch(0)) };
    same!(at(trap), Some((19, 0, true)), "SSE division by zero");
    Ok(())
}

fn page_fault() -> Outcome {
    let page = machine::scratch(2);
    let read = code!(; "mov rax, [rdi]");
    let write = code!(; "mov [rdi], rax");
    let fetch = code!("lea rcx, [rip + 3f]", "push rcx"; "jmp rdi");
    machine::poke(page, 0xc3u8);
    const NX: u64 = 1 << 63;
    for (name, entry, function, user, error) in [
        ("absent, read", 0, read, false, 0u32),
        ("absent, write", 0, write, false, 2),
        ("absent, fetch", 0, fetch, false, 16),
        ("absent, user read", 0, read, true, 4),
        ("absent, user write", 0, write, true, 6),
        ("absent, user fetch", 0, fetch, true, 20),
        ("read-only, write", page | 5, write, false, 3),
        ("read-only, user write", page | 5, write, true, 7),
        ("supervisor, user read", page | 3, read, true, 5),
        ("supervisor, user write", page | 3, write, true, 7),
        ("supervisor, user fetch", page | 3, fetch, true, 21),
        ("not executable, fetch", page | 3 | NX, fetch, false, 17),
        ("not executable, user fetch", page | 7 | NX, fetch, true, 21),
        ("reserved bit, read", page | 7 | 1 << 51, read, false, 9),
        ("reserved bit, write", page | 7 | 1 << 51, write, false, 11),
        ("reserved bit, user read", page | 7 | 1 << 51, read, true, 13),
    ] {
        if entry >> 51 & 1 != 0 && machine::cpuid(0x8000_0008, 0)[0] & 0xff == 52 {
            continue;
        }
        let address = machine::map(1, entry) + 0x10;
        machine::poke(page + 0x10, 0xc3u8);
        let trap = if user {
            Some(trap::probe_user(function, address))
        } else {
            trap::probe(function, address)
        };
        same!(trap.map(|t| (t.vector, t.error, t.cr2)), Some((14, error, address)), "{name}");
        let rip = if error & 16 != 0 { address } else { trap::fault_at() };
        same!(trap.map(|t| t.rip), Some(rip), "{name}: return address");
    }
    // And what is allowed.
    for (name, entry, function, user) in [
        ("read", page | 1, read, false),
        ("write", page | 3, write, false),
        ("user write", page | 7, write, true),
    ] {
        let address = machine::map(1, entry);
        let vector = if user {
            trap::probe_user(function, address).vector
        } else {
            trap::probe(function, address).map_or(0x80, |t| t.vector)
        };
        same!(vector, 0x80, "{name}");
    }
    // Without write protection ring 0 writes where it may only read.
    let cr0 = machine::cr0();
    machine::set_cr0(cr0 & !(1 << 16));
    let address = machine::map(1, page | 5);
    let trap = trap::probe(write, address);
    machine::set_cr0(cr0);
    machine::map(1, 0);
    same!(trap, None, "write without CR0.WP");
    Ok(())
}

fn across_pages() -> Outcome {
    let (first, second) = (machine::map(1, machine::scratch(2) | 3), machine::map(2, 0));
    machine::poke(first + 0xffc, 0x1122_3344u32);
    let trap = trap::probe(code!("mov rax, -1"; "mov [rdi], rax"), first + 0xffc);
    same!(trap.map(|t| (t.vector, t.error, t.cr2)), Some((14, 2, second)), "write");
    same!(machine::peek::<u32>(first + 0xffc), 0x1122_3344, "nothing of it was written");
    // A string stops at the end of the page with its registers there.
    extern "C" fn string(address: u64) {
        // SAFETY: the caller recovers from the fault.
        unsafe { core::arch::asm!("rep stosb", in("rdi") address, in("rcx") 16u64, in("al") 0x5au8) };
    }
    trap::handle(|frame| {
        machine::poke(machine::scratch(0), [frame.registers[8], frame.registers[13]]);
        false
    });
    let trap = trap::probe(string, first + 0xff8);
    same!(trap.map(|t| (t.vector, t.error, t.cr2)), Some((14, 2, second)), "string");
    same!(machine::peek::<[u64; 2]>(machine::scratch(0)), [second, 8], "rdi and rcx");
    same!(machine::peek::<u64>(first + 0xff8), 0x5a5a_5a5a_5a5a_5a5a, "the part before");
    machine::map(1, 0);
    Ok(())
}

fn supervisor_modes() -> Outcome {
    let leaf = if machine::cpuid(0, 0)[0] >= 7 { machine::cpuid(7, 0)[1] } else { 0 };
    let (smep, smap) = (leaf >> 7 & 1 != 0, leaf >> 20 & 1 != 0);
    if !smep && !smap {
        crate::absent!("neither SMEP nor SMAP");
    }
    // All else that runs here is on pages of the user, too: those of the program lose it while this lasts.
    let user_pages = |set: bool| {
        for large in 0..32u64 {
            let place = machine::TABLES.get() as u64 + 0x2000 + 8 * large;
            let entry = machine::peek::<u64>(place);
            machine::poke(place, if set { entry | 4 } else { entry & !4 });
            machine::flush(large << 21);
        }
        machine::set_cr3(machine::cr3());
    };
    let page = machine::scratch(2);
    machine::poke(page, 0xc3u8);
    let address = machine::map(1, page | 7);
    let cr4 = machine::cr4();
    user_pages(false);
    machine::set_cr4(cr4 | u64::from(smep) << 20 | u64::from(smap) << 21);
    let fetch = trap::probe(code!("lea rcx, [rip + 3f]", "push rcx"; "jmp rdi"), address);
    let read = trap::probe(code!(; "mov rax, [rdi]"), address);
    let allowed = trap::probe(
        code!("pushfq", "or dword ptr [rsp], 0x40000", "popfq"; "mov rax, [rdi]"; "push 2", "popfq"),
        address,
    );
    machine::set_cr4(cr4);
    user_pages(true);
    machine::map(1, 0);
    if smep {
        same!(fetch.map(|t| (t.vector, t.error)), Some((14, 17)), "SMEP");
    }
    if smap {
        same!(read.map(|t| (t.vector, t.error)), Some((14, 1)), "SMAP");
        same!(allowed, None, "SMAP with EFLAGS.AC");
    }
    Ok(())
}

fn instruction_length() -> Outcome {
    let fifteen = code!(; ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");
    same!(trap::probe(fifteen, 0), None, "fifteen bytes");
    let sixteen = code!(; ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x90");
    same!(at(trap::probe(sixteen, 0)), Some((13, 0, true)), "sixteen bytes");
    Ok(())
}
