//! What the processor can do, from its CPUID leaves (Intel SDM volume 2, CPUID; AMD APM volume 3, appendix E).

use tessera_abi::boot::Features;

/// The features that the system uses. `leaf` gives a leaf's `[eax, ebx, ecx, edx]`, zero where the processor has none.
///
/// # Errors
/// Name of a feature that the system cannot do without and this processor lacks.
pub fn detect(leaf: impl Fn(u32) -> [u32; 4]) -> Result<Features, &'static str> {
    let [_, _, basic_c, basic_d] = leaf(1);
    let [_, extended_b, extended_c, _] = leaf(7);
    let (high_d, power_d) = (leaf(0x8000_0001)[3], leaf(0x8000_0007)[3]);
    for (there, name) in [
        (basic_d >> 9, "apic"),
        (basic_d >> 13, "pge"),
        (basic_d >> 16, "pat"),
        (basic_d >> 24, "fxsr"),
        (basic_d >> 4, "tsc"),
        (extended_b, "fsgsbase"),
        (high_d >> 20, "nx"),
        (high_d >> 11, "syscall"),
    ] {
        if there & 1 == 0 {
            return Err(name);
        }
    }
    let mut features = Features::empty();
    for (there, feature) in [
        (basic_c >> 21, Features::X2APIC),
        (basic_c >> 24, Features::TSC_DEADLINE),
        (basic_c >> 26, Features::XSAVE),
        (basic_c >> 17, Features::PCID),
        (extended_b >> 7, Features::SMEP),
        (extended_b >> 20, Features::SMAP),
        (extended_c >> 2, Features::UMIP),
        (power_d >> 8, Features::INVARIANT_TSC),
        (high_d >> 26, Features::PAGE_1G),
    ] {
        features.set(feature, there & 1 != 0);
    }
    Ok(features)
}

/// CR0 and CR4 for the features in use (Intel SDM volume 3, 2.5).
#[must_use]
pub fn control_registers(features: Features) -> (u64, u64) {
    // PE, MP, ET, NE, WP, PG.
    let cr0 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
    // PAE, MCE, PGE, OSFXSR, OSXMMEXCPT, FSGSBASE.
    let mut cr4 = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 9 | 1 << 10 | 1 << 16;
    for (feature, bit) in [(Features::UMIP, 11), (Features::PCID, 17), (Features::XSAVE, 18), (Features::SMEP, 20), (Features::SMAP, 21)] {
        cr4 |= u64::from(features.contains(feature)) << bit;
    }
    (cr0, cr4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_registers_have_what_is_always_used_and_what_was_found() {
        assert_eq!(control_registers(Features::empty()), (0x8001_0033, 0x1_06e0));
        assert_eq!(control_registers(Features::all()).1, 0x1_06e0 | 1 << 11 | 1 << 17 | 1 << 18 | 1 << 20 | 1 << 21);
        assert_eq!(control_registers(Features::SMAP).1, 0x1_06e0 | 1 << 21);
    }

    const NEEDED: [(u32, [u32; 4]); 3] =
        [(1, [0, 0, 0, 1 << 9 | 1 << 13 | 1 << 16 | 1 << 24 | 1 << 4]), (7, [0, 1, 0, 0]), (0x8000_0001, [0, 0, 0, 1 << 20 | 1 << 11])];

    fn leaf_of(leaves: &[(u32, [u32; 4])]) -> impl Fn(u32) -> [u32; 4] {
        |number| leaves.iter().find(|(leaf, _)| *leaf == number).map_or([0; 4], |(_, values)| *values)
    }

    #[test]
    fn names_what_is_missing() {
        assert_eq!(detect(leaf_of(&NEEDED)), Ok(Features::empty()));
        assert_eq!(detect(|_| [0; 4]), Err("apic"));
        assert_eq!(detect(leaf_of(&NEEDED[..2])), Err("nx"));
        assert_eq!(detect(leaf_of(&[NEEDED[0], NEEDED[2]])), Err("fsgsbase"));
    }

    #[test]
    fn finds_what_is_there() {
        let mut leaves = NEEDED;
        leaves[0].1[2] = 1 << 21 | 1 << 17;
        leaves[1].1[1] |= 1 << 20;
        leaves[2].1[3] |= 1 << 26;
        assert_eq!(detect(leaf_of(&leaves)), Ok(Features::X2APIC | Features::PCID | Features::SMAP | Features::PAGE_1G));
    }
}
