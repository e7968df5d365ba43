//! The server on the running system: its one loop.

mod answers;
mod boot_files;
mod buffers;
mod datastores;
mod guests;
mod states;

use alloc::{rc::Rc, vec::Vec};
use answers::Answers;
use core::cell::Cell;
use tessera_device::{Executor, platform};
use tessera_proto::Call;
use tessera_rt::{
    Endpoint, Irq, Notification, Reply, Untyped,
    abi::Error,
    exit, log, require,
    server::{Service, serve},
    start::{self, start_info},
    time,
};
use tessera_storage::{
    controller::WATCH_MS,
    disk::{Bounce, CHUNK, Disk, Host},
    drivers::{self, Numbers},
    stores::Stores,
};

/// Chunks of memory for the server's own reads and writes.
const BOUNCE_CHUNKS: usize = 16;
/// Bits of the notification that controllers have; the last of them is shared by all further ones.
const CONTROLLER_BITS: usize = 16;
/// Answers that can be put off at the same time.
const LATER: usize = 16;

/// A controller, and the interrupts that have to be acknowledged.
struct Port {
    host: Rc<Host>,
    lines: Vec<Irq>,
}

/// The bit that a controller's interrupts set.
fn bit(controller: usize) -> u64 {
    1 << controller.min(CONTROLLER_BITS - 1)
}

fn fail(doing: &str, error: Error) -> ! {
    log::error!("{doing}: {}", error.text());
    exit(1, doing)
}

/// Puts a driver on each device that init gave.
fn find_controllers() -> Vec<Port> {
    let mut ports = Vec::new();
    let mut numbers = Numbers::default();
    for (number, given) in (0..).zip(&start_info().devices) {
        let (device, address) = platform::device(number, given);
        match drivers::start(&device, &mut numbers) {
            None => log::info!("{address}: there is no driver for it"),
            Some(Err(reason)) => log::error!("{address}: its driver does not start: {reason}"),
            Some(Ok(controller)) => {
                let lines = platform::bind(given, bit(ports.len()));
                let host = Host::new(controller, address);
                ports.push(Port { host, lines });
            }
        }
    }
    ports
}

/// The program.
pub fn run() {
    let Some(memory) = platform::allocate(BOUNCE_CHUNKS * CHUNK) else {
        exit(
            1,
            "there is no memory for transfers: raise `device-memory` of the storage server in the manifest",
        )
    };
    let bounce = Bounce::new(memory);
    let ports = find_controllers();
    let disks: Vec<Rc<Disk>> = ports.iter().flat_map(|port| port.host.disks(&bounce)).collect();
    for disk in &disks {
        let info = disk.info();
        let size = info.sectors.saturating_mul(info.sector_size.into()) >> 20;
        log::info!(
            "disk {}: {} {}, {size} MiB, {} at {}",
            info.name,
            info.model,
            info.serial,
            info.driver,
            info.address
        );
    }
    let spare = (0..LATER).filter_map(|_| Untyped::OWN.reply().ok()).collect();
    let executor = Rc::new(Executor::new());
    let stores = Stores::new(executor.clone(), start_info().heap);
    let answers = Rc::new(Answers::new(executor.clone(), disks.into(), stores, spare));
    let mut server = Server {
        ports,
        executor,
        answers,
        watched: Cell::new(platform::now()),
        busy: Cell::new(false),
    };
    server.mount();
    start::ready();
    if let Err(error) = serve(Endpoint::new(require("storage")), Reply::FIRST, &mut server) {
        fail("the storage endpoint cannot be served", error);
    }
}

/// Everything that the loop looks after.
struct Server {
    ports: Vec<Port>,
    executor: Rc<Executor>,
    answers: Rc<Answers>,
    /// When controllers were last watched, in milliseconds.
    watched: Cell<u64>,
    /// Whether some guest had many requests at once at the last turn.
    busy: Cell<bool>,
}

impl Server {
    /// Mounts the datastores, before anybody asks for what is in them.
    fn mount(&self) {
        let done = Rc::new(Cell::new(false));
        let (answers, end) = (self.answers.clone(), done.clone());
        self.executor.spawn(async move {
            answers.stores().find(answers.disks()).await;
            answers.announce_states().await;
            end.set(true);
        });
        while !done.get() {
            let deadline = self.go_on();
            // An error is a deadline that passed.
            if let Ok(bits) = Notification::FIRST.wait(Some(deadline)) {
                self.interrupted(bits);
            }
        }
    }

    fn interrupted(&self, bits: u64) {
        let now = platform::now();
        for (_, port) in self.ports.iter().enumerate().filter(|(number, _)| bits & bit(*number) != 0) {
            for line in &port.lines {
                // Lines are edge-triggered: an edge that comes while the device is looked at must not be lost.
                let _ = line.acknowledge();
            }
            port.host.poll(now);
        }
        self.answers.guests().notified(bits, &self.answers);
    }

    /// Where something is in flight: at each turn only these are looked at, for a host has more disks than are busy.
    fn busy_ports(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().filter(|port| !port.host.is_idle())
    }

    /// Does what is due, and says when something will be (TSC).
    fn go_on(&self) -> u64 {
        let now = platform::now();
        let watch = now.saturating_sub(self.watched.get()) >= WATCH_MS;
        if watch {
            self.watched.set(now);
            self.answers.stores().watch();
        }
        if watch {
            self.ports.iter().for_each(|port| port.host.watch(now));
        } else {
            for port in self.busy_ports() {
                if port.host.wants_polling() {
                    port.host.poll(now);
                } else {
                    port.host.poll_quietly(now, time::now());
                }
            }
        }
        self.executor.run();
        let due = self.answers.guests().settle();
        let batch_time = self.answers.guests().batch_time();
        let patience = time::microseconds(guests::PATIENCE_US);
        let mut wait = time::milliseconds(WATCH_MS);
        let changes = self.busy.replace(batch_time.is_some()) != batch_time.is_some();
        for port in &self.ports {
            let idle = port.host.is_idle();
            if idle && !changes {
                continue;
            }
            port.host.set_quiet(batch_time);
            if idle {
                continue;
            }
            port.host.commit();
            let look = match port.host.quiet_wait(patience) {
                Some(quiet) => quiet,
                None if port.host.wants_polling() => time::milliseconds(1),
                None => continue,
            };
            wait = wait.min(look);
        }
        if self.executor.has_work() {
            return time::now();
        }
        let wait = time::after(wait);
        due.map_or(wait, |due| due.min(wait))
    }
}

impl Service for Server {
    fn message(&mut self, call: &mut Call, request: &[u8], reply: &mut [u8]) -> usize {
        self.answers.message(call, request, reply)
    }

    fn notified(&mut self, bits: u64) {
        self.interrupted(bits);
    }

    fn deadline(&mut self) -> Option<u64> {
        Some(self.go_on())
    }

    fn reply(&mut self, _first: Reply) -> Reply {
        self.answers.reply()
    }
}
