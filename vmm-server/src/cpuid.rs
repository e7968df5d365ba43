//! What a guest sees with `cpuid`: the host's answers, cut to what is really virtualised (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E; Linux, Documentation/virt/kvm/x86/cpuid.rst).
//!
//! The policy is a list of what is let through, so that a feature of tomorrow's processors stays hidden until somebody has thought about it.

use crate::apic::lapic::TIMER_KHZ;
use heapless::Vec;

/// EAX, EBX, ECX, EDX.
pub type Registers = [u32; 4];

/// Most entries of the table.
const MAX_ENTRIES: usize = 48;
/// Highest basic leaf that is offered.
const LAST_BASIC: u32 = 0xd;
/// First leaf of the hypervisor's own.
const HYPERVISOR: u32 = 0x4000_0000;
const LAST_HYPERVISOR: u32 = 0x4000_0010;
/// Highest extended leaf that is offered.
const LAST_EXTENDED: u32 = 0x8000_0008;

/// Leaf 1 ECX: SSE3, PCLMULQDQ, SSSE3, FMA, CX16, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE, AVX, F16C, RDRAND.
const LEAF_1_ECX: u32 =
    1 | 1 << 1 | 1 << 9 | 1 << 12 | 1 << 13 | 1 << 17 | 1 << 19 | 1 << 20 | 1 << 22 | 1 << 23 | 1 << 25 | XSAVE | AVX | 1 << 29 | 1 << 30;
const XSAVE: u32 = 1 << 26;
const OSXSAVE: u32 = 1 << 27;
const AVX: u32 = 1 << 28;
/// Those of them that need AVX state: FMA, AVX, F16C.
const LEAF_1_ECX_AVX: u32 = 1 << 12 | AVX | 1 << 29;
const X2APIC: u32 = 1 << 21;
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR_PRESENT: u32 = 1 << 31;
/// Leaf 1 EDX: all that has been there since the Pentium 4 but PSN, DS, ACPI, thermal monitor, PBE. HTT is computed.
const LEAF_1_EDX: u32 = 0x078b_fbff;
const APIC: u32 = 1 << 9;
const HTT: u32 = 1 << 28;
/// Leaf 7 EBX: FSGSBASE, BMI1, AVX2, SMEP, BMI2, ERMS, INVPCID, RDSEED, ADX, SMAP, CLFLUSHOPT, CLWB, SHA.
const LEAF_7_EBX: u32 = 1 | 1 << 3 | AVX2 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 23 | 1 << 24 | 1 << 29;
const AVX2: u32 = 1 << 5;
const TSC_ADJUST: u32 = 1 << 1;
/// Leaf 7 ECX: UMIP, GFNI, VAES, VPCLMULQDQ, RDPID.
const LEAF_7_ECX: u32 = 1 << 2 | 1 << 8 | LEAF_7_ECX_AVX | 1 << 22;
const LEAF_7_ECX_AVX: u32 = 1 << 9 | 1 << 10;
/// Leaf 7 EDX: FSRM, SERIALIZE.
const LEAF_7_EDX: u32 = 1 << 4 | 1 << 14;
/// Leaf 0x80000001 ECX: LAHF in long mode, CR8 in legacy mode, ABM, SSE4A, misaligned SSE, PREFETCHW.
const EXTENDED_ECX: u32 = 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8;
const CMP_LEGACY: u32 = 1 << 1;
/// Leaf 0x80000001 EDX on Intel: SYSCALL, NX, 1 GiB pages, RDTSCP, long mode; AMD repeats leaf 1 there and adds MMXEXT and FXSR_OPT.
const EXTENDED_EDX: u32 = 1 << 11 | 1 << 20 | 1 << 26 | 1 << 27 | 1 << 29;
const EXTENDED_EDX_AMD: u32 = 0x0183_f3ff | 1 << 22 | 1 << 25;
/// KVM features: no I/O delay, clock, clock by its new MSRs, paravirtual end of interrupt, stable clock.
const KVM_FEATURES: u32 = 1 | 1 << 1 | 1 << 3 | 1 << 6 | 1 << 24;
/// XSAVE components x87, SSE, AVX.
const XCR0_AVX: u64 = 4;
/// Bytes of the legacy area and header of an XSAVE area.
const XSAVE_BASE: u32 = 576;

