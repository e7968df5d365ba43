//! The host on the running system: [`Host`] by messages to the other servers. One file for each server that is asked.
//!
//! Calls wait for their answer; each has a time after which hostd goes on without it.

mod agent;
mod clock;
mod configuration;
mod console;
mod init;
mod interface;
mod machines;
mod network;
mod passthrough;
mod screen;
pub mod state;
mod stores;

use crate::server::{
    Machine, pages,
    tls::{self, Tls},
    worker::Worker,
};
use alloc::{
    boxed::Box,
    format,
    rc::Rc,
    string::{String, ToString},
    vec::Vec,
};
use clock::Clock;
use core::{
    cell::RefCell,
    net::{IpAddr, Ipv6Addr},
};
use init::Init;
use interface::Interface;
use machines::Machines;
use network::Network;
pub use stores::Stores;
use tessera_crypto::Identity;
use tessera_hostd::{
    future::LocalFuture,
    host::{
        CapabilityFacts, CaptureFacts, CertificateFacts, Console, DeviceFacts, DiskSpec, DnsSpec, EndpointFacts, EntryFacts, Failure,
        FileSink, FunctionFacts, Host, HostError, HostFacts, HostPower, InterfaceSpec, LogFacts, NicFacts, PortFacts, PortGroupSpec, Reply,
        ScreenView, ServerFacts, StoreFacts, SwitchSpec, TimeFacts, Usage, VmFacts, VmPower, VmSpec,
    },
    http::BodySource,
    licences,
    net::{NameError, Stack},
    platform::Platform,
    state::StateStore,
};
use tessera_proto::{CallError, FailureKind};
use tessera_rt::{Connection, Endpoint, abi::Error, grant, log, time};

/// More items than any list of the system has.
const LIST: usize = 4096;

/// Before the host ends, answers that are on their way have so many times so many milliseconds to arrive.
const MOST_ANSWER_WAITS: u32 = 20;
const ANSWER_WAIT_MS: u64 = 100;

/// What became of something that was asked.
type Answer<T> = Result<T, HostError>;

/// An answer that is there already.
fn now<'a, T: 'a>(answer: Answer<T>) -> LocalFuture<'a, Answer<T>> {
    Box::pin(core::future::ready(answer))
}

/// The server behind a grant, for calls that take at most `patience` milliseconds.
fn server(name: &str, patience: u64) -> Answer<Connection> {
    grant(name)
        .map(|slot| Connection::with_timeout(Endpoint::new(slot), time::milliseconds(patience)))
        .ok_or_else(|| {
            let text = format!("The manifest does not grant `{name}` to hostd: add it to system.toml");
            HostError::new(Failure::Unsupported, text)
        })
}

/// A failed call, and what was to be done by it.
fn failed(what: &str, error: &CallError) -> HostError {
    let failure = match error {
        CallError::Kernel(Error::TimedOut | Error::ServerDied) => Failure::Unavailable,
        CallError::Kernel(Error::NoMemory) => Failure::NoSpace,
        CallError::Failed(failure) => match failure.kind {
            FailureKind::BadRequest => Failure::Invalid,
            FailureKind::NotFound => Failure::NotFound,
            FailureKind::BadState => Failure::Busy,
            FailureKind::Exhausted => Failure::NoSpace,
            FailureKind::UnknownOperation | FailureKind::Unsupported | FailureKind::NotAllowed => Failure::Unsupported,
            FailureKind::TooLarge | FailureKind::Internal => Failure::Failed,
        },
        CallError::RequestTooLarge => Failure::Invalid,
        CallError::Kernel(_) | CallError::BadReply => Failure::Failed,
    };
    HostError::new(failure, format!("{what}: {error}"))
}

/// The thread for calls that take long has enough to do.
fn too_many() -> HostError {
    HostError::new(Failure::Unavailable, "Too many machines are being started, stopped or connected to")
}

