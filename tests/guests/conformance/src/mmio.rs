//! Memory that is a device: the local APIC and the I/O APIC, by all kinds of instructions and addresses. Bare, the processor does them; in a virtual machine
//! the monitor.

use crate::{code, ensure, machine, report::Outcome, same, start::Test, trap};
use core::arch::asm;

/// The tests of this file.
pub const TESTS: &[Test] = &[
    ("mmio-moves", moves),
    ("mmio-addresses", addresses),
    ("mmio-arithmetic", arithmetic),
    ("mmio-bits-and-shifts", bits),
    ("mmio-exchanges", exchanges),
    ("mmio-conditions", conditions),
    ("mmio-strings", strings),
    ("mmio-stack", stack),
    ("mmio-in-compatibility-mode", compatibility),
    ("mmio-ring-3", ring_3),
    ("mmio-ioapic", ioapic),
    ("mmio-holes", holes),
];

/// Local APIC: the initial count of the timer, of which all bits are kept; the timer is masked meanwhile.
const COUNT: u64 = machine::APIC + 0x380;
/// Error register of the local vector table: not a plain memory cell.
const LVT_ERROR: u64 = machine::APIC + 0x370;
/// Divide configuration: bits 0, 1 and 3.
const DIVIDE: u64 = machine::APIC + 0x3e0;
/// Upper half of the interrupt command: bits 24 to 31.
const DESTINATION: u64 = machine::APIC + 0x310;

fn quiet() {
    machine::set_apic(0x320, 0x1_0000);
    machine::poke(COUNT, 0u32);
    machine::poke(DESTINATION, 0u32);
    machine::poke(DIVIDE, 0xbu32);
}

/// What stands in the destination after one instruction on it, which stood at `before`. The address is in rdi.
macro_rules! after {
    ($before:expr, $($instruction:literal),+) => {{
        machine::poke(DESTINATION, $before << 24);
        let flags: u64;
        // SAFETY: a register of the local APIC that is used only when a command is sent.
        unsafe {
            asm!("stc", $($instruction,)+ "pushfq", "pop {flags}", flags = lateout(reg) flags, in("rdi") DESTINATION,
                inout("rax") 0x1200_0000u64 => _, inout("rcx") 4u64 => _, out("rdx") _);
        }
        (machine::peek::<u32>(DESTINATION) >> 24, flags & 0x8d5)
    }};
}

fn moves() -> Outcome {
    quiet();
    for value in [0u32, 0xffff_ffff, 0x1234_5678] {
        machine::poke(COUNT, value);
        same!(machine::peek::<u32>(COUNT), value, "MOV");
    }
    let version = machine::apic(0x30);
    ensure!(version & 0xf0 == 0x10, "version {version:#x}");
    let id = machine::apic(0x20);
    machine::poke(DESTINATION, 0x8100_0000u32);
    let value: u64;
    // SAFETY: reads a register of the local APIC.
    unsafe { asm!("mov rax, -1", "mov eax, [rdi]", out("rax") value, in("rdi") DESTINATION) };
    same!(value, 0x8100_0000, "MOV clears the upper half");
    // SAFETY: as above.
    unsafe { asm!("movsxd rax, dword ptr [rdi]", out("rax") _, in("rdi") DESTINATION) };
    let value: u64;
    // SAFETY: as above.
    unsafe { asm!("movsxd rax, dword ptr [rdi]", out("rax") value, in("rdi") DESTINATION) };
    same!(value, 0xffff_ffff_8100_0000, "MOVSXD");
    // SAFETY: as above.
    unsafe { asm!("mov dword ptr [rdi], 0x22000000", in("rdi") DESTINATION) };
    same!(machine::peek::<u32>(DESTINATION), 0x2200_0000, "MOV of a constant");
    // SAFETY: as above.
    unsafe { asm!("movnti [rdi], eax", in("rdi") DESTINATION, in("eax") 0x3300_0000) };
    same!(machine::peek::<u32>(DESTINATION), 0x3300_0000, "MOVNTI");
    // High registers, and one that needs a prefix.
    // SAFETY: as above.
    unsafe {
        asm!("mov r13d, 0x44000000", "mov [rdi], r13d", "mov r15d, [rdi]", "cmp r13, r15", "setne al", in("rdi") DESTINATION, out("r13") _, out("r15") _, out("al") _)
    };
    same!(machine::peek::<u32>(DESTINATION), 0x4400_0000, "MOV of R13D");
    same!(machine::apic(0x20), id, "the identity");
    Ok(())
}

