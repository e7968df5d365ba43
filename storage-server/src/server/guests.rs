//! Virtual machines whose disks are served: their RAM, borrowed from init, their devices, and what their monitors ask.
#![allow(unsafe_code)]

use super::answers::Answers;
use super::datastores::Mounted;
use super::states::Writing;
use alloc::{boxed::Box, collections::VecDeque, rc::Rc, string::String, vec::Vec};
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::task::{Poll, Waker};
use tessera_device::{
    loan::{Loan, init, refused},
    platform,
};
use tessera_proto::datastore::FileData;
use tessera_proto::guest_disk::{self, BootFile, GuestDiskEvent, GuestDiskInfo, StateInfo};
use tessera_proto::guest_queues::GuestQueues;
use tessera_proto::storage::GuestDiskStatistics;
use tessera_proto::vm_manager::FilePlace;
use tessera_proto::vm_memory::{DiskConfig, DiskPlace, MachineConfig, StateKind};
use tessera_proto::{Call, Failure, FailureKind, collect};
use tessera_rt::{CNode, Notification, abi::PAGE_SIZE, log, slots, time};
use tessera_storage::guest::{Attachment, Backing, Device, MAX_SEGMENTS, Part, Ram, Signal};
use tessera_virtqueue::{Features, Layout, Record};

/// Bits of the notification that guests' doorbells set: each device one, shared when there are more.
const FIRST_BIT: u32 = 32;
const BITS: u32 = 31;
/// A machine ended, and init waits for its RAM.
const ENDING: u64 = 1 << 63;
/// Most queues of a device.
const QUEUES: usize = guest_disk::MAX_QUEUES;
/// Bytes of the state frame for each disk.
const STATE_PER_DISK: usize = StateKind::Disks.pages() * PAGE_SIZE;
/// How long a busy guest's interrupts, looks into its queues, and looks for what its disks have done are put off at most, in microseconds.
pub const PATIENCE_US: u64 = 500;
/// Most machines at once that are looked for.
const MOST: usize = 1024;
/// Virtio's features that concern queues (virtio 1.2, chapter 6).
const INDIRECT: u64 = 1 << 28;
const EVENT_INDEX: u64 = 1 << 29;

/// A device with the notification that rings it.
struct Disk {
    device: Rc<Device>,
    doorbell: Notification,
    bit: u64,
}

impl Drop for Disk {
    fn drop(&mut self) {
        slots::free(self.doorbell.slot());
    }
}

/// A machine. Its devices go before its RAM does.
pub struct Machine {
    config: MachineConfig,
    /// Its files in datastores; the one in its drive changes.
    files: RefCell<Vec<Option<FilePlace>>>,
    disks: RefCell<Vec<Option<Rc<Disk>>>>,
    events: RefCell<VecDeque<GuestDiskEvent>>,
    watcher: RefCell<Option<Waker>>,
    ended: Cell<bool>,
    /// The file with its state, while that is written.
    writing: Writing,
    /// The datastore with its firmware's variables, while they are not safe there yet.
    unsafe_variables: RefCell<Option<Mounted>>,
    loan: Loan,
}

impl Machine {
    /// What init says about it.
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// Where a file of it is, if it is in a datastore.
    pub fn file(&self, file: BootFile) -> Option<FilePlace> {
        self.files.borrow().get(file as usize).cloned().flatten()
    }

    /// Its firmware's variables were written: they are safe, or are to be made so at the latest when it ends.
    pub fn wrote_variables(&self, store: Mounted, safe: bool) {
        self.unsafe_variables.replace((!safe).then_some(store));
    }

    /// Bytes of its RAM, with its video RAM behind it.
    pub const fn memory(&self) -> u64 {
        self.config.memory.saturating_add(self.config.video)
    }

    /// Where in its video RAM an address of its state is; `None`: in its RAM, or nowhere.
    pub const fn in_video(&self, address: u64) -> Option<u64> {
        if self.config.video > 0 {
            address.checked_sub(self.config.memory)
        } else {
            None
        }
    }

    /// What it was borrowed with: its memory.
    pub const fn loan(&self) -> &Loan {
        &self.loan
    }

    /// The file that its state is written to.
    pub fn writing(&self) -> &Writing {
        &self.writing
    }

    /// Its RAM, while the machine is kept.
    pub fn ram(&self) -> Rc<Ram> {
        self.loan.ram()
    }

    fn tell(&self, event: GuestDiskEvent) {
        self.events.borrow_mut().push_back(event);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.watcher.take() {
            waker.wake();
        }
    }

