//! Translates a guest's linear addresses with its page tables: none, 32-bit, PAE, four-level (Intel SDM volume 3, chapter 4). Accessed and dirty bits are set as hardware would.

use super::Fault;
use crate::memory::GuestMemory;
use tessera_abi::vcpu::{VcpuState, segment};

const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
/// EFER: long mode is active.
pub const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;
const RFLAGS_AC: u64 = 1 << 18;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What kind of access is meant, as bits of a page-fault error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u32);

impl Access {
    /// Data read.
    pub const READ: Self = Self(0);
    /// Data write.
    pub const WRITE: Self = Self(2);
    /// Instruction fetch.
    pub const FETCH: Self = Self(16);
}

/// Translates for one vCPU.
#[derive(Clone, Copy)]
pub struct Walker<'a> {
    memory: &'a GuestMemory,
    cr0: u64,
    cr3: u64,
    cr4: u64,
    efer: u64,
    user: bool,
    smap: bool,
}

/// One level of a walk: which bits of the address index it, and whether it can be a leaf.
struct Level {
    shift: u32,
    bits: u32,
    leaf: bool,
}

const LONG: [Level; 4] = [
    Level {
        shift: 39,
        bits: 9,
        leaf: false,
    },
    Level {
        shift: 30,
        bits: 9,
        leaf: true,
    },
    Level {
        shift: 21,
        bits: 9,
        leaf: true,
    },
    Level {
        shift: 12,
        bits: 9,
        leaf: true,
    },
];
const PAE: [Level; 2] = [
    Level {
        shift: 21,
        bits: 9,
        leaf: true,
    },
    Level {
        shift: 12,
        bits: 9,
        leaf: true,
    },
];
const LEGACY: [Level; 2] = [
    Level {
        shift: 22,
        bits: 10,
        leaf: true,
    },
    Level {
        shift: 12,
        bits: 10,
        leaf: true,
    },
];

impl<'a> Walker<'a> {
    /// Takes the paging mode from a full exit's state.
    #[must_use]
    pub fn new(state: &VcpuState, memory: &'a GuestMemory) -> Self {
        // The descriptor privilege level of SS is the current privilege level.
        let user = state.segments[segment::SS].attributes >> 5 & 3 == 3;
        let smap = state.cr4 & CR4_SMAP != 0 && state.rflags & RFLAGS_AC == 0;
        Self {
            memory,
            cr0: state.cr0,
            cr3: state.cr3,
            cr4: state.cr4,
            efer: state.efer,
            user,
            smap,
        }
    }

    /// As [`Self::new`], for the processor's own accesses to its tables.
    #[must_use]
    pub fn supervisor(state: &VcpuState, memory: &'a GuestMemory) -> Self {
        Self {
            user: false,
            smap: false,
            ..Self::new(state, memory)
        }
    }

    /// The guest-physical address of `linear`.
    ///
    /// # Errors
    /// The page fault that the guest gets, or [`Fault::Unknown`] if its page tables are outside RAM.
    pub fn translate(&self, linear: u64, access: Access) -> Result<u64, Fault> {
        if self.cr0 & CR0_PG == 0 {
            return Ok(linear & 0xffff_ffff);
        }
        if self.efer & EFER_LMA != 0 {
            if self.cr4 & CR4_LA57 != 0 {
                return Err(Fault::Unknown("five-level paging"));
            }
            if (linear as i64) << 16 >> 16 != linear as i64 {
                return Err(Fault::Exception(super::GENERAL_PROTECTION, Some(0)));
            }
            return self.walk(self.cr3 & ADDRESS, &LONG, 8, linear, access, WRITABLE | USER);
        }
        let linear = linear & 0xffff_ffff;
        if self.cr4 & CR4_PAE != 0 {
            let pointer = self.read((self.cr3 & 0xffff_ffe0) + (linear >> 30) * 8, 8)?;
            if pointer & PRESENT == 0 {
                return Err(self.fault(linear, access, 0));
            }
            return self.walk(pointer & ADDRESS, &PAE, 8, linear, access, WRITABLE | USER);
        }
        self.walk(self.cr3 & 0xffff_f000, &LEGACY, 4, linear, access, WRITABLE | USER)
    }