fn addresses() -> Outcome {
    quiet();
    let read = |function: extern "C" fn(u64)| {
        machine::poke(machine::scratch(0), 0u64);
        let trap = trap::probe(function, 0);
        (trap, machine::peek::<u64>(machine::scratch(0)))
    };
    machine::poke(COUNT, 0x5eed_0001u32);
    for (name, function) in [
        ("[absolute]", code!(; "mov eax, [0xfee00380]"; "mov [SCRATCH], rax")),
        ("[base]", code!("mov ecx, 0xfee00380"; "mov eax, [rcx]"; "mov [SCRATCH], rax")),
        (
            "[base + 8 bits]",
            code!("mov ecx, 0xfee00390"; "mov eax, [rcx - 0x10]"; "mov [SCRATCH], rax"),
        ),
        (
            "[base + 32 bits]",
            code!("mov ecx, 0x80"; "mov eax, [ecx - 0x11ffd00]"; "mov [SCRATCH], rax"),
        ),
        (
            "[base + index]",
            code!("mov ecx, 0xfee00000", "mov edx, 0x380"; "mov eax, [rcx + rdx]"; "mov [SCRATCH], rax"),
        ),
        (
            "[base + index * 2]",
            code!("mov ecx, 0xfee00000", "mov edx, 0x1c0"; "mov eax, [rcx + rdx * 2]"; "mov [SCRATCH], rax"),
        ),
        (
            "[base + index * 4 + 8 bits]",
            code!("mov ecx, 0xfee00000", "mov edx, 0xd0"; "mov eax, [rcx + rdx * 4 + 0x40]"; "mov [SCRATCH], rax"),
        ),
        (
            "[index * 8 + 32 bits]",
            code!("mov ecx, 0x1fdc0070"; "mov eax, [rcx * 8]"; "mov [SCRATCH], rax"),
        ),
        (
            "[r8 + r9 * 8]",
            code!("mov r8d, 0xfee00000", "mov r9d, 0x70"; "mov eax, [r8 + r9 * 8]"; "mov [SCRATCH], rax"),
        ),
        (
            "[r13]",
            code!("mov r8, r13", "mov r13d, 0xfee00380"; "mov eax, [r13]"; "mov [SCRATCH], rax", "mov r13, r8"),
        ),
        (
            "[r12]",
            code!("mov r8, r12", "mov r12d, 0xfee00380"; "mov eax, [r12]"; "mov [SCRATCH], rax", "mov r12, r8"),
        ),
        (
            "[rbp + 0]",
            code!("mov r8, rbp", "mov ebp, 0xfee00380"; "mov eax, [rbp + 0]"; "mov [SCRATCH], rax", "mov rbp, r8"),
        ),
        (
            "[rsp]",
            code!("mov r8, rsp", "mov esp, 0xfee00380"; "mov eax, [rsp]"; "mov rsp, r8", "mov [SCRATCH], rax"),
        ),
        (
            "[32-bit base]",
            code!("mov rcx, 0x12345678fee00380"; "mov eax, [ecx]"; "mov [SCRATCH], rax"),
        ),
        (
            "[32-bit base + index, wrapped]",
            code!("mov ecx, 0xfee00380", "mov edx, 0x80000000"; "mov eax, [ecx + edx * 2]"; "mov [SCRATCH], rax"),
        ),
        (
            "moffs",
            code!(; ".byte 0xa1, 0x80, 0x03, 0xe0, 0xfe, 0, 0, 0, 0"; "mov [SCRATCH], rax"),
        ),
    ] {
        same!(read(function), (None, 0x5eed_0001), "{name}");
    }
    // Relative to the instruction pointer, in a page of the window: the code stands in the window, the APIC behind it.
    let page = machine::map(1, machine::scratch(2) | 3);
    machine::map(2, machine::APIC | 0x1b);
    // mov eax, [rip + n]; ret
    machine::poke(page, [0x8bu8, 0x05]);
    machine::poke(page + 2, (0x1380 - 6) as u32);
    machine::poke(page + 6, 0xc3u8);
    extern "C" fn call(page: u64) {
        // SAFETY: code that was just written.
        unsafe { asm!("call rdi", "mov [SCRATCH], rax", in("rdi") page, out("rax") _) };
    }
    machine::poke(machine::scratch(0), 0u64);
    let trap = trap::probe(call, page);
    same!((trap, machine::peek::<u64>(machine::scratch(0))), (None, 0x5eed_0001), "[rip + n]");
    // With a base of FS.
    machine::wrmsr(0xc000_0100, machine::WINDOW + 0x2000);
    let fs = read(code!(; "mov eax, fs:[0x380]"; "mov [SCRATCH], rax"));
    machine::wrmsr(0xc000_0100, 0);
    machine::map(1, 0);
    machine::map(2, 0);
    same!(fs, (None, 0x5eed_0001), "fs:[n]");
    quiet();
    Ok(())
}

