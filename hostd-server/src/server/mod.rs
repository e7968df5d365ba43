//! The daemon on the running system: one thread, one loop. Frames, timers and tasks have their turns; nothing waits for a client.

mod machine;
mod messages;
mod network;
pub mod pages;
mod random;
pub mod tls;
pub mod worker;

use crate::servers::{
    Servers, Stores,
    state::{self, Found, StoreFile},
};
use alloc::{boxed::Box, rc::Rc, string::ToString, vec::Vec};
use core::net::IpAddr;
pub use machine::Machine;
use messages::Messages;
use network::SwitchPort;
use tessera_hostd::{
    api::Api,
    files::Pack,
    host::Host,
    http::{Request, Response, Service, serve},
    net::{Ipv4, Port, Stack},
    platform::Platform,
    state::{Keeper, StateStore},
    tls::TlsStream,
};
use tessera_proto::{Call, hostd};
use tessera_rt::{
    Endpoint, Reply, exit, log, require,
    server::{self, serve as serve_messages},
    start,
    start::start_info,
    time,
};
use tls::Tls;

/// The port of HTTPS.
const HTTPS: u16 = 443;
/// Where what is asked of the API begins.
const API: &str = "/api/";
/// What the manifest's argument with the first password begins with.
const PASSWORD: &str = "password=";
/// Milliseconds between two looks for a datastore that can take the state.
const LOOK_MS: u64 = 2000;
/// Milliseconds between two looks at the certificate's end.
const CERTIFICATE_MS: u64 = 3_600_000;
/// Milliseconds of the longest pause.
const PAUSE_MS: u64 = 20;

fn service(api: Rc<Api>, pages: Option<Pack>) -> Service {
    let pages = Rc::new(pages);
    Rc::new(move |request: Request| {
        let (api, pages) = (api.clone(), pages.clone());
        Box::pin(async move {
            if request.path.starts_with(API) {
                return api.answer(request).await;
            }
            let page = pages.as_ref().as_ref().and_then(|pages| pages.respond(&request));
            page.unwrap_or_else(|| Response::new(404))
        })
    })
}

/// Accepts connections for ever.
async fn listen(machine: Rc<Machine>, stack: Stack, tls: Rc<Tls>, service: Service) {
    loop {
        let (socket, peer) = stack.accept(HTTPS).await;
        match TlsStream::new(socket, tls.config()) {
            Ok(stream) => {
                let platform: Rc<dyn Platform> = machine.clone();
                let connection = serve(platform, Box::new(stream), peer.to_string(), true, service.clone());
                machine.spawn(Box::pin(connection));
            }
            Err(_) => log::warn!("{peer}: TLS does not begin"),
        }
    }
}

/// The program.
pub fn run() {
    if !random::seed() {
        log::warn!("the processor has no random numbers: keys are made of the clock's jitter");
    }
    let machine = match Machine::new() {
        Ok(machine) => Rc::new(machine),
        Err(error) => {
            log::error!("hostd's threads cannot be started: {}", error.text());
            exit(1, "there is no room for threads: raise `memory` of hostd in the manifest")
        }
    };
    let port = match SwitchPort::open() {
        Ok(port) => port,
        Err(error) => {
            log::error!("the port on the virtual switch cannot be opened: {error}");
            exit(1, "there is no network")
        }
    };
    let stack = Stack::new(Box::new(port.clone()), Ipv4::Dhcp, random::number(), machine.monotonic_ms());
    start_api(&machine, &stack, port.mac());
    start::ready();
    let mut daemon = Daemon {
        messages: Messages::new(&machine, &stack),
        machine,
        stack,
        port,
        addresses: Vec::new(),
    };
    if let Err(error) = serve_messages(Endpoint::new(require("hostd")), Reply::FIRST, &mut daemon) {
        log::error!("the endpoint `hostd` cannot be served: {}", error.text());
        exit(1, "messages cannot be received")
    }
}

/// What has its turns in the loop.
struct Daemon {
    machine: Rc<Machine>,
    stack: Stack,
    port: SwitchPort,
    messages: Messages,
    /// Those that the log has told of.
    addresses: Vec<(IpAddr, u8)>,
}

impl Daemon {
    /// Does what is due, and says when something will be (TSC).
    fn turn(&mut self) -> u64 {
        let next = self.stack.poll(self.machine.monotonic_ms()).unwrap_or(PAUSE_MS);
        self.port.flush();
        let more = self.machine.turn();
        // What tasks wrote goes out at once.
        self.stack.poll(self.machine.monotonic_ms());
        self.port.flush();
        let found = self.stack.addresses();
        if found != self.addresses {
            for (address, prefix) in found.iter().filter(|address| !self.addresses.contains(address)) {
                log::info!("management address {address}/{prefix}");
            }
            self.addresses = found;
        }
        if more {
            return time::now();
        }
        let pause = next.min(PAUSE_MS).min(self.machine.pause());
        time::after(time::milliseconds(pause))
    }
}

