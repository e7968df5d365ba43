//! The way to a server of devices: that of the disks, that of the network cards. The guest's requests never come this way; what does is a device's start and stop, and the server's death.
//!
//! Two threads for each server: the *link* carries to the server what the guest does with the register files, and the *watcher* waits in a call that ends when the server has something to tell, or dies.
//! Then the devices are attached again to its successor, which goes on where it stopped.

use super::host::{Kernel, Threads};
use super::setup::signaller;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use tessera_abi::Error;
use tessera_abi::object::Rights;
use tessera_manifest::StartVm;
use tessera_proto::guest_queues::{GuestQueue, GuestQueues};
use tessera_proto::{CallError, Slots};
use tessera_rt::{CNode, Connection, Doorbell, Endpoint, GuestSpace, Mutex, Notification, log, slots, start, sys, thread, time};
use tessera_vmm::MAX_VCPUS;
use tessera_vmm::apic::Interrupts;
use tessera_vmm::devices::virtio::{DeviceConfig, MAX_QUEUES, QueueConfig, Service, VirtioPci};
use tessera_vmm::machine::Machine;

/// Bytes of a thread's stack.
const STACK: usize = 16 << 10;
/// How long the start of the machine waits for the server.
pub const PATIENCE_MS: u64 = 30_000;
/// How long the watcher waits after a call that failed for another reason than the server's death.
const PAUSE_MS: u64 = 1000;
/// Broken rules that are logged.
const MOST_TOLD: u32 = 8;
/// Width of a notification (virtio 1.2, 4.1.4.4).
const NOTIFY_WIDTH: u64 = 2;

/// Something that a server has to tell.
pub enum Event {
    /// A guest's driver broke a rule.
    Broken(u32, String),
    /// A device's own configuration changed: how, and whether the driver is to be told.
    Changed(u32, Box<dyn FnOnce(&mut DeviceConfig) -> bool>),
}

/// How the server of a kind of device is spoken with. Devices have numbers from 0 on, of their kind.
pub trait Backend: Sync + 'static {
    /// What a device is called.
    const WHAT: &'static str;
    /// Name of the server, and of the grant that leads to it.
    const SERVER: &'static str;

    /// What the device is to the guest. `queues`: see [`tessera_vmm::devices::virtio::fair_queues`].
    fn describe(&self, connection: Connection, device: u32, queues: u16) -> Result<DeviceConfig, CallError>;
    /// Has the notification in `slot` signalled when the queue interrupts.
    fn interrupt(&self, connection: Connection, slot: u32, device: u32, queue: u16) -> Result<(), CallError>;
    /// Serves the queues; puts the doorbell into `slot`.
    fn attach(&self, connection: Connection, device: u32, taken: &Taken, resume: bool, slot: Slots<1>) -> Result<(), CallError>;
    /// Stops serving them.
    fn reset(&self, connection: Connection, device: u32) -> Result<(), CallError>;
    /// Waits for news.
    fn watch(&self, connection: Connection) -> Result<Event, CallError>;
}

/// What a driver set up.
pub struct Taken {
    /// Features that it accepted.
    pub features: u64,
    /// Queues that the device has.
    pub offered: u16,
    /// Those that are used.
    pub queues: GuestQueues,
}

/// What is known of one device at its server.
#[derive(Clone, Copy, Default)]
struct Device {
    /// The port with a doorbell.
    port: Option<u16>,
    /// vCPU whose thread each queue signals.
    targets: [usize; MAX_QUEUES],
}

/// What all servers' devices of a machine need.
#[derive(Clone)]
pub struct Surroundings {
    /// The machine.
    pub machine: &'static Machine<Kernel>,
    /// Its memory, where the doorbells hang.
    pub guest: GuestSpace,
    /// Bound to the vCPUs' threads.
    pub threads: heapless::Vec<Notification, MAX_VCPUS>,
    /// Queues of each device.
    pub queues: u16,
}

/// All devices of a kind, seen from the outside.
pub trait Devices: Sync {
    /// Does `act` while the server serves none of them, and none of their registers are looked at.
    fn stopped(&self, act: &mut dyn FnMut());

    /// As [`Self::stopped`], when nothing is in flight; but the drivers are not to know, and the devices are served again afterwards.
    fn paused(&self, act: &mut dyn FnMut());
}

