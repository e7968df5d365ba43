//! What hostd asks of other servers, by messages. Each of them answers at once or soon, so nothing here waits but for the answer.

mod console;
mod init;
mod machines;
mod network;
mod stores;

use alloc::{boxed::Box, format, rc::Rc, string::String, vec::Vec};
use core::{cell::RefCell, future::ready, net::IpAddr};
use stores::Buffer;
use tessera_crypto::Identity;
use tessera_hostd::{
    host::{
        CapabilityFacts, CertificateFacts, Console, DeviceFacts, DnsSpec, EndpointFacts, EntryFacts, Failure, FileSink, Host, HostError,
        HostFacts, HostPower, InterfaceSpec, LogFacts, NicFacts, PortGroupSpec, Reply, ServerFacts, StoreFacts, SwitchSpec, TimeFacts,
        Usage, VmFacts, VmPower, VmSpec,
    },
    http::BodySource,
    net::Stack,
    platform::Platform,
};
use tessera_proto::{CallError, FailureKind};
use tessera_rt::{abi::Error, log, time};

/// Most items of a list that are asked for.
const LIST: usize = 4096;

/// The other servers, and what of the host hostd has itself.
pub struct Servers {
    platform: Rc<dyn Platform>,
    buffer: RefCell<Option<Buffer>>,
    stack: Stack,
    mac: [u8; 6],
    identity: Identity,
}

impl Servers {
    /// Speaks with them.
    pub fn new(platform: Rc<dyn Platform>, stack: Stack, mac: [u8; 6], identity: Identity) -> Self {
        Self {
            platform,
            buffer: RefCell::default(),
            stack,
            mac,
            identity,
        }
    }

    fn buffer(&self) -> Buffer {
        self.buffer.borrow_mut().get_or_insert_with(Buffer::map).clone()
    }
}

/// What a server's refusal means here.
fn error(what: &str, error: CallError) -> HostError {
    match error {
        CallError::Failed(refused) => {
            let failure = match refused.kind {
                FailureKind::NotFound => Failure::NotFound,
                FailureKind::BadState if refused.detail.contains("already") => Failure::Exists,
                FailureKind::BadState => Failure::Busy,
                FailureKind::Exhausted => Failure::NoSpace,
                FailureKind::BadRequest | FailureKind::TooLarge => Failure::Invalid,
                FailureKind::Unsupported | FailureKind::UnknownOperation | FailureKind::NotAllowed => Failure::Unsupported,
                FailureKind::Internal => Failure::Failed,
            };
            let detail = if refused.detail.is_empty() {
                format!("{refused}")
            } else {
                refused.detail
            };
            HostError::new(failure, format!("{what}: {detail}"))
        }
        CallError::Kernel(Error::TimedOut | Error::ServerDied) => {
            HostError::new(Failure::Unavailable, format!("{what}: the server that knows does not answer now"))
        }
        other => HostError::new(Failure::Failed, format!("{what}: {other}")),
    }
}

fn not_found(what: &str, name: &str) -> HostError {
    HostError::new(Failure::NotFound, format!("there is no {what} `{name}`"))
}

fn unsupported(text: &str) -> HostError {
    HostError::new(Failure::Unsupported, text)
}

fn ticks_to_us(ticks: u64) -> u64 {
    time::from_ticks(ticks, 1_000_000, time::hz())
}

/// Microseconds in each period that make up a limit in MHz, shared by the vCPUs. 0 would be no limit.
fn mhz_to_budget(limit: u32, vcpus: u32, period_us: u64) -> u64 {
    let mhz = (time::hz() / 1_000_000).max(1);
    (u64::from(limit) * period_us / mhz / u64::from(vcpus.max(1))).clamp(1, period_us)
}

fn now<'a, T: 'a>(result: Result<T, HostError>) -> Reply<'a, T> {
    Box::pin(ready(result))
}

fn missing<'a, T: 'a>(what: &str) -> Reply<'a, T> {
    now(Err(unsupported(what)))
}

