//! The firmware's memory map, sorted out: what is RAM, what is free, where devices may be.

use crate::acpi::Machine;
use crate::multiboot2::{MemoryEntry, MemoryKind};
use crate::regions::{Region, RegionSet};

/// The end of what 32 bits reach; the direct map has everything below.
pub const FOUR_GIB: u64 = 4 << 30;
/// The end of what real mode reaches; none of it is given out.
pub const ONE_MIB: u64 = 1 << 20;
/// The direct map has no room for physical addresses from here on.
pub const PHYS_LIMIT: u64 = 1 << 46;
/// Device memory is handed out up to here.
pub const DEVICE_LIMIT: u64 = 1 << 40;
/// Where a panic's record is kept: the last page below the kernel's image, which boot loaders and firmware leave alone on the way back here (tried with GRUB on SeaBIOS and OVMF).
pub const RECORD_PAGE: u64 = 0x1f_f000;

const PAGE: u64 = tessera_abi::PAGE_SIZE as u64;
const HUGE: u64 = 1 << 30;
/// Where the display adapter's memory begins on every PC; below is RAM or the BIOS's.
const ISA_DEVICES: u64 = 0xa_0000;

/// The firmware's memory map, sorted out.
pub struct MemoryMap {
    /// RAM that nothing uses yet; empty once the allocator has it.
    pub free: RegionSet,
    ram: RegionSet,
    cached: RegionSet,
    /// Everything that the firmware named.
    known: RegionSet,
    /// RAM in bytes.
    pub ram_bytes: u64,
    /// Where the panic record is, if that is RAM that nothing else uses.
    pub record_page: Option<u64>,
}

impl MemoryMap {
    /// Sorts the entries. Where they overlap, what is not available wins. `image` and `bundle` are in use.
    #[must_use]
    #[inline(never)]
    pub fn new(entries: &[MemoryEntry], image: Region, bundle: Region) -> Self {
        let [mut ram, mut cached, mut known] = [const { RegionSet::new() }; 3];
        let all = Region { base: 0, end: PHYS_LIMIT };
        for entry in entries.iter().filter(|entry| entry.kind == MemoryKind::Available) {
            ram.add(Region::with_length(entry.base, entry.length).intersection(all));
        }
        for entry in entries {
            let region = Region::with_length(entry.base, entry.length).intersection(all);
            known.add(region);
            if entry.kind != MemoryKind::Available {
                ram.subtract(region.grown_to(PAGE));
            }
            if entry.kind != MemoryKind::Reserved {
                cached.add(region);
            }
        }
        ram.shrink_to_pages();
        let mut free = ram.clone();
        let low = Region { base: 0, end: ONE_MIB };
        for used in [low, image, bundle] {
            free.subtract(used.grown_to(PAGE));
        }
        let record = Region::with_length(RECORD_PAGE, PAGE);
        let record_page = free.contains(record).then_some(RECORD_PAGE);
        free.subtract(record);
        Self { ram_bytes: ram.total(), free, ram, cached, known, record_page }
    }

    /// Memory that may be cached: RAM and the firmware's tables.
    #[must_use]
    pub fn cached(&self) -> &RegionSet {
        &self.cached
    }

    /// Whether the firmware may have a table in `region`, and the kernel's direct map shows it: the first 4 GiB and cacheable memory.
    #[must_use]
    pub fn may_hold_table(&self, region: Region) -> bool {
        // Old BIOSes keep tables in their ROM, which the map need not name.
        let rom = Region { base: ISA_DEVICES, end: ONE_MIB };
        let named = self.known.contains(region) || region.intersection(rom) == region;
        named && (region.end <= FOUR_GIB || self.cached.contains(region))
    }

    /// Where devices may be: what is not RAM below 4 GiB, and above RAM up to [`DEVICE_LIMIT`] or the processor's last address. The interrupt controllers are left
    /// out; they are the kernel's.
    #[must_use]
    #[inline(never)]
    pub fn device_regions(&self, machine: &Machine, physical_bits: u32) -> RegionSet {
        let mut devices = RegionSet::new();
        devices.add(Region { base: ISA_DEVICES, end: FOUR_GIB });
        let top = self.ram.as_slice().last().map_or(0, |region| region.end).max(FOUR_GIB);
        devices.add(Region { base: top.next_multiple_of(HUGE), end: DEVICE_LIMIT.min(1 << physical_bits) });
        for &region in self.ram.as_slice() {
            devices.subtract(region);
        }
        for address in machine.ioapics.iter().map(|ioapic| ioapic.address).chain([machine.local_apic]) {
            devices.subtract(Region::with_length(address, PAGE).grown_to(PAGE));
        }
        devices.shrink_to_pages();
        devices
    }

