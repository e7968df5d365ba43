//! What hostd asks of other servers.

use alloc::{boxed::Box, rc::Rc, string::String, vec::Vec};
use tessera_hostd::{host::*, http::BodySource, platform::Platform};
use tessera_rt::log;

/// The other servers.
pub struct Servers;

impl Servers {
    /// Speaks with them.
    pub fn new(_platform: Rc<dyn Platform>) -> Self {
        Self
    }
}

fn missing<'a, T: 'a>() -> Reply<'a, T> {
    Box::pin(async { Err(HostError::new(Failure::Unsupported, "this host cannot do that yet")) })
}

impl Host for Servers {
    fn facts(&self) -> Reply<'_, HostFacts> {
        missing()
    }

    fn usage(&self) -> Reply<'_, Usage> {
        missing()
    }

    fn host_power(&self, _action: HostPower) -> Reply<'_, ()> {
        missing()
    }

    fn servers(&self) -> Reply<'_, Vec<ServerFacts>> {
        missing()
    }

    fn endpoints(&self) -> Reply<'_, Vec<EndpointFacts>> {
        missing()
    }

    fn capabilities<'a>(&'a self, _server: &'a str) -> Reply<'a, Vec<CapabilityFacts>> {
        missing()
    }

    fn restart_server<'a>(&'a self, _server: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn log<'a>(&'a self, _source: &'a str, _most: usize) -> Reply<'a, Vec<LogFacts>> {
        missing()
    }

    fn licences(&self) -> Reply<'_, Vec<(String, String, String)>> {
        missing()
    }

    fn vms(&self) -> Reply<'_, Vec<VmFacts>> {
        missing()
    }

    fn define_vm<'a>(&'a self, _old_name: Option<&'a str>, _spec: &'a VmSpec) -> Reply<'a, ()> {
        missing()
    }

    fn forget_vm<'a>(&'a self, _name: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn vm_power<'a>(&'a self, _name: &'a str, _action: VmPower) -> Reply<'a, ()> {
        missing()
    }

    fn vm_console<'a>(&'a self, _name: &'a str) -> Reply<'a, Box<dyn Console>> {
        missing()
    }

    fn save_vm<'a>(&'a self, _name: &'a str, _store: &'a str, _path: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn restore_vm<'a>(&'a self, _name: &'a str, _store: &'a str, _path: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn devices(&self) -> Reply<'_, Vec<DeviceFacts>> {
        missing()
    }

    fn stores(&self) -> Reply<'_, Vec<StoreFacts>> {
        missing()
    }

    fn create_store<'a>(&'a self, _device: &'a str, _name: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn grow_store<'a>(&'a self, _name: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn remove_store<'a>(&'a self, _name: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn browse<'a>(&'a self, _store: &'a str, _folder: &'a str) -> Reply<'a, Vec<EntryFacts>> {
        missing()
    }

    fn stat<'a>(&'a self, _store: &'a str, _path: &'a str) -> Reply<'a, EntryFacts> {
        missing()
    }

    fn create_folder<'a>(&'a self, _store: &'a str, _path: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn rename<'a>(&'a self, _store: &'a str, _from: &'a str, _to: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn remove<'a>(&'a self, _store: &'a str, _path: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn read_file<'a>(&'a self, _store: &'a str, _path: &'a str, _offset: u64, _length: Option<u64>) -> Reply<'a, Box<dyn BodySource>> {
        missing()
    }

    fn write_file<'a>(&'a self, _store: &'a str, _path: &'a str, _offset: u64) -> Reply<'a, Box<dyn FileSink>> {
        missing()
    }

    fn create_disk<'a>(&'a self, _store: &'a str, _path: &'a str, _size: u64, _thick: bool) -> Reply<'a, ()> {
        missing()
    }

    fn grow_disk<'a>(&'a self, _store: &'a str, _path: &'a str, _size: u64) -> Reply<'a, ()> {
        missing()
    }

    fn snapshot_disk<'a>(&'a self, _store: &'a str, _path: &'a str, _snapshot: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn remove_snapshot<'a>(&'a self, _store: &'a str, _path: &'a str, _snapshot: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn revert_disk<'a>(&'a self, _store: &'a str, _path: &'a str, _snapshot: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn clone_disk<'a>(&'a self, _store: &'a str, _path: &'a str, _snapshot: &'a str, _to: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn nics(&self) -> Reply<'_, Vec<NicFacts>> {
        missing()
    }

    fn switches(&self) -> Reply<'_, Vec<SwitchSpec>> {
        missing()
    }

    fn set_switch<'a>(&'a self, _name: &'a str, _spec: &'a SwitchSpec) -> Reply<'a, ()> {
        missing()
    }

    fn remove_switch<'a>(&'a self, _name: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn port_groups(&self) -> Reply<'_, Vec<PortGroupSpec>> {
        missing()
    }

    fn set_port_group<'a>(&'a self, _name: &'a str, _spec: &'a PortGroupSpec) -> Reply<'a, ()> {
        missing()
    }

    fn remove_port_group<'a>(&'a self, _name: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn interfaces(&self) -> Reply<'_, Vec<InterfaceSpec>> {
        missing()
    }

    fn set_interface<'a>(&'a self, _spec: &'a InterfaceSpec) -> Reply<'a, ()> {
        missing()
    }

    fn set_dns<'a>(&'a self, _spec: &'a DnsSpec) -> Reply<'a, ()> {
        missing()
    }

    fn resolve<'a>(&'a self, _name: &'a str) -> Reply<'a, Vec<String>> {
        missing()
    }

    fn set_time_servers<'a>(&'a self, _servers: &'a [String]) -> Reply<'a, ()> {
        missing()
    }

    fn time(&self) -> Reply<'_, TimeFacts> {
        missing()
    }

    fn certificate(&self) -> Reply<'_, CertificateFacts> {
        missing()
    }

    fn set_certificate<'a>(&'a self, _chain: &'a str, _key: &'a str) -> Reply<'a, ()> {
        missing()
    }

    fn announce(&self, line: &str) {
        log::info!("{line}");
    }
}
