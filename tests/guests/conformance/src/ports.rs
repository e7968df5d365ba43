//! Port instructions, on the scratch register of COM1 and the 8237's page registers, which are the same bare and in a virtual machine.

use crate::{code, ensure, machine, report::Outcome, same, serial, start::Test, trap};
use core::arch::asm;

/// The tests of this file.
pub const TESTS: &[Test] = &[
    ("port-widths", widths),
    ("port-string-output", output),
    ("port-string-input", input),
    ("port-string-directions", directions),
    ("port-string-address-sizes", address_sizes),
    ("port-string-across-pages", across_pages),
    ("port-string-faults", faults),
    ("port-string-of-ring-3", ring_3),
    ("port-delay", delay),
];

/// A register without effects.
const SCRATCH_PORT: u16 = 0x3ff;

fn widths() -> Outcome {
    serial::out8(SCRATCH_PORT, 0x5a);
    let rax: u64;
    // SAFETY: a port without effects.
    unsafe { asm!("mov rax, -1", "in al, dx", out("rax") rax, in("dx") SCRATCH_PORT) };
    same!(rax, 0xffff_ffff_ffff_ff5a, "IN AL keeps the rest of RAX");
    let rax: u64;
    // SAFETY: as above; 0x3fe is the modem's state, which is only read.
    unsafe { asm!("mov rax, 0x1122334455667788", "in ax, dx", out("rax") rax, in("dx") 0x3fe_u16) };
    same!(rax >> 16, 0x1122_3344_5566, "IN AX keeps the rest of RAX");
    let rax: u64;
    // SAFETY: ports without effects.
    unsafe { asm!("mov rax, -1", "in eax, dx", out("rax") rax, in("dx") 0x80_u16) };
    same!(rax >> 32, 0, "IN EAX clears the upper half");
    let rax: u64;
    // SAFETY: as above, with superfluous prefixes.
    unsafe { asm!("mov eax, 0", ".byte 0xf2, 0x48, 0xec", out("rax") rax, in("dx") SCRATCH_PORT) };
    same!(rax, 0x5a, "with prefixes");
    Ok(())
}

fn fill(pattern: u8) {
    for i in 0..64 {
        machine::poke(machine::scratch(0) + i, pattern.wrapping_add(i as u8));
    }
}

fn output() -> Outcome {
    fill(0x10);
    let (rsi, rcx): (u64, u64);
    // SAFETY: a port without effects; the memory is this program's.
    unsafe { asm!("rep outsb", inout("rsi") machine::scratch(0) => rsi, inout("rcx") 8u64 => rcx, in("dx") SCRATCH_PORT) };
    same!((rsi, rcx), (machine::scratch(0) + 8, 0), "registers");
    same!(serial::in8(SCRATCH_PORT), 0x17, "the last byte");
    // Nothing at all.
    // SAFETY: as above.
    unsafe { asm!("rep outsb", inout("rsi") machine::scratch(0) => _, inout("rcx") 0u64 => _, in("dx") SCRATCH_PORT) };
    same!(serial::in8(SCRATCH_PORT), 0x17, "none");
    // Longer than any burst.
    machine::poke(machine::scratch(2) + 4095, 0xc3u8);
    let (rsi, rcx): (u64, u64);
    // SAFETY: as above.
    unsafe { asm!("rep outsb", inout("rsi") machine::scratch(0) => rsi, inout("rcx") 3 * 4096u64 => rcx, in("dx") SCRATCH_PORT) };
    same!((rsi, rcx), (machine::scratch(3), 0), "registers after a long one");
    same!(serial::in8(SCRATCH_PORT), 0xc3, "the last byte of a long one");
    let rsi: u64;
    // SAFETY: port 0x80 takes anything.
    unsafe { asm!("rep outsw", inout("rsi") machine::scratch(0) => rsi, inout("rcx") 4u64 => _, in("dx") 0x80u16) };
    same!(rsi, machine::scratch(0) + 8, "OUTSW");
    let rsi: u64;
    // SAFETY: as above.
    unsafe { asm!("outsd", inout("rsi") machine::scratch(0) => rsi, in("dx") 0x80u16) };
    same!(rsi, machine::scratch(0) + 4, "OUTSD");
    // A segment override: FS.
    machine::wrmsr(0xc000_0100, 0x20);
    // SAFETY: as above.
    unsafe { asm!(".byte 0x64", "outsb", inout("rsi") machine::scratch(0) => _, in("dx") SCRATCH_PORT) };
    machine::wrmsr(0xc000_0100, 0);
    same!(serial::in8(SCRATCH_PORT), 0x30, "with FS");
    Ok(())
}

