//! The way to the server of the disks.

use super::devices::{Backend, Event, Taken};
use alloc::boxed::Box;
use tessera_proto::guest_disk::{Client, GuestDiskEvent};
use tessera_proto::{CallError, Slots};
use tessera_rt::Connection;
use tessera_vmm::devices::virtio::{DeviceConfig, block};

/// The machine's disks.
pub struct Disks;

impl Backend for Disks {
    const WHAT: &'static str = "disk";
    const SERVER: &'static str = "storage";

    fn describe(&self, connection: Connection, disk: u32, queues: u16) -> Result<DeviceConfig, CallError> {
        let info = Client(connection).describe(disk)?;
        Ok(block::config(&block::Disk {
            sectors: info.sectors,
            block_size: info.block_size,
            read_only: info.read_only,
            discard: info.discard,
            queues: info.queues.min(queues),
            segments: info.segments,
        }))
    }

    fn interrupt(&self, connection: Connection, slot: u32, disk: u32, queue: u16) -> Result<(), CallError> {
        Client(connection).interrupt([slot], disk, queue)
    }

    fn attach(&self, connection: Connection, disk: u32, taken: &Taken, resume: bool, slot: Slots<1>) -> Result<(), CallError> {
        Client(connection).attach(disk, taken.features, taken.queues.clone(), resume, slot)
    }

    fn reset(&self, connection: Connection, disk: u32) -> Result<(), CallError> {
        Client(connection).reset(disk)
    }

    fn watch(&self, connection: Connection) -> Result<Event, CallError> {
        Ok(match Client(connection).watch()? {
            GuestDiskEvent::Broken { disk, reason } => Event::Broken(disk, reason),
            GuestDiskEvent::Resized { disk, sectors } => Event::Changed(
                disk,
                Box::new(move |config| {
                    block::set_sectors(config, sectors);
                    true
                }),
            ),
        })
    }
}
