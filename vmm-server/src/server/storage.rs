//! The way to the server of the disks. The guest's requests never come this way; what does is a disk's start and stop, and the server's death.
//!
//! Two threads: the *link* carries to the server what the guest does with the register files, and the *watcher* waits in a call that ends when the server has something to tell, or dies. Then the disks
//! are attached again to its successor, which goes on where it stopped.

use super::host::{Kernel, Threads};
use super::setup::signaller;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use tessera_abi::Error;
use tessera_abi::object::Rights;
use tessera_manifest::StartVm;
use tessera_proto::guest_disk::{Client, GuestDiskEvent, GuestQueue, GuestQueues};
use tessera_proto::{CallError, Slots};
use tessera_rt::{CNode, Connection, Doorbell, Endpoint, GuestSpace, Mutex, Notification, log, slots, start, sys, thread, time};
use tessera_vmm::MAX_VCPUS;
use tessera_vmm::devices::virtio::{MAX_QUEUES, NOTIFY_STEP, Service, block, signal_of};
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

/// What is known of one disk at its server.
#[derive(Clone, Copy, Default)]
struct Disk {
    /// First port with a doorbell.
    ports: Option<u16>,
    /// vCPU whose thread each queue signals.
    targets: [usize; MAX_QUEUES],
}

/// The disks of the machine.
pub struct Storage {
    machine: &'static Machine<Kernel>,
    endpoint: Endpoint,
    guest: GuestSpace,
    /// Bound to the vCPUs' threads.
    threads: heapless::Vec<Notification, MAX_VCPUS>,
    /// Held while the server is told something.
    disks: Mutex<Vec<Disk>>,
}

/// The storage server.
pub fn endpoint() -> Result<Endpoint, String> {
    let grant = start::find("storage").ok_or(
        "the machine has disks or files in datastores, but its monitor no way to them: grant it `storage = { use = \"storage\" }`",
    )?;
    Ok(Endpoint::new(grant.slot))
}

