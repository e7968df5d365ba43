//! Arithmetic with flags (Intel SDM volume 1, 3.4.3.1), for operands of 1, 2, 4 or 8 bytes.

const CF: u64 = 1;
const PF: u64 = 1 << 2;
const AF: u64 = 1 << 4;
const ZF: u64 = 1 << 6;
const SF: u64 = 1 << 7;
const OF: u64 = 1 << 11;
/// The flags that arithmetic sets.
pub const STATUS: u64 = CF | PF | AF | ZF | SF | OF;

/// An operation of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Addition.
    Add,
    /// Addition with carry.
    Adc,
    /// Subtraction.
    Sub,
    /// Subtraction with borrow.
    Sbb,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
}

/// All bits of an operand of `width` bytes.
#[must_use]
pub const fn mask(width: u8) -> u64 {
    u64::MAX >> (64 - 8 * width as u32)
}

/// The result, cut to `width` bytes, and the new flags register.
#[must_use]
pub fn compute(operation: Operation, width: u8, a: u64, b: u64, flags: u64) -> (u64, u64) {
    let mask = mask(width);
    let sign = mask ^ mask >> 1;
    let (a, b) = (a & mask, b & mask);
    let carry_in = flags & CF;
    let (result, carry, overflow) = match operation {
        Operation::Add | Operation::Adc => {
            let carry_in = if operation == Operation::Adc { carry_in } else { 0 };
            let wide = u128::from(a) + u128::from(b) + u128::from(carry_in);
            let result = wide as u64 & mask;
            (result, wide > u128::from(mask), (a ^ result) & (b ^ result) & sign != 0)
        }
        Operation::Sub | Operation::Sbb => {
            let borrow = if operation == Operation::Sbb { carry_in } else { 0 };
            let result = a.wrapping_sub(b).wrapping_sub(borrow) & mask;
            (
                result,
                u128::from(a) < u128::from(b) + u128::from(borrow),
                (a ^ b) & (a ^ result) & sign != 0,
            )
        }
        Operation::And => (a & b, false, false),
        Operation::Or => (a | b, false, false),
        Operation::Xor => (a ^ b, false, false),
    };
    let half = match operation {
        // Undefined after logical operations; processors clear it.
        Operation::And | Operation::Or | Operation::Xor => false,
        _ => (a ^ b ^ result) & 0x10 != 0,
    };
    let set = |condition: bool, flag: u64| if condition { flag } else { 0 };
    let new = set(carry, CF)
        | set((result as u8).count_ones() % 2 == 0, PF)
        | set(half, AF)
        | set(result == 0, ZF)
        | set(result & sign != 0, SF)
        | set(overflow, OF);
    (result, flags & !STATUS | new)
}

/// Increment and decrement leave the carry alone.
#[must_use]
pub fn step(operation: Operation, width: u8, a: u64, flags: u64) -> (u64, u64) {
    let (result, new) = compute(operation, width, a, 1, flags & !CF);
    (result, new & !CF | flags & CF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_results() {
        assert_eq!(compute(Operation::Add, 1, 0xff, 1, 2), (0, 2 | CF | ZF | AF | PF));
        assert_eq!(compute(Operation::Add, 1, 0x7f, 1, 0), (0x80, SF | OF | AF));
        assert_eq!(compute(Operation::Sub, 4, 0, 1, 0), (0xffff_ffff, CF | SF | AF | PF));
        assert_eq!(compute(Operation::Sub, 8, 1 << 63, 1, 0), ((1 << 63) - 1, OF | AF | PF));
        assert_eq!(compute(Operation::And, 2, 0xff00, 0x00ff, CF | OF), (0, ZF | PF));
        assert_eq!(compute(Operation::Adc, 8, u64::MAX, 0, CF), (0, CF | ZF | AF | PF));
        assert_eq!(compute(Operation::Sbb, 1, 0, 0xff, CF), (0, CF | ZF | AF | PF));
        assert_eq!(step(Operation::Add, 1, 0xff, 0), (0, ZF | AF | PF));
        assert_eq!(step(Operation::Sub, 1, 0, CF).1 & CF, CF);
    }

    /// Against this processor's own, for every pair of bytes.
    #[cfg(target_arch = "x86_64")]
    #[test]
    #[allow(unsafe_code)]
    fn agrees_with_the_processor() {
        macro_rules! native {
            ($instruction:literal, $a:expr, $b:expr, $carry:expr) => {{
                let (mut a, flags): (u8, u64);
                a = $a;
                // SAFETY: changes only the named registers and the arithmetic flags.
                unsafe {
                    core::arch::asm!("bt {carry:e}, 0", concat!($instruction, " {a}, {b}"), "pushfq", "pop {flags}",
                        a = inout(reg_byte) a, b = in(reg_byte) $b, carry = in(reg) u32::from($carry), flags = out(reg) flags);
                }
                (a, flags)
            }};
        }
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                for carry in [false, true] {
                    let before = u64::from(carry);
                    for (operation, (result, flags)) in [
                        (Operation::Add, native!("add", a, b, carry)),
                        (Operation::Adc, native!("adc", a, b, carry)),
                        (Operation::Sub, native!("sub", a, b, carry)),
                        (Operation::Sbb, native!("sbb", a, b, carry)),
                        (Operation::And, native!("and", a, b, carry)),
                        (Operation::Or, native!("or", a, b, carry)),
                        (Operation::Xor, native!("xor", a, b, carry)),
                    ] {
                        let logical = matches!(operation, Operation::And | Operation::Or | Operation::Xor);
                        let ignored = if logical { AF } else { 0 };
                        let ours = compute(operation, 1, a.into(), b.into(), before);
                        assert_eq!(
                            (ours.0, ours.1 & !ignored),
                            (result.into(), flags & STATUS & !ignored),
                            "{operation:?} {a} {b} {carry}"
                        );
                    }
                }
            }
        }
    }
}
