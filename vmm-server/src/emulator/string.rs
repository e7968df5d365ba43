//! `ins` and `outs`, with and without `rep`.

use super::execute::Emulator;
use super::{Bus, Fault, advance, decode};
use crate::memory::GuestMemory;
use iced_x86::{Mnemonic, OpKind, Register};
use tessera_abi::vcpu::{VcpuState, gpr};

/// Carries out the string port instruction at the instruction pointer, after a full exit. A long one is cut: the instruction pointer then stays, and the guest comes back.
///
/// # Errors
/// What the guest gets instead, or why it must be stopped.
pub fn string_io(state: &mut VcpuState, memory: &GuestMemory, bus: &mut impl Bus) -> Result<(), Fault> {
    let instruction = decode(state, memory)?;
    let (input, width) = match instruction.mnemonic() {
        Mnemonic::Insb => (true, 1),
        Mnemonic::Insw => (true, 2),
        Mnemonic::Insd => (true, 4),
        Mnemonic::Outsb => (false, 1),
        Mnemonic::Outsw => (false, 2),
        Mnemonic::Outsd => (false, 4),
        // The guest changed the instruction behind the processor's back: let it run the new one.
        _ => return Ok(()),
    };
    let port = state.gpr[gpr::RDX] as u16;
    let mut stopped = false;
    let mut emulator = Emulator {
        state,
        memory,
        bus,
        instruction,
    };
    let finished = emulator.repeat(|this| {
        if stopped {
            return Ok(());
        }
        let address = this.string_address(input)?;
        if input {
            // The destination is looked at first: a fault must come before the port is read.
            this.check_write(address, width)?;
            let value = this.bus.port_read(port, width);
            this.write_linear(address, width, value.into())?;
            this.step_index(gpr::RDI, width);
        } else {
            let value = this.read_linear(address, width)?;
            stopped = this.bus.port_write(port, width, value as u32);
            this.step_index(gpr::RSI, width);
        }
        Ok(())
    })?;
    if finished {
        advance(state, instruction.len() as u64);
    }
    Ok(())
}

impl<B: Bus> Emulator<'_, B> {
    /// Linear address of the string operand in memory.
    fn string_address(&self, input: bool) -> Result<u64, Fault> {
        let operand = (0..self.instruction.op_count())
            .find(|&operand| {
                matches!(
                    self.instruction.op_kind(operand),
                    OpKind::MemorySegSI
                        | OpKind::MemorySegESI
                        | OpKind::MemorySegRSI
                        | OpKind::MemoryESDI
                        | OpKind::MemoryESEDI
                        | OpKind::MemoryESRDI
                )
            })
            .ok_or(Fault::Unknown("a string instruction without a string"))?;
        debug_assert_eq!(input, operand == 0);
        debug_assert_ne!(self.instruction.memory_segment(), Register::None);
        self.linear(operand, 0)
    }
}
