//! hostd's connections on a developer's machine: its platform by the standard library, and TCP of the system on 127.0.0.1.

use crate::socket::{self, Socket};
use std::{
    cell::RefCell,
    fs::File,
    future::poll_fn,
    io::{self, Read},
    net::TcpListener,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tessera_crypto::rustls::ServerConfig;
use tessera_hostd::{
    future::LocalFuture,
    http::{Service, serve},
    platform::Platform,
    tls::TlsStream,
};

/// Connections at a time; more wait in the system's queue.
const MOST_CONNECTIONS: usize = 512;

/// A developer's machine.
pub struct Machine {
    start: Instant,
    spawned: RefCell<Vec<LocalFuture<'static, ()>>>,
}

impl Machine {
    /// Begins, with random numbers of the system.
    ///
    /// # Errors
    /// When `/dev/urandom` cannot be read.
    pub fn new() -> io::Result<Rc<Self>> {
        let mut seed = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut seed)?;
        tessera_crypto::seed(seed);
        Ok(Rc::new(Self {
            start: Instant::now(),
            spawned: RefCell::new(Vec::new()),
        }))
    }

    /// Runs everything that is spawned, forever. Everything has a turn every few milliseconds, which is enough for one developer.
    pub fn run(&self) -> ! {
        let mut tasks: Vec<LocalFuture<'static, ()>> = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        loop {
            tasks.append(&mut self.spawned.borrow_mut());
            let before = socket::moved();
            tasks.retain_mut(|task| task.as_mut().poll(&mut context).is_pending());
            if socket::moved() == before && self.spawned.borrow().is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Platform for Machine {
    fn unix_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_millis() as u64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn random(&self, bytes: &mut [u8]) {
        tessera_crypto::fill(bytes);
    }

    fn sleep(&self, ms: u64) -> LocalFuture<'static, ()> {
        let end = Instant::now() + Duration::from_millis(ms);
        Box::pin(poll_fn(
            move |_| {
                if Instant::now() >= end { Poll::Ready(()) } else { Poll::Pending }
            },
        ))
    }

    fn spawn(&self, future: LocalFuture<'static, ()>) {
        self.spawned.borrow_mut().push(future);
    }
}

/// Serves what connects to `listener`, over TLS if there is a configuration for it.
///
/// # Errors
/// When the listener cannot be used without waiting.
pub fn listen(machine: &Rc<Machine>, listener: TcpListener, tls: Option<Arc<ServerConfig>>, service: Service) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let platform = machine.clone();
    // Each connection holds a copy.
    let open = Rc::new(());
    machine.spawn(Box::pin(poll_fn(move |_| -> Poll<()> {
        while Rc::strong_count(&open) <= MOST_CONNECTIONS {
            let Ok((socket, peer)) = listener.accept() else { break };
            let Ok(socket) = Socket::new(socket) else { continue };
            let (machine, service, open): (Rc<dyn Platform>, _, _) = (platform.clone(), service.clone(), open.clone());
            let peer = peer.ip().to_string();
            match &tls {
                Some(config) => {
                    let Ok(stream) = TlsStream::new(socket, config.clone()) else {
                        continue;
                    };
                    platform.spawn(Box::pin(async move {
                        let _open = open;
                        serve(machine, Box::new(stream), peer, true, service).await;
                    }));
                }
                None => platform.spawn(Box::pin(async move {
                    let _open = open;
                    serve(machine, Box::new(socket), peer, false, service).await;
                })),
            }
        }
        Poll::Pending
    })));
    Ok(())
}
