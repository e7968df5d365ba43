//! Virtual machines whose network cards are served: their RAM, borrowed from init, their devices, and what their monitors ask.
#![allow(unsafe_code)]

use super::{Server, fabric::Fabric, hub::nanoseconds};
use alloc::{boxed::Box, collections::VecDeque, format, rc::Rc, vec::Vec};
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::ptr::NonNull;
use core::task::{Poll, Waker};
use tessera_device::{
    DmaBuffer, Executor,
    later::Later,
    loan::{Loan, init, refused},
    platform,
};
use tessera_net::guest::{Attachment, CONTROL_STATE, Device, Features, MAX_PAIRS, MAX_QUEUES, Signal};
use tessera_proto::guest_net::{self, GuestNetEvent, GuestNicInfo};
use tessera_proto::guest_queues::GuestQueues;
use tessera_proto::vm_memory::{MachineConfig, StateKind};
use tessera_proto::{Call, Failure, FailureKind, collect};
use tessera_rt::{CNode, Notification, abi::PAGE_SIZE, log, slots};
use tessera_virtqueue::{Layout, Record};

/// Bits of the notification that guests' doorbells set: each device one, shared when there are more.
const FIRST_BIT: u32 = 32;
const BITS: u32 = 31;
/// A machine ended, and init waits for its RAM.
const ENDING: u64 = 1 << 63;
/// Bytes of the state frame for each card: a record for each queue, and what the driver asked for.
const STATE_PER_NIC: usize = StateKind::Nics.pages() * PAGE_SIZE;
const RECORDS: usize = MAX_QUEUES * size_of::<Record>();
const _: () = assert!(RECORDS + CONTROL_STATE <= STATE_PER_NIC);
/// Most machines at once that are looked for.
const MOST: usize = 1024;
/// What a card without a switch carries.
const MTU: u16 = 9000;
/// How fast cards say that they are, in Mbit/s.
const SPEED: u32 = 10_000;

/// A device with the notification that rings it.
pub struct Nic {
    /// The device.
    pub device: Device,
    /// No other card has had the same.
    pub number: u64,
    /// Number of the machine's start, and of the card in it.
    pub of: (u64, u32),
    /// Its link is up.
    link: Cell<bool>,
    /// The guest does not know yet how its link is.
    changed: Cell<bool>,
    /// Longest payload of a frame that its guest is told of.
    mtu: u16,
    doorbell: Notification,
    bit: u64,
}

impl Nic {
    /// Takes its link up or down; the guest is told.
    pub fn set_link(&self, up: bool) {
        if self.link.replace(up) != up {
            self.changed.set(true);
        }
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        slots::free(self.doorbell.slot());
    }
}

/// A machine. Its devices go before its RAM does.
struct Machine {
    config: MachineConfig,
    nics: RefCell<Vec<Option<Rc<Nic>>>>,
    events: RefCell<VecDeque<GuestNetEvent>>,
    watcher: RefCell<Option<Waker>>,
    ended: Cell<bool>,
    loan: Loan,
}

impl Machine {
    fn tell(&self, event: GuestNetEvent) {
        self.events.borrow_mut().push_back(event);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.watcher.take() {
            waker.wake();
        }
    }

    fn nic(&self, number: u32) -> Result<Rc<Nic>, Failure> {
        let known = self.nics.borrow().get(number as usize).cloned().flatten();
        known.ok_or_else(|| Failure::new(FailureKind::BadState, format_args!("network card {number} was not described")))
    }

