//! The register file of the local APIC, the same for memory (SDM volume 3, table 11-1) and MSRs (table 11-6): register `n` is at `n * 16` in the page and MSR 0x800 + `n`.

use super::lapic::{Effect, Lapic, TimerMode};
use serde::{Deserialize, Serialize};

/// Numbers of registers.
pub mod register {
    /// Identity.
    pub const ID: u32 = 0x02;
    /// Version.
    pub const VERSION: u32 = 0x03;
    /// Task priority.
    pub const TPR: u32 = 0x08;
    /// Arbitration priority.
    pub const APR: u32 = 0x09;
    /// Processor priority.
    pub const PPR: u32 = 0x0a;
    /// End of interrupt.
    pub const EOI: u32 = 0x0b;
    /// Remote read.
    pub const RRD: u32 = 0x0c;
    /// Logical destination.
    pub const LDR: u32 = 0x0d;
    /// Destination format.
    pub const DFR: u32 = 0x0e;
    /// Spurious interrupt vector.
    pub const SVR: u32 = 0x0f;
    /// In service, eight registers.
    pub const ISR: u32 = 0x10;
    /// Trigger mode, eight registers.
    pub const TMR: u32 = 0x18;
    /// Requests, eight registers.
    pub const IRR: u32 = 0x20;
    /// Error status.
    pub const ESR: u32 = 0x28;
    /// Interrupt command, low half; all of it in x2APIC mode.
    pub const ICR: u32 = 0x30;
    /// Interrupt command, high half.
    pub const ICR_HIGH: u32 = 0x31;
    /// First of the local vector table, without the CMCI entry.
    pub const LVT_TIMER: u32 = 0x32;
    /// Last of it.
    pub const LVT_ERROR: u32 = 0x37;
    /// Initial count of the timer.
    pub const INITIAL_COUNT: u32 = 0x38;
    /// Current count.
    pub const CURRENT_COUNT: u32 = 0x39;
    /// Divide configuration.
    pub const DIVIDE: u32 = 0x3e;
    /// Self IPI, x2APIC only.
    pub const SELF_IPI: u32 = 0x3f;
}

/// Indexes of the local vector table.
pub mod lvt {
    /// Timer.
    pub const TIMER: usize = 0;
    /// Thermal sensor.
    pub const THERMAL: usize = 1;
    /// Performance counters.
    pub const PERFORMANCE: usize = 2;
    /// Pin LINT0.
    pub const LINT0: usize = 3;
    /// Pin LINT1.
    pub const LINT1: usize = 4;
    /// Errors.
    pub const ERROR: usize = 5;
    /// Entries.
    pub const COUNT: usize = 6;
    /// Bits that can be written, per entry.
    pub const WRITABLE: [u32; COUNT] = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];
}

/// The table after power-on: all masked.
pub(super) fn initial_lvt() -> [Lvt; lvt::COUNT] {
    [Lvt(Lvt::MASKED); lvt::COUNT]
}

/// An entry of the local vector table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lvt(pub u32);

impl Lvt {
    /// Masked.
    pub const MASKED: u32 = 1 << 16;

    /// Whether it is masked.
    #[must_use]
    pub const fn is_masked(self) -> bool {
        self.0 & Self::MASKED != 0
    }

    /// Its vector.
    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// Whether it delivers as the 8259 does.
    #[must_use]
    pub const fn is_external(self) -> bool {
        !self.is_masked() && self.0 >> 8 & 7 == 7
    }

    /// Whether it delivers an NMI.
    #[must_use]
    pub const fn is_nmi(self) -> bool {
        !self.is_masked() && self.0 >> 8 & 7 == 4
    }
}

/// The register does not exist or takes no such value: #GP in x2APIC mode, an error bit in xAPIC mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// Version register: an integrated APIC with six local vectors that can suppress the broadcast of ends of interrupt.
const VERSION: u32 = 0x14 | 5 << 16 | 1 << 24;

impl Lapic {
    /// Reads MSR 0x800 + `index`.
    ///
    /// # Errors
    /// For registers that do not exist in x2APIC mode or cannot be read.
    pub fn read_msr(&mut self, index: u32, now: u64) -> Result<u64, Refused> {
        match index {
            register::ID => Ok(u64::from(self.id)),
            register::LDR => Ok(u64::from((self.id >> 4) << 16 | 1 << (self.id & 15))),
            register::ICR => Ok(self.command),
            register::DFR | register::ICR_HIGH | register::APR | register::RRD | register::EOI | register::SELF_IPI => Err(Refused),
            _ => self.read_common(index, now).map(u64::from),
        }
    }

    /// Writes MSR 0x800 + `index`.
    ///
    /// # Errors
    /// For registers that do not exist in x2APIC mode or cannot be written, and for reserved bits.
    #[inline]
    pub fn write_msr(&mut self, index: u32, value: u64, now: u64) -> Result<Effect, Refused> {
        match index {
            register::EOI => {
                if value == 0 {
                    Ok(self.end())
                } else {
                    Err(Refused)
                }
            }
            register::ICR => {
                // Bits 12 (delivery status), 13, 16, 17 and 20 to 31 do not exist here.
                if value & 0xfff3_3000 != 0 {
                    return Err(Refused);
                }
                self.command = value;
                Ok(self.check_command(value))
            }
            register::SELF_IPI => {
                if value > 0xff {
                    return Err(Refused);
                }
                if value < 16 {
                    self.raise_error(1 << 5);
                } else {
                    self.accept(value as u8, false);
                }
                Ok(Effect::None)
            }
            register::ESR if value != 0 => Err(Refused),
            register::TPR if value > 0xff => Err(Refused),
            register::LDR | register::DFR | register::ICR_HIGH | register::ID => Err(Refused),
            _ => self.write_common(index, u32::try_from(value).map_err(|_| Refused)?, now),
        }
    }