/// What the table is made for.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Processors of the guest.
    pub vcpus: usize,
    /// TSC ticks per millisecond.
    pub tsc_khz: u32,
    /// XCR0 bits that the kernel switches for guests; 0: no XSAVE.
    pub xcr0: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    registers: Registers,
    /// The next entry is this leaf's next subleaf.
    more: bool,
}

/// A guest's answers. Looking one up takes no search: this is on the way of an exit.
#[derive(Clone, Debug)]
pub struct CpuidTable {
    entries: Vec<Entry, MAX_ENTRIES>,
    /// Index of a leaf's first entry, by leaf number of each range.
    basic: [u8; LAST_BASIC as usize + 1],
    hypervisor: [u8; (LAST_HYPERVISOR - HYPERVISOR) as usize + 1],
    extended: [u8; (LAST_EXTENDED - 0x8000_0000) as usize + 1],
    xcr0: u64,
    avx: (u32, u32),
}

/// What differs between processors or changes while they run.
#[derive(Clone, Copy, Debug)]
pub struct Current {
    /// APIC identity.
    pub id: u32,
    /// CR4.OSXSAVE.
    pub osxsave: bool,
    /// XCR0.
    pub xcr0: u64,
}

impl CpuidTable {
    /// Makes the table from the host's answers.
    #[must_use]
    pub fn new(policy: &Policy, host: impl Fn(u32, u32) -> Registers) -> Self {
        let mut table = Self {
            entries: Vec::new(),
            basic: [0; _],
            hypervisor: [0; _],
            extended: [0; _],
            xcr0: policy.xcr0,
            avx: (0, 0),
        };
        // Entry 0: all zeros, for leaves that are empty.
        table.push([0; 4], false);
        let builder = Builder {
            policy,
            amd: is_amd(&host(0, 0)),
            last: host(0, 0)[0],
            host: &host,
        };
        for leaf in 0..=LAST_BASIC {
            table.basic[leaf as usize] = table.add(&builder, leaf);
        }
        for (i, leaf) in (HYPERVISOR..=LAST_HYPERVISOR).enumerate() {
            table.hypervisor[i] = table.add(&builder, leaf);
        }
        for (i, leaf) in (0x8000_0000..=LAST_EXTENDED).enumerate() {
            table.extended[i] = table.add(&builder, leaf);
        }
        let avx = host(0xd, 2);
        table.avx = (avx[0], avx[1]);
        table
    }

    fn push(&mut self, registers: Registers, more: bool) -> u8 {
        let index = self.entries.len() as u8;
        // The table is sized for all leaves there are; one too many would answer zeros.
        if self.entries.push(Entry { registers, more }).is_err() {
            0
        } else {
            index
        }
    }

    fn add<H: Fn(u32, u32) -> Registers>(&mut self, builder: &Builder<'_, H>, leaf: u32) -> u8 {
        let count = builder.subleaves(leaf);
        let mut first = 0;
        for subleaf in 0..count {
            let registers = builder.answer(leaf, subleaf);
            if count == 1 && registers == [0; 4] {
                return 0;
            }
            let index = self.push(registers, subleaf + 1 < count);
            if subleaf == 0 {
                first = index;
            }
        }
        first
    }

    /// The answer to `cpuid` with these EAX and ECX.
    #[inline]
    #[must_use]
    pub fn answer(&self, leaf: u32, subleaf: u32, current: &Current) -> Registers {
        let index = if leaf <= LAST_BASIC {
            self.basic[leaf as usize]
        } else if leaf.wrapping_sub(HYPERVISOR) <= LAST_HYPERVISOR - HYPERVISOR {
            self.hypervisor[(leaf - HYPERVISOR) as usize]
        } else if leaf.wrapping_sub(0x8000_0000) <= LAST_EXTENDED - 0x8000_0000 {
            self.extended[(leaf - 0x8000_0000) as usize]
        } else {
            // Beyond the last leaf AMD answers zeros, and nobody relies on Intel's repetition of the last basic leaf.
            0
        };
        let mut entry = self.entries[usize::from(index)];
        match leaf {
            1 => {
                entry.registers[1] |= current.id << 24;
                if current.osxsave {
                    entry.registers[2] |= OSXSAVE;
                }
            }
            4 | 7 | 0xb | 0xd => self.with_subleaf(&mut entry, index, leaf, subleaf, current),
            _ => {}
        }
        entry.registers
    }

