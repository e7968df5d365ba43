//! The drivers, a room each. What a device says is not believed: lengths are bounded, numbers of completed commands looked up, and a device that reads as all ones is gone.

pub mod ahci;
pub mod ata;
mod identify_ata;
pub mod nvme;
#[cfg(test)]
mod testing;
pub mod virtio_blk;

use crate::controller::Controller;
use alloc::{boxed::Box, string::String};
pub use tessera_device::Device;
pub(crate) use tessera_device::text;

/// How many controllers of each kind there are, for their names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    ata: u32,
    disks: u32,
    drives: u32,
    nvme: u32,
    virtio: u32,
}

/// Puts a driver on a device. `None`: there is none for it.
///
/// # Errors
/// One line: why its driver could not start it.
pub fn start(device: &Device, numbers: &mut Numbers) -> Option<Result<Box<dyn Controller>, String>> {
    fn take(number: &mut u32) -> u32 {
        let taken = *number;
        *number += 1;
        taken
    }
    match (device.identity(), device.class()) {
        ((0x1af4, 0x1001 | 0x1042), _) => Some(virtio_blk::start(device, take(&mut numbers.virtio))),
        (_, (1, 1, _)) => Some(ata::start(device, &mut numbers.ata)),
        (_, (1, 6, 1)) => {
            let names = ahci::Names {
                disks: &mut numbers.disks,
                drives: &mut numbers.drives,
            };
            Some(ahci::start(device, names))
        }
        (_, (1, 8, 2)) => Some(nvme::start(device, take(&mut numbers.nvme))),
        _ => None,
    }
}
