//! The devices that the monitor serves itself: a thread that works at their queues.

use super::devices::{self, Devices, Surroundings};
use super::host::{Kernel, Threads};
use super::setup::signaller;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use tessera_manifest::StartVm;
use tessera_rt::{Mutex, log, random, slots, sys, time};
use tessera_virtqueue::Violation;
use tessera_vmm::apic::Interrupts;
use tessera_vmm::devices::virtio::local::balloon::{self, PAGE, Statistics};
use tessera_vmm::devices::virtio::local::{Agent, Balloon, Local as Device, Outside, Port, Queues, Rng};
use tessera_vmm::devices::virtio::{Service, VirtioPci};
use tessera_vmm::machine::Machine;

/// How often a guest is asked how much memory it uses.
const ASK_EVERY_MS: u64 = 10_000;
/// Broken rules that are logged.
const MOST_TOLD: u32 = 8;

/// A device and its queues while a driver uses it.
struct Served<D: ?Sized> {
    queues: Option<Queues>,
    device: D,
}

/// What is there: each with its own type where it is asked for more than its requests.
struct All {
    console: Served<Port>,
    balloon: Served<Balloon>,
    agent: Served<Agent>,
    rng: Served<Rng>,
    told: u32,
    asked: u64,
}

impl All {
    fn forget_queues(&mut self) {
        (self.console.queues, self.balloon.queues) = (None, None);
        (self.agent.queues, self.rng.queues) = (None, None);
    }
}

/// What a guest has of its memory.
pub struct Memory {
    /// Bytes that it is asked to do without.
    pub target: u64,
    /// Bytes that it does without.
    pub given_up: u64,
    /// What it tells, if it has a driver.
    pub told: Statistics,
}

/// The devices.
pub struct Local {
    machine: &'static Machine<Kernel>,
    /// Place of the first on the bus.
    first: usize,
    /// Held while their queues are worked at.
    all: Mutex<All>,
}

const CONSOLE: usize = 0;
const BALLOON: usize = 1;
const AGENT: usize = 2;
const RNG: usize = 3;