    /// Whether the answer depends on CR4 or XCR0.
    #[inline]
    #[must_use]
    pub const fn depends_on_control_registers(leaf: u32) -> bool {
        leaf == 1
    }

    #[cold]
    fn with_subleaf(&self, entry: &mut Entry, first: u8, leaf: u32, subleaf: u32, current: &Current) {
        let mut index = usize::from(first);
        for _ in 0..subleaf {
            if !self.entries[index].more {
                *entry = Entry::default();
                if leaf == 0xb {
                    entry.registers[2] = subleaf & 0xff;
                    entry.registers[3] = current.id;
                }
                return;
            }
            index += 1;
        }
        *entry = self.entries[index];
        match leaf {
            0xb => entry.registers[3] = current.id,
            0xd if subleaf <= 1 && self.xcr0 != 0 => {
                let size = self.xsave_size(current.xcr0);
                if subleaf == 0 || entry.registers[0] & 2 != 0 {
                    entry.registers[1] = size;
                }
            }
            _ => (),
        }
    }

    fn xsave_size(&self, xcr0: u64) -> u32 {
        if xcr0 & XCR0_AVX != 0 {
            self.avx.0.saturating_add(self.avx.1).max(XSAVE_BASE)
        } else {
            XSAVE_BASE
        }
    }

    /// Whether `value` can be loaded into XCR0 (SDM volume 1, 13.3).
    #[must_use]
    pub const fn allows_xcr0(&self, value: u64) -> bool {
        value & !self.xcr0 == 0 && value & 1 != 0 && (value & XCR0_AVX == 0 || value & 2 != 0)
    }
}

fn is_amd(vendor: &Registers) -> bool {
    // "AuthenticAMD" or "HygonGenuine".
    vendor[1] == u32::from_le_bytes(*b"Auth") || vendor[1] == u32::from_le_bytes(*b"Hygo")
}

struct Builder<'a, H> {
    policy: &'a Policy,
    amd: bool,
    last: u32,
    host: &'a H,
}

