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

#[cfg(test)]
mod tests {
    use super::*;

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
