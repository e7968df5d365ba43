//! The emulator against the processor that runs the test: random instructions with random registers, flags and memory, carried out by both.
//!
//! The emulator's guest has a page of code where this process has one too, and a device where this process has memory, so that an instruction sees the same
//! addresses in both. Registers that an address is made of are set so that it falls there.
#![allow(unsafe_code, reason = "the reference is machine code that was made a moment ago")]

use super::alu::STATUS;
use super::execute::emulate;
use super::walk::EFER_LMA;
use super::{Bus, Fault};
use crate::boot::registers::{start_at_kernel, tests::blank};
use crate::memory::{GuestMemory, tests::ram};
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register, RflagsBits};
use std::boxed::Box;
use std::string::String;
use std::vec::Vec;
use tessera_abi::vcpu::{VcpuState, gpr};

/// Pairs of instruction and state, unless `TESSERA_PAIRS` says otherwise.
const PAIRS: u64 = 1_000_000;
/// Where the instruction stands, in the guest and here: below 1 MiB, where nothing of this process is.
const CODE: u64 = 0x4_0000;
const CODE_LENGTH: usize = 0x1_0000;
/// Each instruction gets a place of its own, so that the processor never runs what it fetched for the one before.
const SLOT: u64 = 64;
/// The device's memory; no RAM of the guest is there.
const DEVICE: u64 = 0x7000_0000;
const DEVICE_LENGTH: usize = 0x3000;
const DIRECTION: u64 = 1 << 10;
const ALWAYS_SET: u64 = 0x202;

/// Splitmix64: short, and good enough to reach every form.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Values at which arithmetic turns are as likely as any.
    fn value(&mut self) -> u64 {
        let value = self.next();
        match self.below(6) {
            0 => value & 0xff,
            1 => [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000, u64::MAX, 1 << 63][value as usize % 11],
            2 => (value as i8) as u64,
            _ => value,
        }
    }
}

/// What the native code loads and stores.
#[repr(C)]
struct Context {
    gpr: [u64; 16],
    flags: u64,
    target: u64,
    /// The address after the instruction, for the jump behind it.
    back: u64,
}

