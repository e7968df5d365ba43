//! VT-x's capabilities and the controls that follow from them (Intel SDM volume 3, appendix A).

use tessera_abi::virt::VirtFeatures;

/// Capability MSRs, each zero where the processor has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// IA32_VMX_BASIC.
    pub basic: u64,
    /// Pin-based controls: those that must be set in the lower half, those that may be in the upper.
    pub pin: u64,
    /// Primary processor-based controls.
    pub primary: u64,
    /// Secondary processor-based controls.
    pub secondary: u64,
    /// Exit controls.
    pub exit: u64,
    /// Entry controls.
    pub entry: u64,
    /// IA32_VMX_MISC.
    pub misc: u64,
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept_vpid: u64,
    /// Bits of CR4 that VMX operation demands, and those that it allows.
    pub cr4_fixed: [u64; 2],
}

/// What the controls of every virtual machine are, but for the windows that come and go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// What VMXON regions and VMCSs begin with.
    pub revision: u32,
    /// Pin-based.
    pub pin: u32,
    /// Primary processor-based.
    pub primary: u32,
    /// Secondary processor-based.
    pub secondary: u32,
    /// At exits.
    pub exit: u32,
    /// At entries, for a guest outside long mode.
    pub entry: u32,
    /// Flags of the extended-page-table pointer.
    pub ept_flags: u64,
    /// The preemption timer counts once in this many TSC ticks, as a power of two.
    pub timer_shift: u32,
    /// Bits of CR4 that a guest may set as far as the processor goes.
    pub cr4_allowed: u64,
    /// All that was found.
    pub found: VirtFeatures,
    /// What of it is used.
    pub used: VirtFeatures,
}

/// Primary control: exit at the interrupt window.
pub const INTERRUPT_WINDOW: u32 = 1 << 2;
/// Primary control: exit at the NMI window.
pub const NMI_WINDOW: u32 = 1 << 22;
/// Primary control: MOV from and to debug registers exits.
pub const MOV_DR: u32 = 1 << 23;
/// Entry control: the guest is in long mode.
pub const ENTRY_LONG_MODE: u32 = 1 << 9;

const PREEMPTION_TIMER: u32 = 1 << 6;
/// Pin-based control: the notification vector takes posted interrupts over instead of ending the guest's run. It demands the next.
const POSTED: u32 = 1 << 7;
/// Exit control: an external interrupt is acknowledged by the exit, which tells its vector.
const ACKNOWLEDGE: u32 = 1 << 15;
const SECONDARY: u32 = 1 << 31;
const VPID: u32 = 1 << 5;
const PAUSE_LOOP: u32 = 1 << 10;
/// Secondary control: the APIC's MSRs are the virtual-APIC page's, for a guest in x2APIC mode. Switched on and off.
pub const X2APIC_MODE: u32 = 1 << 4;
/// APIC-register virtualisation and virtual-interrupt delivery: used with [`X2APIC_MODE`] or not at all.
const DELIVERY: u32 = 1 << 8 | 1 << 9;

/// Pin-based controls that are needed.
const PIN: &[(u32, &str)] = &[(0, "no external-interrupt exits"), (3, "no NMI exits"), (5, "no virtual NMIs")];
/// Primary controls that are needed; windows are among them, though they are switched on only now and then.
const PRIMARY: &[(u32, &str)] = &[
    (2, "no interrupt-window exits"),
    (3, "no TSC offset"),
    (7, "no HLT exits"),
    (10, "no MWAIT exits"),
    (11, "no RDPMC exits"),
    (21, "no TPR shadow"),
    (22, "no NMI-window exits"),
    (23, "no MOV-DR exits"),
    (25, "no I/O bitmaps"),
    (28, "no MSR bitmaps"),
    (29, "no MONITOR exits"),
    (31, "no secondary controls, and so no EPT"),
];
/// CR3 and INVLPG exits, which older processors force.
const PRIMARY_FORBIDDEN: u32 = 1 << 15 | 1 << 16 | 1 << 9;
const SECONDARY_NEEDED: &[(u32, &str)] = &[(1, "no EPT"), (7, "no unrestricted guest")];
/// RDTSCP, VPID, WBINVD exits, PAUSE-loop exits, INVPCID.
const SECONDARY_WANTED: u32 = 1 << 3 | X2APIC_MODE | VPID | 1 << 6 | DELIVERY | PAUSE_LOOP | 1 << 12;
const EXIT: &[(u32, &str)] =
    &[(2, "no saving of DR7"), (9, "no 64-bit host"), (19, "no loading of PAT"), (20, "no saving of EFER"), (21, "no loading of EFER")];