impl Host for Servers {
    fn facts(&self) -> Reply<'_, HostFacts> {
        now(init::facts())
    }

    fn usage(&self) -> Reply<'_, Usage> {
        now(init::usage())
    }

    fn host_power(&self, _: HostPower) -> Reply<'_, ()> {
        missing("the host is switched off and started again from its debug shell only: `poweroff`, `reboot`")
    }

    fn servers(&self) -> Reply<'_, Vec<ServerFacts>> {
        now(init::servers())
    }

    fn endpoints(&self) -> Reply<'_, Vec<EndpointFacts>> {
        now(init::endpoints())
    }

    fn capabilities<'a>(&'a self, server: &'a str) -> Reply<'a, Vec<CapabilityFacts>> {
        now(init::capabilities(server))
    }

    fn restart_server<'a>(&'a self, server: &'a str) -> Reply<'a, ()> {
        now(init::restart(server))
    }

    fn log<'a>(&'a self, source: &'a str, most: usize) -> Reply<'a, Vec<LogFacts>> {
        now(init::log(source, most))
    }

    fn licences(&self) -> Reply<'_, Vec<(String, String, String)>> {
        missing("the image's NOTICE file has the licences; it cannot be read from here yet")
    }

    fn vms(&self) -> Reply<'_, Vec<VmFacts>> {
        now(machines::facts())
    }

    fn define_vm<'a>(&'a self, old_name: Option<&'a str>, spec: &'a VmSpec) -> Reply<'a, ()> {
        now(machines::define(old_name, spec))
    }

    fn forget_vm<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        now(machines::forget(name))
    }

    fn vm_power<'a>(&'a self, name: &'a str, action: VmPower) -> Reply<'a, ()> {
        now(machines::power(name, action))
    }

    fn vm_console<'a>(&'a self, name: &'a str) -> Reply<'a, Box<dyn Console>> {
        let opened = console::Serial::open(self.platform.clone(), name);
        now(opened.map(|console| Box::new(console) as Box<dyn Console>))
    }

    fn save_vm<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> Reply<'a, ()> {
        missing("a virtual machine's memory cannot be kept yet")
    }

    fn restore_vm<'a>(&'a self, _: &'a str, _: &'a str, _: &'a str) -> Reply<'a, ()> {
        missing("a virtual machine's memory cannot be kept yet")
    }

    fn devices(&self) -> Reply<'_, Vec<DeviceFacts>> {
        now(stores::devices())
    }

    fn stores(&self) -> Reply<'_, Vec<StoreFacts>> {
        now(stores::stores())
    }

    fn create_store<'a>(&'a self, device: &'a str, name: &'a str) -> Reply<'a, ()> {
        now(stores::create(device, name))
    }

    fn grow_store<'a>(&'a self, _: &'a str) -> Reply<'a, ()> {
        missing("a datastore grows by `image-builder datastore resize` only, while the host does not use it")
    }

    fn remove_store<'a>(&'a self, _: &'a str) -> Reply<'a, ()> {
        missing("a datastore cannot be removed while the host runs yet")
    }

    fn browse<'a>(&'a self, store: &'a str, folder: &'a str) -> Reply<'a, Vec<EntryFacts>> {
        now(stores::browse(store, folder))
    }

    fn stat<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, EntryFacts> {
        now(stores::stat(store, path))
    }

    fn create_folder<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, ()> {
        now(stores::act(path, |client| client.create_folder(store, path)))
    }

    fn rename<'a>(&'a self, store: &'a str, from: &'a str, to: &'a str) -> Reply<'a, ()> {
        now(stores::act(from, |client| client.rename(store, from, to)))
    }

    fn remove<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, ()> {
        now(stores::act(path, |client| client.remove(store, path)))
    }

    fn read_file<'a>(&'a self, store: &'a str, path: &'a str, offset: u64, length: Option<u64>) -> Reply<'a, Box<dyn BodySource>> {
        now(stores::read(&self.buffer(), store, path, offset, length))
    }

    fn write_file<'a>(&'a self, store: &'a str, path: &'a str, offset: u64) -> Reply<'a, Box<dyn FileSink>> {
        now(stores::write(&self.buffer(), store, path, offset))
    }

    fn create_disk<'a>(&'a self, store: &'a str, path: &'a str, size: u64, thick: bool) -> Reply<'a, ()> {
        now(stores::create_disk(store, path, size, thick))
    }

    fn grow_disk<'a>(&'a self, store: &'a str, path: &'a str, size: u64) -> Reply<'a, ()> {
        now(stores::act(path, |client| client.grow_disk(store, path, size)))
    }

    fn snapshot_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()> {
        now(stores::act(path, |client| client.create_snapshot(store, path, snapshot)))
    }

    fn remove_snapshot<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()> {
        now(stores::act(path, |client| client.remove_snapshot(store, path, snapshot)))
    }

    fn revert_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()> {
        now(stores::act(path, |client| client.revert(store, path, snapshot)))
    }

    fn clone_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str, to: &'a str) -> Reply<'a, ()> {
        now(stores::act(path, |client| client.clone_snapshot(store, path, snapshot, to)))
    }

    fn nics(&self) -> Reply<'_, Vec<NicFacts>> {
        now(network::facts())
    }

    fn switches(&self) -> Reply<'_, Vec<SwitchSpec>> {
        now(network::switches())
    }

    fn set_switch<'a>(&'a self, _: &'a str, _: &'a SwitchSpec) -> Reply<'a, ()> {
        missing("virtual switches cannot be changed while the host runs yet")
    }

    fn remove_switch<'a>(&'a self, _: &'a str) -> Reply<'a, ()> {
        missing("virtual switches cannot be changed while the host runs yet")
    }

    fn port_groups(&self) -> Reply<'_, Vec<PortGroupSpec>> {
        now(Ok(network::port_groups()))
    }

    fn set_port_group<'a>(&'a self, _: &'a str, _: &'a PortGroupSpec) -> Reply<'a, ()> {
        missing("port groups cannot be changed while the host runs yet")
    }

    fn remove_port_group<'a>(&'a self, _: &'a str) -> Reply<'a, ()> {
        missing("port groups cannot be changed while the host runs yet")
    }

    fn interfaces(&self) -> Reply<'_, Vec<InterfaceSpec>> {
        let (mut ipv4, mut ipv6) = (None, Vec::new());
        for (address, prefix) in self.stack.addresses() {
            match address {
                IpAddr::V4(address) => ipv4 = Some((address, prefix)),
                IpAddr::V6(address) => ipv6.push(address),
            }
        }
        now(Ok([network::interface(self.mac, ipv4, ipv6)].into()))
    }

    fn set_interface<'a>(&'a self, _: &'a InterfaceSpec) -> Reply<'a, ()> {
        missing("the host's addresses come by DHCP; they cannot be set by hand yet")
    }

    fn set_dns<'a>(&'a self, _: &'a DnsSpec) -> Reply<'a, ()> {
        missing("the host resolves no names yet")
    }

    fn resolve<'a>(&'a self, _: &'a str) -> Reply<'a, Vec<String>> {
        missing("the host resolves no names yet")
    }

    fn set_time_servers<'a>(&'a self, _: &'a [String]) -> Reply<'a, ()> {
        missing("the host's clock follows no time servers yet")
    }

    fn time(&self) -> Reply<'_, TimeFacts> {
        now(Ok(TimeFacts::default()))
    }

    fn certificate(&self) -> Reply<'_, CertificateFacts> {
        let known = self.identity.describe();
        now(Ok(CertificateFacts {
            self_signed: known.subject == known.issuer,
            subject: known.subject,
            issuer: known.issuer,
            not_before_ms: known.not_before.saturating_mul(1000),
            not_after_ms: known.not_after.saturating_mul(1000),
            fingerprint: known.fingerprint,
        }))
    }

    fn set_certificate<'a>(&'a self, _: &'a str, _: &'a str) -> Reply<'a, ()> {
        missing("the host's certificate cannot be replaced yet")
    }

    fn announce(&self, line: &str) {
        log::info!("{line}");
    }
}
