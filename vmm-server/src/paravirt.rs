//! The KVM paravirtual interfaces that spare exits (Linux, Documentation/virt/kvm/x86/msr.rst): clock, wall clock, end of interrupt. All addresses come from the guest and are bounded by [`GuestMemory`].

use crate::clock::Clock;
use crate::memory::GuestMemory;
use serde::{Deserialize, Serialize};

/// MSR numbers.
pub mod msr {
    /// Wall clock, first version.
    pub const WALL_CLOCK_OLD: u32 = 0x11;
    /// System time, first version.
    pub const SYSTEM_TIME_OLD: u32 = 0x12;
    /// Wall clock.
    pub const WALL_CLOCK: u32 = 0x4b56_4d00;
    /// System time.
    pub const SYSTEM_TIME: u32 = 0x4b56_4d01;
    /// Paravirtual end of interrupt.
    pub const END_OF_INTERRUPT: u32 = 0x4b56_4d04;
}

/// `PVCLOCK_TSC_STABLE_BIT`: times of different processors can be compared.
const STABLE: u8 = 1;
const ENABLED: u64 = 1;

/// One vCPU's registrations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paravirt {
    /// MSR `SYSTEM_TIME`.
    pub system_time: u64,
    /// MSR `WALL_CLOCK`.
    pub wall_clock: u64,
    /// MSR `END_OF_INTERRUPT`.
    pub end_of_interrupt: u64,
    /// The guest was told that it may skip the next end of interrupt.
    pub skip_offered: bool,
}

impl Paravirt {
    /// Writes `SYSTEM_TIME`: fills the structure in. System time is 0 when the machine starts, on all processors. False: #GP.
    #[must_use]
    pub fn set_system_time(&mut self, value: u64, memory: &GuestMemory, clock: &Clock, tsc_offset: u64) -> bool {
        self.system_time = value;
        if value & ENABLED == 0 {
            return true;
        }
        self.update_system_time(memory, clock, tsc_offset)
    }

    /// Fills the structure in anew, after the guest changed its TSC.
    #[must_use]
    pub fn update_system_time(&self, memory: &GuestMemory, clock: &Clock, tsc_offset: u64) -> bool {
        if self.system_time & ENABLED == 0 {
            return true;
        }
        let address = self.system_time & !ENABLED;
        let (multiplier, shift) = clock.paravirtual_scale();
        let version = memory.read_u32(address).unwrap_or(0) & !1;
        let mut body = [0; 28];
        body[4..12].copy_from_slice(&clock.start().wrapping_add(tsc_offset).to_le_bytes());
        body[20..24].copy_from_slice(&multiplier.to_le_bytes());
        body[24] = shift as u8;
        body[25] = STABLE;
        // An odd version says that the rest is being written.
        memory.write_u32(address, version.wrapping_add(1)).is_some()
            && memory.write_slice(address + 4, &body).is_some()
            && memory.write_u32(address, version.wrapping_add(2)).is_some()
    }

