//! Why a guest cannot be booted, in words for whoever wrote its description.

use super::bzimage::ImageError;
use super::multiboot::MultibootError;
use core::fmt;

/// Why a guest cannot be booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The kernel file is of no kind that can be booted.
    UnknownKind,
    /// The Linux kernel file.
    Linux(ImageError),
    /// The Multiboot kernel file.
    Multiboot(MultibootError),
    /// A boot sector with more behind it than conventional memory holds; holds the most bytes.
    BootSector(u64),
    /// The firmware's file is of no length that flash memory has; holds the most bytes.
    Firmware(u64),
    /// RAM is too small; holds the bytes needed.
    TooSmall(u64),
    /// RAM would reach into the addresses of devices.
    TooLarge,
    /// The command line is longer than the kernel takes; holds the most bytes.
    CommandLine(u64),
    /// A file could not be read.
    File,
    /// The kernel wants to be where the RAM disk may not be or the like.
    NoPlace,
}

impl From<ImageError> for LoadError {
    fn from(error: ImageError) -> Self {
        Self::Linux(error)
    }
}

impl From<MultibootError> for LoadError {
    fn from(error: MultibootError) -> Self {
        Self::Multiboot(error)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownKind => formatter.write_str(
                "the kernel file is neither a Linux bzImage (take the vmlinuz that the distribution installs in /boot), nor a Multiboot kernel, \
                 nor a boot sector: give the machine one of these",
            ),
            Self::Linux(error) => error.fmt(formatter),
            Self::Multiboot(error) => error.fmt(formatter),
            Self::BootSector(most) => write!(
                formatter,
                "the boot sector's file is longer than conventional memory: give it at most {most} bytes"
            ),
            Self::Firmware(most) => write!(
                formatter,
                "the firmware's file is no image of flash memory: its length must be a multiple of 64 KiB and at most {} MiB",
                most >> 20
            ),
            Self::TooSmall(needed) => write!(
                formatter,
                "the guest's RAM is too small for its kernel and initial RAM disk: give it at least {} MiB",
                needed.div_ceil(1 << 20)
            ),
            Self::TooLarge => formatter.write_str("the guest's RAM would reach the addresses of its devices: give it 3072 MiB or less"),
            Self::CommandLine(most) => write!(formatter, "the kernel command line is too long: this kernel takes {most} bytes"),
            Self::File => formatter.write_str("the guest's kernel or initial RAM disk cannot be read: the log says why"),
            Self::NoPlace => {
                formatter.write_str("the kernel leaves no place for its initial RAM disk: give the guest more RAM or a smaller RAM disk")
            }
        }
    }
}
