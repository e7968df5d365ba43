//! The header of a bzImage (boot protocol, "The Real-Mode Kernel Header"). The file comes from whoever made the image, so nothing in it is believed.

use super::file::Part;
use core::fmt;

/// Offset of the header in the file and in `struct boot_params`.
pub const HEADER: usize = 0x1f1;
/// Furthest that the header can reach in `struct boot_params`.
const HEADER_END: usize = 0x290;
/// The 64-bit entry point is this far into the kernel.
const ENTRY_64: u64 = 0x200;
/// Oldest protocol with a 64-bit entry point.
const VERSION: u16 = 0x20c;
/// `loadflags`: the kernel is loaded at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
/// `xloadflags`: there is a 64-bit entry point.
const KERNEL_64: u16 = 1;

/// Why a file is no kernel that can be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// Shorter than its header says.
    Truncated,
    /// The magic numbers are missing.
    NotBzImage,
    /// The boot protocol is too old; holds its version.
    TooOld(u16),
    /// No 64-bit entry point, or a kernel to be loaded low.
    NotLong,
    /// Sizes or alignments in the header contradict each other.
    Inconsistent,
}

impl fmt::Display for ImageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => formatter.write_str("the kernel file is shorter than its header says: copy it again"),
            Self::NotBzImage => {
                formatter.write_str("the kernel file is not a bzImage: take the vmlinuz that the distribution installs in /boot")
            }
            Self::TooOld(version) => {
                write!(
                    formatter,
                    "the kernel speaks boot protocol {}.{:02}, at least 2.12 is needed: take Linux 3.8 or newer",
                    version >> 8,
                    version & 0xff
                )
            }
            Self::NotLong => formatter.write_str("the kernel has no 64-bit entry point: take one for x86-64"),
            Self::Inconsistent => formatter.write_str("the kernel's header contradicts itself: copy the file again"),
        }
    }
}

/// A kernel whose header was checked.
#[derive(Clone, Copy, Debug)]
pub struct BzImage<'a> {
    /// The header, to be copied to offset [`HEADER`] of `struct boot_params`.
    pub header: &'a [u8],
    /// What is loaded.
    pub kernel: Part,
    /// Where the kernel wants to be.
    pub preferred: u64,
    /// Alignment in bytes if it is loaded elsewhere, a power of two.
    pub alignment: u64,
    /// Whether it may be loaded elsewhere.
    pub relocatable: bool,
    /// Memory it needs from where it is loaded until it knows the memory map.
    pub init_size: u64,
    /// Highest address the initial RAM disk may occupy.
    pub initramfs_max: u64,
    /// Most bytes of the command line, without terminating zero.
    pub command_line_max: u64,
}

/// Whether a file says that it is a Linux kernel.
#[must_use]
pub fn is_one(file: &[u8]) -> bool {
    file.get(0x202..0x206) == Some(b"HdrS")
}

fn u16_at(file: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*file.get(offset..)?.first_chunk()?))
}

fn u32_at(file: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*file.get(offset..)?.first_chunk()?))
}

fn u64_at(file: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*file.get(offset..)?.first_chunk()?))
}

impl<'a> BzImage<'a> {
    /// Checks the header of a file of `length` bytes, which begins with `file`.
    ///
    /// # Errors
    /// If it is not a kernel with a 64-bit entry point.
    pub fn parse(file: &'a [u8], length: u64) -> Result<Self, ImageError> {
        let magic = file.get(0x202..0x206).ok_or(ImageError::Truncated)?;
        if magic != b"HdrS" || u16_at(file, 0x1fe) != Some(0xaa55) {
            return Err(ImageError::NotBzImage);
        }
        let version = u16_at(file, 0x206).ok_or(ImageError::Truncated)?;
        if version < VERSION {
            return Err(ImageError::TooOld(version));
        }
        // The jump at 0x200 tells where the header ends.
        let header_end = (0x202 + usize::from(file[0x201])).min(HEADER_END);
        let header = file.get(HEADER..header_end).ok_or(ImageError::Truncated)?;
        let xloadflags = u16_at(file, 0x236).ok_or(ImageError::Truncated)?;
        if header_end < 0x264 {
            return Err(ImageError::Inconsistent);
        }
        if file[0x211] & LOADED_HIGH == 0 || xloadflags & KERNEL_64 == 0 {
            return Err(ImageError::NotLong);
        }
        let setup_sectors = match file[0x1f1] {
            0 => 4,
            sectors => usize::from(sectors),
        };
        let offset = (setup_sectors as u64 + 1) * 512;
        let kernel = Part {
            offset,
            length: length.checked_sub(offset).ok_or(ImageError::Truncated)?,
        };
        let alignment = u64::from(u32_at(file, 0x230).ok_or(ImageError::Truncated)?);
        let init_size = u64::from(u32_at(file, 0x260).ok_or(ImageError::Truncated)?);
        let image = Self {
            header,
            kernel,
            preferred: u64_at(file, 0x258).ok_or(ImageError::Truncated)?,
            alignment,
            relocatable: file[0x234] != 0,
            init_size: init_size.max(kernel.length),
            initramfs_max: u64::from(u32_at(file, 0x22c).ok_or(ImageError::Truncated)?),
            command_line_max: u64::from(u32_at(file, 0x238).ok_or(ImageError::Truncated)?),
        };
        if !alignment.is_power_of_two() || alignment < 4096 || kernel.length < ENTRY_64 || !image.preferred.is_multiple_of(4096) {
            return Err(ImageError::Inconsistent);
        }
        Ok(image)
    }

