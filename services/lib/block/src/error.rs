//! What can go wrong with a device.

use core::fmt;

/// Why a device did not do what it was asked to. Nothing is known about the content of the sectors that a failed write or discard named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoError {
    /// The request reaches past the end of the device.
    OutOfRange {
        /// First sector asked for.
        sector: u64,
        /// How many sectors were asked for.
        count: u64,
        /// How many sectors there are.
        sectors: u64,
    },
    /// The buffer's length is not a multiple of the sector size.
    Misaligned {
        /// Bytes in the buffer.
        length: usize,
        /// Bytes of a sector.
        sector_size: u32,
    },
    /// The device, or the way to it, cannot be written.
    ReadOnly,
    /// The medium lost this sector, or cannot take it. Others may well be readable.
    Media {
        /// The first sector that is known to be bad.
        sector: u64,
    },
    /// The device was removed, or no longer answers at all.
    Gone,
    /// The device cannot do this.
    Unsupported,
    /// The device did not answer in time and was reset; the request may or may not have been carried out.
    Timeout,
    /// What holds the bytes has no space left (a thin volume, an image file on a full file system).
    Full,
    /// The device refused with a code of its own protocol.
    Device {
        /// The code, as the driver's specification defines it.
        code: u32,
    },
    /// There is no memory for the request now.
    Memory,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::OutOfRange { sector, count, sectors } => {
                write!(
                    f,
                    "{count} sectors from sector {sector} on reach past the device's end at {sectors}: the device is smaller than what was put on it; use the device or image it was made for"
                )
            }
            Self::Misaligned { length, sector_size } => write!(
                f,
                "{length} bytes are no whole number of sectors of {sector_size} bytes: a mistake in the program that asked"
            ),
            Self::ReadOnly => write!(f, "the device is read-only: open it for writing, or remove its write protection"),
            Self::Media { sector } => write!(
                f,
                "the medium cannot read or write sector {sector}: copy what is still readable and replace the disk"
            ),
            Self::Gone => write!(f, "the device is gone: plug it in again, or look at its cable and power"),
            Self::Unsupported => write!(f, "the device has no such command: do without it"),
            Self::Timeout => write!(
                f,
                "the device did not answer in time and was reset: ask again; when it happens often, replace the disk or its cable"
            ),
            Self::Full => write!(f, "what holds the device's bytes is full: make space there and ask again"),
            Self::Device { code } => write!(
                f,
                "the device refused with code {code:#x}: look the code up in its driver's specification"
            ),
            Self::Memory => write!(f, "there is no memory for the request: ask again when others have finished"),
        }
    }
}

impl core::error::Error for IoError {}
