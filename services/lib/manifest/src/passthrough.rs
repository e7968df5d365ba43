//! PCI functions of the host that a virtual machine has for itself.

use crate::PciClass;
use core::{fmt, str::FromStr};
use serde::{Deserialize, Serialize};

/// Most functions of one machine.
pub const MAX_PASSED: usize = 4;

/// Which functions of the host are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PciWhich {
    /// The one at an address; written `0000:00:1f.2`, or `00:1f.2` in segment 0.
    Address {
        /// Segment group.
        segment: u16,
        /// Bus.
        bus: u8,
        /// Device, below 32.
        device: u8,
        /// Function, below 8.
        function: u8,
    },
    /// Those of a vendor's kind; written `8086:10d3`.
    Kind {
        /// Vendor.
        vendor: u16,
        /// Device.
        device: u16,
    },
    /// Those of a class; written as the class is in grants.
    Class(PciClass),
}

/// A function of the host that a machine has for itself: the `index`th of those that are meant, in the order of their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedFunction {
    /// Which are meant.
    pub which: PciWhich,
    /// Which of these, from 0 on.
    pub index: u32,
}

/// A hexadecimal number of `digits` digits, or fewer unless `exactly`, up to `most`.
fn hexadecimal(text: &str, digits: usize, exactly: bool, most: u16) -> Option<u16> {
    let length = if exactly { digits..=digits } else { 1..=digits };
    let valid = length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = valid.then(|| u16::from_str_radix(text, 16).ok()).flatten()?;
    (value <= most).then_some(value)
}

impl FromStr for PciWhich {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some(class) = PciClass::ALL.into_iter().find(|class| class.name() == text) {
            return Ok(Self::Class(class));
        }
        let address = || {
            let (rest, function) = text.rsplit_once('.')?;
            let (rest, device) = rest.rsplit_once(':')?;
            let (segment, bus) = rest.rsplit_once(':').unwrap_or(("0", rest));
            Some(Self::Address {
                segment: hexadecimal(segment, 4, false, u16::MAX)?,
                bus: hexadecimal(bus, 2, false, 0xff)? as u8,
                device: hexadecimal(device, 2, false, 31)? as u8,
                function: hexadecimal(function, 1, true, 7)? as u8,
            })
        };
        let kind = || {
            let (vendor, device) = text.split_once(':')?;
            Some(Self::Kind {
                vendor: hexadecimal(vendor, 4, true, u16::MAX)?,
                device: hexadecimal(device, 4, true, u16::MAX)?,
            })
        };
        address().or_else(kind).ok_or(())
    }
}

impl fmt::Display for PciWhich {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                segment,
                bus,
                device,
                function,
            } => write!(formatter, "{segment:04x}:{bus:02x}:{device:02x}.{function:x}"),
            Self::Kind { vendor, device } => write!(formatter, "{vendor:04x}:{device:04x}"),
            Self::Class(class) => formatter.write_str(class.name()),
        }
    }
}

impl fmt::Display for PassedFunction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.which, self.index) {
            (which @ PciWhich::Address { .. }, _) => write!(formatter, "PCI function {which}"),
            (which, index) => write!(formatter, "PCI function {index} of `{which}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn written_and_read() {
        for (text, written) in [
            ("0000:00:1f.2", "0000:00:1f.2"),
            ("3:1.0", "0000:03:01.0"),
            ("8086:10d3", "8086:10d3"),
            ("storage", "storage"),
            ("network", "network"),
        ] {
            let which: PciWhich = text.parse().unwrap();
            assert_eq!(which.to_string(), written);
            assert_eq!(written.parse(), Ok(which));
        }
        for wrong in [
            "",
            "disk",
            "00:20.0",
            "00:1f.8",
            "10000:00:00.0",
            "8086",
            "8086:10d",
            "8086:10d3:1",
            ".",
            ":",
            "+1:2.3",
            "0:0.é",
        ] {
            assert_eq!(wrong.parse::<PciWhich>(), Err(()), "{wrong}");
        }
    }
}