    fn read(&self, address: u64, size: u64) -> Result<u64, Fault> {
        let value = if size == 8 {
            self.memory.read_u64(address)
        } else {
            self.memory.read_u32(address).map(u64::from)
        };
        value.ok_or(Fault::Unknown("page tables outside RAM"))
    }

    fn fault(&self, address: u64, access: Access, present: u32) -> Fault {
        let fetch_is_told = self.efer & EFER_NXE != 0 || self.cr4 & CR4_SMEP != 0;
        let kind = if access == Access::FETCH && !fetch_is_told { 0 } else { access.0 };
        Fault::Page {
            address,
            error: present | kind | if self.user { 4 } else { 0 },
        }
    }

    fn walk(&self, root: u64, levels: &[Level], size: u64, linear: u64, access: Access, mut allowed: u64) -> Result<u64, Fault> {
        let mut table = root;
        let mut no_execute = false;
        for (depth, level) in levels.iter().enumerate() {
            let slot = table + (linear >> level.shift & ((1 << level.bits) - 1)) * size;
            let entry = self.read(slot, size)?;
            if entry & PRESENT == 0 {
                return Err(self.fault(linear, access, 0));
            }
            allowed &= entry;
            no_execute |= size == 8 && entry & NO_EXECUTE != 0 && self.efer & EFER_NXE != 0;
            let last = depth + 1 == levels.len();
            let large_allowed = level.leaf && (size == 8 || self.cr4 & CR4_PSE != 0);
            let leaf = last || (large_allowed && entry & LARGE != 0);
            if !leaf {
                self.mark(slot, entry, ACCESSED);
                table = if size == 8 { entry & ADDRESS } else { entry & 0xffff_f000 };
                continue;
            }
            if !self.permits(allowed, no_execute, access) {
                return Err(self.fault(linear, access, 1));
            }
            self.mark(slot, entry, if access == Access::WRITE { ACCESSED | DIRTY } else { ACCESSED });
            let offset = (1u64 << level.shift) - 1;
            // A 4 MiB page has bits 32 to 39 of its address in bits 13 to 20 (PSE-36).
            let base = if size == 4 && !last {
                entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32
            } else {
                entry & ADDRESS
            };
            return Ok(base & !offset | linear & offset);
        }
        Err(Fault::Unknown("page tables without a last level"))
    }

    fn permits(&self, allowed: u64, no_execute: bool, access: Access) -> bool {
        let user_page = allowed & USER != 0;
        if self.user {
            return user_page && (access != Access::WRITE || allowed & WRITABLE != 0) && (access != Access::FETCH || !no_execute);
        }
        match access {
            Access::FETCH => {
                let kept_out = user_page && self.cr4 & CR4_SMEP != 0;
                !no_execute && !kept_out
            }
            Access::WRITE => (allowed & WRITABLE != 0 || self.cr0 & CR0_WP == 0) && !(user_page && self.smap),
            _ => !(user_page && self.smap),
        }
    }