/// Something that this system has no means for.
fn cannot<'a, T: 'a>(what: &str) -> LocalFuture<'a, Answer<T>> {
    now(Err(HostError::new(Failure::Unsupported, what)))
}

/// The other servers, and what of the host hostd has itself.
pub struct Servers {
    platform: Rc<dyn Platform>,
    calls: Rc<Worker>,
    stores: Rc<Stores>,
    store: Rc<dyn StateStore>,
    stack: Stack,
    mac: [u8; 6],
    tls: Rc<Tls>,
    clock: Rc<Clock>,
    interface: Rc<Interface>,
    /// Domains that are tried with names.
    search: Rc<RefCell<Vec<String>>>,
    notices: &'static str,
}

impl Servers {
    /// The host that the manifest's grants lead to, with hostd's own network, state and certificate. To be made once.
    pub fn new(machine: Rc<Machine>, stores: Rc<Stores>, store: Rc<dyn StateStore>, stack: Stack, mac: [u8; 6], tls: Rc<Tls>) -> Self {
        let platform: Rc<dyn Platform> = machine.clone();
        let search = Rc::default();
        Self {
            calls: machine.calls(),
            clock: Clock::start(&machine, &stack, &search),
            interface: Interface::open(&stack, &platform, &store),
            notices: pages::notices(),
            platform,
            stores,
            store,
            stack,
            mac,
            tls,
            search,
        }
    }
}