const CARRY: u64 = 1;
const ZERO: u64 = 0x40;
const SIGN: u64 = 0x80;
const PARITY: u64 = 4;
const OVERFLOW: u64 = 0x800;

fn arithmetic() -> Outcome {
    quiet();
    same!(after!(0x21u32, "or dword ptr [rdi], 0x42000000"), (0x63, PARITY), "OR");
    same!(after!(0x21u32, "and dword ptr [rdi], 0x20000000"), (0x20, PARITY), "AND");
    same!(after!(0x21u32, "xor dword ptr [rdi], 0x21000000"), (0, PARITY | ZERO), "XOR");
    same!(after!(0x21u32, "add dword ptr [rdi], eax"), (0x33, PARITY), "ADD");
    same!(after!(0xf0u32, "add dword ptr [rdi], eax"), (2, PARITY | CARRY), "ADD with a carry");
    same!(after!(0x21u32, "sub dword ptr [rdi], eax"), (0x0f, PARITY), "SUB");
    same!(
        after!(0x10u32, "sub dword ptr [rdi], eax"),
        (0xfe, PARITY | CARRY | SIGN),
        "SUB with a borrow"
    );
    same!(
        after!(0x7fu32, "lock add dword ptr [rdi], eax"),
        (0x91, PARITY | SIGN | OVERFLOW),
        "LOCK ADD"
    );
    same!(after!(0x21u32, "neg dword ptr [rdi]"), (0xdf, PARITY | CARRY | SIGN), "NEG");
    same!(after!(0x21u32, "not dword ptr [rdi]").0, 0xde, "NOT");
    same!(after!(0x12u32, "cmp dword ptr [rdi], eax"), (0x12, PARITY | ZERO), "CMP");
    same!(after!(0x11u32, "cmp eax, dword ptr [rdi]"), (0x11, PARITY), "CMP with a register");
    same!(after!(0x80u32, "test dword ptr [rdi], 0x80000000"), (0x80, PARITY | SIGN), "TEST");
    same!(
        after!(0x80u32, "test dword ptr [rdi], eax"),
        (0x80, PARITY | ZERO),
        "TEST with a register"
    );
    // What is read is used as a number.
    machine::poke(DESTINATION, 0x2200_0000u32);
    let sum: u64;
    // SAFETY: reads a register of the local APIC.
    unsafe { asm!("add eax, [rdi]", "mov ecx, eax", in("rdi") DESTINATION, inout("rax") 0xffff_ffff_1000_0001u64 => sum, out("rcx") _) };
    same!(sum, 0x3200_0001, "ADD to a register");
    Ok(())
}

fn bits() -> Outcome {
    quiet();
    same!(after!(0x01u32, "bts dword ptr [rdi], 25").0, 3, "BTS");
    same!(after!(0x03u32, "btr dword ptr [rdi], 25").0, 1, "BTR");
    same!(after!(0x03u32, "btc dword ptr [rdi], 26").0, 7, "BTC");
    let (value, flags) = after!(0x80u32, "bt dword ptr [rdi], 31");
    same!((value, flags & CARRY), (0x80, CARRY), "BT");
    let (value, flags) = after!(0x81u32, "shl dword ptr [rdi], 1");
    same!((value, flags & CARRY), (2, CARRY), "SHL");
    same!(after!(0x81u32, "shr dword ptr [rdi], cl").0, 8, "SHR");
    same!(after!(0x81u32, "sar dword ptr [rdi], cl").0, 0xf8, "SAR");
    Ok(())
}