impl<H: Fn(u32, u32) -> Registers> Builder<'_, H> {
    fn host(&self, leaf: u32, subleaf: u32) -> Registers {
        if leaf < HYPERVISOR && leaf > self.last {
            [0; 4]
        } else {
            (self.host)(leaf, subleaf)
        }
    }

    fn has_avx(&self) -> bool {
        self.policy.xcr0 & XCR0_AVX != 0
    }

    /// Bits that hold a number below the number of vCPUs.
    fn id_bits(&self) -> u32 {
        (self.policy.vcpus as u32).next_power_of_two().trailing_zeros()
    }

    fn subleaves(&self, leaf: u32) -> u32 {
        match leaf {
            4 if !self.amd => (0..8).find(|&subleaf| self.host(4, subleaf)[0] & 0x1f == 0).unwrap_or(8).max(1),
            0xb => 2,
            0xd if self.has_avx() => 3,
            0xd => 2,
            _ => 1,
        }
    }

    fn answer(&self, leaf: u32, subleaf: u32) -> Registers {
        let vcpus = self.policy.vcpus as u32;
        let host = self.host(leaf, subleaf);
        let [eax, ebx, ecx, edx] = host;
        match leaf {
            0 => [LAST_BASIC, ebx, ecx, edx],
            1 => self.features(host),
            2 if !self.amd => host,
            4 if !self.amd => {
                // Caches of level 1 and 2 belong to one processor, others to all.
                let sharing = if eax >> 5 & 7 >= 3 { vcpus - 1 } else { 0 };
                [eax & 0x3ff | sharing << 14 | (vcpus - 1) << 26, ebx, ecx, edx]
            }
            // The APIC timer runs in all states.
            6 => [1 << 2, 0, 0, 0],
            7 => {
                let avx = if self.has_avx() { !0 } else { !AVX2 };
                let avx_ecx = if self.has_avx() { !0 } else { !LEAF_7_ECX_AVX };
                [0, ebx & LEAF_7_EBX & avx | TSC_ADJUST, ecx & LEAF_7_ECX & avx_ecx, edx & LEAF_7_EDX]
            }
            0xb => match subleaf {
                0 => [0, 1, 1 << 8, 0],
                _ => [self.id_bits(), vcpus, 2 << 8 | 1, 0],
            },
            0xd => self.extended_state(subleaf, host),
            HYPERVISOR => [
                LAST_HYPERVISOR,
                u32::from_le_bytes(*b"KVMK"),
                u32::from_le_bytes(*b"VMKV"),
                u32::from_le_bytes(*b"M\0\0\0"),
            ],
            0x4000_0001 => [KVM_FEATURES, 0, 0, 0],
            LAST_HYPERVISOR => [self.policy.tsc_khz, TIMER_KHZ, 0, 0],
            0x8000_0000 => [LAST_EXTENDED, ebx, ecx, edx],
            0x8000_0001 => {
                let cores = if self.amd && vcpus > 1 { CMP_LEGACY } else { 0 };
                let edx_mask = EXTENDED_EDX | if self.amd { EXTENDED_EDX_AMD } else { 0 };
                [eax, 0, ecx & EXTENDED_ECX | cores, edx & edx_mask]
            }
            0x8000_0002..=0x8000_0004 => host,
            0x8000_0005 | 0x8000_0006 => host,
            // The TSC is invariant if the host's is.
            0x8000_0007 => [0, 0, 0, edx & 1 << 8],
            LAST_EXTENDED => {
                let cores = if self.amd { self.id_bits() << 12 | (vcpus - 1) } else { 0 };
                [eax & 0xffff, 0, cores, 0]
            }
            _ => [0; 4],
        }
    }

    fn features(&self, [eax, ebx, ecx, edx]: Registers) -> Registers {
        let vcpus = self.policy.vcpus as u32;
        let mut ecx = ecx & LEAF_1_ECX;
        if self.policy.xcr0 == 0 {
            ecx &= !XSAVE;
        }
        if !self.has_avx() {
            ecx &= !LEAF_1_ECX_AVX;
        }
        ecx |= X2APIC | TSC_DEADLINE | HYPERVISOR_PRESENT;
        let edx = edx & LEAF_1_EDX | APIC | if vcpus > 1 { HTT } else { 0 };
        [eax, ebx & 0xff00 | (1 << self.id_bits()) << 16, ecx, edx]
    }

    fn extended_state(&self, subleaf: u32, [eax, ebx, ..]: Registers) -> Registers {
        if self.policy.xcr0 == 0 {
            return [0; 4];
        }
        match subleaf {
            0 => {
                let avx = self.host(0xd, 2);
                let size = if self.has_avx() {
                    avx[0].saturating_add(avx[1]).max(XSAVE_BASE)
                } else {
                    XSAVE_BASE
                };
                [self.policy.xcr0 as u32, size, size, (self.policy.xcr0 >> 32) as u32]
            }
            // XSAVEOPT only: the compacted form would need sizes that follow XSS.
            1 => [eax & 1, 0, 0, 0],
            _ => [eax, ebx, 0, 0],
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A processor that claims everything.
    pub(crate) fn everything(leaf: u32, _subleaf: u32) -> Registers {
        match leaf {
            0 => [
                0x1f,
                u32::from_le_bytes(*b"Auth"),
                u32::from_le_bytes(*b"cAMD"),
                u32::from_le_bytes(*b"enti"),
            ],
            0xd => [256, 576, u32::MAX, u32::MAX],
            0x8000_0000 => [0x8000_001f, 0, 0, 0],
            _ => [u32::MAX; 4],
        }
    }

    const POLICY: Policy = Policy {
        vcpus: 4,
        tsc_khz: 2_000_000,
        xcr0: 7,
    };
    const CURRENT: Current = Current {
        id: 2,
        osxsave: false,
        xcr0: 1,
    };

    fn ask(table: &CpuidTable, leaf: u32, subleaf: u32) -> Registers {
        table.answer(leaf, subleaf, &CURRENT)
    }

    #[test]
    fn hides_what_is_not_virtualised() {
        let table = CpuidTable::new(&POLICY, everything);
        let one = ask(&table, 1, 0);
        for (bit, what) in [(3, "MONITOR"), (5, "VMX"), (6, "SMX"), (15, "PDCM"), (18, "DCA")] {
            assert_eq!(one[2] >> bit & 1, 0, "{what}");
        }
        assert_eq!(ask(&table, 0x8000_0001, 0)[2] >> 2 & 1, 0, "SVM");
        assert_eq!(ask(&table, 0xa, 0), [0; 4], "performance counters");
        assert_eq!(ask(&table, 0x15, 0), [0; 4], "TSC and crystal clock");
        assert_eq!(ask(&table, 0x8000_000a, 0), [0; 4], "SVM features");
        assert_eq!(ask(&table, 7, 0)[1] & 0xdc23_0000, 0, "AVX-512");
    }

    #[test]
    fn offers_what_is_modelled() {
        // Even on a host that has none of it.
        let table = CpuidTable::new(&POLICY, |leaf, _| if leaf == 0 { [1, 0, 0, 0] } else { [0; 4] });
        let one = ask(&table, 1, 0);
        assert_eq!(one[2], X2APIC | TSC_DEADLINE | HYPERVISOR_PRESENT);
        assert_eq!(one[3], APIC | HTT);
        assert_eq!(one[1] >> 24, 2);
        assert_eq!(ask(&table, 0x4000_0000, 0)[1].to_le_bytes(), *b"KVMK");
        assert_eq!(ask(&table, 0x4000_0010, 0)[0], 2_000_000);
    }

    #[test]
    fn topology_is_one_package_of_single_threaded_cores() {
        for (vcpus, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (8, 3)] {
            let table = CpuidTable::new(&Policy { vcpus, ..POLICY }, everything);
            assert_eq!(ask(&table, 0xb, 0), [0, 1, 0x100, 2]);
            assert_eq!(ask(&table, 0xb, 1), [bits, vcpus as u32, 0x201, 2]);
            assert_eq!(ask(&table, 0xb, 2), [0, 0, 2, 2]);
            assert_eq!(ask(&table, 1, 0)[1] >> 16 & 0xff, 1 << bits);
            assert_eq!(ask(&table, 0x8000_0008, 0)[2], bits << 12 | (vcpus as u32 - 1));
        }
    }

    #[test]
    fn extended_state_is_consistent() {
        let table = CpuidTable::new(&POLICY, everything);
        assert_eq!(ask(&table, 0xd, 0), [7, 576, 832, 0]);
        assert_eq!(table.answer(0xd, 0, &Current { xcr0: 7, ..CURRENT })[1], 832);
        assert_eq!(ask(&table, 0xd, 2), [256, 576, 0, 0]);
        assert_eq!(ask(&table, 0xd, 9), [0; 4], "protection keys");
        let table = CpuidTable::new(&Policy { xcr0: 3, ..POLICY }, everything);
        assert_eq!(ask(&table, 1, 0)[2] & LEAF_1_ECX_AVX, 0);
        assert_eq!(ask(&table, 7, 0)[1] & AVX2, 0);
        assert_eq!(ask(&table, 0xd, 0)[2], 576);
        let table = CpuidTable::new(&Policy { xcr0: 0, ..POLICY }, everything);
        assert_eq!(ask(&table, 1, 0)[2] & XSAVE, 0);
        assert_eq!(ask(&table, 0xd, 0), [0; 4]);
    }

    #[test]
    fn xcr0_values() {
        let table = CpuidTable::new(&POLICY, everything);
        assert!(table.allows_xcr0(7) && table.allows_xcr0(1) && table.allows_xcr0(3));
        assert!(!table.allows_xcr0(0) && !table.allows_xcr0(5) && !table.allows_xcr0(2) && !table.allows_xcr0(1 << 9 | 7));
    }

    #[test]
    fn osxsave_follows_cr4() {
        let table = CpuidTable::new(&POLICY, everything);
        assert_eq!(ask(&table, 1, 0)[2] & OSXSAVE, 0);
        assert_ne!(table.answer(1, 0, &Current { osxsave: true, ..CURRENT })[2] & OSXSAVE, 0);
    }

    proptest! {
        #[test]
        fn any_leaf_of_any_host(leaf: u32, subleaf: u32, low in 0u32..0x20, answers: [u32; 4], vcpus in 1usize..=8) {
            let host = move |_: u32, subleaf: u32| answers.map(|word| word.rotate_left(subleaf));
            let table = CpuidTable::new(&Policy { vcpus, tsc_khz: 1, xcr0: 7 }, host);
            for leaf in [leaf, low, 0x4000_0000 + low, 0x8000_0000 + low] {
                let _ = table.answer(leaf, subleaf, &CURRENT);
                let _ = table.answer(leaf, low, &CURRENT);
            }
            prop_assert!(table.entries.len() < MAX_ENTRIES);
        }
    }
}
