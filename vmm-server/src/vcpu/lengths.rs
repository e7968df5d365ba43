//! Lengths of instructions that exited, for processors that do not tell (AMD-V without next-RIP save).

use crate::emulator;
use crate::memory::GuestMemory;
use tessera_abi::vcpu::VcpuState;

/// The last looked-up instruction.
///
/// The key is the instruction pointer alone, so two programs with different encodings of one instruction at the same address could be taken for each
/// other. That needs an intercepted instruction with superfluous prefixes in user code, on a processor that is emulated or older than 2010.
#[derive(Clone, Copy, Debug, Default)]
pub struct LengthCache {
    rip: u64,
    length: u64,
}

impl LengthCache {
    /// Length of the instruction at the instruction pointer, whose plain encoding has `plain` bytes. `sync` brings the registers that decoding needs.
    #[inline]
    pub fn get(&mut self, state: &mut VcpuState, memory: &GuestMemory, plain: u64, sync: impl FnOnce(&mut VcpuState)) -> u64 {
        if state.instruction_length != 0 {
            return u64::from(state.instruction_length).min(emulator::MAX_INSTRUCTION as u64);
        }
        // Kernels are in the upper half, and compilers and assemblers put no prefixes before these instructions.
        if (state.rip as i64) < 0 {
            return plain;
        }
        if self.length != 0 && self.rip == state.rip {
            return self.length;
        }
        sync(state);
        self.look_up(state, memory, plain)
    }

    #[cold]
    fn look_up(&mut self, state: &VcpuState, memory: &GuestMemory, plain: u64) -> u64 {
        let length = emulator::decode(state, memory).map_or(plain, |instruction| instruction.len() as u64);
        *self = Self { rip: state.rip, length };
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::registers::{start_in_real_mode, tests::blank};
    use crate::memory::tests::ram;

    #[test]
    fn decodes_when_the_processor_does_not_tell() {
        let memory = ram(&[0x10000]);
        let mut state = blank();
        start_in_real_mode(&mut state, 1);
        memory.write_slice(0x1000, &[0x66, 0x0f, 0xa2]).unwrap();
        let mut cache = LengthCache::default();
        let mut synced = false;
        assert_eq!(cache.get(&mut state, &memory, 2, |_| synced = true), 3);
        assert!(synced);
        assert_eq!(cache.get(&mut state, &memory, 2, |_| panic!("the second time it is known")), 3);
        state.rip = 0xffff_ffff_8100_0000;
        assert_eq!(cache.get(&mut state, &memory, 2, |_| panic!("no look-up in a kernel")), 2);
        state.instruction_length = 5;
        assert_eq!(cache.get(&mut state, &memory, 2, |_| panic!("the processor tells")), 5);
    }
}