impl Host for Servers {
    fn facts(&self) -> Reply<'_, HostFacts> {
        now(Init.facts().map(|facts| HostFacts {
            // A host whose drives do not answer still has facts.
            sensors: self.stores.sensors().unwrap_or_default(),
            ..facts
        }))
    }

    fn usage(&self) -> Reply<'_, Usage> {
        now(Init.usage().map(|(usage, servers)| {
            // What does not answer now has used nothing, as far as anyone can tell.
            let guest_disks = self.stores.guest_disks().unwrap_or_default();
            Usage {
                vms: Machines.usage(&servers, &guest_disks).unwrap_or_default(),
                disk: self.stores.transferred().unwrap_or_default(),
                network: Network.transferred().unwrap_or_default(),
                ..usage
            }
        }))
    }

    fn host_power(&self, action: HostPower) -> Reply<'_, ()> {
        Box::pin(async move {
            // Who asked for it is told first, and so is everybody else whose answer is on its way; who takes nothing is not waited for.
            for _ in 0..MOST_ANSWER_WAITS {
                self.platform.sleep(ANSWER_WAIT_MS).await;
                if self.stack.is_drained() {
                    break;
                }
            }
            Init.power(action)
        })
    }

    fn servers(&self) -> Reply<'_, Vec<ServerFacts>> {
        now(Init.servers())
    }

    fn endpoints(&self) -> Reply<'_, Vec<EndpointFacts>> {
        now(Init.endpoints())
    }

    fn capabilities<'a>(&'a self, server: &'a str) -> Reply<'a, Vec<CapabilityFacts>> {
        now(Init.capabilities(server))
    }

    fn restart_server<'a>(&'a self, server: &'a str) -> Reply<'a, ()> {
        now(Init.restart(server))
    }

    fn log<'a>(&'a self, source: &'a str, most: usize) -> Reply<'a, Vec<LogFacts>> {
        now(Init.log(source, most, self.platform.unix_ms()))
    }

    fn licences(&self) -> Reply<'_, Vec<(String, String, String)>> {
        now(Ok(licences::parse(self.notices)))
    }

    fn functions(&self) -> Reply<'_, Vec<FunctionFacts>> {
        now(passthrough::functions())
    }

    fn vms(&self) -> Reply<'_, Vec<VmFacts>> {
        now(Machines.list().map(|mut all| {
            let running = agent::fill(&mut all);
            if !running.is_empty()
                && let Some(asking) = agent::Asking::begin()
            {
                // Nobody waits for it; where there is too much to do, it is done another time.
                drop(self.calls.run(move || asking.ask(running)));
            }
            all
        }))
    }

    fn vm_spec<'a>(&'a self, name: &'a str) -> Reply<'a, VmSpec> {
        now(Machines.spec(name))
    }

    fn define_vm<'a>(&'a self, old_name: Option<&'a str>, spec: &'a VmSpec) -> Reply<'a, ()> {
        now(Machines.define(old_name, spec))
    }

    fn change_medium<'a>(&'a self, name: &'a str, medium: Option<DiskSpec>) -> Reply<'a, ()> {
        now(Machines.change_medium(name, medium.as_ref()))
    }

    fn forget_vm<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        now(Machines.forget(name))
    }

    fn vm_power<'a>(&'a self, name: &'a str, action: VmPower) -> Reply<'a, ()> {
        // Its memory is cleared and its files are read meanwhile.
        let name = String::from(name);
        let order = self.calls.run(move || Machines.power(&name, action));
        Box::pin(async move { order.await.unwrap_or_else(|| Err(too_many())) })
    }

    fn vm_console<'a>(&'a self, name: &'a str) -> Reply<'a, Box<dyn Console>> {
        let name = String::from(name);
        let connected = self.calls.run(move || console::connect(&name));
        Box::pin(async move { console::open(connected.await.unwrap_or_else(|| Err(too_many()))?, self.platform.clone()) })
    }

    fn vm_screen<'a>(&'a self, name: &'a str, view: ScreenView) -> Reply<'a, Box<dyn Console>> {
        now(screen::open(name, view, self.platform.clone()))
    }

    fn vm_type<'a>(&'a self, name: &'a str, keys: &'a [u16], text: &'a str) -> Reply<'a, ()> {
        now(screen::type_at(name, keys, text))
    }

    fn vm_freeze<'a>(&'a self, name: &'a str, frozen: bool) -> Reply<'a, ()> {
        let name = String::from(name);
        let order = self.calls.run(move || agent::freeze(&name, frozen));
        Box::pin(async move { order.await.unwrap_or_else(|| Err(too_many())) })
    }

    fn save_vm<'a>(&'a self, name: &'a str, store: &'a str, path: &'a str) -> Reply<'a, ()> {
        let (name, file) = (String::from(name), (String::from(store), String::from(path)));
        let order = self.calls.run(move || Machines.suspend(&name, Some(file)));
        Box::pin(async move { order.await.unwrap_or_else(|| Err(too_many())) })
    }

    fn restore_vm<'a>(&'a self, name: &'a str, store: &'a str, path: &'a str) -> Reply<'a, ()> {
        let (name, file) = (String::from(name), (String::from(store), String::from(path)));
        let order = self.calls.run(move || Machines.resume(&name, Some(file)));
        Box::pin(async move { order.await.unwrap_or_else(|| Err(too_many())) })
    }

    fn devices(&self) -> Reply<'_, Vec<DeviceFacts>> {
        now(self.stores.devices())
    }

    fn stores(&self) -> Reply<'_, Vec<StoreFacts>> {
        now(self.stores.list())
    }

    fn create_store<'a>(&'a self, device: &'a str, name: &'a str) -> Reply<'a, ()> {
        now(self.stores.create_store(device, name))
    }

    fn grow_store<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        cannot(&format!(
            "Datastore {name} cannot be made larger: make another one on a larger drive"
        ))
    }

    fn remove_store<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        cannot(&format!(
            "Datastore {name} cannot be removed while the host runs: take its drive away"
        ))
    }

    fn browse<'a>(&'a self, store: &'a str, folder: &'a str) -> Reply<'a, Vec<EntryFacts>> {
        now(self.stores.browse(store, folder))
    }

    fn stat<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, EntryFacts> {
        now(self.stores.stat(store, path))
    }

    fn create_folder<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, ()> {
        now(self.stores.make(store, path, |stores| stores.create_folder(store, path)))
    }

    fn rename<'a>(&'a self, store: &'a str, from: &'a str, to: &'a str) -> Reply<'a, ()> {
        now(self.stores.make(store, to, |stores| stores.rename(store, from, to)))
    }

    fn remove<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, ()> {
        now(self.stores.change(store, path, |stores| stores.remove(store, path)))
    }

    fn read_file<'a>(&'a self, store: &'a str, path: &'a str, offset: u64, length: Option<u64>) -> Reply<'a, Box<dyn BodySource>> {
        now(self.stores.read_file(store, path, offset, length))
    }

    fn write_file<'a>(&'a self, store: &'a str, path: &'a str, offset: u64) -> Reply<'a, Box<dyn FileSink>> {
        now(self.stores.write_file(store, path, offset))
    }

    fn create_disk<'a>(&'a self, store: &'a str, path: &'a str, size: u64, thick: bool) -> Reply<'a, ()> {
        now(self.stores.create_disk(store, path, size, thick))
    }

    fn grow_disk<'a>(&'a self, store: &'a str, path: &'a str, size: u64) -> Reply<'a, ()> {
        now(self.stores.change(store, path, |stores| stores.grow_disk(store, path, size)))
    }

    fn snapshot_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()> {
        now(self
            .stores
            .change(store, path, |stores| stores.create_snapshot(store, path, snapshot)))
    }

    fn remove_snapshot<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()> {
        now(self
            .stores
            .change(store, path, |stores| stores.remove_snapshot(store, path, snapshot)))
    }

    fn revert_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()> {
        now(self.stores.change(store, path, |stores| stores.revert(store, path, snapshot)))
    }

    fn clone_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str, to: &'a str) -> Reply<'a, ()> {
        now(self
            .stores
            .make(store, to, |stores| stores.clone_snapshot(store, path, snapshot, to)))
    }

    fn nics(&self) -> Reply<'_, Vec<NicFacts>> {
        now(Network.nics())
    }

    fn switches(&self) -> Reply<'_, Vec<SwitchSpec>> {
        now(Network.switches())
    }

    fn set_switch<'a>(&'a self, _name: &'a str, spec: &'a SwitchSpec) -> Reply<'a, ()> {
        now(Network.set_switch(spec))
    }

    fn remove_switch<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        now(Network.remove_switch(name))
    }

    fn port_groups(&self) -> Reply<'_, Vec<PortGroupSpec>> {
        now(Network.port_groups())
    }

    fn set_port_group<'a>(&'a self, _name: &'a str, spec: &'a PortGroupSpec) -> Reply<'a, ()> {
        now(Network.set_port_group(spec))
    }

    fn remove_port_group<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        now(Network.remove_port_group(name))
    }

    fn ports(&self) -> Reply<'_, Vec<PortFacts>> {
        now(Network.ports())
    }

    fn captures(&self) -> Reply<'_, Vec<CaptureFacts>> {
        now(Network.captures())
    }

    fn start_capture<'a>(&'a self, port: &'a str, snap: u32) -> Reply<'a, u32> {
        now(Network.start_capture(port, snap))
    }

    fn read_capture(&self, id: u32, from: u64) -> Reply<'_, Vec<u8>> {
        now(Network.read_capture(id, from))
    }

    fn stop_capture(&self, id: u32) -> Reply<'_, ()> {
        now(Network.stop_capture(id))
    }

    fn remove_capture(&self, id: u32) -> Reply<'_, ()> {
        now(Network.remove_capture(id))
    }

    fn interfaces(&self) -> Reply<'_, Vec<InterfaceSpec>> {
        let (mut ipv4, mut ipv6) = (None, Vec::new());
        for (address, prefix) in self.stack.addresses() {
            match address {
                IpAddr::V4(address) => ipv4 = Some((address, prefix)),
                IpAddr::V6(address) => ipv6.push(address),
            }
        }
        let setting = self.interface.setting();
        let mut shown = network::interface(self.mac, ipv4, &ipv6);
        shown.dhcp = setting.is_dhcp();
        shown.gateway = self.stack.gateway().map(|gateway| gateway.to_string());
        // Those by hand are shown as they were set.
        let by_hand = |text: &String| {
            let addresses = setting
                .ipv6()
                .iter()
                .filter_map(|own| own.split_once('/')?.0.parse::<Ipv6Addr>().ok());
            addresses.into_iter().any(|own| own.to_string() == *text)
        };
        shown.ipv6.retain(|text| !by_hand(text));
        shown.ipv6.splice(0..0, setting.ipv6().iter().cloned());
        now(Ok([shown].into()))
    }

    fn set_interface<'a>(&'a self, spec: &'a InterfaceSpec) -> Reply<'a, ()> {
        if spec.port_group != network::MANAGEMENT {
            return cannot(&format!(
                "{} stays in {}: change that port group's VLAN",
                spec.name,
                network::MANAGEMENT
            ));
        }
        now(self.interface.change(spec))
    }

    fn reached(&self) {
        self.interface.reached();
    }

    fn set_dns<'a>(&'a self, spec: &'a DnsSpec) -> Reply<'a, ()> {
        let servers: Vec<IpAddr> = spec.servers.iter().filter_map(|server| server.parse().ok()).collect();
        self.stack.set_name_servers(&servers, spec.dhcp);
        let own = Some(&spec.domain).filter(|_| spec.search.is_empty());
        self.search.replace(spec.search.iter().chain(own).cloned().collect());
        now(Ok(()))
    }

    fn resolve<'a>(&'a self, name: &'a str) -> Reply<'a, Vec<String>> {
        let search = self.search.borrow().clone();
        Box::pin(async move {
            let failure = |error| match error {
                NameError::NotFound => Failure::NotFound,
                NameError::BadName => Failure::Invalid,
                NameError::NoServer => Failure::Failed,
                NameError::Busy => Failure::Unavailable,
            };
            let found = self.stack.resolve(name, &search).await;
            let found = found.map_err(|error| HostError::new(failure(error), format!("{name} cannot be looked up: {error}")))?;
            Ok(found.iter().map(ToString::to_string).collect())
        })
    }

    fn set_time_servers<'a>(&'a self, servers: &'a [String]) -> Reply<'a, ()> {
        self.clock.set(servers);
        now(Ok(()))
    }

    fn time(&self) -> Reply<'_, TimeFacts> {
        now(Ok(self.clock.facts()))
    }

    fn certificate(&self) -> Reply<'_, CertificateFacts> {
        let known = self.tls.identity().describe();
        now(Ok(CertificateFacts {
            self_signed: known.subject == known.issuer,
            subject: known.subject,
            issuer: known.issuer,
            not_before_ms: known.not_before.saturating_mul(1000),
            not_after_ms: known.not_after.saturating_mul(1000),
            fingerprint: known.fingerprint,
        }))
    }

    fn set_certificate<'a>(&'a self, chain: &'a str, key: &'a str) -> Reply<'a, ()> {
        Box::pin(async move {
            let invalid =
                |error: &dyn core::fmt::Display| HostError::new(Failure::Invalid, format!("The certificate is not taken: {error}"));
            let identity = Identity::from_pem(chain, key).map_err(|error| invalid(&error))?;
            let now = self.platform.unix_ms() / 1000;
            if identity.describe().not_after <= now {
                return Err(invalid(&"it has expired"));
            }
            self.tls.take(identity, &*self.store).await
        })
    }

    fn renew_certificate<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        Box::pin(async move {
            let addresses: Vec<IpAddr> = self.stack.addresses().into_iter().map(|(address, _)| address).collect();
            let identity = tls::self_signed(Some(&self.tls.identity()), name, &addresses, self.platform.unix_ms() / 1000);
            let identity = identity.map_err(|error| HostError::new(Failure::Failed, format!("A certificate cannot be made: {error}")))?;
            self.tls.take(identity, &*self.store).await
        })
    }

    fn announce(&self, line: &str) {
        log::info!("{line}");
    }
}
