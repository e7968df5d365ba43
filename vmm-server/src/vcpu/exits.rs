//! One handler for each reason to leave the guest. The first few are on the hot path.

use super::interrupts::{DEBUG, EVENT_TYPE, NMI_BLOCKED, RESUME_FLAG};
use super::{Stop, Vcpu};
use crate::cpuid::{CpuidTable, Current};
use crate::emulator::{self, Fault, GENERAL_PROTECTION, INVALID_OPCODE, Source, Switch};
use crate::machine::Host;
use crate::vcpu::memory::VcpuBus;
use tessera_abi::vcpu::{
    Dirty, EVENT_EXCEPTION, EVENT_NMI, EVENT_SOFTWARE, EVENT_VALID, ExitReason, IO_IN, IO_STRING, IO_WIDTH_SHIFT, VcpuState, gpr, segment,
};

const TRAP_FLAG: u64 = 1 << 8;
/// DR6: which breakpoints were met.
const DR6_BREAKPOINTS: u64 = 0xf;
/// DR6: a single step.
const DR6_STEP: u64 = 1 << 14;
const CR4_OSXSAVE: u64 = 1 << 18;
/// Answer to an unknown hypercall (`-KVM_ENOSYS`).
const NO_SUCH_HYPERCALL: u64 = 1000u64.wrapping_neg();
/// Port that kernels write to for a short delay.
const DELAY_PORT: u16 = 0x80;