impl server::Service for Daemon {
    fn message(&mut self, call: &mut Call, request: &[u8], reply: &mut [u8]) -> usize {
        hostd::dispatch(&mut self.messages, call, request, reply)
    }

    fn deadline(&mut self) -> Option<u64> {
        Some(self.turn())
    }

    fn reply(&mut self, _first: Reply) -> Reply {
        self.messages.reply()
    }
}

/// Opens the state where it is, or where there is room for it.
async fn open_state(stores: &Stores, platform: &Rc<dyn Platform>) -> Keeper<StoreFile> {
    let (name, known) = match state::find(stores, platform, true).await {
        Found::There(name) => (name, true),
        Found::Room(name) => (name, false),
        Found::Nowhere => {
            log::warn!("there is no datastore for the host's own settings: nothing of them will be kept");
            return Keeper::new(None);
        }
    };
    match state::open(stores, platform, &name).await {
        Ok(files) => {
            log::info!("the host's settings are kept in datastore {name}");
            Keeper::new(Some(files))
        }
        Err(error) if known => {
            // Whoever goes on without it would begin another state.
            log::error!("the state in datastore {name} cannot be opened: {error:?}");
            exit(1, "there is no state")
        }
        Err(error) => {
            log::error!("datastore {name} does not take the host's settings ({error:?}): nothing of them will be kept");
            Keeper::new(None)
        }
    }
}

/// While nothing is kept: looks for a datastore, and moves the state there.
async fn look_for_a_store(stores: Rc<Stores>, platform: Rc<dyn Platform>, keeper: Rc<Keeper<StoreFile>>) {
    while !keeper.persistent() {
        platform.sleep(LOOK_MS).await;
        // A disk that nobody can use now is named in the list of datastores; here it would be so every few seconds.
        if !stores.list().is_ok_and(|all| all.iter().any(|store| store.problem.is_empty())) {
            continue;
        }
        let name = match state::find(&stores, &platform, false).await {
            Found::There(name) => {
                log::warn!("datastore {name} with the host's settings appeared: starting again with them");
                exit(1, "the state appeared")
            }
            Found::Room(name) => name,
            Found::Nowhere => continue,
        };
        let moved = match state::open(&stores, &platform, &name).await {
            Ok(files) => keeper.adopt(files).await,
            Err(error) => Err(error),
        };
        match moved {
            Ok(()) => log::info!("the host's settings are kept in datastore {name} from now on"),
            Err(error) => log::error!("datastore {name} does not take the host's settings: {error:?}"),
        }
    }
}

/// Makes the host's own certificate anew before it ends, under the name that it has, for as long as hostd runs.
async fn renew_certificate(host: Rc<Servers>, tls: Rc<Tls>, platform: Rc<dyn Platform>) {
    loop {
        platform.sleep(CERTIFICATE_MS).await;
        if !tls.is_due(platform.unix_ms() / 1000) {
            continue;
        }
        let subject = tls.identity().describe().subject;
        // Of `CN=NAME,O=Tessera`.
        let name = subject.split(',').find_map(|part| part.strip_prefix("CN=")).unwrap_or("tessera");
        match host.renew_certificate(name).await {
            Ok(()) => log::warn!("the certificate was about to end: a new one was made"),
            Err(error) => log::error!("the certificate is about to end: {}", error.message),
        }
    }
}

/// Begins everything that waits for others.
fn start_api(machine: &Rc<Machine>, stack: &Stack, mac: [u8; 6]) {
    let (own, stack) = (machine.clone(), stack.clone());
    machine.spawn(Box::pin(async move {
        let platform: Rc<dyn Platform> = own.clone();
        let words = &start_info().arguments;
        let password = words.iter().find_map(|word| word.strip_prefix(PASSWORD));
        let stores = Rc::new(Stores::new(platform.clone()));
        let keeper = Rc::new(open_state(&stores, &platform).await);
        if let Err(error) = keeper.load().await {
            log::error!("the state cannot be read: {error:?}");
            exit(1, "there is no state");
        }
        let tls = match Tls::open(&*keeper, platform.unix_ms() / 1000).await {
            Ok(tls) => Rc::new(tls),
            Err(error) => {
                log::error!("{}", error.message);
                exit(1, "TLS cannot be set up")
            }
        };
        let host = Rc::new(Servers::new(
            own.clone(),
            stores.clone(),
            keeper.clone(),
            stack.clone(),
            mac,
            tls.clone(),
        ));
        own.spawn(Box::pin(renew_certificate(host.clone(), tls.clone(), platform.clone())));
        own.spawn(Box::pin(look_for_a_store(stores, platform.clone(), keeper.clone())));
        match Api::start(host, platform, keeper, password).await {
            Ok(api) => {
                log::info!("the Host Client and the API are served at port {HTTPS}");
                listen(own, stack, tls, service(api, pages::open())).await;
            }
            Err(error) => {
                log::error!("the state cannot be read: {error:?}");
                exit(1, "there is no state")
            }
        }
    }));
}
