//! The way to the server of the network cards.

use super::devices::{Backend, Event, Taken};
use alloc::boxed::Box;
use tessera_proto::guest_net::{Client, GuestNetEvent};
use tessera_proto::{CallError, Slots};
use tessera_rt::Connection;
use tessera_vmm::devices::virtio::{DeviceConfig, net};

/// The machine's network cards.
pub struct Nics;

impl Backend for Nics {
    const WHAT: &'static str = "network card";
    const SERVER: &'static str = "net";

    fn describe(&self, connection: Connection, nic: u32, queues: u16) -> Result<DeviceConfig, CallError> {
        let info = Client(connection).describe(nic)?;
        Ok(net::config(&net::Nic {
            mac: info.mac,
            mtu: info.mtu,
            link: info.link,
            speed: info.speed,
            pairs: info.pairs.min(queues),
        }))
    }

    fn interrupt(&self, connection: Connection, slot: u32, nic: u32, queue: u16) -> Result<(), CallError> {
        Client(connection).interrupt([slot], nic, queue)
    }

    fn attach(&self, connection: Connection, nic: u32, taken: &Taken, resume: bool, slot: Slots<1>) -> Result<(), CallError> {
        // Of each pair two, and the control queue.
        let pairs = taken.offered / 2;
        Client(connection).attach(nic, taken.features, pairs, taken.queues.clone(), resume, slot)
    }

    fn reset(&self, connection: Connection, nic: u32) -> Result<(), CallError> {
        Client(connection).reset(nic)
    }

    fn watch(&self, connection: Connection) -> Result<Event, CallError> {
        Ok(match Client(connection).watch()? {
            GuestNetEvent::Broken { nic, reason } => Event::Broken(nic, reason),
            GuestNetEvent::Status { nic, link, announce } => {
                Event::Changed(nic, Box::new(move |config| net::set_status(config, link, announce)))
            }
        })
    }
}
