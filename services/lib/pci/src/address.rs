//! Where a function is.

use core::{fmt, str::FromStr};

/// Segment, bus, device and function; written `0000:00:1f.2`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// Segment group.
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Device on the bus, below 32.
    pub device: u8,
    /// Function of the device, below 8.
    pub function: u8,
}

impl Address {
    /// Offset of its registers in an ECAM window that begins with bus `first` (PCI Express 7.2.2).
    #[must_use]
    pub const fn ecam_offset(self, first: u8) -> u64 {
        ((self.bus.wrapping_sub(first) as u64) << 20) | ((self.device as u64 & 31) << 15) | ((self.function as u64 & 7) << 12)
    }

    /// What selects a register through port 0xcf8 (PCI 3.0, 3.2.2.3.2).
    #[must_use]
    pub const fn port_selector(self, offset: u16) -> u32 {
        1 << 31 | (self.bus as u32) << 16 | (self.device as u32 & 31) << 11 | (self.function as u32 & 7) << 8 | (offset as u32 & 0xfc)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            segment,
            bus,
            device,
            function,
        } = self;
        write!(formatter, "{segment:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl FromStr for Address {
    type Err = ();

    /// Reads `0000:00:1f.2`, or `00:1f.2` in segment 0.
    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |text: &str, most: u32| {
            let valid = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let value = valid.then(|| u32::from_str_radix(text, 16).ok()).flatten().ok_or(())?;
            if value <= most { Ok(value) } else { Err(()) }
        };
        let (rest, function) = text.rsplit_once('.').ok_or(())?;
        let (rest, device) = rest.rsplit_once(':').ok_or(())?;
        let (segment, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
        Ok(Self {
            segment: number(segment, 0xffff)? as u16,
            bus: number(bus, 0xff)? as u8,
            device: number(device, 31)? as u8,
            function: number(function, 7)? as u8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn selectors() {
        let address: Address = "00:1f.2".parse().unwrap();
        assert_eq!(address.to_string(), "0000:00:1f.2");
        assert_eq!(address.port_selector(0x3d), 0x8000_fa3c);
        assert_eq!(address.ecam_offset(0), 0xf_a000);
    }

    proptest! {
        #[test]
        fn written_and_read(segment: u16, bus: u8, device in 0u8..32, function in 0u8..8) {
            let address = Address { segment, bus, device, function };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn other_texts_are_refused_or_valid(text in "[0-9a-fA-F:.+ x]{0,14}") {
            if let Ok(Address { device, function, .. }) = text.parse::<Address>() {
                prop_assert!(device < 32 && function < 8);
            }
        }
    }
}