fn options(vm: &StartVm) -> thread::Options {
    thread::Options {
        // Above the vCPUs: a guest that spins until its device answers must not keep it from doing so.
        priority: vm.vcpu_priority.saturating_add(1).min(start::start_info().priority),
        stack: STACK,
        flags: thread::NO_FPU,
        ..thread::Options::default()
    }
}

fn not_started(what: &str) -> impl FnOnce(Error) -> String {
    move |error| format!("the threads of a {what} cannot be started: {}", error.text())
}

/// Has the threads that follow registers of devices look at them.
pub fn wake(machine: &Machine<Kernel>) {
    machine.interrupts.wake_link();
}

/// Starts a thread that follows registers of devices: it does `step` when something changed at one, and at the time that the last `step` answered. Answers its notification.
pub fn spawn(vm: &StartVm, what: &str, step: impl Fn() -> Option<u64> + Send + 'static) -> Result<Notification, String> {
    let thread = thread::spawn(&options(vm), move |handle| {
        loop {
            let next = step();
            let _ = handle.notification.wait(next);
        }
    })
    .map_err(not_started(what))?;
    Threads::add_link(signaller(thread.notification)?);
    Ok(thread.notification)
}

/// Does something with the registers of the device at this place on the bus.
pub fn with_device<T>(machine: &Machine<Kernel>, place: usize, act: impl FnOnce(&mut VirtioPci, &Interrupts<Threads>) -> T) -> Option<T> {
    let interrupts = &machine.interrupts;
    let mut chipset = machine.chipset();
    let answer = chipset.pci().device(place).map(|device| act(device, interrupts));
    // It may stand behind a controller that the guest sees in its place.
    chipset.run_hidden(&machine.memory, interrupts);
    chipset.settle_pci(interrupts);
    answer
}

/// The devices of the machine that one server serves.
pub struct Link<B: Backend> {
    backend: B,
    around: Surroundings,
    endpoint: Endpoint,
    /// Place of the first on the bus.
    first: usize,
    /// Held while the server is told something.
    devices: Mutex<Vec<Device>>,
}