    /// Takes up a card.
    fn open(&self, number: u32, made: u64, fabric: &Fabric) -> Result<Rc<Nic>, Failure> {
        if let Ok(known) = self.nic(number) {
            return Ok(known);
        }
        let place = number as usize;
        let none = || {
            Failure::new(
                FailureKind::NotFound,
                format_args!("{} has no network card {number}", self.config.name),
            )
        };
        let config = self.config.nics.get(place).ok_or_else(none)?;
        let state = self.loan.state().0;
        // SAFETY: the state frame is mapped as long as the machine is, and has room for this many bytes of each card, as was asked of it.
        let own = unsafe { state.add(place * STATE_PER_NIC) };
        // SAFETY: as above; it is aligned to pages, and any bytes are a record (all of it is atomic numbers).
        let records: [&'static Record; MAX_QUEUES] = core::array::from_fn(|queue| unsafe { own.cast::<Record>().add(queue).as_ref() });
        // SAFETY: behind the records, aligned, and no Rust object. The devices that keep it go before the loan does.
        let memory = unsafe { DmaBuffer::new(NonNull::cast(own.add(RECORDS)), 0, STATE_PER_NIC - RECORDS) };
        let mtu = fabric.mtu(&config.port_group).unwrap_or(MTU);
        let bit = 1 << (u64::from(FIRST_BIT) + made % u64::from(BITS));
        let nic = Rc::new(Nic {
            number: made,
            of: (self.config.machine, number),
            link: Cell::new(false),
            changed: Cell::new(false),
            mtu,
            device: Device::new(self.loan.ram(), config.mac, mtu, records, memory),
            doorbell: platform::signal(bit).map_err(kernel)?,
            bit,
        });
        self.nics.borrow_mut()[place] = Some(nic.clone());
        Ok(nic)
    }
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

fn kernel(error: tessera_rt::abi::Error) -> Failure {
    Failure::new(FailureKind::Exhausted, format_args!("mapping a guest's memory: {}", error.text()))
}

/// All machines.
pub struct Guests {
    machines: Rc<RefCell<Vec<Rc<Machine>>>>,
    executor: Rc<Executor>,
    later: Later,
    /// Devices that were made, to spread their bits.
    made: u64,
}

impl Guests {
    /// None.
    pub fn new() -> Self {
        let executor = Rc::new(Executor::new());
        Self {
            machines: Rc::default(),
            later: Later::new(executor.clone()),
            executor,
            made: 0,
        }
    }

    /// The Replies of answers that are put off.
    pub const fn later(&self) -> &Later {
        &self.later
    }

    /// The caller's machine, as it runs now.
    fn machine(&self, call: &Call) -> Result<Rc<Machine>, Failure> {
        let config = init().and_then(|mut init| init.machine(call.badge)).map_err(refused)?;
        if let Some(known) = self.machines.borrow().iter().find(|it| it.config.machine == config.machine) {
            return Ok(known.clone());
        }
        let loan = Loan::new(&config, ENDING, StateKind::Nics, STATE_PER_NIC * config.nics.len())?;
        let machine = Rc::new(Machine {
            nics: RefCell::new((0..config.nics.len()).map(|_| None).collect()),
            config,
            events: RefCell::default(),
            watcher: RefCell::default(),
            ended: Cell::new(false),
            loan,
        });
        self.machines.borrow_mut().push(machine.clone());
        Ok(machine)
    }

    /// Calls `act` for each card.
    pub fn each(&self, mut act: impl FnMut(&Rc<Nic>)) {
        for machine in self.machines.borrow().iter() {
            machine.nics.borrow().iter().flatten().for_each(&mut act);
        }
    }

    /// Doorbells rang, or machines ended.
    pub fn notified(&self, bits: u64) {
        if bits >> FIRST_BIT == 0 {
            return;
        }
        self.each(|nic| {
            if bits & nic.bit != 0 {
                nic.device.rang();
            }
        });
        if bits & ENDING != 0 {
            self.look_for_ends();
        }
    }

    /// Interrupts guests, tells monitors what happened, and runs what has to wait. True: there is more of that; and when interrupts that wait are due. `now` and then in nanoseconds. `changed` is set if a
    /// switch has to take something up.
    pub fn settle(&self, now: u64, changed: &mut bool) -> (bool, Option<u64>) {
        let mut due: Option<u64> = None;
        for machine in self.machines.borrow().iter() {
            for (number, nic) in (0..).zip(machine.nics.borrow().iter()) {
                let Some(nic) = nic else { continue };
                let touched = nic.device.is_touched();
                if let Some(then) = nic.device.settle(now) {
                    due = Some(due.map_or(then, |due| due.min(then)));
                }
                if !touched && !nic.changed.get() {
                    continue;
                }
                let news = nic.device.take_news();
                *changed |= news.filter;
                if let Some(reason) = news.broken {
                    // The monitor tells it, and not without end.
                    log::debug!("{}, network card {number}: {reason}", machine.config.name);
                    machine.tell(GuestNetEvent::Broken { nic: number, reason });
                }
                if nic.changed.take() | news.announced {
                    machine.tell(GuestNetEvent::Status {
                        nic: number,
                        link: nic.link.get(),
                        announce: false,
                    });
                }
            }
        }
        self.executor.run();
        (self.executor.has_work(), due)
    }

    /// Lets go of the machines that ended.
    fn look_for_ends(&self) {
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
            let machines = self.machines.clone();
            self.executor.spawn(async move {
                let nics: Vec<_> = machine.nics.borrow().iter().flatten().cloned().collect();
                for nic in nics {
                    nic.device.stop().await;
                }
                // Nobody works in its RAM any more.
                machines.borrow_mut().retain(|known| !Rc::ptr_eq(known, &machine));
                log::debug!("{}: its memory is given back", machine.config.name);
                machine.nics.borrow_mut().clear();
            });
        }
    }
}

fn attachment(features: u64, pairs: u16, queues: &GuestQueues) -> Result<Attachment, Failure> {
    let mut attachment = Attachment {
        features: Features(features),
        pairs,
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

impl Server {
    /// A machine's card; connected to the switch when it is new.
    fn open_nic(&mut self, machine: &Machine, number: u32) -> Result<Rc<Nic>, Failure> {
        let nic = machine.open(number, self.guests.made, &self.hub.fabric)?;
        if nic.number < self.guests.made {
            return Ok(nic);
        }
        self.guests.made += 1;
        if let Some(config) = machine.config.nics.get(number as usize) {
            let name = format!("{}.{number}", machine.config.name);
            let connected = self
                .hub
                .fabric
                .connect_guest(&nic, &name, config.mac, &config.port_group, nanoseconds());
            // The guest asks for it.
            nic.changed.set(false);
            if let Err(failure) = connected {
                // The guest runs all the same: its card reaches nobody.
                log::error!("{}, network card {number} stays unconnected: {failure}", machine.config.name);
            }
        }
        Ok(nic)
    }
}

impl guest_net::Server for Server {
    fn describe(&mut self, call: &mut Call, nic: u32) -> Result<GuestNicInfo, Failure> {
        let machine = self.guests.machine(call)?;
        let opened = self.open_nic(&machine, nic)?;
        Ok(GuestNicInfo {
            mac: opened.device.mac(),
            mtu: opened.mtu,
            link: opened.link.get(),
            speed: SPEED,
            pairs: MAX_PAIRS as u16,
        })
    }

    fn interrupt(&mut self, call: &mut Call, nic: u32, queue: u16) -> Result<(), Failure> {
        let machine = self.guests.machine(call)?;
        // After this server's start the first to be told is this.
        let opened = self.open_nic(&machine, nic)?;
        let from = call.cap(0).ok_or(Failure::from(FailureKind::BadRequest))?;
        let slot = slots::take().map_err(kernel)?;
        if let Err(error) = CNode::OWN.take(slot, CNode::OWN, from) {
            slots::free(slot);
            return Err(kernel(error));
        }
        let interrupt = Box::new(Interrupt(Notification::new(slot)));
        opened.device.set_signal(usize::from(queue), interrupt);
        Ok(())
    }

    fn attach(&mut self, call: &mut Call, nic: u32, features: u64, pairs: u16, queues: GuestQueues, resume: bool) -> Result<(), Failure> {
        let machine = self.guests.machine(call)?;
        let opened = self.open_nic(&machine, nic)?;
        if opened.device.is_attached() {
            // The monitor heard late of the death of this server's predecessor.
            if !resume {
                return Err(Failure::new(FailureKind::BadState, format_args!("network card {nic} is in use")));
            }
        } else {
            let attachment = attachment(features, pairs, &queues)?;
            opened.device.attach(&attachment, resume).map_err(|violation| {
                Failure::new(
                    FailureKind::BadRequest,
                    format_args!("the guest's driver broke a rule: {violation}"),
                )
            })?;
            if resume {
                log::info!("{}, network card {nic}: goes on", machine.config.name);
            }
        }
        call.give(opened.doorbell.slot());
        Ok(())
    }

    fn reset(&mut self, call: &mut Call, nic: u32) -> Result<(), Failure> {
        let machine = self.guests.machine(call)?;
        // One that was never opened does nothing.
        let Ok(opened) = machine.nic(nic) else { return Ok(()) };
        let encode = |result: &_, call: &mut _, bytes: &mut _| tessera_proto::answer(call, 0, result, bytes);
        self.guests.later.answer(call, encode, async move {
            opened.device.stop().await;
            Ok(())
        })
    }

    fn watch(&mut self, call: &mut Call) -> Result<GuestNetEvent, Failure> {
        let machine = self.guests.machine(call)?;
        let encode = |result: &_, call: &mut _, bytes: &mut _| tessera_proto::answer(call, 0, result, bytes);
        self.guests.later.answer(call, encode, async move {
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
}