    fn disk(&self, number: u32) -> Result<Rc<Disk>, Failure> {
        let known = self.disks.borrow().get(number as usize).cloned().flatten();
        known.ok_or_else(|| Failure::new(FailureKind::BadState, format_args!("disk {number} was not described")))
    }
}

/// All machines.
#[derive(Default)]
pub struct Guests {
    machines: RefCell<Vec<Rc<Machine>>>,
    /// Devices that were made, to spread their bits.
    made: Cell<u32>,
}

fn kernel(error: tessera_rt::abi::Error) -> Failure {
    Failure::new(FailureKind::Exhausted, format_args!("mapping a guest's memory: {}", error.text()))
}

/// Signals a vCPU's thread.
struct Interrupt(Notification);

impl Signal for Interrupt {
    fn signal(&self) {
        // It can only fail when the machine is being taken apart.
        let _ = self.0.signal();
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        slots::free(self.0.slot());
    }
}

impl Guests {
    /// The caller's machine, as it runs now.
    pub fn machine(&self, call: &Call) -> Result<Rc<Machine>, Failure> {
        let config = init().and_then(|mut init| init.machine(call.badge)).map_err(refused)?;
        if let Some(known) = self.machines.borrow().iter().find(|it| it.config.machine == config.machine) {
            return Ok(known.clone());
        }
        let loan = Loan::new(&config, ENDING, StateKind::Disks, STATE_PER_DISK * config.disks.len())?;
        let machine = Rc::new(Machine {
            disks: RefCell::new((0..config.disks.len()).map(|_| None).collect()),
            files: RefCell::new(config.files.clone()),
            config,
            events: RefCell::default(),
            watcher: RefCell::default(),
            ended: Cell::new(false),
            writing: Writing::default(),
            unsafe_variables: RefCell::default(),
            loan,
        });
        self.machines.borrow_mut().push(machine.clone());
        Ok(machine)
    }

    /// Asks init where the caller's files are now, for what is in its drive changes, and looks at one there. If that is no use, the files stay those that they were.
    pub fn with_files_of_now<T>(&self, call: &Call, machine: &Machine, look: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let config = init().and_then(|mut init| init.machine(call.badge)).map_err(refused)?;
        let before = machine.files.replace(config.files);
        look().inspect_err(|_| drop(machine.files.replace(before)))
    }

