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
        | set((result as u8).count_ones().is_multiple_of(2), PF)
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

/// A shift or rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shift {
    /// SHL.
    Left,
    /// SHR.
    Right,
    /// SAR.
    Arithmetic,
    /// ROL.
    RotateLeft,
    /// ROR.
    RotateRight,
    /// RCL.
    CarryLeft,
    /// RCR.
    CarryRight,
}

/// The result and the new flags register (SDM volume 2, SAL/SAR/SHL/SHR and RCL/RCR/ROL/ROR). A count of zero changes nothing.
#[must_use]
pub fn shift(operation: Shift, width: u8, value: u64, count: u64, flags: u64) -> (u64, u64) {
    let mask = mask(width);
    let sign = mask ^ mask >> 1;
    let count = count & if width == 8 { 63 } else { 31 };
    let mut value = value & mask;
    if count == 0 {
        return (value, flags);
    }
    let mut carry = flags & CF != 0;
    for _ in 0..count {
        let (low, high, before) = (value & 1 != 0, value & sign != 0, carry);
        let (left, enters) = match operation {
            Shift::Left => (true, false),
            Shift::RotateLeft => (true, high),
            Shift::CarryLeft => (true, before),
            Shift::Right => (false, false),
            Shift::Arithmetic => (false, high),
            Shift::RotateRight => (false, low),
            Shift::CarryRight => (false, before),
        };
        (value, carry) = match (left, enters) {
            (true, enters) => (value << 1 & mask | u64::from(enters), high),
            (false, true) => (value >> 1 | sign, low),
            (false, false) => (value >> 1, low),
        };
    }
    let set = |condition: bool, flag: u64| if condition { flag } else { 0 };
    let overflow = match operation {
        Shift::Left | Shift::RotateLeft | Shift::CarryLeft => (value & sign != 0) != carry,
        _ => (value ^ value << 1) & sign != 0,
    };
    let moved = set(carry, CF) | set(overflow, OF);
    let flags = match operation {
        Shift::Left | Shift::Right | Shift::Arithmetic => {
            let parity = (value as u8).count_ones().is_multiple_of(2);
            flags & !STATUS | moved | set(parity, PF) | set(value == 0, ZF) | set(value & sign != 0, SF)
        }
        _ => flags & !(CF | OF) | moved,
    };
    (value, flags)
}

/// Whether a condition holds (SDM volume 1, appendix B); the condition as instructions encode it, 0 to 15.
#[must_use]
pub const fn holds(condition: u8, flags: u64) -> bool {
    let less = (flags & SF != 0) != (flags & OF != 0);
    let plain = match condition >> 1 {
        0 => flags & OF != 0,
        1 => flags & CF != 0,
        2 => flags & ZF != 0,
        3 => flags & (CF | ZF) != 0,
        4 => flags & SF != 0,
        5 => flags & PF != 0,
        6 => less,
        _ => less || flags & ZF != 0,
    };
    plain != (condition & 1 != 0)
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
