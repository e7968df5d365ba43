//! Model-specific registers: what a guest can read and write. Everything not listed here raises #GP, as on a processor that lacks it.

use super::Vcpu;
use crate::emulator::GENERAL_PROTECTION;
use crate::machine::Host;
use crate::paravirt::msr as kvm;
use serde::{Deserialize, Serialize};
use tessera_abi::vcpu::{Dirty, VcpuState, gpr, segment};

mod number {
    pub const PLATFORM_ID: u32 = 0x17;
    pub const TSC: u32 = 0x10;
    pub const APIC_BASE: u32 = 0x1b;
    pub const EBL_CR_POWERON: u32 = 0x2a;
    pub const SMI_COUNT: u32 = 0x34;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const MICROCODE_UPDATE: u32 = 0x79;
    pub const MICROCODE_REVISION: u32 = 0x8b;
    pub const MTRR_CAP: u32 = 0xfe;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const DEBUG_CONTROL: u32 = 0x1d9;
    pub const MTRR_VARIABLE: u32 = 0x200;
    pub const MTRR_VARIABLE_END: u32 = 0x210;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEFAULT: u32 = 0x2ff;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const X2APIC: u32 = 0x800;
    pub const X2APIC_END: u32 = 0x840;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const SFMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
    pub const HWCR: u32 = 0xc001_0015;
    pub const PATCH_LOADER: u32 = 0xc001_0020;
    pub const DE_CFG: u32 = 0xc001_1029;
}

/// Fixed-range MTRRs, in the order of their slots.
const MTRR_FIXED: [u32; 11] = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
/// Eight variable ranges, fixed ranges, write combining.
const MTRR_CAP: u64 = 8 | 1 << 8 | 1 << 10;
/// Enabled, fixed ranges enabled, write-back: as a firmware would leave it.
const MTRR_DEFAULT: u64 = 0xc06;
const EFER_SCE: u64 = 1;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;
const EFER_FFXSR: u64 = 1 << 14;
const CR0_PG: u64 = 1 << 31;
/// `lfence` waits for what came before it.
const LFENCE_SERIALISES: u64 = 2;
/// Refused accesses that are worth a line in the log.
const MAX_LOGGED: u32 = 16;

/// MSRs that only remember what was written.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Registers {
    mtrr_default: u64,
    mtrr_fixed: [u64; MTRR_FIXED.len()],
    mtrr_variable: [u64; 16],
    misc_enable: u64,
    machine_check_status: u64,
    hardware_configuration: u64,
    tsc_adjust: u64,
}

impl Registers {
    /// As a firmware leaves them: RAM is write-back, the PC's video and option ROM area and the device area are uncached.
    #[must_use]
    pub const fn new() -> Self {
        const WRITE_BACK: u64 = 0x0606_0606_0606_0606;
        let mut mtrr_fixed = [WRITE_BACK; MTRR_FIXED.len()];
        mtrr_fixed[2] = 0;
        let mut mtrr_variable = [0; 16];
        // 3 GiB to 4 GiB: uncached. The mask is for 40 bits of physical address.
        mtrr_variable[0] = 0xc000_0000;
        mtrr_variable[1] = 0xff_c000_0800;
        Self {
            mtrr_default: MTRR_DEFAULT,
            mtrr_fixed,
            mtrr_variable,
            misc_enable: 1,
            machine_check_status: 0,
            hardware_configuration: 0,
            tsc_adjust: 0,
        }
    }
}

/// The access is refused: #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Stores a good value; a bad one, which gives #GP, leaves what was there. Answers whether it was good.
fn keep(register: &mut u64, value: u64, good: bool) -> bool {
    if good {
        *register = value;
    }
    good
}

/// Whether an address is canonical, as base-address MSRs want.
const fn is_canonical(value: u64) -> bool {
    (value as i64) << 16 >> 16 == value as i64
}

/// Memory types that MTRRs and the PAT take: UC, WC, WT, WP, WB, and for the PAT also UC-.
const fn are_memory_types(value: u64, pat: bool) -> bool {
    let mut i = 0;
    while i < 8 {
        let kind = value >> (i * 8) & 0xff;
        if !(matches!(kind, 0 | 1 | 4 | 5 | 6) || (pat && kind == 7)) {
            return false;
        }
        i += 1;
    }
    true
}

