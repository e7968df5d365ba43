//! A processor of a suspended machine.
//!
//! Extended state (x87, SSE, AVX) stands in the kernel, which hands it to nobody. The guest's own processor fetches it: for a moment it runs two instructions, in pages of the guest's RAM
//! that are put back afterwards, which store its state there or load it from there. What is not a state the processor refuses, as it would the guest's.

use super::{Registers, Stop, Vcpu};
use crate::apic::SavedLapic;
use crate::boot::registers;
use crate::machine::{Host, Run};
use crate::memory::GuestMemory;
use crate::paravirt::Paravirt;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
use tessera_abi::vcpu::{Dirty, ExitReason, Segment, Table, VcpuState, gpr};

/// Where the processors' pages begin, and how many bytes each has.
const SCRATCH: u64 = 0x1000;
const PIECE: u64 = 5 * PAGE;
const PAGE: u64 = 4096;
/// Parts of a piece: page tables of three levels, code, extended state.
const LEVELS: u64 = 3;
const CODE: u64 = LEVELS * PAGE;
const STATE: u64 = CODE + PAGE;
/// Page table entry: present, writable; a page of 2 MiB.
const TABLE: u64 = 3;
const LARGE: u64 = 0x83;
/// `xsave64 [rdi]`, `xrstor64 [rdi]`, and then `hlt`.
const STORE: [u8; 5] = [0x48, 0x0f, 0xae, 0x27, 0xf4];
const LOAD: [u8; 5] = [0x48, 0x0f, 0xae, 0x2f, 0xf4];
/// CR4: FXSAVE and XSAVE are on.
const CR4_EXTENDED: u64 = 1 << 9 | 1 << 18;
/// Entries until the two instructions must be done: others may come in between.
const MOST_ENTRIES: u32 = 10_000;

/// A segment register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SavedSegment(u16, u32, u32, u64);

/// Everything that makes up a processor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedVcpu {
    gpr: [u64; 16],
    rip: u64,
    rflags: u64,
    interrupt_shadow: u32,
    /// What an exit interrupted, or what is to be injected next: event, error code, length of the instruction.
    vectoring: (u32, u32),
    inject: (u32, u32),
    instruction_length: u32,
    /// In the order of the lists below.
    control: [u64; 7],
    debug: [u64; 6],
    segments: [SavedSegment; 8],
    gdtr: (u64, u64),
    idtr: (u64, u64),
    msrs: [u64; 10],
    /// The guest's TSC when the machine stood still.
    tsc: u64,
    extended: Vec<u8>,
    lapic: SavedLapic,
    paravirt: Paravirt,
    registers: Registers,
    halted: bool,
    waiting_for_start: bool,
    nmi_pending: bool,
}

/// Copies the groups that the monitor changed, which the kernel has not taken yet, over what the kernel knows.
fn keep_changes(state: &mut VcpuState, before: &VcpuState) {
    state.gpr = before.gpr;
    state.rip = before.rip;
    state.rflags = before.rflags;
    state.interrupt_shadow = before.interrupt_shadow;
    state.vectoring = before.vectoring;
    state.vectoring_error = before.vectoring_error;
    state.inject = before.inject;
    state.inject_error = before.inject_error;
    state.instruction_length = before.instruction_length;
    state.cr8 = before.cr8;
    let changed = Dirty::from_bits_truncate(before.dirty);
    if changed.contains(Dirty::SEGMENTS) {
        state.segments = before.segments;
        state.gdtr = before.gdtr;
        state.idtr = before.idtr;
    }
    if changed.contains(Dirty::CONTROL) {
        set_control(state, &control(before));
    }
    if changed.contains(Dirty::DEBUG) {
        set_debug(state, &debug(before));
    }
    if changed.contains(Dirty::MSRS) {
        set_msrs(state, &msrs(before));
    }
}