    /// Takes up a disk of a machine.
    fn open(&self, machine: &Machine, number: u32, answers: &Answers) -> Result<Rc<Disk>, Failure> {
        if let Some(known) = machine.disks.borrow().get(number as usize).cloned().flatten() {
            return Ok(known);
        }
        let none = || Failure::new(FailureKind::NotFound, format_args!("{} has no disk {number}", machine.config.name));
        let config = machine.config.disks.get(number as usize).ok_or_else(none)?;
        if let Some(user) = self.user_other_than(machine, config) {
            return Err(Failure::new(
                FailureKind::BadState,
                format_args!("the disk is in use by the virtual machine {user}"),
            ));
        }
        let backing = backing(&config.place, answers, &machine.loan.ram())?;
        let read_only = config.read_only || backing.geometry().read_only;
        // SAFETY: the state frame is mapped as long as the machine is, has room for this many records of each disk, is aligned to pages, and any bytes are a record (all of it is atomic numbers).
        let records: [&'static Record; QUEUES] = core::array::from_fn(|queue| unsafe {
            &*machine
                .loan
                .state()
                .0
                .as_ptr()
                .add(number as usize * STATE_PER_DISK)
                .cast::<Record>()
                .add(queue)
        });
        const { assert!(QUEUES * size_of::<Record>() <= STATE_PER_DISK) };
        let device = Device::new(machine.loan.ram(), backing, read_only, &config.serial, records);
        device.set_patience(time::microseconds(PATIENCE_US));
        let made = self.made.get();
        self.made.set(made.wrapping_add(1));
        let bit = 1 << (FIRST_BIT + made % BITS);
        let disk = Rc::new(Disk {
            device,
            doorbell: platform::signal(bit).map_err(kernel)?,
            bit,
        });
        machine.disks.borrow_mut()[number as usize] = Some(disk.clone());
        Ok(disk)
    }

    /// The machine that uses a place and one of the two writes it.
    fn user_other_than(&self, machine: &Machine, config: &DiskConfig) -> Option<String> {
        let machines = self.machines.borrow();
        // What one that ended had begun is over before a guest that starts now reads anything.
        let others = machines
            .iter()
            .filter(|other| other.config.machine != machine.config.machine && !other.ended.get());
        let mut users = others.filter(|other| {
            let open = other.disks.borrow();
            let mut disks = other.config.disks.iter().zip(open.iter());
            disks.any(|(disk, open)| open.is_some() && overlap(&disk.place, &config.place) && !(disk.read_only && config.read_only))
        });
        users.next().map(|user| user.config.name.clone())
    }

    fn user(&self, is_it: impl Fn(&DiskPlace) -> bool) -> Option<String> {
        let machines = self.machines.borrow();
        let user = machines.iter().find(|machine| {
            let open = machine.disks.borrow();
            machine
                .config
                .disks
                .iter()
                .zip(open.iter())
                .any(|(disk, open)| open.is_some() && is_it(&disk.place))
        });
        user.map(|machine| machine.config.name.clone())
    }

    /// The machine that uses something in a datastore.
    pub fn user_of(&self, name: &str, path: &str) -> Option<String> {
        let path = path.trim_matches('/');
        self.user(|place| matches!(place, DiskPlace::Store { store, disk } if store == name && disk.trim_matches('/') == path))
    }

    /// The machine that uses a disk of the host.
    pub fn user_of_device(&self, name: &str) -> Option<String> {
        self.user(|place| matches!(place, DiskPlace::Device { device, .. } if device == name))
    }

    /// A virtual disk became larger: tells the guest that uses it.
    pub fn resized(&self, name: &str, path: &str) {
        let path = path.trim_matches('/');
        self.each(|machine, number, disk| {
            let place = &machine.config.disks[number as usize].place;
            if matches!(place, DiskPlace::Store { store, disk } if store == name && disk.trim_matches('/') == path) {
                let sectors = disk.device.sectors();
                machine.tell(GuestDiskEvent::Resized { disk: number, sectors });
            }
        });
    }

    /// What machines did with their disks.
    pub fn statistics(&self) -> Vec<GuestDiskStatistics> {
        let mut all = Vec::new();
        self.each(|machine, number, disk| {
            let counted = disk.device.statistics();
            all.push(GuestDiskStatistics {
                vm: machine.config.name.clone(),
                disk: number,
                reads: counted.reads,
                writes: counted.writes,
                flushes: counted.flushes,
                errors: counted.errors,
                interrupts: counted.interrupts,
            });
        });
        all
    }

    fn each(&self, mut act: impl FnMut(&Machine, u32, &Disk)) {
        for machine in self.machines.borrow().iter() {
            for (number, disk) in (0..).zip(machine.disks.borrow().iter()) {
                if let Some(disk) = disk {
                    act(machine, number, disk);
                }
            }
        }
    }

    /// Doorbells rang, or machines ended.
    pub fn notified(&self, bits: u64, answers: &Rc<Answers>) {
        if bits >> FIRST_BIT == 0 {
            return;
        }
        self.each(|_, _, disk| {
            if bits & disk.bit != 0 {
                disk.device.run();
            }
        });
        if bits & ENDING != 0 {
            self.look_for_ends(answers);
        }
    }

    /// Interrupts guests, and tells monitors of rules that were broken. When some device wants another turn, if one does (TSC).
    pub fn settle(&self) -> Option<u64> {
        let now = time::now();
        let mut next: Option<u64> = None;
        self.each(|machine, number, disk| {
            if disk.device.has_more() {
                disk.device.run();
            }
            let due = disk.device.settle(now);
            let due = if disk.device.has_more() { Some(now) } else { due };
            next = next.into_iter().chain(due).min();
            if let Some(reason) = disk.device.take_broken() {
                // The monitor tells it, and not without end.
                log::debug!("{}, disk {number}: {reason}", machine.config.name);
                machine.tell(GuestDiskEvent::Broken { disk: number, reason });
            }
        });
        next
    }

    /// If some guest has many requests at once: ticks in which a batch of them ends.
    pub fn batch_time(&self) -> Option<u64> {
        let mut time = None;
        self.each(|_, _, disk| time = time.into_iter().chain(disk.device.batch_time()).min());
        time
    }

    /// Lets go of the machines that ended.
    fn look_for_ends(&self, answers: &Rc<Answers>) {
        let loans = init().and_then(|mut init| collect(MOST, |first| init.loans(first)));
        let loans = match loans {
            Ok(loans) => loans,
            Err(error) => return log::error!("init does not say which machines ended: {error}"),
        };
        for loan in loans.iter().filter(|loan| loan.ending) {
            let found = self.machines.borrow().iter().find(|it| it.config.machine == loan.machine).cloned();
            let Some(machine) = found.filter(|machine| !machine.ended.replace(true)) else {
                continue;
            };
            machine.wake();
            let answers = answers.clone();
            answers.executor().spawn({
                let answers = answers.clone();
                async move {
                    let disks: Vec<_> = machine.disks.borrow().iter().flatten().cloned().collect();
                    for disk in disks {
                        disk.device.stop().await;
                    }
                    // Its monitor was stopped before it said so.
                    let store = machine.unsafe_variables.take();
                    if let Some(store) = store
                        && let Err(error) = store.flush().await
                    {
                        log::error!("{}: the variables of its firmware: {error}", machine.config.name);
                    }
                    answers.guests().forget(machine);
                }
            });
        }
    }

    /// A machine is over, and no device works in its RAM.
    fn forget(&self, machine: Rc<Machine>) {
        self.machines.borrow_mut().retain(|known| !Rc::ptr_eq(known, &machine));
        log::debug!("{}: its memory is given back", machine.config.name);
        machine.disks.borrow_mut().clear();
    }
}