impl<H: Host> Vcpu<'_, H> {
    #[inline]
    pub(super) fn read_msr_exit(&mut self, host: &mut H, state: &mut VcpuState) {
        let length = self.length(host, state, 2);
        let number = state.gpr[gpr::RCX] as u32;
        match self.read_msr(host, state, number) {
            Ok(value) => {
                state.gpr[gpr::RAX] = value & 0xffff_ffff;
                state.gpr[gpr::RDX] = value >> 32;
                Self::skip(state, length);
            }
            Err(Refused) => {
                self.log_refused(host, state, "read", number);
                self.raise(state, GENERAL_PROTECTION, Some(0));
            }
        }
    }

    #[inline]
    pub(super) fn write_msr_exit(&mut self, host: &mut H, state: &mut VcpuState) {
        let length = self.length(host, state, 2);
        let number = state.gpr[gpr::RCX] as u32;
        let value = state.gpr[gpr::RDX] << 32 | state.gpr[gpr::RAX] & 0xffff_ffff;
        let outcome = match number {
            number::TSC_DEADLINE => {
                self.lapic.set_tsc_deadline(value, self.tsc_offset);
                self.update_deadline();
                Ok(())
            }
            number::X2APIC..number::X2APIC_END => self.write_x2apic(state, number, value),
            _ => self.write_msr(host, state, number, value),
        };
        match outcome {
            Ok(()) => Self::skip(state, length),
            Err(Refused) => {
                self.log_refused(host, state, "write", number);
                self.raise(state, GENERAL_PROTECTION, Some(0));
            }
        }
    }

    #[inline]
    fn write_x2apic(&mut self, state: &mut VcpuState, number: u32, value: u64) -> Result<(), Refused> {
        if !self.lapic.is_x2apic() {
            return Err(Refused);
        }
        self.withdraw_skip();
        self.lapic.set_task_priority(state.cr8 as u8);
        let before = self.lapic.task_priority();
        let effect = self
            .lapic
            .write_msr(number - number::X2APIC, value, H::now())
            .map_err(|_| Refused)?;
        self.apply(effect);
        self.update_deadline();
        if self.lapic.task_priority() != before {
            self.show_task_priority(state);
        }
        Ok(())
    }

    #[cold]
    fn log_refused(&mut self, host: &H, state: &VcpuState, what: &str, number: u32) {
        if self.logged < MAX_LOGGED {
            self.logged += 1;
            host.warn(format_args!(
                "vCPU {}: {what} of MSR {number:#x} at {:#x} refused with #GP",
                self.index, state.rip
            ));
        }
    }

    fn read_msr(&mut self, host: &mut H, state: &mut VcpuState, number: u32) -> Result<u64, Refused> {
        Ok(match number {
            number::X2APIC..number::X2APIC_END if self.lapic.is_x2apic() => {
                self.withdraw_skip();
                // The guest moves its priority through CR8 without an exit.
                self.lapic.set_task_priority(state.cr8 as u8);
                return self.lapic.read_msr(number - number::X2APIC, H::now()).map_err(|_| Refused);
            }
            number::TSC => H::now().wrapping_add(self.tsc_offset),
            number::TSC_ADJUST => self.msrs.tsc_adjust,
            number::TSC_DEADLINE => self.lapic.tsc_deadline(),
            number::APIC_BASE => self.lapic.base(),
            number::MTRR_CAP => MTRR_CAP,
            number::MTRR_DEFAULT => self.msrs.mtrr_default,
            number::MTRR_VARIABLE..number::MTRR_VARIABLE_END => self.msrs.mtrr_variable[(number - number::MTRR_VARIABLE) as usize],
            number::MISC_ENABLE => self.msrs.misc_enable,
            number::MCG_STATUS => self.msrs.machine_check_status,
            number::HWCR => self.msrs.hardware_configuration,
            number::DE_CFG => LFENCE_SERIALISES,
            // Some revision that needs no update.
            number::MICROCODE_REVISION => 0x0100_0065 << 32,
            // Present but empty: no banks of machine-check registers, nothing to identify or to debug.
            number::MCG_CAP | number::PLATFORM_ID | number::EBL_CR_POWERON | number::SMI_COUNT | number::DEBUG_CONTROL => 0,
            kvm::SYSTEM_TIME | kvm::SYSTEM_TIME_OLD => self.paravirt.system_time,
            kvm::WALL_CLOCK | kvm::WALL_CLOCK_OLD => self.paravirt.wall_clock,
            kvm::END_OF_INTERRUPT => self.paravirt.end_of_interrupt,
            _ if is_ignored_amd(number) => 0,
            _ => match MTRR_FIXED.iter().position(|&fixed| fixed == number) {
                Some(slot) => self.msrs.mtrr_fixed[slot],
                None => return self.read_state(host, state, number),
            },
        })
    }

    /// MSRs that are part of the state page.
    fn read_state(&mut self, host: &mut H, state: &mut VcpuState, number: u32) -> Result<u64, Refused> {
        if !is_in_state(number) {
            return Err(Refused);
        }
        host.sync(state);
        Ok(match number {
            number::EFER => state.efer,
            number::STAR => state.star,
            number::LSTAR => state.lstar,
            number::CSTAR => state.cstar,
            number::SFMASK => state.sfmask,
            number::FS_BASE => state.segments[segment::FS].base,
            number::GS_BASE => state.segments[segment::GS].base,
            number::KERNEL_GS_BASE => state.kernel_gs_base,
            number::SYSENTER_CS => state.sysenter_cs,
            number::SYSENTER_ESP => state.sysenter_esp,
            number::SYSENTER_EIP => state.sysenter_eip,
            number::PAT => state.pat,
            _ => state.tsc_aux,
        })
    }

    #[inline(never)]
    fn write_msr(&mut self, host: &mut H, state: &mut VcpuState, number: u32, value: u64) -> Result<(), Refused> {
        let memory = &self.machine.memory;
        let accepted = match number {
            number::TSC => {
                let adjust = value.wrapping_sub(H::now().wrapping_add(self.tsc_offset));
                self.shift_tsc(state, adjust)
            }
            number::TSC_ADJUST => {
                let adjust = value.wrapping_sub(self.msrs.tsc_adjust);
                self.shift_tsc(state, adjust)
            }
            number::APIC_BASE => {
                let accepted = self.lapic.set_base(value);
                self.publish_destination();
                self.update_deadline();
                // The kernel is told of the mode with the next entry.
                self.attention = true;
                accepted
            }
            number::MTRR_DEFAULT => {
                let good = value & !0xcff == 0 && are_memory_types(value & 0xff, false);
                keep(&mut self.msrs.mtrr_default, value, good)
            }
            number::MTRR_VARIABLE..number::MTRR_VARIABLE_END => {
                self.msrs.mtrr_variable[(number - number::MTRR_VARIABLE) as usize] = value;
                true
            }
            number::MISC_ENABLE => {
                self.msrs.misc_enable = value;
                true
            }
            number::MCG_STATUS => keep(&mut self.msrs.machine_check_status, value, value & !7 == 0),
            number::HWCR => {
                self.msrs.hardware_configuration = value;
                true
            }
            kvm::SYSTEM_TIME | kvm::SYSTEM_TIME_OLD => self.paravirt.set_system_time(value, memory, &self.machine.clock, self.tsc_offset),
            kvm::WALL_CLOCK | kvm::WALL_CLOCK_OLD => self.paravirt.set_wall_clock(value, memory, self.machine.wall_clock),
            kvm::END_OF_INTERRUPT => {
                self.withdraw_skip();
                self.paravirt.set_end_of_interrupt(value, memory)
            }
            number::DEBUG_CONTROL | number::DE_CFG | number::MICROCODE_UPDATE | number::MICROCODE_REVISION | number::PATCH_LOADER => true,
            _ if is_ignored_amd(number) => true,
            _ => match MTRR_FIXED.iter().position(|&fixed| fixed == number) {
                Some(slot) => keep(&mut self.msrs.mtrr_fixed[slot], value, are_memory_types(value, false)),
                None => return self.write_state(host, state, number, value),
            },
        };
        if accepted { Ok(()) } else { Err(Refused) }
    }

    fn write_state(&mut self, host: &mut H, state: &mut VcpuState, number: u32, value: u64) -> Result<(), Refused> {
        if !is_in_state(number) {
            return Err(Refused);
        }
        host.sync(state);
        let needs_canonical = matches!(
            number,
            number::LSTAR
                | number::CSTAR
                | number::FS_BASE
                | number::GS_BASE
                | number::KERNEL_GS_BASE
                | number::SYSENTER_ESP
                | number::SYSENTER_EIP
        );
        if needs_canonical && !is_canonical(value) {
            return Err(Refused);
        }
        let mut group = Dirty::MSRS;
        match number {
            number::EFER => {
                let changed = value ^ state.efer;
                let unknown = value & !(EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE | EFER_FFXSR) != 0;
                if unknown || (state.cr0 & CR0_PG != 0 && changed & EFER_LME != 0) {
                    return Err(Refused);
                }
                // The processor itself owns LMA.
                state.efer = value & !EFER_LMA | state.efer & EFER_LMA;
                group = Dirty::CONTROL;
            }
            number::STAR => state.star = value,
            number::LSTAR => state.lstar = value,
            number::CSTAR => state.cstar = value,
            number::SFMASK => state.sfmask = value & 0xffff_ffff,
            number::FS_BASE => {
                state.segments[segment::FS].base = value;
                group = Dirty::SEGMENTS;
            }
            number::GS_BASE => {
                state.segments[segment::GS].base = value;
                group = Dirty::SEGMENTS;
            }
            number::KERNEL_GS_BASE => state.kernel_gs_base = value,
            number::SYSENTER_CS => state.sysenter_cs = value,
            number::SYSENTER_ESP => state.sysenter_esp = value,
            number::SYSENTER_EIP => state.sysenter_eip = value,
            number::PAT => {
                if !are_memory_types(value, true) {
                    return Err(Refused);
                }
                state.pat = value;
            }
            _ => {
                if value >> 32 != 0 {
                    return Err(Refused);
                }
                state.tsc_aux = value;
            }
        }
        state.dirty |= group.bits();
        Ok(())
    }

    /// The guest's TSC jumps by `by`; its clock structure follows.
    fn shift_tsc(&mut self, state: &mut VcpuState, by: u64) -> bool {
        self.tsc_offset = self.tsc_offset.wrapping_add(by);
        self.msrs.tsc_adjust = self.msrs.tsc_adjust.wrapping_add(by);
        state.tsc_offset = self.tsc_offset;
        state.dirty |= Dirty::TSC.bits();
        // The structure was in RAM when it was registered, and still is.
        let _ = self
            .paravirt
            .update_system_time(&self.machine.memory, &self.machine.clock, self.tsc_offset);
        let deadline = self.lapic.tsc_deadline();
        self.lapic.set_tsc_deadline(deadline, self.tsc_offset);
        self.update_deadline();
        true
    }
}

const fn is_in_state(number: u32) -> bool {
    matches!(
        number,
        number::EFER..=number::SFMASK
            | number::FS_BASE..=number::TSC_AUX
            | number::SYSENTER_CS..=number::SYSENTER_EIP
            | number::PAT
    )
}

/// AMD's registers that kernels touch without asking, by processor family: they read as 0 and take everything (performance counters, SYSCFG, IORRs,
/// top of memory, northbridge and load-store configuration, TSEG).
const fn is_ignored_amd(number: u32) -> bool {
    matches!(
        number,
        0xc001_0000..=0xc001_0007
            | 0xc001_0010
            | 0xc001_0016..=0xc001_001a
            | 0xc001_001d
            | 0xc001_001f
            | 0xc001_0055
            | 0xc001_0112
            | 0xc001_0113
            | 0xc001_1020
            | 0xc001_1022
            | 0xc001_1023
            | 0xc001_102a
    )
}
