//! The network server's switches, by messages.

use super::{LIST, NETWORK_PATIENCE_MS, System, not_granted};
use alloc::vec::Vec;
use tessera_proto::{
    capture::{self, CaptureChunk, CaptureInfo},
    collect,
    hostd::{self, Echo},
    switch::{self, AddressInfo, GroupInfo, PortInfo, SwitchInfo},
};
use tessera_rt::{Connection, Endpoint, grant, time};
use tessera_shell::host::{Answer, NetworkChange, Networks};

fn connection() -> Answer<Connection> {
    match grant("net") {
        Some(slot) => Ok(Connection::with_timeout(
            Endpoint::new(slot),
            time::milliseconds(NETWORK_PATIENCE_MS),
        )),
        None => not_granted("net"),
    }
}

fn switch() -> Answer<switch::Client<Connection>> {
    connection().map(switch::Client)
}

fn capture() -> Answer<capture::Client<Connection>> {
    connection().map(capture::Client)
}

impl Networks for System {
    fn switches(&mut self) -> Answer<Vec<SwitchInfo>> {
        let mut client = switch()?;
        collect(LIST, |first| client.switches(first))
    }

    fn port_groups(&mut self) -> Answer<Vec<GroupInfo>> {
        let mut client = switch()?;
        collect(LIST, |first| client.groups(first))
    }

    fn ports(&mut self) -> Answer<Vec<PortInfo>> {
        let mut client = switch()?;
        collect(LIST, |first| client.ports(first))
    }

    fn addresses(&mut self, name: &str) -> Answer<Vec<AddressInfo>> {
        let mut client = switch()?;
        collect(LIST, |first| client.addresses(name, first))
    }

    fn network_change(&mut self, change: NetworkChange<'_>) -> Answer<()> {
        let mut client = switch()?;
        match change {
            NetworkChange::CreateSwitch(settings) => client.create_switch(settings),
            NetworkChange::ChangeSwitch(settings) => client.change_switch(settings),
            NetworkChange::RemoveSwitch(name) => client.remove_switch(name),
            NetworkChange::CreateGroup { switch, group } => client.create_group(switch, group),
            NetworkChange::ChangeGroup(group) => client.change_group(group),
            NetworkChange::RemoveGroup(name) => client.remove_group(name),
            NetworkChange::Link { switch, nic } => client.link(switch, nic),
            NetworkChange::Unlink { switch, nic } => client.unlink(switch, nic),
            NetworkChange::Mirror { switch, from, to } => client.mirror(switch, from, to),
            NetworkChange::PortLink { port, up } => client.set_link(port, up),
        }
    }

    fn ping(&mut self, to: &str, sequence: u16, bytes: u16, wait_ms: u32) -> Answer<Echo> {
        let Some(slot) = grant("hostd") else { return not_granted("hostd") };
        let connection = Connection::with_timeout(Endpoint::new(slot), time::milliseconds(NETWORK_PATIENCE_MS));
        hostd::Client(connection).ping(to, sequence, bytes, wait_ms)
    }

    fn captures(&mut self) -> Answer<Vec<CaptureInfo>> {
        let mut client = capture()?;
        collect(LIST, |first| client.captures(first))
    }

    fn capture_start(&mut self, port: &str, snap: u32) -> Answer<u32> {
        capture()?.start(port, snap, 0)
    }

    fn capture_read(&mut self, id: u32, from: u64) -> Answer<CaptureChunk> {
        capture()?.read(id, from)
    }

    fn capture_stop(&mut self, id: u32) -> Answer<()> {
        capture()?.stop(id)
    }

    fn capture_remove(&mut self, id: u32) -> Answer<()> {
        capture()?.remove(id)
    }
}