/// Whether two places have bytes in common.
fn overlap(one: &DiskPlace, other: &DiskPlace) -> bool {
    match (one, other) {
        (DiskPlace::Device { device: a, partition: p }, DiskPlace::Device { device: b, partition: q }) => {
            a == b && (p == q || *p == 0 || *q == 0)
        }
        _ => one == other,
    }
}

/// Where a disk's bytes are.
fn backing(place: &DiskPlace, answers: &Answers, ram: &Rc<Ram>) -> Result<Rc<dyn Backing>, Failure> {
    match place {
        DiskPlace::Device { device, partition } => {
            let disks = answers.disks();
            let found = disks.iter().find(|disk| disk.name() == device);
            let disk = found.ok_or_else(|| {
                let known: Vec<&str> = disks.iter().map(|disk| disk.name()).collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                Failure::new(
                    FailureKind::NotFound,
                    format_args!("there is no disk `{device}`; there are: {known}"),
                )
            })?;
            if let Some(store) = answers.stores().user_of(disk, *partition) {
                return Err(Failure::new(
                    FailureKind::BadState,
                    format_args!("the datastore {} is on {device}: give the guest a disk in it", store.name),
                ));
            }
            if *partition == 0 {
                return Ok(disk.clone());
            }
            let (first, sectors) = answers.stores().partition(disk, *partition).ok_or_else(|| {
                Failure::new(
                    FailureKind::NotFound,
                    format_args!("{device} has no partition {partition}: `disk show {device}` shows which there are"),
                )
            })?;
            Ok(Rc::new(Part::new(disk.clone(), first, sectors)))
        }
        DiskPlace::Store { store, disk } => {
            let opened = answers.stores().open(store, disk, ram.clone());
            let opened = opened.map_err(|text| Failure::new(FailureKind::NotFound, text))?;
            Ok(opened)
        }
    }
}

fn attachment(features: u64, queues: &GuestQueues) -> Result<Attachment, Failure> {
    let mut attachment = Attachment {
        features: Features {
            indirect: features & INDIRECT != 0,
            event_index: features & EVENT_INDEX != 0,
        },
        ..Attachment::default()
    };
    for queue in &queues.queues {
        let place = attachment.queues.get_mut(usize::from(queue.index));
        let place = place.ok_or_else(|| Failure::new(FailureKind::BadRequest, format_args!("there is no queue {}", queue.index)))?;
        *place = Some(Layout {
            size: queue.size,
            descriptors: queue.descriptors,
            available: queue.available,
            used: queue.used,
        });
    }
    Ok(attachment)
}

impl guest_disk::Server for &Answers {
    fn describe(&mut self, call: &mut Call, disk: u32) -> Result<GuestDiskInfo, Failure> {
        let machine = self.guests().machine(call)?;
        let config_read_only = machine.config.disks.get(disk as usize).is_some_and(|it| it.read_only);
        let opened = self.guests().open(&machine, disk, self)?;
        let geometry = opened.device.geometry();
        Ok(GuestDiskInfo {
            sectors: opened.device.sectors(),
            block_size: geometry.sector_size,
            read_only: config_read_only || geometry.read_only,
            discard: geometry.discard,
            queues: QUEUES as u16,
            segments: MAX_SEGMENTS as u32,
        })
    }