    /// Writes `WALL_CLOCK`: the time of day at system time 0. False: #GP.
    #[must_use]
    pub fn set_wall_clock(&mut self, value: u64, memory: &GuestMemory, seconds: u64) -> bool {
        self.wall_clock = value;
        let version = memory.read_u32(value).unwrap_or(0) & !1;
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&version.wrapping_add(2).to_le_bytes());
        bytes[4..8].copy_from_slice(&(seconds as u32).to_le_bytes());
        memory.write_slice(value, &bytes).is_some()
    }

    /// Writes `END_OF_INTERRUPT`. False: #GP.
    #[must_use]
    pub fn set_end_of_interrupt(&mut self, value: u64, memory: &GuestMemory) -> bool {
        let address = value & !3;
        if value & 2 != 0 || (value & ENABLED != 0 && !memory.contains(address, 4)) {
            return false;
        }
        self.end_of_interrupt = value;
        self.skip_offered = false;
        true
    }

    /// Tells the guest that it may skip the next end of interrupt; does nothing if it did not register.
    pub fn offer_skip(&mut self, memory: &GuestMemory) {
        if self.end_of_interrupt & ENABLED != 0 && memory.write_u32(self.end_of_interrupt & !3, 1).is_some() {
            self.skip_offered = true;
        }
    }

    /// Takes the offer back. True: the guest used it, so the interrupt has ended.
    #[must_use]
    pub fn withdraw_skip(&mut self, memory: &GuestMemory) -> bool {
        if !core::mem::take(&mut self.skip_offered) {
            return false;
        }
        let address = self.end_of_interrupt & !3;
        let word = memory.read_u32(address).unwrap_or(0);
        if word & 1 == 0 {
            return true;
        }
        let _ = memory.write_u32(address, word & !1);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::ram;
    use proptest::prelude::*;

    #[test]
    fn system_time_is_what_the_guest_computes() {
        let memory = ram(&[4096]);
        let clock = Clock::new(2_500_000_000, 1_000_000);
        let offset = 0u64.wrapping_sub(1_000_000);
        let mut paravirt = Paravirt::default();
        assert!(paravirt.set_system_time(0x101, &memory, &clock, offset));
        assert_eq!(memory.read_u32(0x100), Some(2), "an even version");
        assert_eq!(memory.read_u64(0x108), Some(0), "the guest's TSC at time 0");
        let multiplier = memory.read_u32(0x118).unwrap();
        let [shift, flags] = memory.read::<2>(0x11c).unwrap();
        assert_eq!(flags, STABLE);
        let ticks = 5_000_000_000u128;
        let shifted = if (shift as i8) < 0 {
            ticks >> -(shift as i8)
        } else {
            ticks << shift
        };
        let ns = (shifted * u128::from(multiplier)) >> 32;
        assert!(ns.abs_diff(2_000_000_000) < 10);
    }

    #[test]
    fn addresses_outside_ram_are_refused() {
        let memory = ram(&[4096]);
        let clock = Clock::new(1_000_000_000, 0);
        let mut paravirt = Paravirt::default();
        assert!(!paravirt.set_system_time(0xff1, &memory, &clock, 0));
        assert!(!paravirt.set_system_time(u64::MAX, &memory, &clock, 0));
        assert!(!paravirt.set_wall_clock(4090, &memory, 0));
        assert!(!paravirt.set_end_of_interrupt(0x1001, &memory));
        assert!(!paravirt.set_end_of_interrupt(0x103, &memory), "reserved bit");
        assert!(paravirt.set_end_of_interrupt(0x101, &memory));
    }

    #[test]
    fn end_of_interrupt_protocol() {
        let memory = ram(&[4096]);
        let mut paravirt = Paravirt::default();
        paravirt.offer_skip(&memory);
        assert!(!paravirt.skip_offered, "nobody registered");
        assert!(paravirt.set_end_of_interrupt(0x101, &memory));
        paravirt.offer_skip(&memory);
        assert_eq!(memory.read_u32(0x100), Some(1));
        assert!(!paravirt.withdraw_skip(&memory), "not used");
        assert_eq!(memory.read_u32(0x100), Some(0));
        paravirt.offer_skip(&memory);
        memory.write_u32(0x100, 0).unwrap();
        assert!(paravirt.withdraw_skip(&memory));
        assert!(!paravirt.withdraw_skip(&memory), "once");
    }

    proptest! {
        #[test]
        fn hostile_addresses(values: [u64; 3]) {
            let memory = ram(&[8192]);
            let clock = Clock::new(1_000_000_000, 0);
            let mut paravirt = Paravirt::default();
            for value in values {
                for value in [value, value & 0x3fff] {
                    let _ = paravirt.set_system_time(value, &memory, &clock, value);
                    let _ = paravirt.set_wall_clock(value, &memory, value);
                    let _ = paravirt.set_end_of_interrupt(value, &memory);
                    paravirt.offer_skip(&memory);
                    let _ = paravirt.withdraw_skip(&memory);
                }
            }
        }
    }
}