impl Local {
    /// Puts the devices on the bus and starts the thread.
    pub fn start(around: &Surroundings, vm: &StartVm) -> Result<&'static Self, String> {
        let machine = around.machine;
        let mut all = All {
            console: Served {
                queues: None,
                device: Port::default(),
            },
            balloon: Served {
                queues: None,
                device: Balloon::default(),
            },
            agent: Served {
                queues: None,
                device: Agent::default(),
            },
            rng: Served { queues: None, device: Rng },
            told: 0,
            asked: 0,
        };
        // Entropy comes last: a processor may have none.
        let mut configs = alloc::vec![all.console.device.config(), all.balloon.device.config(), all.agent.device.config()];
        if random::is_there() {
            configs.push(all.rng.device.config());
        } else {
            log::debug!("the processor makes no random numbers: the guest gets no entropy device");
        }
        let first = {
            let mut chipset = machine.chipset();
            let first = chipset.pci().devices().len();
            for config in &configs {
                if !chipset.pci().add(*config) {
                    return Err("the machine has too many devices".into());
                }
            }
            chipset.set_port(first + CONSOLE);
            first
        };
        all.asked = time::now();
        let local: &'static Self = Box::leak(Box::new(Self {
            machine,
            first,
            all: Mutex::new(all),
        }));
        let notification = devices::spawn(vm, "device of the monitor's own", move || local.step())?;
        for device in 0..configs.len() {
            if let Some(old) = Threads::set_doorbell(first + device, Some(signaller(notification)?)) {
                slots::free(old.slot());
            }
        }
        Ok(local)
    }

    fn with<T>(&self, device: usize, act: impl FnOnce(&mut VirtioPci, &Interrupts<Threads>) -> T) -> Option<T> {
        devices::with_device(self.machine, self.first + device, act)
    }

    /// Works until nothing is left. Answers when to look again.
    fn step(&self) -> Option<u64> {
        let mut all = self.all.lock();
        let now = time::now();
        if now.saturating_sub(all.asked) >= time::milliseconds(ASK_EVERY_MS) {
            all.asked = now;
            all.balloon.device.ask();
        }
        let All {
            console,
            balloon,
            agent,
            rng,
            told,
            ..
        } = &mut *all;
        loop {
            let mut more = self.work(CONSOLE, console, told);
            more |= self.work(BALLOON, balloon, told);
            more |= self.work(AGENT, agent, told);
            more |= self.work(RNG, rng, told);
            if !more {
                break;
            }
        }
        all.balloon.queues.is_some().then(|| all.asked + time::milliseconds(ASK_EVERY_MS))
    }

    /// Follows a device's registers and works at its queues. True: there may be more to do.
    fn work<D: Device>(&self, number: usize, served: &mut Served<D>, told: &mut u32) -> bool {
        let service = self.with(number, |device, _| device.registers().service());
        match service {
            Some(Service::Wanted { resume }) => self.begin(number, served, resume, told),
            Some(Service::Stopping) => {
                served.queues = None;
                self.with(number, |device, to| device.stopped(to));
            }
            Some(Service::Serving) => (),
            Some(Service::Idle) | None => served.queues = None,
        }
        let Some(queues) = &mut served.queues else { return false };
        let worked = served.device.serve(queues, &self.machine.memory, &mut World(self.machine));
        for queue in queues.take_interrupts() {
            self.with(number, |device, to| device.queue_interrupt(queue, to, None));
        }
        worked.unwrap_or_else(|violation| {
            served.queues = None;
            self.broken(number, &violation, told);
            false
        })
    }

    fn begin<D: Device>(&self, number: usize, served: &mut Served<D>, resume: bool, told: &mut u32) {
        let set_up = self.with(number, |device, _| {
            (device.registers().used_queues(), device.registers().features())
        });
        let Some((used, features)) = set_up else { return };
        match Queues::new(&used, features, &self.machine.memory, resume) {
            Ok(queues) => {
                served.device.start();
                if resume {
                    served.device.resumed();
                }
                served.queues = Some(queues);
            }
            Err(violation) => self.broken(number, &violation, told),
        }
        self.with(number, |device, to| {
            device.served(to);
            if resume {
                // The driver may not have been told of the last ones.
                used.iter().for_each(|(queue, _)| device.queue_interrupt(*queue, to, None));
            }
        });
    }

    fn broken(&self, number: usize, violation: &Violation, told: &mut u32) {
        // A guest that does so all the time must not fill the host's log.
        *told = told.saturating_add(1);
        if *told <= MOST_TOLD {
            let what = ["console", "balloon", "agent's line", "entropy device"]
                .get(number)
                .unwrap_or(&"device");
            log::warn!("the guest's driver of its {what} broke a rule: {violation}");
        }
        self.with(number, |device, to| device.broken(to));
    }

    /// What the guest has of its memory.
    pub fn memory(&self) -> Memory {
        let told = self.all.lock().balloon.device.statistics();
        let (target, given_up) = self.with(BALLOON, |device, _| balloon::pages(device.config())).unwrap_or_default();
        let bytes = |pages: u32| (u64::from(pages) * PAGE).min(self.machine.memory.end());
        Memory {
            target: bytes(target),
            given_up: bytes(given_up),
            told,
        }
    }

    /// Sends bytes to the guest's agent: how many were taken.
    pub fn send_to_agent(&self, bytes: &[u8]) -> usize {
        let taken = self.all.lock().agent.device.send(bytes);
        devices::wake(self.machine);
        taken
    }

    /// What the guest's agent said, at most `most` bytes, and whether there is one.
    pub fn take_from_agent(&self, most: usize) -> (Vec<u8>, bool) {
        let taken = {
            let agent = &mut self.all.lock().agent.device;
            (agent.take(most), agent.is_open())
        };
        // It may wait for room.
        devices::wake(self.machine);
        taken
    }

    /// Asks the guest to do without this much of its memory, in bytes.
    pub fn set_target(&self, bytes: u64) {
        // No machine's RAM has more pages than fit.
        let pages = u32::try_from(bytes / PAGE).unwrap_or(u32::MAX);
        self.with(BALLOON, |device, to| {
            device.reconfigure(|config| balloon::set_target(config, pages), to)
        });
    }
}

impl Devices for Local {
    fn stopped(&self, act: &mut dyn FnMut()) {
        let mut all = self.all.lock();
        all.forget_queues();
        for number in [CONSOLE, BALLOON, AGENT, RNG] {
            self.with(number, |device, to| device.stopped(to));
        }
        act();
    }

    fn paused(&self, act: &mut dyn FnMut()) {
        let mut all = self.all.lock();
        all.forget_queues();
        for number in [CONSOLE, BALLOON, AGENT, RNG] {
            self.with(number, |device, to| device.paused(to));
        }
        act();
        drop(all);
        devices::wake(self.machine);
    }
}

/// What the devices reach.
struct World(&'static Machine<Kernel>);

impl Outside for World {
    fn random(&mut self, bytes: &mut [u8]) -> bool {
        bytes.chunks_mut(8).all(|part| {
            let number = random::number();
            if let Some(number) = number {
                part.copy_from_slice(&number.to_le_bytes()[..part.len()]);
            }
            number.is_some()
        })
    }

    fn show(&mut self, bytes: &[u8]) {
        let now = self.0.clock.ns(sys::tsc());
        self.0.chipset().show(bytes, now, &self.0.interrupts);
    }

    fn typed(&mut self, bytes: &mut [u8]) -> usize {
        self.0.chipset().typed(bytes)
    }
}
