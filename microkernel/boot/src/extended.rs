//! Which extended state guests may have (Intel SDM volume 1, chapter 13).

/// XCR0: x87.
pub const X87: u64 = 1;
/// XCR0: SSE.
pub const SSE: u64 = 2;
/// XCR0: upper halves of the YMM registers.
const AVX: u64 = 4;
/// Legacy region and XSAVE header: where components begin (13.4).
const HEADER_END: u32 = 576;

/// What guests may have of what the processor has, and its size. `features` is ECX of CPUID leaf 1, `xcr0` EAX of leaf 0xd, `avx` EAX and EBX of its sub-leaf 2: size and
/// offset. Emulators name components whose places contradict each other, so only a component that stands where the format has it is taken, and none whose
/// instructions are missing.
#[must_use]
pub fn choose(features: u32, xcr0: u32, avx: (u32, u32)) -> (u64, u64) {
    let xcr0 = u64::from(xcr0);
    if xcr0 & (X87 | SSE) != X87 | SSE {
        return (0, 512);
    }
    if xcr0 & AVX != 0 && features & 1 << 28 != 0 && avx == (256, HEADER_END) {
        (X87 | SSE | AVX, u64::from(HEADER_END) + 256)
    } else {
        (X87 | SSE, HEADER_END.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extended_state_is_what_stands_where_the_format_says() {
        const HAS_AVX: u32 = 1 << 28;
        assert_eq!(choose(HAS_AVX, 7, (256, 576)), (7, 832));
        assert_eq!(choose(0, 7, (256, 576)), (3, 576));
        assert_eq!(choose(HAS_AVX, 7, (256, 600)), (3, 576));
        assert_eq!(choose(HAS_AVX, 7, (0, 0)), (3, 576));
        assert_eq!(choose(HAS_AVX, 0xff, (256, 576)), (7, 832));
        assert_eq!(choose(HAS_AVX, 3, (256, 576)), (3, 576));
        assert_eq!(choose(HAS_AVX, 1, (256, 576)), (0, 512));
        assert_eq!(choose(HAS_AVX, 0, (0, 0)), (0, 512));
    }
}
