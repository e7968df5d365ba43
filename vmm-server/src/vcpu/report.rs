//! What is said about a machine that cannot go on: registers, code bytes, the exit.

use super::refusal::Refusal;
use super::{Stop, Vcpu};
use crate::emulator::{self, MAX_INSTRUCTION};
use crate::machine::Host;
use crate::memory::GuestMemory;
use core::fmt;
use tessera_abi::vcpu::{ExitReason, VcpuState, segment};

/// Prints all of a processor's state, in lines of at most 80 columns.
struct Report<'a> {
    index: usize,
    stop: Stop,
    state: &'a VcpuState,
    code: &'a [u8],
}

impl<H: Host> Vcpu<'_, H> {
    /// Stops the machine with a report.
    #[cold]
    pub(super) fn fail(&mut self, host: &mut H, state: &mut VcpuState, stop: Stop) {
        host.sync(state);
        let mut bytes = [0; MAX_INSTRUCTION];
        let length = code_at(state, &self.machine.memory, &mut bytes);
        self.machine.fail(format_args!(
            "{}",
            Report {
                index: self.index,
                stop,
                state,
                code: &bytes[..length]
            }
        ));
    }

    #[cold]
    pub(super) fn fail_refused(&self, error: u64) {
        let text = u32::try_from(error)
            .ok()
            .and_then(|error| tessera_abi::Error::from_status(error.into()))
            .map_or("unknown status", tessera_abi::Error::text);
        self.machine
            .fail(format_args!("vCPU {}: the kernel does not run it: {text}", self.index));
    }
}

/// Code bytes at the instruction pointer; how many there are.
#[must_use]
pub fn code_at(state: &VcpuState, memory: &GuestMemory, bytes: &mut [u8; MAX_INSTRUCTION]) -> usize {
    emulator::fetch(state, memory, bytes).unwrap_or(0)
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state;
        let reason = ExitReason::from_u32(state.reason).map_or("unknown", ExitReason::name);
        writeln!(formatter, "vCPU {}: {}", self.index, self.stop)?;
        writeln!(
            formatter,
            "exit {reason}, information {:x} {:x} {:x} {:x}",
            state.info[0], state.info[1], state.info[2], state.info[3]
        )?;
        if state.reason == ExitReason::EntryFailed as u32 {
            writeln!(formatter, "{}", Refusal(state))?;
        }
        const NAMES: [&str; 16] = [
            "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8 ", "r9 ", "r10", "r11", "r12", "r13", "r14", "r15",
        ];
        for (names, values) in NAMES.chunks(4).zip(state.gpr.chunks(4)) {
            for (name, value) in names.iter().zip(values) {
                write!(formatter, "{name} {value:016x} ")?;
            }
            writeln!(formatter)?;
        }
        writeln!(
            formatter,
            "rip {:016x} flags {:x} shadow {:x}",
            state.rip, state.rflags, state.interrupt_shadow
        )?;
        writeln!(
            formatter,
            "cr0 {:x} cr2 {:x} cr3 {:x} cr4 {:x} cr8 {:x} efer {:x}",
            state.cr0, state.cr2, state.cr3, state.cr4, state.cr8, state.efer
        )?;
        for (name, index) in [("cs", segment::CS), ("ss", segment::SS), ("ds", segment::DS), ("tr", segment::TR)] {
            let it = &state.segments[index];
            writeln!(
                formatter,
                "{name} {:04x} base {:x} limit {:x} attributes {:x}",
                it.selector, it.base, it.limit, it.attributes
            )?;
        }
        writeln!(
            formatter,
            "gdt {:x} {:x} idt {:x} {:x}",
            state.gdtr.base, state.gdtr.limit, state.idtr.base, state.idtr.limit
        )?;
        if state.vectoring != 0 || state.inject != 0 {
            writeln!(
                formatter,
                "interrupted event {:x} error {:x}, to inject {:x}",
                state.vectoring, state.vectoring_error, state.inject
            )?;
        }
        write!(formatter, "code")?;
        if self.code.is_empty() {
            write!(formatter, " cannot be read")?;
        }
        for byte in self.code {
            write!(formatter, " {byte:02x}")?;
        }
        writeln!(formatter)
    }
}