    /// Reads 32 bits at `offset` in the page. Other widths and unaligned places are the caller's to refuse.
    pub fn read_page(&mut self, offset: u64, now: u64) -> u32 {
        if offset & 0xf != 0 {
            return 0;
        }
        match (offset >> 4) as u32 {
            register::ID => self.id << 24,
            register::LDR => u32::from(self.logical) << 24,
            register::DFR => {
                if self.flat {
                    0xffff_ffff
                } else {
                    0x0fff_ffff
                }
            }
            register::ICR => self.command as u32,
            register::ICR_HIGH => (self.command >> 32) as u32,
            register::APR | register::RRD | register::EOI => 0,
            index => self.read_common(index, now).unwrap_or_else(|Refused| {
                self.raise_error(1 << 7);
                0
            }),
        }
    }

    /// Writes 32 bits at `offset` in the page.
    pub fn write_page(&mut self, offset: u64, value: u32, now: u64) -> Effect {
        if offset & 0xf != 0 {
            return Effect::None;
        }
        match (offset >> 4) as u32 {
            // The identity cannot be changed, as on recent processors.
            register::ID => Effect::None,
            register::EOI => self.end(),
            register::LDR => {
                self.logical = (value >> 24) as u8;
                Effect::Destination
            }
            register::DFR => {
                self.flat = value >> 28 == 0xf;
                Effect::Destination
            }
            register::ICR_HIGH => {
                self.command = self.command & 0xffff_ffff | u64::from(value) << 32;
                Effect::None
            }
            register::ICR => {
                self.command = self.command & !0xffff_ffff | u64::from(value & 0xc_cfff);
                self.check_command(self.command)
            }
            register::SELF_IPI => {
                self.raise_error(1 << 7);
                Effect::None
            }
            index => self.write_common(index, value, now).unwrap_or_else(|Refused| {
                self.raise_error(1 << 7);
                Effect::None
            }),
        }
    }

    /// Sending vectors 0 to 15 is an error (11.5.3).
    fn check_command(&mut self, command: u64) -> Effect {
        if command & 0x600 == 0 && command & 0xff < 16 && command & 0x100 == 0 {
            self.raise_error(1 << 5);
            return Effect::None;
        }
        Effect::Ipi(command)
    }

    fn read_common(&mut self, index: u32, now: u64) -> Result<u32, Refused> {
        Ok(match index {
            register::VERSION => VERSION,
            register::TPR => u32::from(self.tpr),
            register::PPR => u32::from(self.ppr()),
            register::SVR => self.spurious,
            0x10..=0x17 => self.page.in_service.register((index - register::ISR) as usize).get(),
            0x18..=0x1f => self.page.trigger_mode.register((index - register::TMR) as usize).get(),
            0x20..=0x27 => self.page.requests.register((index - register::IRR) as usize).get(),
            register::ESR => self.error,
            register::LVT_TIMER..=register::LVT_ERROR => self.lvt[(index - register::LVT_TIMER) as usize].0,
            register::INITIAL_COUNT => {
                if self.timer_mode() == TimerMode::Deadline {
                    0
                } else {
                    self.initial_count
                }
            }
            register::CURRENT_COUNT => self.current_count(now),
            register::DIVIDE => self.divide,
            _ => return Err(Refused),
        })
    }

    fn write_common(&mut self, index: u32, value: u32, now: u64) -> Result<Effect, Refused> {
        // What the timer did until now, it did as it was set until now.
        if matches!(
            index,
            register::SVR | register::LVT_TIMER | register::INITIAL_COUNT | register::DIVIDE
        ) {
            self.run_timer(now);
        }
        match index {
            register::TPR => self.tpr = value as u8,
            register::SVR => {
                self.spurious = value & 0x11ff;
                self.publish();
                if !self.is_software_enabled() {
                    for entry in &mut self.lvt {
                        entry.0 |= Lvt::MASKED;
                    }
                }
            }
            register::ESR => {
                self.error = self.error_latched;
                self.error_latched = 0;
            }
            register::LVT_TIMER..=register::LVT_ERROR => self.write_lvt((index - register::LVT_TIMER) as usize, value),
            register::INITIAL_COUNT => self.start_count(value, now),
            register::DIVIDE => self.set_divide(value, now),
            _ => return Err(Refused),
        }
        Ok(Effect::None)
    }

    fn write_lvt(&mut self, index: usize, value: u32) {
        let mut value = value & lvt::WRITABLE[index];
        if !self.is_software_enabled() {
            value |= Lvt::MASKED;
        }
        let before = self.timer_mode();
        self.lvt[index] = Lvt(value);
        if index == lvt::TIMER && self.timer_mode() != before {
            let deadline_involved = before == TimerMode::Deadline || self.timer_mode() == TimerMode::Deadline;
            if deadline_involved || self.timer_mode() == TimerMode::Off {
                // Changing to or from TSC-deadline mode disarms (11.5.4.1).
                self.deadline = super::lapic::NEVER;
                self.tsc_deadline = 0;
            }
        }
    }
}