    /// Sets accessed and dirty bits: both are in the entry's first byte.
    fn mark(&self, slot: u64, entry: u64, bits: u64) {
        if entry & bits != bits {
            let _ = self.memory.write_slice(slot, &[(entry | bits) as u8]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::registers::tests::blank;
    use crate::memory::tests::ram;
    use proptest::prelude::*;
    use std::boxed::Box;

    fn long_mode() -> Box<VcpuState> {
        let mut state = blank();
        state.cr0 = CR0_PG | CR0_WP | 1;
        state.cr3 = 0x1000;
        state.cr4 = CR4_PAE;
        state.efer = EFER_LMA | EFER_NXE;
        state
    }

    fn put(memory: &GuestMemory, address: u64, entry: u64) {
        memory.write_slice(address, &entry.to_le_bytes()).unwrap();
    }

    /// Maps 0 to 2 MiB by a 4 KiB page at linear 0x3000, and 1 GiB as a large page.
    fn tables() -> GuestMemory {
        let memory = ram(&[0x10000]);
        put(&memory, 0x1000, 0x2007);
        put(&memory, 0x2000, 0x3007);
        put(&memory, 0x2008, 0x4000_0000 | LARGE | 3);
        put(&memory, 0x3000, 0x4007);
        put(&memory, 0x4018, 0x9000 | NO_EXECUTE | 1);
        memory
    }

    #[test]
    fn four_levels() {
        let memory = tables();
        let state = long_mode();
        let walker = Walker::new(&state, &memory);
        assert_eq!(walker.translate(0x3123, Access::READ), Ok(0x9123));
        assert_eq!(memory.read_u64(0x4018), Some(0x9000 | NO_EXECUTE | ACCESSED | 1));
        assert_eq!(
            walker.translate(0x3123, Access::WRITE),
            Err(Fault::Page { address: 0x3123, error: 3 })
        );
        assert_eq!(
            walker.translate(0x3123, Access::FETCH),
            Err(Fault::Page {
                address: 0x3123,
                error: 17
            })
        );
        assert_eq!(
            walker.translate(0x4000, Access::READ),
            Err(Fault::Page { address: 0x4000, error: 0 })
        );
        assert_eq!(walker.translate(0x4234_5678, Access::WRITE), Ok(0x4234_5678), "1 GiB page");
        assert_eq!(
            walker.translate(0x8000_0000_0000, Access::READ),
            Err(Fault::Exception(13, Some(0))),
            "not canonical"
        );
    }

    #[test]
    fn privileges() {
        let memory = tables();
        let mut state = long_mode();
        state.segments[segment::SS].attributes = 3 << 5;
        let fault = Walker::new(&state, &memory).translate(0x3000, Access::READ);
        assert_eq!(fault, Err(Fault::Page { address: 0x3000, error: 5 }), "supervisor page");
        put(&memory, 0x4018, 0x9007);
        assert_eq!(Walker::new(&state, &memory).translate(0x3000, Access::WRITE), Ok(0x9000));
        state.segments[segment::SS].attributes = 0;
        state.cr4 |= CR4_SMAP | CR4_SMEP;
        assert!(Walker::new(&state, &memory).translate(0x3000, Access::READ).is_err(), "SMAP");
        assert!(Walker::new(&state, &memory).translate(0x3000, Access::FETCH).is_err(), "SMEP");
        state.rflags = RFLAGS_AC;
        assert_eq!(Walker::new(&state, &memory).translate(0x3000, Access::READ), Ok(0x9000));
    }

    #[test]
    fn pae_and_legacy() {
        let memory = ram(&[0x10000]);
        let mut state = blank();
        state.cr0 = CR0_PG | 1;
        state.cr3 = 0x1020;
        state.cr4 = CR4_PAE;
        put(&memory, 0x1020 + 8, 0x2001);
        put(&memory, 0x2000, 0x60_0000 | LARGE | 3);
        assert_eq!(Walker::new(&state, &memory).translate(0x4000_1234, Access::WRITE), Ok(0x60_1234));
        state.cr3 = 0x3000;
        state.cr4 = CR4_PSE;
        memory.write_u32(0x3000 + 4, 0x4003).unwrap();
        memory.write_u32(0x4000 + 4, 0x7003).unwrap();
        memory.write_u32(0x3000 + 8, 0x0080_0083).unwrap();
        assert_eq!(Walker::new(&state, &memory).translate(0x40_1abc, Access::READ), Ok(0x7abc));
        assert_eq!(Walker::new(&state, &memory).translate(0x81_2345, Access::READ), Ok(0x81_2345));
    }

    #[test]
    fn without_paging() {
        let memory = ram(&[4096]);
        assert_eq!(Walker::new(&blank(), &memory).translate(0x1_0000_0010, Access::WRITE), Ok(0x10));
    }

    proptest! {
        #[test]
        fn hostile_tables(cr0: u64, cr3: u64, cr4: u64, efer: u64, linear: u64, fill in prop::collection::vec(any::<u64>(), 64)) {
            let memory = ram(&[0x4000]);
            for (i, entry) in (0u64..0x4000).step_by(8).zip(fill.iter().cycle()) {
                put(&memory, i, entry & 0x8000_0000_0000_3fff);
            }
            let mut state = blank();
            (state.cr0, state.cr3, state.cr4, state.efer) = (cr0, cr3 & 0x3fff, cr4, efer);
            for access in [Access::READ, Access::WRITE, Access::FETCH] {
                let _ = Walker::new(&state, &memory).translate(linear, access);
            }
        }
    }
}