fn input() -> Outcome {
    fill(0);
    serial::out8(SCRATCH_PORT, 0xa7);
    let (rdi, rcx): (u64, u64);
    // SAFETY: the memory is this program's.
    unsafe { asm!("rep insb", inout("rdi") machine::scratch(0) => rdi, inout("rcx") 5u64 => rcx, in("dx") SCRATCH_PORT) };
    same!((rdi, rcx), (machine::scratch(0) + 5, 0), "registers");
    same!(machine::peek::<u64>(machine::scratch(0)), 0x0706_05a7_a7a7_a7a7, "memory");
    let rdi: u64;
    // SAFETY: as above; the modem's state and the scratch register.
    unsafe { asm!("rep insw", inout("rdi") machine::scratch(0) => rdi, inout("rcx") 2u64 => _, in("dx") 0x3feu16) };
    same!(rdi, machine::scratch(0) + 4, "INSW");
    let rdi: u64;
    // SAFETY: as above.
    unsafe { asm!("insd", inout("rdi") machine::scratch(0) => rdi, in("dx") 0x80u16) };
    same!(rdi, machine::scratch(0) + 4, "INSD");
    Ok(())
}

fn directions() -> Outcome {
    fill(0x40);
    let (rsi, rcx): (u64, u64);
    // SAFETY: the memory is this program's, and the flag is cleared again.
    unsafe {
        asm!("std", "rep outsb", "cld", inout("rsi") machine::scratch(0) + 9 => rsi, inout("rcx") 4u64 => rcx, in("dx") SCRATCH_PORT)
    };
    same!((rsi, rcx), (machine::scratch(0) + 5, 0), "OUTSB");
    same!(serial::in8(SCRATCH_PORT), 0x46, "OUTSB, the last byte");
    let rdi: u64;
    // SAFETY: as above.
    unsafe { asm!("std", "rep insb", "cld", inout("rdi") machine::scratch(0) + 7 => rdi, inout("rcx") 3u64 => _, in("dx") SCRATCH_PORT) };
    same!(rdi, machine::scratch(0) + 4, "INSB");
    same!(machine::peek::<u64>(machine::scratch(0)), 0x4646_4644_4342_4140, "memory");
    Ok(())
}

fn address_sizes() -> Outcome {
    fill(0x20);
    let (rsi, rcx): (u64, u64);
    // SAFETY: 32-bit addresses of this program's memory.
    unsafe {
        asm!(".byte 0x67", "rep outsb", inout("rsi") machine::scratch(0) | 0xdead_0000_0000_0000 => rsi, inout("rcx") 0xffff_ffff_0000_0003u64 => rcx, in("dx") SCRATCH_PORT);
    }
    same!(serial::in8(SCRATCH_PORT), 0x22, "OUTSB with 32-bit addresses");
    same!((rsi, rcx), (machine::scratch(0) + 3, 0), "32-bit results clear the upper halves");
    serial::out8(SCRATCH_PORT, 0x99);
    let rdi: u64;
    // SAFETY: as above.
    unsafe { asm!(".byte 0x67", "insb", inout("rdi") machine::scratch(0) | 0xdead_0000_0000_0000 => rdi, in("dx") SCRATCH_PORT) };
    same!(rdi, machine::scratch(0) + 1, "INSB with a 32-bit address");
    same!(machine::peek::<u8>(machine::scratch(0)), 0x99, "memory");
    Ok(())
}

fn across_pages() -> Outcome {
    let first = machine::map(1, machine::scratch(1) | 3);
    // The pages' order in linear memory is not that of physical memory.
    machine::map(2, machine::scratch(0) | 3);
    serial::out8(SCRATCH_PORT, 0x3c);
    fill(0);
    // SAFETY: both pages are this program's.
    unsafe { asm!("rep insb", inout("rdi") first + 0xffd => _, inout("rcx") 6u64 => _, in("dx") SCRATCH_PORT) };
    same!(
        machine::peek::<[u8; 3]>(machine::scratch(1) + 0xffd),
        [0x3c; 3],
        "before the boundary"
    );
    same!(machine::peek::<u32>(machine::scratch(0)), 0x033c_3c3c, "behind it");
    machine::poke(machine::scratch(0) + 1, 0x77u8);
    // SAFETY: as above; a word that lies on both pages.
    unsafe { asm!("outsw", inout("rsi") first + 0xfff => _, in("dx") 0x80u16) };
    // SAFETY: as above.
    unsafe { asm!("rep outsb", inout("rsi") first + 0xffe => _, inout("rcx") 4u64 => _, in("dx") SCRATCH_PORT) };
    machine::map(1, 0);
    machine::map(2, 0);
    same!(serial::in8(SCRATCH_PORT), 0x77, "OUTSB");
    Ok(())
}