impl<B: Backend> Link<B> {
    /// Asks the server what its devices are, puts them on the bus, and starts the threads. There is an entry for each: whether the guest sees a controller of another kind in its place, which the monitor drives it for.
    pub fn connect(backend: B, around: &Surroundings, vm: &StartVm, hidden: &[bool]) -> Result<&'static Self, String> {
        let grant = start::find(B::SERVER).ok_or_else(|| {
            format!(
                "the machine has a {what}, but its monitor no way to it: grant it `{server} = {{ use = \"{server}\" }}`",
                what = B::WHAT,
                server = B::SERVER
            )
        })?;
        let machine = around.machine;
        let link: &'static Self = Box::leak(Box::new(Self {
            backend,
            endpoint: Endpoint::new(grant.slot),
            first: machine.chipset().pci().devices().len(),
            around: around.clone(),
            devices: Mutex::new(Vec::new()),
        }));
        let patient = Connection::with_timeout(link.endpoint, time::milliseconds(PATIENCE_MS));
        for (number, hidden) in (0..).zip(hidden) {
            let described = link.backend.describe(patient, number, if *hidden { 1 } else { around.queues });
            let mut config = described.map_err(|error| match error {
                CallError::Kernel(Error::TimedOut) => format!("the {} server does not answer", B::SERVER),
                error => format!("{} {number}: {error}", B::WHAT),
            })?;
            if *hidden {
                config.hide();
            }
            if !machine.chipset().pci().add(config) {
                return Err(format!("{} {number}: the machine has too many devices", B::WHAT));
            }
            link.devices.lock().push(Device::default());
        }
        spawn(vm, B::WHAT, move || {
            link.step();
            None
        })?;
        thread::spawn(&options(vm), move |_| link.watch()).map_err(not_started(B::WHAT))?;
        Ok(link)
    }

    fn connection(&self) -> Connection {
        Connection::new(self.endpoint)
    }

    /// A device's place on the bus.
    const fn place(&self, number: usize) -> usize {
        self.first + number
    }

    /// Does something with a device's registers.
    fn with<T>(&self, number: usize, act: impl FnOnce(&mut VirtioPci, &Interrupts<Threads>) -> T) -> Option<T> {
        with_device(self.around.machine, self.place(number), act)
    }

    /// Tells the server what changed at the devices.
    fn step(&self) {
        let mut devices = self.devices.lock();
        for (number, device) in devices.iter_mut().enumerate() {
            // Twice: what was told may have been overtaken.
            for _ in 0..2 {
                match self.service(number) {
                    Service::Wanted { resume } => self.attach(number, device, resume),
                    Service::Serving => self.follow(number, device),
                    Service::Stopping => self.stop(number, device),
                    Service::Idle => {}
                }
            }
        }
    }

    fn service(&self, number: usize) -> Service {
        self.with(number, |device, _| device.registers().service()).unwrap_or(Service::Idle)
    }

    /// The vCPU that a queue's interrupts go to.
    fn target(&self, number: usize, queue: u16) -> usize {
        self.with(number, |device, to| device.target(queue, to)).unwrap_or(0)
    }

    /// Has a queue signal the thread of its vCPU.
    fn point(&self, number: usize, queue: u16, target: usize) -> Result<(), CallError> {
        let thread = self.around.threads.get(target).copied();
        let bit = self.with(number, |device, _| device.signal_bit(queue));
        let (Some(thread), Some(bit)) = (thread, bit) else {
            return Err(CallError::Kernel(Error::BadArgument));
        };
        let slot = slots::take()?;
        let outcome = CNode::OWN
            .copy(slot, CNode::OWN, thread.slot(), Rights::SEND, 1 << bit)
            .map_err(CallError::from)
            .and_then(|()| self.backend.interrupt(self.connection(), slot, number as u32, queue));
        slots::free(slot);
        outcome?;
        self.with(number, |device, to| device.point(queue, target, to));
        Ok(())
    }

    fn attach(&self, number: usize, device: &mut Device, resume: bool) {
        let taken = self.with(number, |device, _| Taken {
            features: device.registers().features(),
            offered: device.config().queues,
            queues: GuestQueues {
                queues: device.registers().used_queues().iter().map(queue).collect(),
            },
        });
        let Some(taken) = taken else { return };
        match self.try_attach(number, device, &taken, resume) {
            Ok(doorbell) => {
                self.hang(number, device, Some(doorbell));
                self.with(number, |device, to| device.served(to));
                // What came between the server's first look and the doorbell.
                let _ = doorbell.signal();
            }
            // It is tried again when the next one answers.
            Err(CallError::Kernel(Error::ServerDied)) => self.around.machine.interrupts.wake_link(),
            Err(error) => {
                log::warn!("{} {number} is not served: {error}", B::WHAT);
                self.with(number, |device, to| {
                    device.broken(to);
                    device.served(to);
                });
            }
        }
    }

    fn try_attach(&self, number: usize, device: &mut Device, taken: &Taken, resume: bool) -> Result<Notification, CallError> {
        for queue in &taken.queues.queues {
            let target = self.target(number, queue.index);
            self.point(number, queue.index, target)?;
            if let Some(place) = device.targets.get_mut(usize::from(queue.index)) {
                *place = target;
            }
        }
        let slot = slots::take()?;
        self.backend
            .attach(self.connection(), number as u32, taken, resume, Slots(slot))
            .inspect_err(|_| slots::free(slot))?;
        Ok(Notification::new(slot))
    }

    /// Ports or interrupts may have moved.
    fn follow(&self, number: usize, device: &mut Device) {
        if self.port(number) != device.port {
            let doorbell = Threads::set_doorbell(self.place(number), None);
            self.hang(number, device, doorbell);
        }
        let queues = self.with(number, |device, _| device.config().queues).unwrap_or(0);
        for (queue, known) in (0..queues).zip(&mut device.targets) {
            let target = self.target(number, queue);
            if core::mem::replace(known, target) != target
                && let Err(error) = self.point(number, queue, target)
            {
                log::debug!("{} {number}, queue {queue}: {error}", B::WHAT);
            }
        }
    }

    fn port(&self, number: usize) -> Option<u16> {
        self.with(number, |device, _| device.notify_port()).flatten()
    }

    /// Puts a doorbell at a device's port, in place of the one that is there; none: takes it away.
    fn hang(&self, number: usize, device: &mut Device, doorbell: Option<Notification>) {
        if let Some(port) = device.port.take() {
            // NotMapped: it went with the server.
            let _ = self.around.guest.remove_doorbell(Doorbell::Port(port));
        }
        if let Some(old) = Threads::set_doorbell(self.place(number), doorbell) {
            slots::free(old.slot());
        }
        let Some(doorbell) = doorbell else { return };
        device.port = self.port(number);
        if let Some(port) = device.port {
            // Without one the guest's write comes to the monitor, which passes it on.
            let _ = self.around.guest.doorbell(Doorbell::Port(port), NOTIFY_WIDTH, doorbell);
        }
    }

    /// Has the server stop with a device.
    fn stop(&self, number: usize, device: &mut Device) {
        if self.service(number) == Service::Idle {
            return;
        }
        self.quiesce(number, device);
        self.with(number, |device, to| device.stopped(to));
    }

    /// The same, unknown to its driver.
    fn pause(&self, number: usize, device: &mut Device) {
        self.quiesce(number, device);
        self.with(number, |device, to| device.paused(to));
    }

    /// Has the server bring everything to its end that is in flight, and do nothing more.
    fn quiesce(&self, number: usize, device: &mut Device) {
        self.hang(number, device, None);
        // Until it is done: the server may be at work in the guest's memory. One that died is not.
        while let Err(error) = self.backend.reset(self.connection(), number as u32) {
            if !matches!(error, CallError::Kernel(Error::ServerDied)) {
                log::warn!("{} {number} cannot be stopped: {error}", B::WHAT);
                let _ = sys::wait(0, Some(time::after(time::milliseconds(PAUSE_MS))));
            }
        }
    }

    /// Waits for what the server has to tell.
    fn watch(&self) -> ! {
        let mut told = 0;
        loop {
            match self.backend.watch(self.connection()) {
                Ok(Event::Broken(number, reason)) => {
                    // A guest that does so all the time must not fill the host's log.
                    told += 1;
                    if told <= MOST_TOLD {
                        log::warn!("the guest's driver of {} {number} broke a rule: {reason}", B::WHAT);
                    }
                    if told == MOST_TOLD {
                        log::warn!("no more is said of rules that this guest breaks");
                    }
                    self.with(number as usize, |device, to| device.broken(to));
                }
                Ok(Event::Changed(number, change)) => {
                    self.with(number as usize, |device, to| device.reconfigure(change, to));
                }
                Err(CallError::Kernel(Error::ServerDied)) => {
                    log::info!("the {} server ended; the guest's devices wait for the next", B::SERVER);
                    // Behind what the link may be telling it.
                    let devices = self.devices.lock();
                    for number in 0..devices.len() {
                        self.with(number, |device, _| device.server_died());
                    }
                    drop(devices);
                    self.around.machine.interrupts.wake_link();
                }
                Err(error) => {
                    log::debug!("{}: {error}", B::SERVER);
                    let _ = sys::wait(0, Some(time::after(time::milliseconds(PAUSE_MS))));
                }
            }
        }
    }
}

impl<B: Backend> Devices for Link<B> {
    fn stopped(&self, act: &mut dyn FnMut()) {
        let mut devices = self.devices.lock();
        for (number, device) in devices.iter_mut().enumerate() {
            self.stop(number, device);
        }
        act();
    }

    fn paused(&self, act: &mut dyn FnMut()) {
        let mut devices = self.devices.lock();
        for (number, device) in devices.iter_mut().enumerate() {
            match self.service(number) {
                Service::Idle => {}
                Service::Stopping => self.stop(number, device),
                Service::Wanted { resume } => {
                    // What a server that died had begun has to come to its end.
                    self.attach(number, device, resume);
                    self.pause(number, device);
                }
                Service::Serving => self.pause(number, device),
            }
        }
        act();
        drop(devices);
        wake(self.around.machine);
    }
}

fn queue((index, queue): &(u16, QueueConfig)) -> GuestQueue {
    GuestQueue {
        index: *index,
        size: queue.size,
        descriptors: queue.descriptors,
        available: queue.available,
        used: queue.used,
    }
}