impl<H: Host> Vcpu<'_, H> {
    /// Handles the exit in `state`.
    #[inline]
    pub(super) fn handle(&mut self, host: &mut H, state: &mut VcpuState) -> Result<(), Stop> {
        if state.rflags & (TRAP_FLAG | RESUME_FLAG) != 0 {
            return self.handle_stepped(host, state);
        }
        self.dispatch(host, state)
    }

    /// As [`Self::handle`], when the guest is being debugged: an instruction that was carried out here ends with what the processor would do at its end,
    /// clear the resume flag and raise the single-step trap (SDM volume 3, 17.3.1).
    #[cold]
    fn handle_stepped(&mut self, host: &mut H, state: &mut VcpuState) -> Result<(), Stop> {
        let instruction = matches!(
            Self::reason(state),
            ExitReason::Io
                | ExitReason::Cpuid
                | ExitReason::ReadMsr
                | ExitReason::WriteMsr
                | ExitReason::Halt
                | ExitReason::Memory
                | ExitReason::Hypercall
                | ExitReason::XSetBv
                | ExitReason::CacheFlush
                | ExitReason::Pause
        );
        if !instruction {
            return self.dispatch(host, state);
        }
        // Before anything changes: this brings the guest's registers anew.
        host.sync(state);
        let steps = state.rflags & TRAP_FLAG != 0;
        self.dispatch(host, state)?;
        if state.inject & EVENT_VALID != 0 {
            return Ok(());
        }
        state.rflags &= !RESUME_FLAG;
        if steps {
            self.halted = false;
            state.dr6 = state.dr6 & !DR6_BREAKPOINTS | DR6_STEP;
            state.dirty |= Dirty::DEBUG.bits();
            self.raise(state, DEBUG, None);
            self.attention = true;
        }
        Ok(())
    }

    #[inline]
    fn dispatch(&mut self, host: &mut H, state: &mut VcpuState) -> Result<(), Stop> {
        match Self::reason(state) {
            ExitReason::Io => self.io(state),
            ExitReason::Cpuid => {
                self.cpuid(host, state);
                Ok(())
            }
            ExitReason::ReadMsr => {
                self.read_msr_exit(host, state);
                Ok(())
            }
            ExitReason::WriteMsr => {
                self.write_msr_exit(host, state);
                Ok(())
            }
            ExitReason::Halt => {
                self.advance(host, state, 1);
                self.halted = true;
                self.attention = true;
                Ok(())
            }
            ExitReason::InterruptWindow | ExitReason::NmiWindow | ExitReason::Deadline | ExitReason::Notified => {
                self.deadline_passed();
                Ok(())
            }
            ExitReason::Memory => self.memory(state),
            reason => self.rare(host, state, reason),
        }
    }

    #[cold]
    fn rare(&mut self, host: &mut H, state: &mut VcpuState, reason: ExitReason) -> Result<(), Stop> {
        match reason {
            ExitReason::Hypercall => {
                state.gpr[gpr::RAX] = NO_SUCH_HYPERCALL;
                self.advance(host, state, 3);
            }
            ExitReason::XSetBv => self.set_extended_control(host, state),
            // A PAUSE comes here only where something is due behind it.
            ExitReason::CacheFlush | ExitReason::Pause => self.advance(host, state, 2),
            // All of them are hidden in CPUID.
            ExitReason::Mwait | ExitReason::Virtualisation => self.raise(state, INVALID_OPCODE, None),
            ExitReason::ReadPmc => self.raise(state, GENERAL_PROTECTION, Some(0)),
            ExitReason::EndOfInterrupt => {
                let effect = self.lapic.ended(state.info[0] as u8);
                self.apply(effect);
            }
            ExitReason::Iret | ExitReason::None => (),
            ExitReason::Shutdown => return Err("triple fault: an exception could not be delivered, nor the double fault that followed"),
            ExitReason::EntryFailed => return Err("the processor refused to enter the guest with these registers"),
            ExitReason::TaskSwitch => return self.task_switch(host, state),
            ExitReason::ControlRegister => return Err("control-register access that nobody asked to intercept"),
            ExitReason::Exception => return Err("exception that nobody asked to intercept"),
            _ => return Err("exit for a reason that is not known"),
        }
        Ok(())
    }

    /// Length of the instruction that exited; its plain encoding has `plain` bytes. To be asked before the state is changed, since finding it out may
    /// bring the guest's registers into the page anew.
    #[inline]
    pub(super) fn length(&mut self, host: &mut H, state: &mut VcpuState, plain: u64) -> u64 {
        self.lengths.get(state, &self.machine.memory, plain, |state| host.sync(state))
    }

    /// On to the next instruction, when this one is done.
    #[inline]
    pub(super) fn skip(state: &mut VcpuState, length: u64) {
        state.rip = state.rip.wrapping_add(length);
        state.interrupt_shadow &= !1;
    }

    /// Both at once, for instructions that change nothing else.
    #[inline]
    fn advance(&mut self, host: &mut H, state: &mut VcpuState, plain: u64) {
        let length = self.length(host, state, plain);
        Self::skip(state, length);
    }

    #[inline]
    fn cpuid(&mut self, host: &mut H, state: &mut VcpuState) {
        let length = self.length(host, state, 2);
        let (leaf, subleaf) = (state.gpr[gpr::RAX] as u32, state.gpr[gpr::RCX] as u32);
        let mut osxsave = false;
        if CpuidTable::depends_on_control_registers(leaf) {
            host.sync(state);
            osxsave = state.cr4 & CR4_OSXSAVE != 0;
        }
        let current = Current {
            id: self.index as u32,
            osxsave,
            xcr0: state.xcr0,
        };
        let [eax, ebx, ecx, edx] = self.machine.cpuid.answer(leaf, subleaf, &current);
        state.gpr[gpr::RAX] = u64::from(eax);
        state.gpr[gpr::RBX] = u64::from(ebx);
        state.gpr[gpr::RCX] = u64::from(ecx);
        state.gpr[gpr::RDX] = u64::from(edx);
        Self::skip(state, length);
    }

    #[inline]
    fn io(&mut self, state: &mut VcpuState) -> Result<(), Stop> {
        let info = state.info[0];
        if info & IO_STRING != 0 {
            return self.string_io(state);
        }
        let (port, width) = (info as u16, (info >> IO_WIDTH_SHIFT) as u8 & 7);
        if info & IO_IN != 0 {
            let now = self.machine.clock.ns(H::now());
            let value = self.machine.chipset().port_read(port, width, now, &self.machine.interrupts);
            let keep = match width {
                1 => !0xff,
                2 => !0xffff,
                // 32-bit results clear the upper half.
                _ => 0,
            };
            let rax = &mut state.gpr[gpr::RAX];
            *rax = *rax & keep | u64::from(value);
        } else if port != DELAY_PORT {
            let now = self.machine.clock.ns(H::now());
            let request = self
                .machine
                .chipset()
                .port_write(port, width, state.gpr[gpr::RAX] as u32, now, &self.machine.interrupts);
            if let Some(request) = request {
                self.machine.request(request);
                self.attention = true;
            }
        }
        state.rip = state.info[1];
        state.interrupt_shadow &= !1;
        Ok(())
    }

    #[cold]
    fn string_io(&mut self, state: &mut VcpuState) -> Result<(), Stop> {
        if Self::was_vectoring(state) {
            return Err("string I/O during the delivery of an event");
        }
        let machine = self.machine;
        let outcome = emulator::string_io(state, &machine.memory, &mut VcpuBus { vcpu: self });
        self.settle(state, outcome)
    }

    /// What became of an emulated instruction.
    pub(super) fn settle(&mut self, state: &mut VcpuState, outcome: Result<(), Fault>) -> Result<(), Stop> {
        match outcome {
            Ok(()) => (),
            Err(Fault::Exception(vector, error)) => self.raise(state, vector, error),
            Err(Fault::Page { address, error }) => self.raise_page_fault(state, address, error),
            Err(Fault::Unknown(what)) => return Err(what),
        }
        Ok(())
    }

    /// The event that went through a task gate is delivered with it.
    fn task_switch(&mut self, host: &mut H, state: &mut VcpuState) -> Result<(), Stop> {
        let source = match state.info[0] >> 32 {
            0 => Source::Call,
            1 => Source::Return,
            2 => Source::Jump,
            _ => Source::Gate,
        };
        let event = core::mem::take(&mut state.vectoring);
        let (kind, vector) = (event & EVENT_TYPE, event & 0xff);
        // `int3` and `into` are exceptions to AMD-V; both go on behind the instruction.
        let instruction = source != Source::Gate || kind == EVENT_SOFTWARE || (kind == EVENT_EXCEPTION && matches!(vector, 3 | 4));
        let length = if instruction { self.length(host, state, 2) } else { 0 };
        match (source, kind) {
            (Source::Return, _) => state.interrupt_shadow &= !NMI_BLOCKED,
            (Source::Gate, EVENT_NMI) => state.interrupt_shadow |= NMI_BLOCKED,
            _ => (),
        }
        let switch = Switch {
            selector: state.info[0] as u16,
            source,
            error: (state.info[1] >> 32 & 1 != 0).then_some(state.info[1] as u32),
            length,
            external: !instruction,
        };
        let outcome = emulator::task_switch(state, &self.machine.memory, &switch);
        self.settle(state, outcome)
    }

    fn set_extended_control(&mut self, host: &mut H, state: &mut VcpuState) {
        let value = state.gpr[gpr::RDX] << 32 | state.gpr[gpr::RAX] & 0xffff_ffff;
        let length = self.length(host, state, 3);
        host.sync(state);
        // VT-x lets it exit from every ring.
        let ring = state.segments[segment::SS].attributes >> 5 & 3;
        if ring != 0 || state.gpr[gpr::RCX] as u32 != 0 || !self.machine.cpuid.allows_xcr0(value) {
            self.raise(state, GENERAL_PROTECTION, Some(0));
            return;
        }
        state.xcr0 = value;
        state.dirty |= Dirty::CONTROL.bits();
        Self::skip(state, length);
    }
}
