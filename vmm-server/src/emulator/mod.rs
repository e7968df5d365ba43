//! Carries out the guest instructions that hardware cannot: those that touch device memory, and string port I/O.
//!
//! The decoder is iced-x86. Operands that are in memory are translated with the guest's own page tables; each may be RAM or a device.

mod alu;
mod execute;
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
mod processor_tests;
mod string;
mod task_switch;
pub mod walk;

pub use execute::emulate;
pub use string::string_io;
pub use task_switch::{Source, Switch, task_switch};

use crate::memory::GuestMemory;
use iced_x86::{Decoder, DecoderOptions, Instruction};
use tessera_abi::vcpu::{VcpuState, segment};
use walk::{Access, Walker};

/// Longest instruction in bytes (SDM volume 2, 2.3.11).
pub const MAX_INSTRUCTION: usize = 15;

/// Where accesses outside RAM go.
pub trait Bus {
    /// Reads `width` (1, 2, 4, 8) bytes at guest-physical `address`.
    fn memory_read(&mut self, address: u64, width: u8) -> u64;
    /// Writes.
    fn memory_write(&mut self, address: u64, width: u8, value: u64);
    /// Reads 1, 2 or 4 bytes from a port.
    fn port_read(&mut self, port: u16, width: u8) -> u32;
    /// Writes. True: stop the string here, the guest asked for something.
    fn port_write(&mut self, port: u16, width: u8, value: u32) -> bool;
}

/// Why an instruction could not be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The guest gets this exception; the error code where the vector has one.
    Exception(u8, Option<u32>),
    /// The guest gets a page fault.
    Page {
        /// Faulting linear address.
        address: u64,
        /// Error code.
        error: u32,
    },
    /// This emulator does not know the instruction: the machine stops with a report.
    Unknown(&'static str),
}

/// #UD.
pub const INVALID_OPCODE: u8 = 6;
/// #GP.
pub const GENERAL_PROTECTION: u8 = 13;

/// 16, 32 or 64, as the code segment says.
#[must_use]
pub fn bitness(state: &VcpuState) -> u32 {
    let attributes = state.segments[segment::CS].attributes;
    if state.efer & walk::EFER_LMA != 0 && attributes >> 13 & 1 != 0 {
        64
    } else if state.cr0 & 1 != 0 && attributes >> 14 & 1 != 0 {
        32
    } else {
        16
    }
}

/// Linear address of the instruction pointer.
#[must_use]
pub fn linear_rip(state: &VcpuState) -> u64 {
    if bitness(state) == 64 {
        state.rip
    } else {
        state.segments[segment::CS].base.wrapping_add(state.rip) & 0xffff_ffff
    }
}

/// Reads instruction bytes at the instruction pointer, as many as there are up to 15.
///
/// # Errors
/// If not even the first can be read.
pub fn fetch(state: &VcpuState, memory: &GuestMemory, bytes: &mut [u8; MAX_INSTRUCTION]) -> Result<usize, Fault> {
    let walker = Walker::new(state, memory);
    let start = linear_rip(state);
    let mut length = 0;
    while length < MAX_INSTRUCTION {
        let address = start.wrapping_add(length as u64);
        let in_page = (0x1000 - (address & 0xfff)) as usize;
        let part = in_page.min(MAX_INSTRUCTION - length);
        let read = match walker.translate(address, Access::FETCH) {
            Ok(physical) => memory
                .read_slice(physical, &mut bytes[length..length + part])
                .ok_or(Fault::Unknown("code outside RAM")),
            Err(fault) => Err(fault),
        };
        match read {
            Ok(()) => length += part,
            Err(fault) if length == 0 => return Err(fault),
            Err(_) => break,
        }
    }
    Ok(length)
}

/// Decodes the instruction at the instruction pointer.
///
/// # Errors
/// If it cannot be read or is none.
pub fn decode(state: &VcpuState, memory: &GuestMemory) -> Result<Instruction, Fault> {
    let mut bytes = [0; MAX_INSTRUCTION];
    let length = fetch(state, memory, &mut bytes)?;
    let instruction = Decoder::with_ip(bitness(state), &bytes[..length], state.rip, DecoderOptions::NONE).decode();
    if instruction.is_invalid() {
        Err(Fault::Exception(INVALID_OPCODE, None))
    } else {
        Ok(instruction)
    }
}

/// The instruction is done: on to the next.
pub fn advance(state: &mut VcpuState, length: u64) {
    let rip = state.rip.wrapping_add(length);
    state.rip = if bitness(state) == 64 { rip } else { rip & 0xffff_ffff };
    state.interrupt_shadow &= !1;
}