impl Storage {
    /// Asks the server what the disks are, puts them on the bus, and starts the threads.
    pub fn connect(
        machine: &'static Machine<Kernel>,
        vm: &StartVm,
        guest: GuestSpace,
        threads: heapless::Vec<Notification, MAX_VCPUS>,
    ) -> Result<&'static Self, String> {
        let storage: &'static Self = Box::leak(Box::new(Self {
            machine,
            endpoint: endpoint()?,
            guest,
            threads,
            disks: Mutex::new(Vec::new()),
        }));
        let patient = Connection::with_timeout(storage.endpoint, time::milliseconds(PATIENCE_MS));
        for number in 0..vm.config.disks.len() as u32 {
            let info = Client(patient).describe(number).map_err(|error| match error {
                CallError::Kernel(Error::TimedOut) => "the storage server does not answer".into(),
                error => format!("disk {number}: {error}"),
            })?;
            let disk = block::Disk {
                sectors: info.sectors,
                block_size: info.block_size,
                read_only: info.read_only,
                discard: info.discard,
                // One for each vCPU is of use.
                queues: info.queues.min(machine.vcpus() as u16),
                segments: info.segments,
            };
            if !machine.chipset().pci().add(block::config(&disk)) {
                return Err(format!("disk {number}: the machine has too many"));
            }
            storage.disks.lock().push(Disk::default());
        }
        let options = thread::Options {
            // Above the vCPUs: a guest that spins until its disk answers must not keep it from doing so.
            priority: vm.vcpu_priority.saturating_add(1).min(start::start_info().priority),
            stack: STACK,
            flags: thread::NO_FPU,
            ..thread::Options::default()
        };
        let failed = |error: Error| format!("the threads for the disks cannot be started: {}", error.text());
        let link = thread::spawn(&options, move |handle| {
            loop {
                storage.step();
                let _ = handle.notification.wait(None);
            }
        })
        .map_err(failed)?;
        Threads::set_link(signaller(link.notification)?);
        thread::spawn(&options, move |_| storage.watch()).map_err(failed)?;
        Ok(storage)
    }

    fn client(&self) -> Client<Connection> {
        Client(Connection::new(self.endpoint))
    }

    /// Does `act` while the server serves no disk, and no disk's registers are looked at.
    pub fn stopped(&self, act: impl FnOnce()) {
        let mut disks = self.disks.lock();
        for (number, disk) in disks.iter_mut().enumerate() {
            self.stop(number, disk);
        }
        act();
    }

    /// Tells the server what changed at the disks.
    fn step(&self) {
        let mut disks = self.disks.lock();
        for (number, disk) in disks.iter_mut().enumerate() {
            // Twice: what was told may have been overtaken.
            for _ in 0..2 {
                match self.service(number) {
                    Service::Wanted { resume } => self.attach(number, disk, resume),
                    Service::Serving => self.follow(number, disk),
                    Service::Stopping => self.stop(number, disk),
                    Service::Idle => {}
                }
            }
        }
    }

    fn service(&self, number: usize) -> Service {
        let mut chipset = self.machine.chipset();
        chipset
            .pci()
            .device(number)
            .map_or(Service::Idle, |device| device.registers().service())
    }

    /// The vCPU that a queue's interrupts go to.
    fn target(&self, number: usize, queue: u16) -> usize {
        let mut chipset = self.machine.chipset();
        chipset
            .pci()
            .device(number)
            .map_or(0, |device| device.target(queue, &self.machine.interrupts))
    }

    /// Has a queue signal the thread of its vCPU.
    fn point(&self, number: usize, queue: u16, target: usize) -> Result<(), CallError> {
        let thread = self.threads.get(target).copied().ok_or(CallError::Kernel(Error::BadArgument))?;
        let slot = slots::take()?;
        let outcome = CNode::OWN
            .copy(slot, CNode::OWN, thread.slot(), Rights::SEND, signal_of(number, queue))
            .map_err(CallError::from)
            .and_then(|()| self.client().interrupt([slot], number as u32, queue));
        slots::free(slot);
        outcome?;
        if let Some(device) = self.machine.chipset().pci().device(number) {
            device.point(queue, target, &self.machine.interrupts);
        }
        Ok(())
    }

    fn attach(&self, number: usize, disk: &mut Disk, resume: bool) {
        let taken = {
            let mut chipset = self.machine.chipset();
            chipset
                .pci()
                .device(number)
                .map(|device| (device.registers().features(), device.registers().used_queues()))
        };
        let Some((features, used)) = taken else { return };
        let queues = GuestQueues {
            queues: used
                .iter()
                .map(|(index, queue)| GuestQueue {
                    index: *index,
                    size: queue.size,
                    descriptors: queue.descriptors,
                    available: queue.available,
                    used: queue.used,
                })
                .collect(),
        };
        match self.try_attach(number, disk, features, &queues, resume) {
            Ok(doorbell) => {
                self.hang(number, disk, Some(doorbell));
                if let Some(device) = self.machine.chipset().pci().device(number) {
                    device.served(&self.machine.interrupts);
                }
                // What came between the server's first look and the doorbell.
                let _ = doorbell.signal();
            }
            // It is tried again when the next one answers.
            Err(CallError::Kernel(Error::ServerDied)) => self.machine.interrupts.wake_link(),
            Err(error) => {
                log::warn!("disk {number} is not served: {error}");
                self.broken(number);
                if let Some(device) = self.machine.chipset().pci().device(number) {
                    device.served(&self.machine.interrupts);
                }
            }
        }
    }

    fn try_attach(
        &self,
        number: usize,
        disk: &mut Disk,
        features: u64,
        queues: &GuestQueues,
        resume: bool,
    ) -> Result<Notification, CallError> {
        for queue in &queues.queues {
            let target = self.target(number, queue.index);
            self.point(number, queue.index, target)?;
            if let Some(place) = disk.targets.get_mut(usize::from(queue.index)) {
                *place = target;
            }
        }
        let slot = slots::take()?;
        self.client()
            .attach(number as u32, features, queues.clone(), resume, Slots(slot))
            .inspect_err(|_| slots::free(slot))?;
        Ok(Notification::new(slot))
    }

    /// Ports or interrupts may have moved.
    fn follow(&self, number: usize, disk: &mut Disk) {
        let ports = self.machine.chipset().pci().device(number).and_then(|device| device.notify_port());
        if ports != disk.ports {
            let doorbell = Threads::set_doorbell(number, None);
            self.hang(number, disk, doorbell);
        }
        for queue in 0..MAX_QUEUES as u16 {
            let target = self.target(number, queue);
            let known = &mut disk.targets[usize::from(queue)];
            if *known != target {
                *known = target;
                if let Err(error) = self.point(number, queue, target) {
                    log::debug!("disk {number}, queue {queue}: {error}");
                }
            }
        }
    }

    /// Puts doorbells at the ports of a disk's queues, in place of those that are there; none: takes them away.
    fn hang(&self, number: usize, disk: &mut Disk, doorbell: Option<Notification>) {
        let ports = |base: u16| (0..MAX_QUEUES as u16).map(move |queue| Doorbell::Port(base.wrapping_add(queue * NOTIFY_STEP)));
        for port in disk.ports.take().into_iter().flat_map(ports) {
            // NotMapped: it went with the server.
            let _ = self.guest.remove_doorbell(port);
        }
        if let Some(old) = Threads::set_doorbell(number, doorbell) {
            slots::free(old.slot());
        }
        let Some(doorbell) = doorbell else { return };
        disk.ports = self.machine.chipset().pci().device(number).and_then(|device| device.notify_port());
        for port in disk.ports.into_iter().flat_map(ports) {
            // Without one the guest's write comes to the monitor, which passes it on.
            let _ = self.guest.doorbell(port, NOTIFY_WIDTH, doorbell);
        }
    }

    /// Has the server stop with a disk.
    fn stop(&self, number: usize, disk: &mut Disk) {
        if self.service(number) == Service::Idle {
            return;
        }
        self.hang(number, disk, None);
        // Until it is done: the server may be at work in the guest's memory. One that died is not.
        while let Err(error) = self.client().reset(number as u32) {
            if !matches!(error, CallError::Kernel(Error::ServerDied)) {
                log::warn!("disk {number} cannot be stopped: {error}");
                let _ = sys::wait(0, Some(time::after(time::milliseconds(PAUSE_MS))));
            }
        }
        if let Some(device) = self.machine.chipset().pci().device(number) {
            device.stopped(&self.machine.interrupts);
        }
    }

    fn broken(&self, number: usize) {
        let mut chipset = self.machine.chipset();
        if let Some(device) = chipset.pci().device(number) {
            device.broken(&self.machine.interrupts);
        }
        chipset.settle_pci(&self.machine.interrupts);
    }

    /// Waits for what the server has to tell.
    fn watch(&self) -> ! {
        let mut told = 0;
        loop {
            match self.client().watch() {
                Ok(GuestDiskEvent::Broken { disk, reason }) => {
                    // A guest that does so all the time must not fill the host's log.
                    told += 1;
                    if told <= MOST_TOLD {
                        log::warn!("the guest's driver of disk {disk} broke a rule: {reason}");
                    }
                    if told == MOST_TOLD {
                        log::warn!("no more is said of rules that this guest breaks");
                    }
                    self.broken(disk as usize);
                }
                Ok(GuestDiskEvent::Resized { disk, sectors }) => {
                    let mut chipset = self.machine.chipset();
                    if let Some(device) = chipset.pci().device(disk as usize) {
                        device.resized(sectors, &self.machine.interrupts);
                    }
                    chipset.settle_pci(&self.machine.interrupts);
                }
                Err(CallError::Kernel(Error::ServerDied)) => {
                    log::info!("the storage server ended; the guest's disks wait for the next");
                    // Behind what the link may be telling it.
                    let disks = self.disks.lock();
                    for number in 0..disks.len() {
                        if let Some(device) = self.machine.chipset().pci().device(number) {
                            device.server_died();
                        }
                    }
                    drop(disks);
                    self.machine.interrupts.wake_link();
                }
                Err(error) => {
                    log::debug!("storage: {error}");
                    let _ = sys::wait(0, Some(time::after(time::milliseconds(PAUSE_MS))));
                }
            }
        }
    }
}
