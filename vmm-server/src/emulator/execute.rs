//! One instruction with operands in registers, constants and memory.

use super::alu::{Operation, Shift, compute, holds, mask, shift, step};
use super::walk::{Access, Walker};
use super::{Bus, Fault, advance, bitness, decode};
use crate::memory::GuestMemory;
use iced_x86::{ConditionCode, Instruction, MemorySize, Mnemonic, OpKind, Register};
use tessera_abi::vcpu::{VcpuState, gpr, segment};

const TRAP: u64 = 1 << 8;
const DIRECTION: u64 = 1 << 10;
const CARRY: u64 = 1;
const ZERO: u64 = 1 << 6;
/// Iterations of a repeated string instruction before the vCPU looks around again; it comes back to the same instruction.
const BURST: u64 = 4096;

/// Carries out the instruction at the instruction pointer, after a full exit, and moves on.
///
/// # Errors
/// What the guest gets instead, or why it must be stopped. A repeated string instruction that faults part-way has done the part before.
pub fn emulate(state: &mut VcpuState, memory: &GuestMemory, bus: &mut impl Bus) -> Result<(), Fault> {
    let instruction = decode(state, memory)?;
    let finished = Emulator {
        state,
        memory,
        bus,
        instruction,
    }
    .execute()?;
    if finished {
        advance(state, instruction.len() as u64);
    }
    Ok(())
}

pub(super) struct Emulator<'a, B> {
    pub(super) state: &'a mut VcpuState,
    pub(super) memory: &'a GuestMemory,
    pub(super) bus: &'a mut B,
    pub(super) instruction: Instruction,
}