/// Loads all registers but RSP from `context`, goes to the instruction there, and stores them again.
#[unsafe(naked)]
unsafe extern "C" fn enter(context: *mut Context) {
    core::arch::naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "push rdi",
        "lea rax, [rip + 2f]",
        "mov [rdi + 144], rax",
        "push qword ptr [rdi + 136]",
        "push qword ptr [rdi + 128]",
        "mov rax, [rdi]",
        "mov rcx, [rdi + 8]",
        "mov rdx, [rdi + 16]",
        "mov rbx, [rdi + 24]",
        "mov rbp, [rdi + 40]",
        "mov rsi, [rdi + 48]",
        "mov r8, [rdi + 64]",
        "mov r9, [rdi + 72]",
        "mov r10, [rdi + 80]",
        "mov r11, [rdi + 88]",
        "mov r12, [rdi + 96]",
        "mov r13, [rdi + 104]",
        "mov r14, [rdi + 112]",
        "mov r15, [rdi + 120]",
        "mov rdi, [rdi + 56]",
        "popfq",
        "ret",
        "2:",
        "push rdi",
        "pushfq",
        "cld",
        "mov rdi, [rsp + 16]",
        "mov [rdi], rax",
        "mov [rdi + 8], rcx",
        "mov [rdi + 16], rdx",
        "mov [rdi + 24], rbx",
        "mov [rdi + 40], rbp",
        "mov [rdi + 48], rsi",
        "mov [rdi + 64], r8",
        "mov [rdi + 72], r9",
        "mov [rdi + 80], r10",
        "mov [rdi + 88], r11",
        "mov [rdi + 96], r12",
        "mov [rdi + 104], r13",
        "mov [rdi + 112], r14",
        "mov [rdi + 120], r15",
        "pop qword ptr [rdi + 128]",
        "pop qword ptr [rdi + 56]",
        "add rsp, 8",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

/// This process's memory at the guest's addresses.
struct Native {
    /// The code, writable; it is executable at [`CODE`].
    code: *mut u8,
    context: Box<Context>,
}

impl Native {
    fn new() -> Self {
        // SAFETY: the mappings are new and at addresses where nothing else is: MAP_FIXED_NOREPLACE refuses otherwise.
        unsafe {
            let file = libc::memfd_create(c"code".as_ptr(), 0);
            assert!(file >= 0 && libc::ftruncate(file, CODE_LENGTH as i64) == 0, "no memory for code");
            let map = |address: u64, length, protection, flags, file| {
                let address = address as *mut libc::c_void;
                let mapped = libc::mmap(address, length, protection, flags, file, 0);
                assert!(
                    mapped != libc::MAP_FAILED && (address.is_null() || mapped == address),
                    "cannot map {address:?}"
                );
                mapped.cast::<u8>()
            };
            let fixed = libc::MAP_FIXED_NOREPLACE;
            let (read, write, execute) = (libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC);
            let code = map(0, CODE_LENGTH, read | write, libc::MAP_SHARED, file);
            map(CODE, CODE_LENGTH, read | execute, libc::MAP_SHARED | fixed, file);
            map(
                DEVICE,
                DEVICE_LENGTH,
                read | write,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed,
                -1,
            );
            libc::close(file);
            let context = Box::new(Context {
                gpr: [0; 16],
                flags: 0,
                target: 0,
                back: 0,
            });
            Self { code, context }
        }
    }

    fn device(&mut self) -> &mut [u8] {
        // SAFETY: mapped by `new`, and reached in no other way while the reference lives.
        unsafe { core::slice::from_raw_parts_mut(DEVICE as *mut u8, DEVICE_LENGTH) }
    }

    /// Runs the instruction at `rip` with these registers.
    fn run(&mut self, rip: u64, instruction: &[u8], gpr: &[u64; 16], flags: u64) {
        // jmp [context.back], whose address is below 2^48 but not within reach of 32 bits: through a pointer behind the jump.
        let mut code = instruction.to_vec();
        code.extend([0xff, 0x25, 0, 0, 0, 0]);
        (self.context.gpr, self.context.flags, self.context.target) = (*gpr, flags, rip);
        // SAFETY: the code ends with a jump back to `enter`; the instruction is one that `suits` let pass: it touches registers but RSP, and the device.
        unsafe {
            let place = self.code.add((rip - CODE) as usize);
            code.extend((back as *const () as usize).to_le_bytes());
            core::ptr::copy_nonoverlapping(code.as_ptr(), place, code.len());
            enter(&raw mut *self.context);
        }
    }
}

/// Behind the instruction: back into the middle of [`enter`], whose frame is on the stack with the context on top.
#[unsafe(naked)]
unsafe extern "C" fn back() {
    core::arch::naked_asm!(
        // No register and no flag may change: the address goes through the stack.
        "push rax",
        "mov rax, [rsp + 8]",
        "mov rax, [rax + 144]",
        "xchg rax, [rsp]",
        "ret",
    )
}

/// The emulator's device.
struct Device(Vec<u8>);

impl Bus for Device {
    fn memory_read(&mut self, address: u64, width: u8) -> u64 {
        let start = (address - DEVICE) as usize;
        let mut bytes = [0; 8];
        bytes[..usize::from(width)].copy_from_slice(&self.0[start..start + usize::from(width)]);
        u64::from_le_bytes(bytes)
    }
    fn memory_write(&mut self, address: u64, width: u8, value: u64) {
        let start = (address - DEVICE) as usize;
        self.0[start..start + usize::from(width)].copy_from_slice(&value.to_le_bytes()[..usize::from(width)]);
    }
    fn port_read(&mut self, _port: u16, _width: u8) -> u32 {
        unreachable!("no port instruction is made")
    }
    fn port_write(&mut self, _port: u16, _width: u8, _value: u32) -> bool {
        unreachable!("no port instruction is made")
    }
}

/// Bytes that are likely to be an instruction the emulator knows.
fn bytes(random: &mut Random) -> [u8; 15] {
    let mut code: [u8; 15] = core::array::from_fn(|_| random.next() as u8);
    let mut at = 0;
    let mut put = |byte: u8| {
        code[at] = byte;
        at += 1;
    };
    if random.one_in(6) {
        put(0x66);
    }
    if random.one_in(8) {
        put(0x67);
    }
    if random.one_in(16) {
        put([0x26, 0x2e, 0x36, 0x3e][random.below(4) as usize]);
    }
    let string = random.one_in(8);
    if string && !random.one_in(3) || random.one_in(64) {
        put(0xf2 | random.below(2) as u8);
    } else if random.one_in(12) {
        put(0xf0);
    }
    if !random.one_in(3) {
        put(0x40 | random.next() as u8 & 15);
    }
    if string {
        const STRINGS: [u8; 10] = [0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf];
        put(STRINGS[random.below(10) as usize]);
        return code;
    }
    if random.one_in(3) {
        const TWO: [u8; 21] = [
            0xa3, 0xab, 0xb3, 0xbb, 0xba, 0xb0, 0xb1, 0xb6, 0xb7, 0xbe, 0xbf, 0xc0, 0xc1, 0xc3, 0xbc, 0xbd, 0x40, 0x4d, 0x92, 0x9f, 0x38,
        ];
        put(0x0f);
        let opcode = TWO[random.below(21) as usize];
        match opcode {
            0x40 | 0x4d => put(0x40 | random.below(16) as u8),
            0x92 | 0x9f => put(0x90 | random.below(16) as u8),
            0x38 => {
                put(0x38);
                put(0xf0 | random.below(2) as u8);
            }
            _ => put(opcode),
        }
    } else {
        const ONE: [u8; 22] = [
            0x80, 0x81, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0xc6, 0xc7, 0xf6, 0xf7, 0xfe, 0xff, 0x63, 0xc0, 0xd1, 0xd3,
            0xa0,
        ];
        match random.below(3) {
            // The arithmetic block: eight operations in four forms.
            0 => put((random.below(8) << 3 | random.below(4)) as u8),
            _ => match ONE[random.below(22) as usize] {
                0xc0 => put(0xc0 | random.below(2) as u8),
                0xd1 => put(0xd0 | random.below(2) as u8),
                0xd3 => put(0xd2 | random.below(2) as u8),
                0xa0 => put(0xa0 | random.below(4) as u8),
                opcode => put(opcode),
            },
        }
    }
    code
}

fn string_width(mnemonic: Mnemonic) -> Option<u64> {
    use Mnemonic::{
        Cmpsb, Cmpsd, Cmpsq, Cmpsw, Lodsb, Lodsd, Lodsq, Lodsw, Movsb, Movsd, Movsq, Movsw, Scasb, Scasd, Scasq, Scasw, Stosb, Stosd,
        Stosq, Stosw,
    };
    Some(match mnemonic {
        Movsb | Cmpsb | Stosb | Lodsb | Scasb => 1,
        Movsw | Cmpsw | Stosw | Lodsw | Scasw => 2,
        Movsd | Cmpsd | Stosd | Lodsd | Scasd => 4,
        Movsq | Cmpsq | Stosq | Lodsq | Scasq => 8,
        _ => return None,
    })
}

/// A register with the value that it must have for an address to be `target`, as wide as the address is.
fn with_low(random: &mut Random, narrow: bool, value: u64) -> u64 {
    if narrow { random.next() << 32 | value & 0xffff_ffff } else { value }
}

/// Sets registers and displacement so that the instruction reaches the device and nothing else. False: it cannot be made to.
fn suits(random: &mut Random, code: &mut [u8; 15], rip: u64, instruction: &mut Instruction, gpr: &mut [u64; 16]) -> bool {
    let target = DEVICE + 0x1000 + random.below(0x1000 - 8);
    let narrow = |register: Register| register.size() == 4;
    let uses_stack = |register: Register| register.full_register() == Register::RSP;
    let registers = (0..instruction.op_count()).filter(|&i| instruction.op_kind(i) == OpKind::Register);
    if registers.map(|i| instruction.op_register(i)).any(|r| uses_stack(r) || !r.is_gpr()) {
        return false;
    }
    // The stack is this program's.
    if matches!(instruction.mnemonic(), Mnemonic::Push | Mnemonic::Pop) {
        return false;
    }
    if matches!(instruction.segment_prefix(), Register::FS | Register::GS) {
        return false;
    }
    if let Some(width) = string_width(instruction.mnemonic()) {
        let short = (0..2).any(|i| matches!(instruction.op_kind(i), OpKind::MemorySegESI | OpKind::MemoryESEDI));
        gpr[gpr::RCX] = with_low(random, short, random_count(random.0));
        gpr[gpr::RSI] = with_low(random, short, target);
        // Often the same, so that comparisons go on for a while.
        let other = if random.one_in(2) {
            target + random.below(3) * width
        } else {
            DEVICE + 0x1000 + random.below(0xff0)
        };
        gpr[gpr::RDI] = with_low(random, short, other);
        return true;
    }
    if !(0..instruction.op_count()).any(|i| instruction.op_kind(i) == OpKind::Memory) {
        // Register forms the emulator need not know, but they cost nothing.
        return instruction.op_count() > 0
            && (0..instruction.op_count()).all(|i| !matches!(instruction.op_kind(i), OpKind::NearBranch64 | OpKind::FarBranch32));
    }
    // A bit number in a register moves the address.
    let bit = matches!(instruction.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && instruction.op_kind(1) == OpKind::Register;
    if bit {
        let register = instruction.op1_register();
        let number = random.below(8192).wrapping_sub(4096);
        let slot = &mut gpr[register.full_register().number()];
        *slot = match register.size() {
            2 => random.0 << 16 | number & 0xffff,
            4 => random.0 << 32 | number & 0xffff_ffff,
            _ => number,
        };
    }
    let (base, index) = (instruction.memory_base(), instruction.memory_index());
    let displacement = instruction.memory_displacement64();
    if [base, index]
        .into_iter()
        .any(|r| uses_stack(r) || (bit && r != Register::None && r.full_register() == instruction.op1_register().full_register()))
    {
        return false;
    }
    if instruction.is_ip_rel_memory_operand() || (base == Register::None && index == Register::None) {
        // The displacement itself: the constant follows it, so it is found by what it decodes to.
        let length = instruction.len();
        let width = if instruction.memory_displ_size() == 8 && !instruction.is_ip_rel_memory_operand() {
            8
        } else {
            4
        };
        let wanted = if instruction.is_ip_rel_memory_operand() {
            target.wrapping_sub(rip + length as u64)
        } else {
            target
        };
        for at in 1..=length.saturating_sub(width) {
            let mut attempt = *code;
            attempt[at..at + width].copy_from_slice(&wanted.to_le_bytes()[..width]);
            let decoded = Decoder::with_ip(64, &attempt, rip, DecoderOptions::NONE).decode();
            if decoded.code() == instruction.code() && decoded.len() == length && decoded.memory_displacement64() == target {
                *code = attempt;
                *instruction = decoded;
                return true;
            }
        }
        return false;
    }
    let scale = u64::from(instruction.memory_index_scale());
    let number = |register: Register| register.full_register().number();
    let short = narrow(if base == Register::None { index } else { base });
    if base == Register::None || base == index {
        let factor = if base == index { scale + 1 } else { scale };
        // Round the target so that it can be reached.
        let rest = target.wrapping_sub(displacement);
        let rest = if short { rest & 0xffff_ffff } else { rest };
        let value = rest / factor;
        let reached = value.wrapping_mul(factor).wrapping_add(displacement);
        let reached = if short { reached & 0xffff_ffff } else { reached };
        if !(DEVICE + 0x800..DEVICE + 0x2800).contains(&reached) {
            return false;
        }
        gpr[number(index)] = with_low(random, short, value);
        return true;
    }
    let indexed = if index == Register::None {
        0
    } else {
        gpr[number(index)].wrapping_mul(scale)
    };
    gpr[number(base)] = with_low(random, short, target.wrapping_sub(displacement).wrapping_sub(indexed));
    true
}

fn random_count(seed: u64) -> u64 {
    seed >> 40 & 15
}

/// Flags that the SDM leaves undefined after this instruction with these operands.
fn undefined(instruction: &Instruction, gpr: &[u64; 16]) -> u64 {
    let mut flags = 0;
    for (bit, flag) in [
        (RflagsBits::OF, 1 << 11),
        (RflagsBits::SF, 1 << 7),
        (RflagsBits::ZF, 1 << 6),
        (RflagsBits::AF, 1 << 4),
        (RflagsBits::CF, 1),
        (RflagsBits::PF, 1 << 2),
    ] {
        if instruction.rflags_undefined() & bit != 0 {
            flags |= flag;
        }
    }
    use Mnemonic::{Rcl, Rcr, Rol, Ror, Sal, Sar, Shl, Shr};
    if matches!(instruction.mnemonic(), Rcl | Rcr | Rol | Ror | Sal | Sar | Shl | Shr) {
        let size = match instruction.op_kind(0) {
            OpKind::Register => instruction.op0_register().size(),
            _ => instruction.memory_size().size(),
        };
        let count = if instruction.op_kind(1) == OpKind::Register {
            gpr[gpr::RCX] & 0xff
        } else {
            instruction.immediate(1)
        };
        let count = count & if size == 8 { 63 } else { 31 };
        if count != 1 {
            flags |= 1 << 11;
        }
        if count != 0 && !matches!(instruction.mnemonic(), Rcl | Rcr | Rol | Ror) {
            flags |= 1 << 4;
            // SHL and SHR by the operand's size and more (SDM volume 2, SAL/SAR/SHL/SHR).
            if count as usize >= size * 8 {
                flags |= 1;
            }
        }
    }
    flags
}

struct Pair {
    state: Box<VcpuState>,
    memory: GuestMemory,
    device: Device,
    native: Native,
}

impl Pair {
    fn new(random: &mut Random) -> Self {
        let memory = ram(&[1 << 20]);
        let mut state = blank();
        start_at_kernel(&mut state, CODE);
        assert_ne!(state.efer & EFER_LMA, 0);
        // One PML4, one PDPT with 1 GiB pages.
        memory.write_slice(0x8000, &0x9003u64.to_le_bytes()).unwrap();
        for i in 0..4u64 {
            memory.write_slice(0x9000 + i * 8, &(i << 30 | 0x83).to_le_bytes()).unwrap();
        }
        let mut native = Native::new();
        let content: Vec<u8> = (0..DEVICE_LENGTH).map(|_| random.next() as u8).collect();
        native.device().copy_from_slice(&content);
        Self {
            state,
            memory,
            device: Device(content),
            native,
        }
    }

    /// One pair. `None`: the bytes were of no use. What was different, if anything.
    fn compare(&mut self, random: &mut Random, number: u64) -> Option<Result<Code, String>> {
        let rip = CODE + number * SLOT % CODE_LENGTH as u64;
        let mut code = bytes(random);
        let mut instruction = Decoder::with_ip(64, &code, rip, DecoderOptions::NONE).decode();
        let mut gpr: [u64; 16] = core::array::from_fn(|_| random.value());
        if instruction.is_invalid() || !suits(random, &mut code, rip, &mut instruction, &mut gpr) {
            return None;
        }
        if instruction.mnemonic() == Mnemonic::Cmpxchg && random.one_in(2) {
            // So that it succeeds now and then.
            let address = instruction.virtual_address(0, 0, |register, _, _| {
                Some(if register.is_segment_register() {
                    0
                } else {
                    gpr[register.full_register().number()]
                })
            });
            if let Some(start) = address.and_then(|a| a.checked_sub(DEVICE)).filter(|s| *s < 0x2000)
                && instruction.memory_base().full_register() != Register::RAX
                && instruction.memory_index().full_register() != Register::RAX
            {
                gpr[gpr::RAX] = self.device.memory_read(DEVICE + start, 8);
            }
        }
        let flags = ALWAYS_SET | random.next() & (STATUS | DIRECTION);
        let code = &code[..instruction.len()];
        self.memory.write_slice(rip, code)?;
        (self.state.gpr, self.state.rflags, self.state.rip) = (gpr, flags, rip);
        match emulate(&mut self.state, &self.memory, &mut self.device) {
            Ok(()) => {}
            // What the emulator does not know stops a machine with a report; nothing to compare.
            Err(Fault::Unknown(_)) => return None,
            Err(fault) => return Some(Err(std::format!("{fault:?}"))),
        }
        self.native.run(rip, code, &gpr, flags);
        let context = &self.native.context;
        let mut expected = context.gpr;
        expected[gpr::RSP] = gpr[gpr::RSP];
        if repeats_zero_times_with_32_bit_addresses(&instruction, &gpr) {
            // Intel's processors clear the upper halves, AMD's leave them.
            for register in [gpr::RCX, gpr::RSI, gpr::RDI] {
                expected[register] = expected[register] & 0xffff_ffff | self.state.gpr[register] & !0xffff_ffff;
            }
        }
        let care = !undefined(&instruction, &gpr) & (STATUS | DIRECTION);
        let mut difference = String::new();
        use std::fmt::Write as _;
        for (register, (found, expected)) in self.state.gpr.iter().zip(&expected).enumerate() {
            if found != expected {
                let _ = write!(difference, " r{register} {found:#x} instead of {expected:#x}");
            }
        }
        if (self.state.rflags ^ context.flags) & care != 0 {
            let _ = write!(
                difference,
                " flags {:#x} instead of {:#x}",
                self.state.rflags & care,
                context.flags & care
            );
        }
        if self.state.rip != rip + code.len() as u64 {
            let _ = write!(difference, " rip {:#x}", self.state.rip);
        }
        if self.device.0 != *self.native.device() {
            let native = self.native.device().to_vec();
            let at = (0..DEVICE_LENGTH).find(|&i| self.device.0[i] != native[i]).unwrap_or(0);
            let _ = write!(
                difference,
                " memory {at:#x}: {:02x?} instead of {:02x?}",
                &self.device.0[at..(at + 8).min(DEVICE_LENGTH)],
                &native[at..(at + 8).min(DEVICE_LENGTH)]
            );
        }
        if difference.is_empty() {
            return Some(Ok(instruction.code()));
        }
        Some(Err(std::format!(
            "{:?} {code:02x?} flags {flags:#x} registers {gpr:x?}:{difference}",
            instruction.code()
        )))
    }
}

/// A repeated string instruction that is not carried out once, while addresses, and so the count, are 32 bits wide.
fn repeats_zero_times_with_32_bit_addresses(instruction: &Instruction, gpr: &[u64; 16]) -> bool {
    let wide = |kind| matches!(kind, OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI);
    let repeats = instruction.has_rep_prefix() || instruction.has_repne_prefix();
    repeats && gpr[gpr::RCX] as u32 == 0 && instruction.op_kinds().any(wide)
}

#[test]
fn a_million_instructions_as_the_processor_does_them() {
    let read = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let pairs = read("TESSERA_PAIRS").unwrap_or(PAIRS);
    let seed = read("TESSERA_FUZZ_SEED").unwrap_or(1);
    let mut random = Random(seed);
    let mut pair = Pair::new(&mut random);
    let mut seen = std::collections::BTreeMap::<Code, u64>::new();
    let (mut compared, mut attempts) = (0, 0);
    while compared < pairs {
        attempts += 1;
        assert!(
            attempts < pairs.saturating_mul(20) + 1000,
            "only {compared} of {attempts} attempts were instructions"
        );
        match pair.compare(&mut random, attempts) {
            None => {}
            Some(Ok(code)) => {
                compared += 1;
                *seen.entry(code).or_default() += 1;
            }
            Some(Err(difference)) => panic!("seed {seed}, pair {compared}: {difference}"),
        }
    }
    std::eprintln!("{compared} pairs of {attempts} attempts, {} kinds of instruction", seen.len());
    assert!(
        pairs < PAIRS || seen.len() > 250,
        "only {} kinds of instruction: {seen:?}",
        seen.len()
    );
}
