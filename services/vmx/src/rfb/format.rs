//! Pixel formats (RFC 6143, 7.4).

/// A viewer's pixels: true colour in 8, 16 or 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    bits: u8,
    depth: u8,
    big_endian: bool,
    /// Largest value, and place, of red, green, blue.
    parts: [(u16, u8); 3],
}

impl Format {
    /// What the server offers.
    pub const DEFAULT: Self = Self {
        bits: 32,
        depth: 24,
        big_endian: false,
        parts: [(255, 16), (255, 8), (255, 0)],
    };

    /// Reads one; `None`: it is none, or one with a colour map.
    pub fn decode(bytes: &[u8; 16]) -> Option<Self> {
        let [bits, depth, big_endian, true_colour, r, r1, g, g1, b, b1, red, green, blue, ..] = *bytes;
        let parts = [
            (u16::from_be_bytes([r, r1]), red),
            (u16::from_be_bytes([g, g1]), green),
            (u16::from_be_bytes([b, b1]), blue),
        ];
        let fits = |(most, shift): &(u16, u8)| u32::from(*shift) < u32::from(bits) && u64::from(*most) << shift < 1 << bits;
        (matches!(bits, 8 | 16 | 32) && depth <= bits && true_colour != 0 && parts.iter().all(fits)).then_some(Self {
            bits,
            depth,
            big_endian: big_endian != 0,
            parts,
        })
    }

    /// As it is sent.
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[self.bits, self.depth, self.big_endian.into(), 1]);
        for (place, (most, shift)) in self.parts.iter().enumerate() {
            bytes[4 + 2 * place..][..2].copy_from_slice(&most.to_be_bytes());
            bytes[10 + place] = *shift;
        }
        bytes
    }

    fn value(&self, colour: u32) -> u32 {
        let [_, red, green, blue] = colour.to_be_bytes();
        [red, green, blue].iter().zip(&self.parts).fold(0, |value, (part, (most, shift))| {
            value | ((u32::from(*part) * u32::from(*most) + 127) / 255) << shift
        })
    }

    /// Appends a pixel.
    pub fn pixel(&self, colour: u32, out: &mut alloc::vec::Vec<u8>) {
        let value = self.value(colour);
        let length = usize::from(self.bits / 8);
        if self.big_endian {
            out.extend_from_slice(&value.to_be_bytes()[4 - length..]);
        } else {
            out.extend_from_slice(&value.to_le_bytes()[..length]);
        }
    }

    /// Appends a compressed pixel, as ZRLE has them (7.7.5): three bytes where one of four is always 0.
    pub fn compressed(&self, colour: u32, out: &mut alloc::vec::Vec<u8>) {
        let all = self.parts.iter().fold(0, |all, (most, shift)| all | u32::from(*most) << shift);
        if self.bits != 32 || self.depth > 24 || (all >> 24 != 0 && all & 0xff != 0) {
            return self.pixel(colour, out);
        }
        let value = self.value(colour);
        let value = if all >> 24 != 0 { value >> 8 } else { value };
        let [a, b, c, _] = value.to_le_bytes();
        out.extend_from_slice(&if self.big_endian { [c, b, a] } else { [a, b, c] });
    }
}