impl<B: Bus> Emulator<'_, B> {
    /// True: on to the next instruction.
    fn execute(&mut self) -> Result<bool, Fault> {
        let width = self.width()?;
        match self.instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Movnti | Mnemonic::Movzx => {
                let value = self.read(1)?;
                self.write(0, value)?;
            }
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let shift = 64 - 8 * u32::from(self.operand_width(1)?);
                let value = self.read(1)?;
                self.write(0, ((value << shift) as i64 >> shift) as u64)?;
            }
            Mnemonic::Add => self.binary(Operation::Add, true)?,
            Mnemonic::Adc => self.binary(Operation::Adc, true)?,
            Mnemonic::Sub => self.binary(Operation::Sub, true)?,
            Mnemonic::Sbb => self.binary(Operation::Sbb, true)?,
            Mnemonic::And => self.binary(Operation::And, true)?,
            Mnemonic::Or => self.binary(Operation::Or, true)?,
            Mnemonic::Xor => self.binary(Operation::Xor, true)?,
            Mnemonic::Cmp => self.binary(Operation::Sub, false)?,
            Mnemonic::Test => self.binary(Operation::And, false)?,
            Mnemonic::Inc => self.unary(Operation::Add)?,
            Mnemonic::Dec => self.unary(Operation::Sub)?,
            Mnemonic::Not => {
                let value = self.read(0)?;
                self.write(0, !value)?;
            }
            Mnemonic::Neg => {
                let value = self.read(0)?;
                let (result, flags) = compute(Operation::Sub, width, 0, value, self.state.rflags);
                self.write(0, result)?;
                self.state.rflags = flags;
            }
            Mnemonic::Xchg => {
                let (a, b) = (self.read(0)?, self.read(1)?);
                // Memory first: if that faults, nothing has changed.
                if self.is_memory(0) {
                    self.write(0, b)?;
                    self.write(1, a)?;
                } else {
                    self.write(1, a)?;
                    self.write(0, b)?;
                }
            }
            Mnemonic::Xadd => {
                let (a, b) = (self.read(0)?, self.read(1)?);
                let (result, flags) = compute(Operation::Add, width, a, b, self.state.rflags);
                if self.is_memory(0) {
                    self.write(0, result)?;
                    self.write(1, a)?;
                } else {
                    // Of one register as both operands the sum stays.
                    self.write(1, a)?;
                    self.write(0, result)?;
                }
                self.state.rflags = flags;
            }
            Mnemonic::Cmpxchg => {
                let (old, new) = (self.read(0)?, self.read(1)?);
                let expected = self.state.gpr[gpr::RAX] & mask(width);
                let (_, flags) = compute(Operation::Sub, width, expected, old, self.state.rflags);
                if flags & ZERO != 0 {
                    self.write(0, new)?;
                } else {
                    // The processor writes memory either way, a register only when it changes.
                    if self.is_memory(0) {
                        self.write(0, old)?;
                    }
                    self.write_register_of_width(gpr::RAX, width, old);
                }
                self.state.rflags = flags;
            }
            Mnemonic::Bt => self.bit(|value, _| value)?,
            Mnemonic::Bts => self.bit(|value, bit| value | bit)?,
            Mnemonic::Btr => self.bit(|value, bit| value & !bit)?,
            Mnemonic::Btc => self.bit(|value, bit| value ^ bit)?,
            Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => {
                return self.repeat(|this| {
                    let value = this.read(1)?;
                    this.write(0, value)?;
                    this.step_index(gpr::RSI, width);
                    this.step_index(gpr::RDI, width);
                    Ok(())
                });
            }
            Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => {
                return self.repeat(|this| {
                    let value = this.read(1)?;
                    this.write(0, value)?;
                    this.step_index(gpr::RDI, width);
                    Ok(())
                });
            }
            Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => {
                return self.repeat(|this| {
                    let value = this.read(1)?;
                    this.write(0, value)?;
                    this.step_index(gpr::RSI, width);
                    Ok(())
                });
            }
            Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => {
                return self.repeat(|this| {
                    this.binary(Operation::Sub, false)?;
                    this.step_index(gpr::RSI, width);
                    this.step_index(gpr::RDI, width);
                    Ok(())
                });
            }
            Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => {
                return self.repeat(|this| {
                    this.binary(Operation::Sub, false)?;
                    this.step_index(gpr::RDI, width);
                    Ok(())
                });
            }
            Mnemonic::Push => {
                let value = self.read(0)?;
                let pointer = self.stack_pointer(u64::from(width).wrapping_neg());
                self.write_linear(self.stack_address(pointer), width, value)?;
                self.state.gpr[gpr::RSP] = pointer;
            }
            Mnemonic::Pop => {
                let before = self.state.gpr[gpr::RSP];
                let value = self.read_linear(self.stack_address(before), width)?;
                // An address with the stack pointer in it is computed after the value was taken (SDM volume 2, POP).
                self.state.gpr[gpr::RSP] = self.stack_pointer(width.into());
                self.write(0, value).inspect_err(|_| self.state.gpr[gpr::RSP] = before)?;
            }
            Mnemonic::Shl | Mnemonic::Sal => self.shift(Shift::Left)?,
            Mnemonic::Shr => self.shift(Shift::Right)?,
            Mnemonic::Sar => self.shift(Shift::Arithmetic)?,
            Mnemonic::Rol => self.shift(Shift::RotateLeft)?,
            Mnemonic::Ror => self.shift(Shift::RotateRight)?,
            Mnemonic::Rcl => self.shift(Shift::CarryLeft)?,
            Mnemonic::Rcr => self.shift(Shift::CarryRight)?,
            Mnemonic::Bsf | Mnemonic::Bsr => {
                let value = self.read(1)?;
                // With nothing to find the destination stays, as on every processor there is.
                if value != 0 {
                    let forward = self.instruction.mnemonic() == Mnemonic::Bsf;
                    let bit = if forward { value.trailing_zeros() } else { value.ilog2() };
                    self.write(0, bit.into())?;
                }
                self.state.rflags = self.state.rflags & !ZERO | if value == 0 { ZERO } else { 0 };
            }
            Mnemonic::Movbe => {
                let value = self.read(1)?;
                self.write(0, value.swap_bytes() >> (64 - 8 * u32::from(width)))?;
            }
            _ => match self.condition() {
                Some((holds, true)) => self.write(0, holds.into())?,
                // The source is read whether or not it is wanted, and 32 bits are written either way.
                Some((holds, false)) => {
                    let (old, new) = (self.read(0)?, self.read(1)?);
                    self.write(0, if holds { new } else { old })?;
                }
                None => return Err(Fault::Unknown("an instruction on device memory that is not emulated")),
            },
        }
        Ok(true)
    }

    /// All bits of a stack pointer, by the stack segment.
    fn stack_mask(&self) -> u64 {
        const BIG: u32 = 1 << 14;
        match bitness(self.state) {
            64 => u64::MAX,
            _ if self.state.segments[segment::SS].attributes & BIG != 0 => 0xffff_ffff,
            _ => 0xffff,
        }
    }

    /// The stack pointer, moved.
    fn stack_pointer(&self, by: u64) -> u64 {
        let (mask, old) = (self.stack_mask(), self.state.gpr[gpr::RSP]);
        old & !mask | old.wrapping_add(by) & mask
    }

    /// The linear address of a stack pointer.
    fn stack_address(&self, pointer: u64) -> u64 {
        let offset = pointer & self.stack_mask();
        if bitness(self.state) == 64 {
            offset
        } else {
            self.state.segments[segment::SS].base.wrapping_add(offset) & 0xffff_ffff
        }
    }

    fn shift(&mut self, operation: Shift) -> Result<(), Fault> {
        let (value, count) = (self.read(0)?, self.read(1)?);
        let (result, flags) = shift(operation, self.width()?, value, count, self.state.rflags);
        self.write(0, result)?;
        self.state.rflags = flags;
        Ok(())
    }

    /// Of SETcc and CMOVcc: whether the condition holds, and whether it is SETcc.
    fn condition(&self) -> Option<(bool, bool)> {
        // iced counts from 1, in the order of the encoding.
        let condition = match self.instruction.condition_code() {
            ConditionCode::None => return None,
            code => code as u8 - 1,
        };
        let sets = match self.instruction.op_count() {
            1 => true,
            2 => false,
            _ => return None,
        };
        // Conditional branches take no memory operand.
        (!sets || self.operand_width(0) == Ok(1)).then(|| (holds(condition, self.state.rflags), sets))
    }

    /// Width of the instruction: that of its first operand.
    fn width(&self) -> Result<u8, Fault> {
        self.operand_width(0)
    }

    fn is_memory(&self, operand: u32) -> bool {
        !matches!(self.instruction.op_kind(operand), OpKind::Register) && !is_immediate(self.instruction.op_kind(operand))
    }

    fn operand_width(&self, operand: u32) -> Result<u8, Fault> {
        if operand >= self.instruction.op_count() {
            return Err(Fault::Unknown("an instruction without operands on device memory"));
        }
        let width = match self.instruction.op_kind(operand) {
            OpKind::Register => self.instruction.op_register(operand).size(),
            kind if is_immediate(kind) && operand > 0 => return self.operand_width(0),
            kind if is_immediate(kind) => 0,
            _ => memory_width(self.instruction.memory_size()),
        };
        match width {
            1 | 2 | 4 | 8 => Ok(width as u8),
            _ => Err(Fault::Unknown("a wide operand in device memory")),
        }
    }

    fn read(&mut self, operand: u32) -> Result<u64, Fault> {
        match self.instruction.op_kind(operand) {
            OpKind::Register => self.read_register(self.instruction.op_register(operand)),
            kind if is_immediate(kind) => Ok(self.instruction.immediate(operand)),
            _ => {
                let width = self.operand_width(operand)?;
                let address = self.linear(operand, 0)?;
                self.read_linear(address, width)
            }
        }
    }

    fn write(&mut self, operand: u32, value: u64) -> Result<(), Fault> {
        match self.instruction.op_kind(operand) {
            OpKind::Register => self.write_register(self.instruction.op_register(operand), value),
            kind if is_immediate(kind) => Err(Fault::Unknown("a constant as destination")),
            _ => {
                let width = self.operand_width(operand)?;
                let address = self.linear(operand, 0)?;
                self.write_linear(address, width, value)
            }
        }
    }

    fn binary(&mut self, operation: Operation, store: bool) -> Result<(), Fault> {
        let width = self.width()?;
        let (a, b) = (self.read(0)?, self.read(1)?);
        let (result, flags) = compute(operation, width, a, b, self.state.rflags);
        if store {
            self.write(0, result)?;
        }
        self.state.rflags = flags;
        Ok(())
    }

    fn unary(&mut self, operation: Operation) -> Result<(), Fault> {
        let value = self.read(0)?;
        let (result, flags) = step(operation, self.width()?, value, self.state.rflags);
        self.write(0, result)?;
        self.state.rflags = flags;
        Ok(())
    }

    /// Bit tests: a bit number in a register reaches beyond the operand (SDM volume 2, BT).
    fn bit(&mut self, change: impl Fn(u64, u64) -> u64) -> Result<(), Fault> {
        let width = self.width()?;
        let bits = i64::from(width) * 8;
        let immediate = is_immediate(self.instruction.op_kind(1));
        let number = self.read(1)?;
        let shift = 64 - 8 * u32::from(width);
        let number = if immediate {
            number as i64 & (bits - 1)
        } else {
            (number << shift) as i64 >> shift
        };
        let bit = 1u64 << (number & (bits - 1));
        let is_test = self.instruction.mnemonic() == Mnemonic::Bt;
        let old = if self.is_memory(0) {
            let address = self.linear(0, number.div_euclid(bits) * i64::from(width))?;
            let old = self.read_linear(address, width)?;
            if !is_test {
                self.write_linear(address, width, change(old, bit))?;
            }
            old
        } else {
            let old = self.read(0)?;
            if !is_test {
                self.write(0, change(old, bit))?;
            }
            old
        };
        self.state.rflags = self.state.rflags & !CARRY | if old & bit != 0 { CARRY } else { 0 };
        Ok(())
    }

    /// A string instruction with or without `rep`. False: it was cut and goes on at the next entry.
    pub(super) fn repeat(&mut self, mut once: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<bool, Fault> {
        if !self.instruction.has_rep_prefix() && !self.instruction.has_repne_prefix() {
            once(self)?;
            return Ok(true);
        }
        use Mnemonic::{Cmpsb, Cmpsd, Cmpsq, Cmpsw, Scasb, Scasd, Scasq, Scasw};
        let compares = matches!(
            self.instruction.mnemonic(),
            Cmpsb | Cmpsw | Cmpsd | Cmpsq | Scasb | Scasw | Scasd | Scasq
        );
        // A single step is one iteration (SDM volume 3, 17.3.1.4).
        let burst = if self.state.rflags & TRAP != 0 { 1 } else { BURST };
        for _ in 0..burst {
            if self.state.gpr[gpr::RCX] & self.address_mask() == 0 {
                return Ok(true);
            }
            once(self)?;
            self.step_register(gpr::RCX, u64::MAX);
            if compares && (self.state.rflags & ZERO != 0) != self.instruction.has_rep_prefix() {
                return Ok(true);
            }
        }
        Ok(self.state.gpr[gpr::RCX] & self.address_mask() == 0)
    }

    /// All bits of an address, by the instruction's address size.
    pub(super) fn address_mask(&self) -> u64 {
        use iced_x86::CodeSize;
        let default = bitness(self.state);
        // Of string instructions, the operand kinds tell the address size.
        for operand in 0..self.instruction.op_count() {
            match self.instruction.op_kind(operand) {
                OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI => return 0xffff,
                OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI => return 0xffff_ffff,
                OpKind::MemorySegRSI | OpKind::MemorySegRDI | OpKind::MemoryESRDI => return u64::MAX,
                _ => (),
            }
        }
        match (self.instruction.code_size(), default) {
            (CodeSize::Code64, _) | (CodeSize::Unknown, 64) => u64::MAX,
            (CodeSize::Code32, _) | (CodeSize::Unknown, 32) => 0xffff_ffff,
            _ => 0xffff,
        }
    }

    fn step_register(&mut self, register: usize, by: u64) {
        let mask = self.address_mask();
        let old = self.state.gpr[register];
        let new = old.wrapping_add(by) & mask;
        // 32-bit results clear the upper half, 16-bit results keep the rest.
        self.state.gpr[register] = if mask == 0xffff { old & !mask | new } else { new };
    }

    pub(super) fn step_index(&mut self, register: usize, width: u8) {
        let by = if self.state.rflags & DIRECTION != 0 {
            u64::from(width).wrapping_neg()
        } else {
            width.into()
        };
        self.step_register(register, by);
    }

    /// Linear address of a memory operand, plus `offset` bytes.
    pub(super) fn linear(&self, operand: u32, offset: i64) -> Result<u64, Fault> {
        let state = &*self.state;
        let address = self
            .instruction
            .virtual_address(operand, 0, |register, _, _| register_value(state, register))
            .ok_or(Fault::Unknown("an address that cannot be computed"))?;
        let address = address.wrapping_add(offset as u64);
        Ok(if bitness(state) == 64 { address } else { address & 0xffff_ffff })
    }

    /// Whether `width` bytes can be written: what a write would fault with.
    pub(super) fn check_write(&self, linear: u64, width: u8) -> Result<(), Fault> {
        let walker = Walker::new(self.state, self.memory);
        walker.translate(linear, Access::WRITE)?;
        let last = linear.wrapping_add(u64::from(width) - 1);
        if (linear ^ last) & !0xfff != 0 {
            walker.translate(last, Access::WRITE)?;
        }
        Ok(())
    }

    pub(super) fn read_linear(&mut self, linear: u64, width: u8) -> Result<u64, Fault> {
        let walker = Walker::new(self.state, self.memory);
        if linear & 0xfff <= 0x1000 - u64::from(width) {
            let physical = walker.translate(linear, Access::READ)?;
            return Ok(self.read_physical(physical, width));
        }
        // Across pages, byte for byte, after both are known to be there.
        walker.translate(linear.wrapping_add(u64::from(width) - 1), Access::READ)?;
        let mut value = 0;
        for i in 0..u64::from(width) {
            let physical = walker.translate(linear.wrapping_add(i), Access::READ)?;
            value |= self.read_physical(physical, 1) << (i * 8);
        }
        Ok(value)
    }

    pub(super) fn write_linear(&mut self, linear: u64, width: u8, value: u64) -> Result<(), Fault> {
        let walker = Walker::new(self.state, self.memory);
        if linear & 0xfff <= 0x1000 - u64::from(width) {
            let physical = walker.translate(linear, Access::WRITE)?;
            self.write_physical(physical, width, value);
            return Ok(());
        }
        walker.translate(linear.wrapping_add(u64::from(width) - 1), Access::WRITE)?;
        for i in 0..u64::from(width) {
            let physical = walker.translate(linear.wrapping_add(i), Access::WRITE)?;
            self.write_physical(physical, 1, value >> (i * 8));
        }
        Ok(())
    }

    fn read_physical(&mut self, address: u64, width: u8) -> u64 {
        let mut bytes = [0; 8];
        match self.memory.read_slice(address, &mut bytes[..usize::from(width)]) {
            Some(()) => u64::from_le_bytes(bytes),
            None => self.bus.memory_read(address, width) & mask(width),
        }
    }

    fn write_physical(&mut self, address: u64, width: u8, value: u64) {
        let bytes = value.to_le_bytes();
        if self.memory.is_flash(address) || self.memory.write_slice(address, &bytes[..usize::from(width)]).is_none() {
            self.bus.memory_write(address, width, value & mask(width));
        }
    }

    fn read_register(&self, register: Register) -> Result<u64, Fault> {
        register_value(self.state, register)
            .map(|value| value & mask_of(register))
            .ok_or(Fault::Unknown("a register that is not emulated"))
    }

    fn write_register(&mut self, register: Register, value: u64) -> Result<(), Fault> {
        let full = register.full_register();
        if !full.is_gpr64() {
            return Err(Fault::Unknown("a register that is not emulated"));
        }
        if is_high_byte(register) {
            let slot = &mut self.state.gpr[full.number()];
            *slot = *slot & !0xff00 | (value & 0xff) << 8;
        } else {
            self.write_register_of_width(full.number(), register.size() as u8, value);
        }
        Ok(())
    }

    fn write_register_of_width(&mut self, number: usize, width: u8, value: u64) {
        let slot = &mut self.state.gpr[number];
        *slot = match width {
            8 => value,
            // Writing 32 bits clears the upper half.
            4 => value & 0xffff_ffff,
            _ => *slot & !mask(width) | value & mask(width),
        };
    }
}