/// A group of registers of the page: a function that takes it down, and one that sets it, from one list.
macro_rules! group {
    ($get:ident, $set:ident, $count:literal: $($($register:ident).+ $([$index:literal])?),+) => {
        const fn $get(state: &VcpuState) -> [u64; $count] {
            [$(state$(.$register)+$([$index])?),+]
        }

        const fn $set(state: &mut VcpuState, values: &[u64; $count]) {
            [$(state$(.$register)+$([$index])?),+] = *values;
        }
    };
}

group!(control, set_control, 7: cr0, cr2, cr3, cr4, cr8, efer, xcr0);
group!(debug, set_debug, 6: dr[0], dr[1], dr[2], dr[3], dr6, dr7);
group!(msrs, set_msrs, 10: star, lstar, cstar, sfmask, kernel_gs_base, sysenter_cs, sysenter_esp, sysenter_eip, pat, tsc_aux);

/// Makes `piece` a world in which the processor carries out `code` with the extended state behind it.
fn prepare(memory: &GuestMemory, piece: u64, code: &[u8], extended: &[u8]) -> Option<()> {
    memory.clear(piece, PIECE)?;
    // One entry each: 2 MiB from address 0 on.
    for (level, entry) in [(piece + PAGE) | TABLE, (piece + 2 * PAGE) | TABLE, LARGE].into_iter().enumerate() {
        memory.write_slice(piece + level as u64 * PAGE, &entry.to_le_bytes())?;
    }
    memory.write_slice(piece + CODE, code)?;
    memory.write_slice(piece + STATE, extended)
}