    /// The entry point if the kernel is loaded at `address`.
    #[must_use]
    pub const fn entry(&self, address: u64) -> u64 {
        address + ENTRY_64
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(file: &[u8]) -> Result<BzImage<'_>, ImageError> {
        BzImage::parse(file, file.len() as u64)
    }

    /// A kernel file with nothing in it.
    pub(crate) fn file(kernel_length: usize, init_size: u32) -> std::vec::Vec<u8> {
        let mut file = std::vec![0u8; 1024 + kernel_length];
        file[0x1f1] = 1;
        file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        file[0x200..0x202].copy_from_slice(&[0xeb, 0x6a]);
        file[0x202..0x206].copy_from_slice(b"HdrS");
        file[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        file[0x211] = LOADED_HIGH;
        file[0x22c..0x230].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
        file[0x230..0x234].copy_from_slice(&0x20_0000u32.to_le_bytes());
        file[0x234] = 1;
        file[0x236..0x238].copy_from_slice(&0x7fu16.to_le_bytes());
        file[0x238..0x23c].copy_from_slice(&2047u32.to_le_bytes());
        file[0x258..0x260].copy_from_slice(&0x100_0000u64.to_le_bytes());
        file[0x260..0x264].copy_from_slice(&init_size.to_le_bytes());
        for (i, byte) in file[1024..].iter_mut().enumerate() {
            *byte = i as u8;
        }
        file
    }

    #[test]
    fn parses() {
        let file = file(0x1000, 0x20_0000);
        let image = parse(&file).unwrap();
        assert_eq!(image.kernel.length, 0x1000);
        assert_eq!(
            (image.preferred, image.init_size, image.alignment),
            (0x100_0000, 0x20_0000, 0x20_0000)
        );
        assert_eq!(image.header.len(), 0x26c - 0x1f1);
        assert_eq!(image.entry(0x100_0000), 0x100_0200);
    }

    #[test]
    fn refuses() {
        assert_eq!(parse(&[]).err(), Some(ImageError::Truncated));
        assert_eq!(parse(&[0; 4096]).err(), Some(ImageError::NotBzImage));
        let change = |offset: usize, bytes: &[u8]| {
            let mut file = file(0x1000, 0x20_0000);
            file[offset..offset + bytes.len()].copy_from_slice(bytes);
            parse(&file).err()
        };
        assert_eq!(change(0x206, &[0x0b, 2]), Some(ImageError::TooOld(0x20b)));
        assert_eq!(change(0x236, &[0]), Some(ImageError::NotLong));
        assert_eq!(change(0x1f1, &[255]), Some(ImageError::Truncated));
        assert_eq!(change(0x230, &[3, 0, 0, 0]), Some(ImageError::Inconsistent));
        assert_eq!(change(0x201, &[0x20]), Some(ImageError::Inconsistent));
    }

    proptest! {
        #[test]
        fn hostile_files_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..4096), keep_magic in any::<bool>()) {
            if keep_magic && bytes.len() > 0x280 {
                bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
                bytes[0x202..0x206].copy_from_slice(b"HdrS");
                bytes[0x207] |= 4;
                bytes[0x211] |= 1;
                bytes[0x236] |= 1;
                bytes[0x230..0x234].copy_from_slice(&[0, 0x10, 0, 0]);
            }
            if let Ok(image) = parse(&bytes) {
                prop_assert!(image.init_size >= image.kernel.length);
            }
        }

        #[test]
        fn truncated_files_never_panic(length in 0usize..2048) {
            let file = file(1024, 4096);
            let _ = parse(&file[..length]);
        }
    }
}
