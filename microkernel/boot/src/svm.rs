//! What AMD-V offers, from its CPUID leaves (AMD APM volume 3, appendix E.4.9). `leaf` gives a leaf's `[eax, ebx, ecx, edx]`, zero where the processor has none.

use tessera_abi::virt::VirtFeatures;

/// Whether the processor has AMD-V.
pub fn is_there(leaf: impl Fn(u32) -> [u32; 4]) -> bool {
    leaf(0x8000_0001)[2] & 1 << 2 != 0
}

/// What was found, what of it is used, and the number of address-space identifiers.
///
/// # Errors
/// What is missing, in a line for the boot log.
pub fn features(leaf: impl Fn(u32) -> [u32; 4]) -> Result<(VirtFeatures, VirtFeatures, u32), &'static str> {
    let [_, asids, _, edx] = leaf(0x8000_000a);
    // Address-space identifiers and the virtual TPR are part of the minimum, and nested tables have the flags of all page tables.
    let mut found = VirtFeatures::TAGGED_TLB | VirtFeatures::TPR_SHADOW | VirtFeatures::ACCESSED_DIRTY;
    for (bit, feature) in [
        (0, VirtFeatures::NESTED_PAGING),
        (3, VirtFeatures::NEXT_RIP),
        (4, VirtFeatures::TSC_SCALING),
        (5, VirtFeatures::CLEAN_BITS),
        (6, VirtFeatures::FLUSH_BY_TAG),
        (7, VirtFeatures::DECODE_ASSISTS),
        (10, VirtFeatures::PAUSE_FILTER),
        (12, VirtFeatures::PAUSE_THRESHOLD),
        (13, VirtFeatures::VIRTUAL_APIC),
        (15, VirtFeatures::VIRTUAL_VMLOAD),
        (16, VirtFeatures::VIRTUAL_GIF),
        (25, VirtFeatures::VIRTUAL_NMI),
    ] {
        found.set(feature, edx & 1 << bit != 0);
    }
    found.set(VirtFeatures::HUGE_PAGES, leaf(0x8000_0001)[3] & 1 << 26 != 0);
    if !found.contains(VirtFeatures::NESTED_PAGING) {
        return Err("AMD-V without nested paging");
    }
    if asids < 2 {
        return Err("AMD-V without address-space identifiers");
    }
    let used = VirtFeatures::NESTED_PAGING
        | VirtFeatures::TAGGED_TLB
        | VirtFeatures::TPR_SHADOW
        | VirtFeatures::ACCESSED_DIRTY
        | VirtFeatures::NEXT_RIP
        | VirtFeatures::CLEAN_BITS
        | VirtFeatures::DECODE_ASSISTS
        | VirtFeatures::PAUSE_FILTER
        | VirtFeatures::PAUSE_THRESHOLD
        | VirtFeatures::HUGE_PAGES;
    Ok((found, found & used, asids))
}

/// MSRs that VMLOAD and VMSAVE switch, so that guests can have them: SYSENTER_CS, _ESP, _EIP; STAR, LSTAR, CSTAR, SFMASK; FS_BASE, GS_BASE, KERNEL_GS_BASE.
pub const PASSED_MSRS: [u32; 10] =
    [0x174, 0x175, 0x176, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102];

/// Byte and lower bit of an MSR in the permission map: two bits each, read and write (APM volume 2, 15.11). `None` for MSRs outside the map, which always exit.
const fn msr_position(msr: u32) -> Option<(usize, u32)> {
    let (base, index) = match msr {
        0..=0x1fff => (0, msr),
        0xc000_0000..=0xc000_1fff => (0x800, msr - 0xc000_0000),
        0xc001_0000..=0xc001_1fff => (0x1000, msr - 0xc001_0000),
        _ => return None,
    };
    Some((base + index as usize / 4, index % 4 * 2))
}

/// Fills the MSR permission map.
pub fn fill_msr_map(map: &mut [u8; 0x2000]) {
    map.fill(0xff);
    for msr in PASSED_MSRS {
        if let Some((byte, bit)) = msr_position(msr) {
            map[byte] &= !(3 << bit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf_of(edx: u32, asids: u32) -> impl Fn(u32) -> [u32; 4] {
        move |number| match number {
            0x8000_0001 => [0, 0, 4, 0],
            0x8000_000a => [1, asids, 0, edx],
            _ => [0; 4],
        }
    }

    #[test]
    fn names_what_is_missing() {
        assert!(!is_there(|_| [0; 4]));
        assert!(is_there(leaf_of(1, 16)));
        assert_eq!(features(leaf_of(0, 16)), Err("AMD-V without nested paging"));
        assert_eq!(features(leaf_of(1, 1)), Err("AMD-V without address-space identifiers"));
    }

    #[test]
    fn uses_no_more_than_was_found() {
        let (found, used, asids) = features(leaf_of(1 | 1 << 3 | 1 << 13, 16)).unwrap();
        assert_eq!(asids, 16);
        assert!(found.contains(used) && found.contains(VirtFeatures::VIRTUAL_APIC) && !used.contains(VirtFeatures::VIRTUAL_APIC));
        assert!(used.contains(VirtFeatures::NEXT_RIP) && !used.contains(VirtFeatures::CLEAN_BITS));
    }

    #[test]
    fn only_switched_msrs_pass() {
        let mut map = [0; 0x2000];
        fill_msr_map(&mut map);
        let open: u32 = map.iter().map(|byte| byte.count_zeros()).sum();
        assert_eq!(open as usize, PASSED_MSRS.len() * 2);
        for msr in PASSED_MSRS {
            let (byte, bit) = msr_position(msr).expect("inside the map");
            assert_eq!(map[byte] >> bit & 3, 0, "{msr:#x}");
        }
        assert_eq!(msr_position(0x174), Some((0x5d, 0)));
        assert_eq!(msr_position(0xc000_0080), Some((0x820, 0)));
        assert_eq!(msr_position(0xc001_0114), Some((0x1045, 0)));
        for outside in [0x2000, 0xbfff_ffff, 0xc000_2000, 0xc001_2000, u32::MAX] {
            assert_eq!(msr_position(outside), None);
        }
    }
}