fn exchanges() -> Outcome {
    quiet();
    machine::poke(DESTINATION, 0x2100_0000u32);
    let old: u64;
    // SAFETY: a register of the local APIC that is used only when a command is sent.
    unsafe { asm!("xchg [rdi], eax", in("rdi") DESTINATION, inout("rax") 0xffff_ffff_3400_0000u64 => old) };
    same!((old, machine::peek::<u32>(DESTINATION)), (0x2100_0000, 0x3400_0000), "XCHG");
    let old: u64;
    // SAFETY: as above.
    unsafe { asm!("lock xadd [rdi], eax", in("rdi") DESTINATION, inout("rax") 0x0100_0000u64 => old) };
    same!((old, machine::peek::<u32>(DESTINATION)), (0x3400_0000, 0x3500_0000), "XADD");
    let (old, equal): (u64, u8);
    // SAFETY: as above.
    unsafe {
        asm!("lock cmpxchg [rdi], ecx", "sete dl", in("rdi") DESTINATION, inout("rax") 0x3500_0000u64 => old, in("ecx") 0x7700_0000u32, out("dl") equal)
    };
    same!(
        (old, equal, machine::peek::<u32>(DESTINATION)),
        (0x3500_0000, 1, 0x7700_0000),
        "CMPXCHG, equal"
    );
    let (old, equal): (u64, u8);
    // SAFETY: as above.
    unsafe {
        asm!("lock cmpxchg [rdi], ecx", "sete dl", in("rdi") DESTINATION, inout("rax") 1u64 => old, in("ecx") 0x1100_0000u32, out("dl") equal)
    };
    same!(
        (old, equal, machine::peek::<u32>(DESTINATION)),
        (0x7700_0000, 0, 0x7700_0000),
        "CMPXCHG, different"
    );
    Ok(())
}

fn conditions() -> Outcome {
    quiet();
    machine::poke(DESTINATION, 0x5500_0000u32);
    let (taken, left): (u64, u64);
    // SAFETY: reads a register of the local APIC.
    unsafe {
        asm!("cmp edx, edx", "cmove eax, [rdi]", "cmovne rcx, [SCRATCH]", in("rdi") DESTINATION, inout("rax") u64::MAX => taken, inout("rcx") 7u64 => left, in("edx") 1);
    }
    same!((taken, left), (0x5500_0000, 7), "CMOVcc");
    let not_taken: u64;
    // SAFETY: as above.
    unsafe { asm!("cmp edx, edx", "cmovne eax, [rdi]", in("rdi") DESTINATION, inout("rax") u64::MAX => not_taken, in("edx") 1) };
    same!(not_taken, 0xffff_ffff, "CMOVcc not taken clears the upper half");
    let (bit, found): (u64, u64);
    // SAFETY: as above.
    unsafe { asm!("bsf eax, [rdi]", "bsr ecx, [rdi]", in("rdi") DESTINATION, out("rax") bit, out("rcx") found) };
    same!((bit, found), (24, 30), "BSF, BSR");
    Ok(())
}

fn strings() -> Outcome {
    quiet();
    machine::poke(machine::scratch(0), 0x6600_0000u32);
    let (mut rsi, mut rdi): (u64, u64);
    // SAFETY: a register of the local APIC, and this program's memory.
    unsafe { asm!("movsd", inout("rsi") machine::scratch(0) => rsi, inout("rdi") DESTINATION => rdi) };
    same!(
        (rsi, rdi),
        (machine::scratch(0) + 4, DESTINATION + 4),
        "MOVSD to the APIC, registers"
    );
    same!(machine::peek::<u32>(DESTINATION), 0x6600_0000, "MOVSD to the APIC");
    // SAFETY: as above.
    unsafe { asm!("std", "movsd", "cld", inout("rsi") DESTINATION => rsi, inout("rdi") machine::scratch(0) + 16 => rdi) };
    same!(
        (rsi, rdi),
        (DESTINATION - 4, machine::scratch(0) + 12),
        "MOVSD from the APIC backwards, registers"
    );
    same!(machine::peek::<u32>(machine::scratch(0) + 16), 0x6600_0000, "MOVSD from the APIC");
    // SAFETY: as above.
    unsafe { asm!("stosd", inout("rdi") DESTINATION => rdi, in("eax") 0x1900_0000) };
    same!((rdi, machine::peek::<u32>(DESTINATION)), (DESTINATION + 4, 0x1900_0000), "STOSD");
    let value: u64;
    // SAFETY: as above.
    unsafe { asm!("lodsd", inout("rsi") DESTINATION => rsi, inout("rax") u64::MAX => value) };
    same!((rsi, value), (DESTINATION + 4, 0x1900_0000), "LODSD");
    let equal: u8;
    // SAFETY: as above.
    unsafe { asm!("scasd", "sete al", inout("rdi") DESTINATION => rdi, inout("eax") 0x1900_0000 => _) };
    // SAFETY: as above.
    unsafe { asm!("cmpsd", "sete {}", out(reg_byte) equal, inout("rsi") machine::scratch(0) + 16 => rsi, inout("rdi") DESTINATION => rdi) };
    same!((rsi, rdi, equal), (machine::scratch(0) + 20, DESTINATION + 4, 0), "CMPSD");
    Ok(())
}