impl<H: Host> Vcpu<'_, H> {
    /// Takes the processor's state down, while the machine stands still. It can go on as if nothing had been.
    ///
    /// # Errors
    /// Its extended state cannot be had.
    pub fn save(&mut self, host: &mut H, state: &mut VcpuState) -> Result<SavedVcpu, Stop> {
        let events = self.inbox.take_events();
        self.take(events, state);
        self.withdraw_skip();
        self.lapic.set_task_priority(state.cr8 as u8);
        let before = Box::new(*state);
        host.sync(state);
        keep_changes(state, &before);
        let mut before = before;
        *before = *state;
        before.dirty = Dirty::all().bits();
        let mut extended = vec![0; state.xsave_size.min(PAGE) as usize];
        let stored = self.with_extended(host, state, &STORE, &mut extended);
        *state = *before;
        state.tsc_offset = self.tsc_offset;
        self.attention = true;
        stored?;
        Ok(SavedVcpu {
            gpr: state.gpr,
            rip: state.rip,
            rflags: state.rflags,
            interrupt_shadow: state.interrupt_shadow,
            vectoring: (state.vectoring, state.vectoring_error),
            inject: (state.inject, state.inject_error),
            instruction_length: state.instruction_length,
            control: control(state),
            debug: debug(state),
            segments: state
                .segments
                .map(|segment| SavedSegment(segment.selector, segment.attributes, segment.limit, segment.base)),
            gdtr: (state.gdtr.base, state.gdtr.limit),
            idtr: (state.idtr.base, state.idtr.limit),
            msrs: msrs(state),
            tsc: self.machine.stopped_at().wrapping_add(self.tsc_offset),
            extended,
            lapic: self.lapic.save(self.machine.stopped_at()),
            paravirt: self.paravirt,
            registers: self.msrs,
            halted: self.halted,
            waiting_for_start: self.waiting_for_start,
            nmi_pending: self.nmi_pending,
        })
    }

    /// Makes this processor, while the machine stands still, what another was.
    ///
    /// # Errors
    /// That is no state that this processor can have.
    pub fn restore(&mut self, host: &mut H, state: &mut VcpuState, saved: &SavedVcpu) -> Result<(), Stop> {
        const OTHER: &str = "the processor of this host cannot have the state that is in the file: the machine was suspended on a host with another processor";
        *self = Self::new(self.machine, self.index, self.lapic.page);
        if saved.extended.len() as u64 != state.xsave_size || saved.control[6] & !state.supported_xcr0 != 0 {
            return Err(OTHER);
        }
        let mut extended = saved.extended.clone();
        self.with_extended(host, state, &LOAD, &mut extended).map_err(|_| OTHER)?;
        // Time goes on where it stood still: the guest's TSC, and the time that it computes from it.
        let now = self.machine.stopped_at();
        self.tsc_offset = saved.tsc.wrapping_sub(now);
        self.lapic.restore(&saved.lapic, now);
        self.publish_destination();
        self.paravirt = saved.paravirt;
        self.msrs = saved.registers;
        self.halted = saved.halted;
        self.waiting_for_start = saved.waiting_for_start;
        self.nmi_pending = saved.nmi_pending;
        // Where that is no RAM, it was not when the guest said so.
        let _ = self
            .paravirt
            .update_system_time(&self.machine.memory, &self.machine.clock, self.tsc_offset);
        self.attention = true;
        state.gpr = saved.gpr;
        state.rip = saved.rip;
        state.rflags = saved.rflags;
        state.interrupt_shadow = saved.interrupt_shadow;
        (state.vectoring, state.vectoring_error) = saved.vectoring;
        (state.inject, state.inject_error) = saved.inject;
        state.instruction_length = saved.instruction_length;
        set_control(state, &saved.control);
        set_debug(state, &saved.debug);
        for (segment, saved) in state.segments.iter_mut().zip(&saved.segments) {
            let SavedSegment(selector, attributes, limit, base) = *saved;
            *segment = Segment {
                selector,
                attributes,
                limit,
                base,
                ..Segment::default()
            };
        }
        let table = |(base, limit)| Table { base, limit };
        state.gdtr = table(saved.gdtr);
        state.idtr = table(saved.idtr);
        set_msrs(state, &saved.msrs);
        state.exception_bitmap = 0;
        state.tsc_offset = self.tsc_offset;
        state.request_window = 0;
        state.request_nmi_window = 0;
        state.dirty = Dirty::all().bits();
        Ok(())
    }

    /// Has the processor carry out `code`, with RDI at extended state. The page's registers are others afterwards.
    fn with_extended(&mut self, host: &mut H, state: &mut VcpuState, code: &[u8], extended: &mut [u8]) -> Result<(), Stop> {
        const NO_RAM: &str = "the machine has too little RAM for its processors' state";
        let memory = &self.machine.memory;
        let piece = SCRATCH + self.index as u64 * PIECE;
        let mut there = vec![0; PIECE as usize];
        memory.read_slice(piece, &mut there).ok_or(NO_RAM)?;
        let outcome = match prepare(memory, piece, code, extended) {
            Some(()) => self.carry_out(host, state, piece),
            None => Err(NO_RAM),
        };
        let memory = &self.machine.memory;
        if outcome.is_ok() {
            memory.read_slice(piece + STATE, extended).ok_or(NO_RAM)?;
        }
        memory.write_slice(piece, &there).ok_or(NO_RAM)?;
        outcome
    }

    fn carry_out(&mut self, host: &mut H, state: &mut VcpuState, piece: u64) -> Result<(), Stop> {
        let supported = state.supported_xcr0;
        registers::start_at_kernel(state, piece + CODE);
        state.cr3 = piece;
        state.cr4 |= CR4_EXTENDED;
        state.xcr0 = supported;
        state.tsc_offset = self.tsc_offset;
        state.gpr[gpr::RDI] = piece + STATE;
        state.gpr[gpr::RAX] = supported & 0xffff_ffff;
        state.gpr[gpr::RDX] = supported >> 32;
        for _ in 0..MOST_ENTRIES {
            match host.run(state, u64::MAX) {
                Run::Exit => match Self::reason(state) {
                    ExitReason::Halt => return Ok(()),
                    ExitReason::Deadline | ExitReason::InterruptWindow | ExitReason::NmiWindow | ExitReason::Notified => {}
                    _ => return Err("its extended state cannot be stored or loaded"),
                },
                // Who kicks has something in the inbox, which is looked at before the guest goes on.
                Run::Kicked(bits) => self.take_signal(bits),
                Run::Refused(_) => return Err("the kernel refuses to run it"),
            }
        }
        Err("its extended state could not be had in time")
    }
}