const ENTRY: &[(u32, &str)] =
    &[(2, "no loading of DR7"), (9, "no 64-bit guests"), (14, "no loading of the guest's PAT"), (15, "no loading of the guest's EFER")];

/// A control word with what is needed, what is wanted where there is such a thing, and what the processor forces.
fn choose(capability: u64, needed: &[(u32, &'static str)], wanted: u32) -> Result<u32, &'static str> {
    let (forced, allowed) = (capability as u32, (capability >> 32) as u32);
    let mut value = forced | wanted & allowed;
    for (bit, missing) in needed {
        if allowed & 1 << bit == 0 {
            return Err(missing);
        }
        value |= 1 << bit;
    }
    Ok(value)
}

impl Capabilities {
    /// Reads them. `msr` reads one that exists.
    pub fn read(msr: impl Fn(u32) -> u64) -> Self {
        let basic = msr(0x480);
        // Where bit 55 is set, further MSRs say of more controls that they may be clear.
        let flexible = |plain: u32, index: u32| msr(if basic & 1 << 55 != 0 { 0x48d + index } else { plain });
        let primary = flexible(0x482, 1);
        let has = |capability: u64, bit: u32| capability >> 32 & 1 << bit != 0;
        let secondary = if has(primary, 31) { msr(0x48b) } else { 0 };
        let ept_vpid = if has(secondary, 1) || has(secondary, 5) { msr(0x48c) } else { 0 };
        Self {
            basic,
            pin: flexible(0x481, 0),
            primary,
            secondary,
            exit: flexible(0x483, 2),
            entry: flexible(0x484, 3),
            misc: msr(0x485),
            ept_vpid,
            cr4_fixed: [msr(0x488), msr(0x489)],
        }
    }

    /// The controls for guests on this processor.
    ///
    /// # Errors
    /// What is missing, in a line for the boot log.
    pub fn controls(&self) -> Result<Controls, &'static str> {
        let pin = choose(self.pin, PIN, PREEMPTION_TIMER | POSTED)?;
        let primary = choose(self.primary, PRIMARY, SECONDARY)?;
        if self.primary as u32 & PRIMARY_FORBIDDEN != 0 {
            return Err("CR3 accesses cannot be left to guests");
        }
        if self.primary as u32 & (INTERRUPT_WINDOW | NMI_WINDOW) != 0 {
            return Err("window exits cannot be switched off");
        }
        let secondary = choose(self.secondary, SECONDARY_NEEDED, SECONDARY_WANTED)?;
        let ept = |bit: u32| self.ept_vpid & 1 << bit != 0;
        for (bit, missing) in [
            (6, "no EPT of four levels"),
            (14, "no write-back EPT"),
            (16, "no EPT with 2 MiB pages"),
            (20, "no INVEPT"),
            (26, "no INVEPT of all"),
        ] {
            if !ept(bit) {
                return Err(missing);
            }
        }
        // Tags are handed out anew when they run out, for which all of them must be dropped at once.
        let tags = secondary & VPID != 0 && ept(32) && ept(42);
        let secondary = if tags { secondary } else { secondary & !VPID };
        let delivers = secondary & (X2APIC_MODE | DELIVERY) == X2APIC_MODE | DELIVERY;
        let secondary = secondary & !if delivers { X2APIC_MODE } else { X2APIC_MODE | DELIVERY };
        let exit = choose(self.exit, EXIT, ACKNOWLEDGE)?;
        let posts = delivers && pin & POSTED != 0 && exit & ACKNOWLEDGE != 0;
        let (pin, exit) = if posts { (pin, exit) } else { (pin & !POSTED, exit & !ACKNOWLEDGE | self.exit as u32 & ACKNOWLEDGE) };
        let found = self.found(tags);
        let mut delivery = if delivers { VirtFeatures::VIRTUAL_APIC | VirtFeatures::APIC_REGISTERS } else { VirtFeatures::empty() };
        delivery.set(VirtFeatures::POSTED_INTERRUPTS, posts);
        let used = found
            & (VirtFeatures::NESTED_PAGING
                | VirtFeatures::UNRESTRICTED_GUEST
                | VirtFeatures::TAGGED_TLB
                | VirtFeatures::HUGE_PAGES
                | VirtFeatures::ACCESSED_DIRTY
                | VirtFeatures::TPR_SHADOW
                | VirtFeatures::VIRTUAL_NMI
                | VirtFeatures::DEADLINE_TIMER
                | VirtFeatures::NEXT_RIP
                | VirtFeatures::PAUSE_FILTER
                | delivery);
        Ok(Controls {
            revision: self.basic as u32 & 0x7fff_ffff,
            pin,
            primary: primary & !(INTERRUPT_WINDOW | NMI_WINDOW),
            secondary,
            exit,
            entry: choose(self.entry, ENTRY, 0)? & !ENTRY_LONG_MODE,
            // Write-back, a walk of four levels, accessed and dirty flags.
            ept_flags: 6 | 3 << 3 | u64::from(ept(21)) << 6,
            timer_shift: (self.misc & 31) as u32,
            cr4_allowed: self.cr4_fixed[1],
            found,
            used,
        })
    }

    fn found(&self, tags: bool) -> VirtFeatures {
        let mut found = VirtFeatures::NEXT_RIP;
        let has = |capability: u64, bit: u32| capability >> 32 & 1 << bit != 0;
        for (there, feature) in [
            (has(self.secondary, 1), VirtFeatures::NESTED_PAGING),
            (has(self.secondary, 7), VirtFeatures::UNRESTRICTED_GUEST),
            (tags, VirtFeatures::TAGGED_TLB),
            (tags && self.ept_vpid & 1 << 41 != 0, VirtFeatures::FLUSH_BY_TAG),
            (self.ept_vpid & 1 << 17 != 0, VirtFeatures::HUGE_PAGES),
            (self.ept_vpid & 1 << 21 != 0, VirtFeatures::ACCESSED_DIRTY),
            (has(self.primary, 21), VirtFeatures::TPR_SHADOW),
            (has(self.pin, 5), VirtFeatures::VIRTUAL_NMI),
            (has(self.pin, 6), VirtFeatures::DEADLINE_TIMER),
            (has(self.secondary, 10), VirtFeatures::PAUSE_FILTER),
            (has(self.secondary, 9), VirtFeatures::VIRTUAL_APIC),
            (has(self.secondary, 8), VirtFeatures::APIC_REGISTERS),
            (has(self.pin, 7), VirtFeatures::POSTED_INTERRUPTS),
            (has(self.secondary, 25), VirtFeatures::TSC_SCALING),
            (has(self.secondary, 17), VirtFeatures::PAGE_LOG),
            (has(self.secondary, 22), VirtFeatures::MODE_BASED_EXECUTE),
        ] {
            found.set(feature, there);
        }
        found
    }
}

/// Fills the MSR bitmap (SDM volume 3, 25.6.9): all exit but `passed`. A bit each: reads of low and high numbers, writes of low and high.
pub fn fill_msr_map(map: &mut [u8; 0x1000], passed: impl Iterator<Item = u64>) {
    map.fill(0xff);
    for msr in passed {
        let bit = (msr & 0x1fff) as usize + if msr >= 0xc000_0000 { 0x2000 } else { 0 };
        for half in [0, 0x800] {
            map[half + bit / 8] &= !(1 << (bit % 8));
        }
    }
}

/// Leaves to a guest in x2APIC mode what the processor keeps of the APIC's registers: reading task priority, processor priority, ISR, TMR and IRR; writing task
/// priority and end of interrupt (SDM volume 3, 30.5).
pub fn pass_x2apic(map: &mut [u8; 0x1000]) {
    for msr in [0x808, 0x80a].into_iter().chain(0x810..=0x827) {
        map[msr / 8] &= !(1 << (msr % 8));
    }
    for msr in [0x808, 0x80b] {
        map[0x800 + msr / 8] &= !(1 << (msr % 8));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A processor that forces nothing and allows all.
    fn willing() -> Capabilities {
        let all = 0xffff_ffff << 32;
        Capabilities {
            basic: 1 << 55 | 4,
            pin: all,
            primary: all,
            secondary: all,
            exit: all,
            entry: all,
            misc: 5,
            ept_vpid: u64::MAX,
            cr4_fixed: [1 << 13, 0x3767ff],
        }
    }

    #[test]
    fn a_willing_processor_gets_what_is_needed() {
        let controls = willing().controls().unwrap();
        assert_eq!((controls.revision, controls.timer_shift), (4, 5));
        assert_eq!(controls.primary & (INTERRUPT_WINDOW | NMI_WINDOW), 0);
        assert_eq!(controls.primary & PRIMARY_FORBIDDEN, 0);
        assert_eq!(controls.entry & ENTRY_LONG_MODE, 0);
        assert_eq!(controls.ept_flags, 6 | 3 << 3 | 1 << 6);
        assert!(controls.found.contains(controls.used) && controls.used.contains(VirtFeatures::DEADLINE_TIMER));
        assert!(controls.used.contains(VirtFeatures::POSTED_INTERRUPTS));
    }

    #[test]
    fn names_what_is_missing() {
        let without = |change: fn(&mut Capabilities)| {
            let mut capabilities = willing();
            change(&mut capabilities);
            capabilities.controls().err()
        };
        assert_eq!(without(|c| c.secondary &= !(1 << 33)), Some("no EPT"));
        assert_eq!(without(|c| c.secondary &= !(1 << 39)), Some("no unrestricted guest"));
        assert_eq!(without(|c| c.pin &= !(1 << 37)), Some("no virtual NMIs"));
        assert_eq!(without(|c| c.primary &= !(1 << 63)), Some("no secondary controls, and so no EPT"));
        assert_eq!(without(|c| c.primary |= 1 << 15), Some("CR3 accesses cannot be left to guests"));
        assert_eq!(without(|c| c.ept_vpid &= !(1 << 14)), Some("no write-back EPT"));
        assert_eq!(without(|c| c.ept_vpid &= !(1 << 20)), Some("no INVEPT"));
        assert_eq!(without(|c| c.ept_vpid &= !(1 << 32)), None, "tags are not needed");
    }

    #[test]
    fn what_is_only_wanted_is_done_without() {
        let mut capabilities = willing();
        capabilities.pin &= !(1 << 38);
        capabilities.ept_vpid &= !(1 << 42 | 1 << 17 | 1 << 21);
        let controls = capabilities.controls().unwrap();
        assert_eq!((controls.pin & PREEMPTION_TIMER, controls.secondary & VPID), (0, 0));
        let lost = VirtFeatures::DEADLINE_TIMER | VirtFeatures::TAGGED_TLB | VirtFeatures::HUGE_PAGES | VirtFeatures::ACCESSED_DIRTY;
        assert!(!controls.used.intersects(lost));
        assert_eq!(controls.ept_flags, 6 | 3 << 3);
    }

    #[test]
    fn reads_the_flexible_registers_where_there_are_some_and_none_that_may_be_missing() {
        let plain = Capabilities::read(|msr| if (0x480..=0x489).contains(&msr) { 0 } else { panic!("{msr:#x} may not exist") });
        assert_eq!(plain.secondary, 0);
        let seen = core::cell::RefCell::new(std::vec::Vec::new());
        Capabilities::read(|msr| {
            seen.borrow_mut().push(msr);
            if msr == 0x480 { 1 << 55 } else { 0xffff_ffff << 32 }
        });
        let seen = seen.into_inner();
        assert!([0x48d, 0x48e, 0x48f, 0x490, 0x48b, 0x48c].iter().all(|msr| seen.contains(msr)) && !seen.contains(&0x482));
    }

    #[test]
    fn only_named_msrs_pass() {
        let mut map = [0; 0x1000];
        fill_msr_map(&mut map, [0x174, 0xc000_0101].into_iter());
        assert_eq!(map.iter().map(|byte| byte.count_zeros()).sum::<u32>(), 4);
        for (byte, bit) in [(0x174 / 8, 0x174 % 8), (0x400 + 0x101 / 8, 1), (0x800 + 0x174 / 8, 0x174 % 8), (0xc00 + 0x101 / 8, 1)] {
            assert_eq!(map[byte] >> bit & 1, 0);
        }
    }

    #[test]
    fn interrupts_are_left_to_a_processor_that_can_do_all_of_it() {
        let delivery = VirtFeatures::VIRTUAL_APIC | VirtFeatures::APIC_REGISTERS;
        let controls = willing().controls().unwrap();
        assert_eq!(controls.secondary & (X2APIC_MODE | DELIVERY), DELIVERY, "the mode is the guest's");
        assert!(controls.used.contains(delivery));
        for bit in [4, 8, 9] {
            let mut capabilities = willing();
            capabilities.secondary &= !(1 << (32 + bit));
            let controls = capabilities.controls().unwrap();
            assert_eq!(controls.secondary & (X2APIC_MODE | DELIVERY), 0);
            assert!(!controls.used.intersects(delivery));
        }
    }

    #[test]
    fn interrupts_are_posted_only_where_exits_can_acknowledge_and_the_processor_delivers() {
        let controls = willing().controls().unwrap();
        assert_eq!((controls.pin & POSTED, controls.exit & ACKNOWLEDGE), (POSTED, ACKNOWLEDGE));
        let changes: [fn(&mut Capabilities); 3] = [|c| c.pin &= !(1 << 39), |c| c.exit &= !(1 << 47), |c| c.secondary &= !(1 << 41)];
        for change in changes {
            let mut capabilities = willing();
            change(&mut capabilities);
            let controls = capabilities.controls().unwrap();
            assert_eq!((controls.pin & POSTED, controls.exit & ACKNOWLEDGE), (0, 0));
            assert!(!controls.used.contains(VirtFeatures::POSTED_INTERRUPTS));
        }
    }

    #[test]
    fn only_what_the_processor_keeps_of_the_apic_passes() {
        let mut map = [0xff; 0x1000];
        pass_x2apic(&mut map);
        assert_eq!(map.iter().map(|byte| byte.count_zeros()).sum::<u32>(), 26 + 2);
        let passes = |half: usize, msr: usize| map[half + msr / 8] >> (msr % 8) & 1 == 0;
        assert!(passes(0, 0x808) && passes(0, 0x827) && !passes(0, 0x828) && !passes(0, 0x80b) && !passes(0, 0x839));
        assert!(passes(0x800, 0x808) && passes(0x800, 0x80b) && !passes(0x800, 0x80a) && !passes(0x800, 0x830) && !passes(0x800, 0x83f));
    }

    proptest! {
        /// Whatever a processor says: no control is set that it forbids, none is clear that it forces, but for windows, which must not be forced.
        #[test]
        fn every_capability_is_honoured(words in prop::array::uniform7(any::<u64>()), allowed: bool) {
            let [pin, primary, secondary, exit, entry, ept_vpid, misc] = words;
            let any = Capabilities { basic: 0, pin, primary, secondary, exit, entry, misc, ept_vpid, cr4_fixed: [0; 2] };
            // Most of what is random is refused at once; half of it is made to allow more.
            let capabilities = if allowed {
                let open = |word: u64| word | 0xffff_ffff << 32;
                let primary = open(primary) & !u64::from(PRIMARY_FORBIDDEN | INTERRUPT_WINDOW | NMI_WINDOW);
                Capabilities { pin: open(pin), primary, secondary: open(secondary), exit: open(exit), entry: open(entry), ept_vpid: u64::MAX, ..any }
            } else {
                any
            };
            if let Ok(controls) = capabilities.controls() {
                for (capability, value, free) in [
                    (capabilities.pin, controls.pin, 0),
                    (capabilities.primary, controls.primary, 0),
                    (capabilities.secondary, controls.secondary, VPID | X2APIC_MODE | DELIVERY),
                    (capabilities.exit, controls.exit, 0),
                    (capabilities.entry, controls.entry, ENTRY_LONG_MODE),
                ] {
                    prop_assert_eq!(value & !((capability >> 32) as u32), value & capability as u32 & !((capability >> 32) as u32));
                    prop_assert_eq!(capability as u32 & !value & !free, 0);
                }
                prop_assert!(controls.found.contains(controls.used));
            } else {
                prop_assert!(!allowed);
            }
        }
    }
}