fn mask_of(register: Register) -> u64 {
    match register.size() {
        width @ (1 | 2 | 4) => mask(width as u8),
        _ => u64::MAX,
    }
}

const fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}

/// The register's value; of segment registers the base, as address computations want it.
fn register_value(state: &VcpuState, register: Register) -> Option<u64> {
    let long = bitness(state) == 64;
    let base = |index: usize| state.segments[index].base;
    Some(match register {
        Register::None => 0,
        // In 64-bit mode only FS and GS have a base.
        Register::ES | Register::CS | Register::SS | Register::DS if long => 0,
        Register::ES => base(segment::ES),
        Register::CS => base(segment::CS),
        Register::SS => base(segment::SS),
        Register::DS => base(segment::DS),
        Register::FS => base(segment::FS),
        Register::GS => base(segment::GS),
        Register::RIP | Register::EIP => state.rip,
        _ if is_high_byte(register) => state.gpr[register.full_register().number()] >> 8 & 0xff,
        _ => {
            let full = register.full_register();
            if !full.is_gpr64() {
                return None;
            }
            state.gpr[full.number()] & mask_of(register)
        }
    })
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(
        kind,
        OpKind::Immediate8
            | OpKind::Immediate16
            | OpKind::Immediate32
            | OpKind::Immediate64
            | OpKind::Immediate8to16
            | OpKind::Immediate8to32
            | OpKind::Immediate8to64
            | OpKind::Immediate32to64
    )
}

fn memory_width(size: MemorySize) -> usize {
    match size {
        MemorySize::UInt8 | MemorySize::Int8 => 1,
        MemorySize::UInt16 | MemorySize::Int16 => 2,
        MemorySize::UInt32 | MemorySize::Int32 => 4,
        MemorySize::UInt64 | MemorySize::Int64 => 8,
        _ => 0,
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
