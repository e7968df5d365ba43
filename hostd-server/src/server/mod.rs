//! The daemon on the running system: one thread, one loop. Frames, timers and tasks have their turns; nothing waits for a client.

mod machine;
mod network;
mod pages;
mod random;

use crate::servers::Servers;
use alloc::{boxed::Box, rc::Rc, string::ToString, sync::Arc};
use core::net::IpAddr;
use machine::Machine;
use network::SwitchPort;
use tessera_crypto::{Identity, rustls::ServerConfig};
use tessera_hostd::{
    api::Api,
    files::Pack,
    http::{Request, Response, Service, serve},
    net::{Ipv4, Port, Stack},
    platform::Platform,
    state::MemoryStore,
    tls::TlsStream,
};
use tessera_rt::{Notification, exit, log, start, start::start_info, time};

/// The port of HTTPS.
const HTTPS: u16 = 443;
/// Where what is asked of the API begins.
const API: &str = "/api/";
/// Days that a certificate of the host's own making is good.
const DAYS: u32 = 3650;
/// What the manifest's argument with the first password begins with.
const PASSWORD: &str = "password=";
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
async fn listen(machine: Rc<Machine>, stack: Stack, config: Arc<ServerConfig>, service: Service) {
    loop {
        let (socket, peer) = stack.accept(HTTPS).await;
        match TlsStream::new(socket, config.clone()) {
            Ok(stream) => {
                let platform: Rc<dyn Platform> = machine.clone();
                let connection = serve(platform, Box::new(stream), peer.to_string(), true, service.clone());
                machine.spawn(Box::pin(connection));
            }
            Err(_) => log::warn!("{peer}: TLS does not begin"),
        }
    }
}

fn identity(machine: &Machine) -> Identity {
    let now = machine.unix_ms() / 1000;
    let made = Identity::self_signed("tessera", &["tessera", "localhost"], &[IpAddr::from([127, 0, 0, 1])], now, DAYS);
    match made {
        Ok(identity) => {
            log::info!("certificate with the fingerprint {}", identity.describe().fingerprint);
            identity
        }
        Err(error) => {
            log::error!("the host's certificate: {error}");
            exit(1, "no certificate can be made")
        }
    }
}

/// The program.
pub fn run() {
    if !random::seed() {
        log::warn!("the processor has no random numbers: keys are made of the clock's jitter");
    }
    let machine = Rc::new(Machine::new());
    let identity = identity(&machine);
    let config = match tessera_crypto::server_config(&identity) {
        Ok(config) => config,
        Err(error) => {
            log::error!("TLS: {error}");
            exit(1, "TLS cannot be set up")
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
    let host = Servers::new(machine.clone(), stack.clone(), port.mac(), identity);
    start_api(&machine, &stack, config, Rc::new(host));
    start::ready();
    let mut addresses = alloc::vec::Vec::new();
    loop {
        let now = machine.monotonic_ms();
        let next = stack.poll(now).unwrap_or(PAUSE_MS);
        port.flush();
        let more = machine.turn();
        // What tasks wrote goes out at once.
        stack.poll(machine.monotonic_ms());
        port.flush();
        let found = stack.addresses();
        if found != addresses {
            for (address, prefix) in found.iter().filter(|address| !addresses.contains(address)) {
                log::info!("management address {address}/{prefix}");
            }
            addresses = found;
        }
        if !more {
            let pause = next.min(PAUSE_MS).min(machine.pause());
            // An error is a deadline that passed.
            let _ = Notification::FIRST.wait(Some(time::after(time::milliseconds(pause))));
        }
    }
}

/// Begins everything that waits for others.
fn start_api(machine: &Rc<Machine>, stack: &Stack, config: Arc<ServerConfig>, host: Rc<Servers>) {
    let (own, stack) = (machine.clone(), stack.clone());
    machine.spawn(Box::pin(async move {
        let platform: Rc<dyn Platform> = own.clone();
        let words = &start_info().arguments;
        let password = words.iter().find_map(|word| word.strip_prefix(PASSWORD));
        log::warn!("there is no disk for the host's own settings: nothing of them will be kept");
        match Api::start(host, platform, Rc::new(MemoryStore), password).await {
            Ok(api) => {
                log::info!("the Host Client and the API are served at port {HTTPS}");
                listen(own, stack, config, service(api, pages::open())).await;
            }
            Err(error) => {
                log::error!("the state cannot be read: {error:?}");
                exit(1, "there is no state")
            }
        }
    }));
}