fn stack() -> Outcome {
    quiet();
    machine::poke(DESTINATION, 0x4200_0000u32);
    // 64 bits wide is not how registers are read, but the lower half of what comes is defined: 32-bit code pushes 32 bits.
    unsafe extern "C" {
        fn push32();
    }
    same!(trap::probe_compatibility(push32 as *const () as u64), None, "fault");
    same!(machine::peek::<u32>(machine::scratch(0)), 0x4200_0000, "PUSH from the APIC");
    same!(machine::peek::<u32>(DESTINATION), 0x2400_0000, "POP to the APIC");
    Ok(())
}

fn compatibility() -> Outcome {
    quiet();
    unsafe extern "C" {
        fn mmio32();
    }
    same!(trap::probe_compatibility(mmio32 as *const () as u64), None, "fault");
    same!(machine::peek::<u32>(machine::scratch(0)), 0x3300_0000, "read, modified, written");
    Ok(())
}

fn ring_3() -> Outcome {
    quiet();
    machine::poke(COUNT, 0x0bad_cafeu32);
    let read = code!(; "mov eax, [rdi + 0x380]"; "mov [SCRATCH], rax");
    let page = machine::map(1, machine::APIC | 0x1f);
    same!(trap::probe_user(read, page).vector, 0x80, "a page of ring 3");
    same!(machine::peek::<u64>(machine::scratch(0)), 0x0bad_cafe, "what it read");
    machine::map(1, machine::APIC | 0x1b);
    let trap = trap::probe_user(read, page);
    same!((trap.vector, trap.error, trap.cr2), (14, 5, page + 0x380), "a page of ring 0");
    machine::map(1, machine::APIC | 0x19);
    let trap = trap::probe(code!(; "mov [rdi + 0x380], eax"), page);
    same!(
        trap.map(|t| (t.vector, t.error, t.cr2)),
        Some((14, 3, page + 0x380)),
        "a read-only page"
    );
    // Accessed and dirty bits of a page that is a device.
    machine::map(1, machine::APIC | 0x1b);
    machine::peek::<u32>(page + 0x380);
    same!(machine::entry(1) & 0x60, 0x20, "after a read");
    machine::poke(page + 0x380, 0u32);
    same!(machine::entry(1) & 0x60, 0x60, "after a write");
    machine::map(1, 0);
    Ok(())
}

fn ioapic() -> Outcome {
    const BASE: u64 = 0xfec0_0000;
    let read = |index: u32| {
        machine::poke(BASE, index);
        machine::peek::<u32>(BASE + 0x10)
    };
    let version = read(1);
    ensure!(matches!(version & 0xff, 0x11 | 0x20), "version {version:#x}");
    ensure!(version >> 16 & 0xff >= 23, "{} lines", version >> 16 & 0xff);
    // The redirection of line 20: masked, and not used.
    let line = 0x10 + 2 * 20;
    for value in [0x1_0055u32, 0x1_a0ff] {
        machine::poke(BASE, line);
        // SAFETY: a masked redirection.
        unsafe { asm!("mov [rcx + 0x10], eax", in("eax") value, in("rcx") BASE) };
        same!(read(line) & !0x5000, value & !0x5000, "redirection");
    }
    machine::poke(BASE, line);
    // SAFETY: as above.
    unsafe { asm!("and dword ptr [rcx + 0x10], 0x100ff", "xor dword ptr [rcx + 0x10], 0xf0", in("rcx") BASE) };
    same!(read(line), 0x1_000f, "AND and XOR");
    machine::poke(BASE + 0x10, 0x1_0000u32);
    Ok(())
}

fn holes() -> Outcome {
    // Where nothing is, ones are read; nothing is written.
    for address in [0xd000_0000u64, 0xf123_4560] {
        machine::poke(address, 0x1234_5678u32);
        let value = machine::peek::<u32>(address);
        ensure!(value == u32::MAX || value == 0, "{value:#x} at {address:#x}");
    }
    let _ = LVT_ERROR;
    Ok(())
}

core::arch::global_asm!(
    ".code32",
    "push32: push dword ptr [0xfee00310]",
    "pop eax",
    "mov [SCRATCH], eax",
    "push 0x24000000",
    "pop dword ptr [0xfee00310]",
    "mov [SCRATCH + 4], esp",
    "ret",
    ".code64",
);

core::arch::global_asm!(
    ".code32",
    "mmio32: mov ecx, 0xfee00000",
    "mov dword ptr [ecx + 0x310], 0x11000000",
    "mov edx, 0xc4",
    "or dword ptr [ecx + edx * 4], 0x22000000",
    "mov eax, [0xfee00310]",
    "mov [SCRATCH], eax",
    // 16-bit addresses in 32-bit code do not reach it: bp + si is in the first 64 KiB.
    "ret",
    ".code64",
);