fn faults() -> Outcome {
    let first = machine::map(1, machine::scratch(1) | 3);
    let second = machine::map(2, machine::scratch(0) | 1);
    trap::handle(|frame| {
        machine::poke(machine::scratch(0), [frame.registers[8], frame.registers[9], frame.registers[13]]);
        false
    });
    // Input to a page that is read-only from its second half on: the part before is done.
    let insert = code!("mov edx, 0x3ff", "mov ecx, 8"; "rep insb");
    let trap = trap::probe(insert, first + 0xffc);
    same!(
        trap.map(|t| (t.vector, t.error, t.cr2, t.rip)),
        Some((14, 3, second, trap::fault_at())),
        "INSB to a read-only page"
    );
    let [rdi, _, rcx] = machine::peek::<[u64; 3]>(machine::scratch(0));
    same!((rdi, rcx), (second, 4), "rdi and rcx");
    machine::map(2, 0);
    let out = code!("mov edx, 0x3ff", "mov ecx, 8", "mov rsi, rdi"; "rep outsb");
    let trap = trap::probe(out, first + 0xffc);
    same!(
        trap.map(|t| (t.vector, t.error, t.cr2, t.rip)),
        Some((14, 0, second, trap::fault_at())),
        "OUTSB from an absent page"
    );
    let [_, rsi, rcx] = machine::peek::<[u64; 3]>(machine::scratch(0));
    same!((rsi, rcx), (second, 4), "rsi and rcx");
    let wild = code!("mov edx, 0x3ff", "mov rdi, 1", "shl rdi, 47"; "insb");
    same!(
        trap::probe(wild, 0).map(|t| (t.vector, t.error, t.rip)),
        Some((13, 0, trap::fault_at())),
        "INSB to no address"
    );
    machine::map(1, 0);
    // Nothing is read or written when nothing is repeated.
    let none = code!("mov edx, 0x3ff", "mov rdi, 1", "shl rdi, 47", "xor ecx, ecx"; "rep insb");
    same!(trap::probe(none, 0), None, "none to no address");
    Ok(())
}

fn ring_3() -> Outcome {
    let denied = trap::probe_user(code!("mov edx, 0x3ff", "mov edi, offset SCRATCH"; "insb"), 0);
    same!(
        (denied.vector, denied.error, denied.rip == trap::fault_at()),
        (13, 0, true),
        "without privilege"
    );
    // With the I/O privilege level of ring 3, and a page that only ring 0 may touch.
    let address = machine::map(1, machine::scratch(1) | 3);
    unsafe extern "C" {
        fn with_iopl(address: u64);
    }
    extern "C" fn run(address: u64) {
        // SAFETY: it ends by an exception.
        unsafe { with_iopl(address) };
    }
    let trap = trap::probe(run, address);
    same!(
        trap.map(|t| (t.vector, t.error, t.cr2, t.rip)),
        Some((14, 7, address, trap::fault_at())),
        "page of ring 0"
    );
    same!(serial::in8(SCRATCH_PORT), 0x66, "OUT with IOPL 3");
    machine::map(1, machine::scratch(1) | 7);
    let trap = trap::probe(run, address);
    machine::map(1, 0);
    same!(trap.map(|t| t.vector), Some(0x80), "page of ring 3");
    same!(machine::peek::<u8>(machine::scratch(1)), 0x66, "memory");
    Ok(())
}

fn delay() -> Outcome {
    let flags: u64;
    // SAFETY: the port takes anything.
    unsafe { asm!("stc", "mov rax, -1", "out 0x80, al", "pushfq", "pop {}", "cmp rax, -1", "setne al", out(reg) flags, out("rax") _) };
    ensure!(flags & 1 != 0, "OUT changed the flags");
    Ok(())
}

core::arch::global_asm!(
    ".global with_iopl",
    "with_iopl: mov rax, offset USER_STACK + 16384 - 8",
    "push 0x33",
    "push rax",
    "push 0x3002",
    "push 0x2b",
    "lea rcx, [rip + 2f]",
    "push rcx",
    "iretq",
    "2: mov edx, 0x3ff",
    "lea rcx, [rip + 3f]",
    "mov [FAULT_AT], rcx",
    "mov al, 0x66",
    "out dx, al",
    "3: insb",
    "int 0x80",
);