    fn interrupt(&mut self, call: &mut Call, disk: u32, queue: u16) -> Result<(), Failure> {
        let machine = self.guests().machine(call)?;
        // After this server's start the first to be told is this.
        let opened = self.guests().open(&machine, disk, self)?;
        let from = call.cap(0).ok_or(Failure::from(FailureKind::BadRequest))?;
        let slot = slots::take().map_err(kernel)?;
        if let Err(error) = CNode::OWN.take(slot, CNode::OWN, from) {
            slots::free(slot);
            return Err(kernel(error));
        }
        opened
            .device
            .set_signal(usize::from(queue), Box::new(Interrupt(Notification::new(slot))));
        Ok(())
    }

    fn attach(&mut self, call: &mut Call, disk: u32, features: u64, queues: GuestQueues, resume: bool) -> Result<(), Failure> {
        let machine = self.guests().machine(call)?;
        let opened = self.guests().open(&machine, disk, self)?;
        if opened.device.is_attached() {
            // The monitor heard late of the death of this server's predecessor.
            if !resume {
                return Err(Failure::new(FailureKind::BadState, format_args!("disk {disk} is in use")));
            }
        } else {
            let attachment = attachment(features, &queues)?;
            opened.device.attach(&attachment, resume).map_err(|violation| {
                Failure::new(
                    FailureKind::BadRequest,
                    format_args!("the guest's driver broke a rule: {violation}"),
                )
            })?;
            let repeated = opened.device.statistics().repeated;
            if resume {
                log::info!("{}, disk {disk}: goes on, {repeated} requests were in flight", machine.config.name);
            }
        }
        call.give(opened.doorbell.slot());
        Ok(())
    }

    fn reset(&mut self, call: &mut Call, disk: u32) -> Result<(), Failure> {
        let machine = self.guests().machine(call)?;
        // One that was never opened does nothing.
        let Ok(opened) = machine.disk(disk) else { return Ok(()) };
        self.later(call, async move {
            opened.device.stop().await;
            Ok(())
        })
    }

    fn watch(&mut self, call: &mut Call) -> Result<GuestDiskEvent, Failure> {
        let machine = self.guests().machine(call)?;
        self.later(call, async move {
            poll_fn(|context| {
                if machine.ended.get() {
                    return Poll::Ready(Err(Failure::new(FailureKind::NotFound, "the virtual machine has ended")));
                }
                if let Some(event) = machine.events.borrow_mut().pop_front() {
                    return Poll::Ready(Ok(event));
                }
                machine.watcher.replace(Some(context.waker().clone()));
                Poll::Pending
            })
            .await
        })
    }

    fn file(&mut self, call: &mut Call, file: BootFile) -> Result<u64, Failure> {
        self.boot_file_length(call, file)
    }

    fn read_file(&mut self, call: &mut Call, file: BootFile, offset: u64, length: u32) -> Result<FileData, Failure> {
        self.read_boot_file(call, file, offset, length)
    }

    fn keep_variables(&mut self, call: &mut Call, offset: u64, data: FileData, last: bool) -> Result<(), Failure> {
        self.keep_machine_variables(call, offset, data.data, last)
    }

    fn load_file(&mut self, call: &mut Call, file: BootFile, offset: u64, length: u64, address: u64) -> Result<(), Failure> {
        self.load_boot_file(call, file, offset, length, address)
    }

    fn begin_state(&mut self, call: &mut Call, length: u64, check: u32) -> Result<(), Failure> {
        self.begin_state_file(call, length, check)
    }

    fn write_state(&mut self, call: &mut Call, offset: u64, data: &[u8]) -> Result<(), Failure> {
        self.write_state_file(call, offset, data)
    }

    fn save_memory(&mut self, call: &mut Call, address: u64, length: u64) -> Result<(), Failure> {
        self.save_ram(call, address, length)
    }

    fn end_state(&mut self, call: &mut Call) -> Result<u64, Failure> {
        self.end_state_file(call)
    }

    fn abandon_state(&mut self, call: &mut Call) -> Result<(), Failure> {
        self.abandon_state_file(call)
    }

    fn open_state(&mut self, call: &mut Call) -> Result<StateInfo, Failure> {
        self.open_state_file(call)
    }

    fn read_state(&mut self, call: &mut Call, offset: u64, length: u32) -> Result<FileData, Failure> {
        self.read_state_file(call, offset, length)
    }

    fn load_memory(&mut self, call: &mut Call) -> Result<(), Failure> {
        self.load_ram(call)
    }

    fn remove_state(&mut self, call: &mut Call) -> Result<(), Failure> {
        self.remove_state_file(call)
    }

    fn find_state(&mut self, call: &mut Call) -> Result<bool, Failure> {
        self.find_state_file(call)
    }

    fn discard_state(&mut self, call: &mut Call) -> Result<(), Failure> {
        self.discard_state_file(call)
    }
}
