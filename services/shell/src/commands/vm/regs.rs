//! `vm regs`.

use super::list::vcpu_state;
use crate::{
    commands::{Context, Doing, Failure},
    table::{Align, Table},
    terminal::Style,
};
use alloc::{format, string::String};
use core::fmt::Write;
use tessera_abi::vcpu::ExitReason;

/// Names in the order of `Registers::gpr`.
const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
];
/// In the order that people read them.
const ORDER: [usize; 16] = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15];
/// In the order of `Registers::segments`.
const SEGMENTS: [&str; 8] = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"];

/// Registers of a virtual processor.
pub fn registers(context: &mut Context<'_>, name: &str, vcpu: u32) -> Result<(), Failure> {
    let registers = context.host.vm_registers(name, vcpu).doing(&format!("read registers of {name}"))?;
    let exit = ExitReason::from_u32(registers.exit.into()).map_or("unknown", ExitReason::name);
    let title = format!(
        "virtual processor {vcpu} of {name}: {}, last exit: {exit}",
        vcpu_state(registers.state)
    );
    context
        .out
        .styled_line(Style::Heading, crate::terminal::clip(&title, crate::terminal::COLUMNS));
    for row in ORDER.chunks(3) {
        let mut line = String::new();
        for &index in row {
            // Writing into a string cannot fail.
            let _ = write!(line, "{:<4}{:016x}  ", NAMES[index], registers.gpr[index]);
        }
        context.out.line(line.trim_end());
    }
    context
        .out
        .line(&format!("rip {:016x}  flags {}", registers.rip, flags(registers.rflags)));
    context.out.line(&format!(
        "cr0 {:016x}  cr2 {:016x}  cr3 {:016x}",
        registers.cr0, registers.cr2, registers.cr3
    ));
    context.out.line(&format!(
        "cr4 {:016x}  cr8 {:016x}  efer {:x}",
        registers.cr4, registers.cr8, registers.efer
    ));
    let mut table = Table::new(&[
        ("SEGMENT", Align::Left),
        ("SELECTOR", Align::Right),
        ("BASE", Align::Right),
        ("LIMIT", Align::Right),
        ("ATTRIBUTES", Align::Right),
    ]);
    for (name, segment) in SEGMENTS.into_iter().zip(&registers.segments) {
        table.row([
            name.into(),
            format!("{:04x}", segment.selector),
            format!("{:016x}", segment.base),
            format!("{:08x}", segment.limit),
            format!("{:05x}", segment.attributes),
        ]);
    }
    for (name, (base, limit)) in [("gdt", registers.gdtr), ("idt", registers.idtr)] {
        table.row([
            name.into(),
            String::new(),
            format!("{base:016x}"),
            format!("{limit:08x}"),
            String::new(),
        ]);
    }
    table.print(&mut context.out);
    if !registers.code.is_empty() {
        let code: String = registers.code.iter().fold(String::new(), |mut text, byte| {
            // Writing into a string cannot fail.
            let _ = write!(text, " {byte:02x}");
            text
        });
        context.out.prose(&format!("code{code}"), 5);
    }
    Ok(())
}

/// The flags register with the names of the bits that are set.
fn flags(value: u64) -> String {
    let mut text = format!("{value:x}");
    for (bit, name) in [
        (0, "CF"),
        (2, "PF"),
        (4, "AF"),
        (6, "ZF"),
        (7, "SF"),
        (8, "TF"),
        (9, "IF"),
        (10, "DF"),
        (11, "OF"),
    ] {
        if value >> bit & 1 != 0 {
            text.push(' ');
            text.push_str(name);
        }
    }
    text
}