    /// A page below 1 MiB where a processor can start, which is RAM.
    #[must_use]
    pub fn trampoline_page(&self) -> Option<u64> {
        // The first pages hold the BIOS's data.
        self.ram.clone().take(PAGE, PAGE, Region { base: 0x8000, end: ISA_DEVICES })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acpi::IoApic;
    use proptest::prelude::*;

    const IMAGE: Region = Region { base: 0x20_0000, end: 0x24_5000 };

    fn entry(base: u64, end: u64, kind: MemoryKind) -> MemoryEntry {
        MemoryEntry { base, length: end - base, kind }
    }

    fn machine() -> Machine {
        let mut machine = Machine { local_apic: 0xfee0_0000, ..Machine::default() };
        machine.ioapics.push(IoApic { address: 0xfec0_0000, first_gsi: 0 }).unwrap();
        machine
    }

    /// The map of a PC with 5 GiB.
    fn pc() -> [MemoryEntry; 6] {
        use MemoryKind::{AcpiTables, Available, Reserved};
        [
            entry(0, 0x9_fc00, Available),
            entry(0x9_fc00, 0xa_0000, Reserved),
            entry(0xf_0000, 0x10_0000, Reserved),
            entry(0x10_0000, 0xbffd_f123, Available),
            entry(0xbffd_f123, 0xc000_0000, AcpiTables),
            entry(0x1_0000_0000, 0x1_8000_0000, Available),
        ]
    }

    #[test]
    fn sorts_a_pc() {
        let map = MemoryMap::new(&pc(), IMAGE, Region { base: 0x30_0000, end: 0x70_0000 });
        assert_eq!(
            map.free.as_slice(),
            [
                Region { base: 0x10_0000, end: RECORD_PAGE },
                Region { base: 0x24_5000, end: 0x30_0000 },
                Region { base: 0x70_0000, end: 0xbffd_f000 },
                Region { base: 0x1_0000_0000, end: 0x1_8000_0000 },
            ]
        );
        assert_eq!((map.record_page, map.trampoline_page()), (Some(RECORD_PAGE), Some(0x8000)));
        assert_eq!(
            map.device_regions(&machine(), 39).as_slice(),
            [
                Region { base: 0xa_0000, end: 0x10_0000 },
                Region { base: 0xbffd_f000, end: 0xfec0_0000 },
                Region { base: 0xfec0_1000, end: 0xfee0_0000 },
                Region { base: 0xfee0_1000, end: FOUR_GIB },
                Region { base: 0x1_8000_0000, end: 1 << 39 },
            ]
        );
    }

    #[test]
    fn a_bundle_over_the_record_wins() {
        let map = MemoryMap::new(&pc(), IMAGE, Region { base: 0x1f_0000, end: 0x20_0000 });
        assert_eq!(map.record_page, None);
        assert!(!map.free.overlaps(Region { base: 0x1f_0000, end: 0x20_0000 }));
    }

    #[test]
    fn tables_stand_in_named_memory() {
        let map = MemoryMap::new(&pc(), IMAGE, Region { base: 0x30_0000, end: 0x70_0000 });
        let table = |base, length| map.may_hold_table(Region::with_length(base, length));
        assert!(table(0xbffe_0000, 0x1000) && table(0xe_0000, 36) && table(0x1_0000_0000, 36));
        assert!(!table(0xc000_0000, 36) && !table(0xbfff_f000, 0x1001) && !table(0x9_ff00, 0x200) && !table(u64::MAX - 3, 36));
    }

    #[test]
    fn no_room_below_one_mebibyte() {
        let map = MemoryMap::new(&[entry(ONE_MIB, 1 << 30, MemoryKind::Available)], IMAGE, Region { base: 1 << 29, end: (1 << 29) + PAGE });
        assert_eq!(map.trampoline_page(), None);
    }

    fn kind() -> impl Strategy<Value = MemoryKind> {
        prop::sample::select(vec![
            MemoryKind::Available,
            MemoryKind::Available,
            MemoryKind::AcpiTables,
            MemoryKind::AcpiNvs,
            MemoryKind::Reserved,
        ])
    }

    proptest! {
        /// Whatever the firmware says: free memory is available in the map, nobody else's, and no device's.
        #[test]
        fn gives_only_what_is_free(
            entries in prop::collection::vec((0u64..1 << 34, 1u64..1 << 33, kind()), 0..20),
            bundle in 0u64..1 << 20,
        ) {
            let entries: Vec<_> = entries.into_iter().map(|(base, length, kind)| MemoryEntry { base, length, kind }).collect();
            let bundle = Region::with_length(bundle * PAGE, 0x30_0000);
            let map = MemoryMap::new(&entries, IMAGE, bundle);
            let devices = map.device_regions(&machine(), 36);
            let mut available = RegionSet::new();
            for entry in entries.iter().filter(|entry| entry.kind == MemoryKind::Available) {
                available.add(Region::with_length(entry.base, entry.length));
            }
            for &region in map.free.as_slice() {
                prop_assert!(region.base % PAGE == 0 && region.end % PAGE == 0);
                prop_assert!(available.contains(region) && !devices.overlaps(region));
                prop_assert!(!region.overlaps(IMAGE) && !region.overlaps(bundle) && region.base >= ONE_MIB);
                for entry in entries.iter().filter(|entry| entry.kind != MemoryKind::Available) {
                    prop_assert!(!region.overlaps(Region::with_length(entry.base, entry.length)));
                }
            }
            for controller in [0xfec0_0000, 0xfee0_0000] {
                prop_assert!(!devices.overlaps(Region::with_length(controller, PAGE)));
            }
            if let Some(page) = map.record_page {
                prop_assert!(!map.free.overlaps(Region::with_length(page, PAGE)) && !bundle.overlaps(Region::with_length(page, PAGE)));
            }
        }
    }
}
