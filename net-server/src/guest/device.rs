//! One guest's network card.

use super::control::{self, Control, Effect};
use super::features::Features;
use super::pace::Pace;
use super::queue::{Served, Wish};
use super::receive::{Dropped, Receive};
use super::steering::{LOOK, Steering};
use super::transmit::{GuestPacket, Sent, Token, Transmit};
use super::{MAX_PAIRS, MAX_QUEUES};
use crate::offload;
use crate::packet::{LONGEST_HEADER, Packet};
use crate::switch::Head;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::task::{Poll, Waker};
use tessera_device::{DmaBuffer, Ram};
use tessera_virtqueue::{Layout, Record, Violation};

/// Commands of the control queue that are carried out in one turn.
const COMMANDS: u32 = 16;
/// Answers to commands (5.1.6.5).
const OK: u8 = 0;
const ERROR: u8 = 1;

/// Tells a guest's processor of a queue's interrupt.
pub trait Signal {
    /// Does it.
    fn signal(&self);
}

/// How a guest's driver set the device up.
#[derive(Clone, Debug, Default)]
pub struct Attachment {
    /// Features that both sides agreed on.
    pub features: Features,
    /// Pairs of queues that the device has.
    pub pairs: u16,
    /// Queues in use, by number.
    pub queues: [Option<Layout>; MAX_QUEUES],
}

/// What was counted since the device was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets that the guest sent, and their bytes.
    pub sent: (u64, u64),
    /// Packets that it received, and their bytes.
    pub received: (u64, u64),
    /// Packets of the guest that made no sense.
    pub malformed: u64,
    /// Packets that the driver did not want.
    pub filtered: u64,
    /// Packets for which it had no buffers.
    pub no_buffers: u64,
    /// Packets that did not fit, or could not be finished for the driver.
    pub unfit: u64,
    /// Interrupts.
    pub interrupts: u64,
    /// Doorbells.
    pub doorbells: u64,
}

/// Something that happened at the device, until it is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// A rule was broken: which.
    pub broken: Option<String>,
    /// The driver has told the network where it is.
    pub announced: bool,
    /// Its address, or which packets it wants, is different now.
    pub filter: bool,
}

/// What a queue to transmit is left with.
enum Queued {
    /// There may be more packets.
    More,
    /// The driver rings for the next packet, or one waits for the next turn.
    Rings,
    /// The driver rings when there are many: it has to be looked at before.
    Quiet,
}

/// A network card of a guest.
pub struct Device {
    ram: Rc<Ram>,
    mac: [u8; 6],
    /// Bytes of the longest frame.
    longest: u32,
    records: [&'static Record; MAX_QUEUES],
    memory: DmaBuffer,
    features: Cell<Features>,
    /// Pairs of queues that the device has, and that the driver uses.
    pairs: Cell<u16>,
    active: Cell<u16>,
    transmit: [RefCell<Option<Transmit>>; MAX_PAIRS],
    receive: [RefCell<Option<Receive>>; MAX_PAIRS],
    control_queue: RefCell<Option<Served>>,
    control: RefCell<Control>,
    signals: RefCell<[Option<Box<dyn Signal>>; MAX_QUEUES]>,
    steering: Steering,
    /// Packets that are not held any more.
    completed: RefCell<Vec<Token>>,
    /// Number of the attachment.
    epoch: Cell<u32>,
    attached: Cell<bool>,
    /// Nothing is taken any more.
    closed: Cell<bool>,
    /// There may be something in the driver's queues.
    rung: Cell<bool>,
    /// Something happened since its queues were last settled.
    touched: Cell<bool>,
    /// When they have to be settled again, if they have to.
    due: Cell<Option<u64>>,
    pace: Pace,
    statistics: Cell<Statistics>,
    news: RefCell<News>,
    waiting: RefCell<Option<Waker>>,
    scratch: RefCell<offload::Scratch>,
}

/// The number of a pair's queue to receive; the one to transmit follows.
const fn receive_queue(pair: usize) -> usize {
    2 * pair
}

impl Device {
    /// A card with this address whose frames carry up to `mtu` bytes. `records`, and `memory` of [`super::CONTROL_STATE`] bytes, outlive the server.
    #[must_use]
    pub fn new(ram: Rc<Ram>, mac: [u8; 6], mtu: u16, records: [&'static Record; MAX_QUEUES], memory: DmaBuffer) -> Self {
        Self {
            ram,
            mac,
            longest: u32::from(mtu) + LONGEST_HEADER as u32,
            records,
            memory,
            features: Cell::default(),
            pairs: Cell::new(1),
            active: Cell::new(1),
            transmit: Default::default(),
            receive: Default::default(),
            control_queue: RefCell::default(),
            control: RefCell::new(Control::new(mac, Features::default())),
            signals: RefCell::default(),
            steering: Steering::default(),
            completed: RefCell::default(),
            epoch: Cell::new(0),
            attached: Cell::new(false),
            closed: Cell::new(true),
            rung: Cell::new(false),
            touched: Cell::new(false),
            due: Cell::new(None),
            pace: Pace::default(),
            statistics: Cell::default(),
            news: RefCell::default(),
            waiting: RefCell::default(),
            scratch: RefCell::default(),
        }
    }

    /// Whether a driver uses it.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.attached.get()
    }

    /// What was counted.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.statistics.get()
    }

    /// The address that the driver uses.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.control.borrow().mac
    }

    /// Whether the driver asks for packets to others.
    #[must_use]
    pub fn is_promiscuous(&self) -> bool {
        self.control.borrow().is_promiscuous()
    }

    /// Whether something happened since [`Self::settle`]; only then is there anything to take.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        self.touched.get()
    }

    /// What happened, once.
    #[must_use]
    pub fn take_news(&self) -> News {
        self.news.take()
    }

    fn count(&self, change: impl FnOnce(&mut Statistics)) {
        let mut statistics = self.statistics.get();
        change(&mut statistics);
        self.statistics.set(statistics);
    }

    /// Has a queue's interrupts signalled there.
    pub fn set_signal(&self, queue: usize, signal: Box<dyn Signal>) {
        if let Some(place) = self.signals.borrow_mut().get_mut(queue) {
            *place = Some(signal);
        }
    }

    /// Serves a driver's queues. `resume`: an earlier server did; what it had taken and not returned is sent again, or received into.
    ///
    /// # Errors
    /// A queue is not as it has to be; the device does nothing then.
    pub fn attach(&self, attachment: &Attachment, resume: bool) -> Result<(), Violation> {
        let features = attachment.features;
        let pairs = attachment.pairs.clamp(1, MAX_PAIRS as u16);
        let serve = |number: usize| {
            let Some(layout) = attachment.queues[number] else { return Ok(None) };
            Served::new(layout, features.queues(), &self.ram, self.records[number], resume).map(Some)
        };
        // Without several queues the third is for control (5.1.2).
        let control_number = if features.multiple_queues() { 2 * usize::from(pairs) } else { 2 };
        let in_use = if features.multiple_queues() { usize::from(pairs) } else { 1 };
        let control_queue = serve(control_number)?;
        for pair in 0..in_use {
            let (receive, transmit) = (serve(receive_queue(pair))?, serve(receive_queue(pair) + 1)?);
            self.receive[pair].replace(receive.map(Receive::new));
            self.transmit[pair].replace(transmit.map(Transmit::new));
        }
        self.control_queue.replace(control_queue);
        let control = if resume {
            Control::load(&self.memory, features, pairs)
        } else {
            None
        };
        // A machine that was suspended goes on where nobody knows what its driver asked for.
        let anew = if resume { Control::unknown } else { Control::new };
        let control = control.unwrap_or_else(|| anew(self.mac, features));
        control.save(&self.memory);
        self.active.set(control.pairs);
        self.control.replace(control);
        self.features.set(features);
        self.pairs.set(in_use as u16);
        self.epoch.set(self.epoch.get().wrapping_add(1));
        self.completed.borrow_mut().clear();
        self.news.replace(News {
            filter: true,
            ..News::default()
        });
        self.pace.forget();
        self.attached.set(true);
        self.closed.set(false);
        self.rung.set(true);
        self.touched.set(true);
        Ok(())
    }

    fn violated(&self, queue: usize, rule: &dyn ToString) {
        self.closed.set(true);
        self.touched.set(true);
        let mut news = self.news.borrow_mut();
        news.broken.get_or_insert_with(|| format!("queue {queue}: {}", rule.to_string()));
    }

    /// The driver said that there is something in a queue, or may have.
    pub fn rang(&self) {
        self.rung.set(true);
        self.count(|statistics| statistics.doorbells += 1);
    }

    /// Offers up to `budget` packets of the guest to `outlet`, with the pair of queues that they come from. `now` in nanoseconds. True: there may be more.
    pub fn transmit(&self, budget: u32, now: u64, outlet: &mut dyn FnMut(&GuestPacket<'_>, u8, Token) -> Sent) -> bool {
        if self.closed.get() || !(self.rung.take() | self.pace.is_due(now)) {
            return false;
        }
        self.touched.set(true);
        self.commands();
        self.pace.begin(now);
        let (mut more, mut patient, before) = (false, false, self.statistics.get().sent.0);
        for pair in 0..self.pairs.get() as usize {
            match self.transmit_pair(pair, budget, outlet) {
                Ok(Queued::More) => more = true,
                Ok(Queued::Quiet) => patient = true,
                Ok(Queued::Rings) => {}
                Err(violation) => self.violated(receive_queue(pair) + 1, &violation),
            }
        }
        self.pace.end((self.statistics.get().sent.0 - before) as u32, patient);
        if more {
            self.rung.set(true);
        }
        more
    }

    fn transmit_pair(
        &self,
        pair: usize,
        budget: u32,
        outlet: &mut dyn FnMut(&GuestPacket<'_>, u8, Token) -> Sent,
    ) -> Result<Queued, Violation> {
        let mut place = self.transmit[pair].borrow_mut();
        let Some(transmit) = &mut *place else {
            return Ok(Queued::Rings);
        };
        let steer = self.active.get() > 1;
        // It may have seen by itself what was sent before.
        transmit.served.look_again(&self.ram);
        transmit.served.queue.disable_notifications(&*self.ram);
        let mut counted = (0, 0);
        let mut malformed = 0;
        let mut queued = Queued::More;
        for _ in 0..budget {
            let Some(head) = transmit.served.take(&self.ram)? else {
                let queue = &transmit.served.queue;
                let patient = queue.has_event_index() && self.pace.is_patient(counted.0 > 0);
                let count = if patient { queue.layout().size / 4 } else { 1 };
                if queue.enable_notifications_after(&*self.ram, count) {
                    continue;
                }
                queued = if patient { Queued::Quiet } else { Queued::Rings };
                break;
            };
            let token = Token {
                pair: pair as u8,
                head,
                epoch: self.epoch.get(),
            };
            let mut offer = |packet: &GuestPacket<'_>| {
                if steer {
                    let mut look = [0; LOOK];
                    packet.copy_out(0, &mut look);
                    self.steering.sent(&look, pair as u8);
                }
                outlet(packet, pair as u8, token)
            };
            match transmit.send(&self.ram, self.features.get(), self.longest, head, &mut offer)? {
                Some((Sent::Later, _)) => {
                    transmit.served.put_back(head);
                    // At the next turn, whatever brings it about.
                    self.rung.set(true);
                    queued = Queued::Rings;
                    break;
                }
                Some((sent, length)) => {
                    counted = (counted.0 + 1, counted.1 + u64::from(length));
                    if sent == Sent::Held {
                        transmit.held += 1;
                    } else {
                        transmit.served.done.push((head, 0));
                    }
                }
                None => {
                    malformed += 1;
                    transmit.served.done.push((head, 0));
                }
            }
        }
        transmit.served.flush(&self.ram)?;
        self.count(|statistics| {
            statistics.sent = (statistics.sent.0 + counted.0, statistics.sent.1 + counted.1);
            statistics.malformed += malformed;
        });
        Ok(queued)
    }

    /// A packet that was held is needed no more.
    pub fn complete(&self, token: Token) {
        self.touched.set(true);
        self.completed.borrow_mut().push(token);
    }

    fn take_completed(&self) {
        let mut completed = self.completed.borrow_mut();
        for token in completed.drain(..).filter(|token| token.epoch == self.epoch.get()) {
            let mut place = self.transmit[usize::from(token.pair) % MAX_PAIRS].borrow_mut();
            if let Some(transmit) = &mut *place {
                transmit.held = transmit.held.saturating_sub(1);
                transmit.served.done.push((token.head, 0));
            }
        }
    }

    /// Whether the guest would get a packet with this address and tag.
    #[must_use]
    pub fn wants(&self, to: [u8; 6], vlan: Option<u16>) -> bool {
        let control = self.control.borrow();
        control.wants(to) && vlan.is_none_or(|tag| control.wants_vlan(tag, self.features.get()))
    }

    /// Gives the guest a packet, with a tag if there is one.
    ///
    /// # Errors
    /// See [`Dropped`]; the packet is not given then, or, where it had to be cut, not all of it.
    pub fn receive(&self, packet: &dyn Packet, vlan: Option<u16>) -> Result<(), Dropped> {
        let head = Head::read(packet, vlan);
        let (to, tag) = head.map_or(([0; 6], vlan), |head| (head.destination, head.tag));
        self.receive_for(packet, vlan, to, tag)
    }

    /// The same, where it is known to whom the packet goes, and which tag it has, be it in it or beside it.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_for(&self, packet: &dyn Packet, vlan: Option<u16>, to: [u8; 6], tag: Option<u16>) -> Result<(), Dropped> {
        let outcome = self.try_receive(packet, vlan, to, tag);
        match outcome {
            Ok(()) | Err(Dropped::NotRunning) => {}
            Err(Dropped::Filtered) => self.count(|statistics| statistics.filtered += 1),
            Err(Dropped::NoBuffers) => self.count(|statistics| statistics.no_buffers += 1),
            Err(Dropped::Unfit) => self.count(|statistics| statistics.unfit += 1),
        }
        outcome
    }

    fn try_receive(&self, packet: &dyn Packet, vlan: Option<u16>, to: [u8; 6], tag: Option<u16>) -> Result<(), Dropped> {
        if self.closed.get() {
            return Err(Dropped::NotRunning);
        }
        self.touched.set(true);
        if !self.wants(to, tag) {
            return Err(Dropped::Filtered);
        }
        let pair = match self.active.get() {
            0 | 1 => 0,
            active => {
                let mut look = [0; LOOK];
                packet.copy_out(0, &mut look);
                self.steering.pair(&look, active)
            }
        };
        let takes = self.control.borrow().takes;
        let mut place = self.receive[pair].borrow_mut();
        let Some(receive) = &mut *place else {
            return Err(Dropped::NotRunning);
        };
        let mut give = |packet: &dyn Packet| {
            let outcome = receive.deliver(&self.ram, (self.features.get(), takes), packet, &packet.offload(), vlan);
            let length = outcome.unwrap_or_else(|violation| {
                self.violated(receive_queue(pair), &violation);
                Err(Dropped::NotRunning)
            })?;
            self.count(|statistics| {
                statistics.received = (statistics.received.0 + 1, statistics.received.1 + u64::from(length));
            });
            self.pace.received();
            Ok(())
        };
        if takes.all_of(&packet.offload()) {
            return give(packet);
        }
        // Borrowed: the packet is another's, so this cannot come back here.
        let mut scratch = self.scratch.borrow_mut();
        offload::finish(packet, &mut scratch, &mut give).unwrap_or(Err(Dropped::Unfit))
    }

    /// Carries out what stands in the control queue.
    fn commands(&self) {
        let mut place = self.control_queue.borrow_mut();
        let Some(served) = &mut *place else { return };
        if let Err(violation) = self.try_commands(served) {
            let queue = 2 * self.pairs.get() as usize;
            self.violated(queue, &violation);
        }
    }

    fn try_commands(&self, served: &mut Served) -> Result<(), Violation> {
        let mut buffers = Vec::new();
        for _ in 0..COMMANDS {
            let Some(head) = served.take(&self.ram)? else {
                if served.queue.enable_notifications(&*self.ram) {
                    continue;
                }
                return served.flush(&self.ram);
            };
            buffers.clear();
            served.read(&self.ram, head, &mut buffers)?;
            let mut command = [0; control::LONGEST];
            let mut length = 0;
            for buffer in buffers.iter().filter(|buffer| !buffer.writable) {
                if let Some(piece) = self.ram.piece(buffer.address, buffer.length) {
                    length += piece.copy_out(&mut command[length..]);
                }
            }
            let answer = self.command(&command[..length]);
            let written = buffers.iter().find(|buffer| buffer.writable).and_then(|buffer| {
                self.ram.copy_in(buffer.address, &[answer])?;
                Some(1)
            });
            served.done.push((head, written.unwrap_or(0)));
        }
        self.rung.set(true);
        served.flush(&self.ram)
    }

    fn command(&self, command: &[u8]) -> u8 {
        let mut control = self.control.borrow_mut();
        let effect = control.command(command, self.features.get(), self.pairs.get());
        let mut news = self.news.borrow_mut();
        match effect {
            Effect::Refused => return ERROR,
            Effect::Done => self.active.set(control.pairs),
            Effect::Filter => news.filter = true,
            Effect::Announced => news.announced = true,
        }
        control.save(&self.memory);
        OK
    }

    /// Returns to the driver what is done, and interrupts it where it wants that. `now` in nanoseconds, that of [`Self::transmit`]; answers when both have to be called again, if they have
    /// to.
    #[inline]
    pub fn settle(&self, now: u64) -> Option<u64> {
        let due = self.due.get();
        if self.touched.take() || due.is_some_and(|due| now >= due) {
            self.due.set(self.settle_queues(now));
        }
        let again = self.pace.again(now);
        self.due.get().into_iter().chain(again).min()
    }

    fn settle_queues(&self, now: u64) -> Option<u64> {
        if !self.attached.get() {
            return None;
        }
        self.take_completed();
        let mut due: Option<u64> = None;
        for pair in 0..self.pairs.get() as usize {
            if let Some(receive) = &mut *self.receive[pair].borrow_mut() {
                self.settle_queue(receive_queue(pair), &mut receive.served);
            }
            if let Some(transmit) = &mut *self.transmit[pair].borrow_mut() {
                let number = receive_queue(pair) + 1;
                self.flush(number, &mut transmit.served);
                match transmit.served.wants_interrupt_late(&self.ram, now) {
                    Wish::No => {}
                    Wish::Now => self.interrupt(number),
                    Wish::At(then) => due = Some(due.map_or(then, |due| due.min(then))),
                }
            }
        }
        if let Some(served) = &mut *self.control_queue.borrow_mut() {
            let number = if self.features.get().multiple_queues() {
                2 * usize::from(self.pairs.get())
            } else {
                2
            };
            self.settle_queue(number, served);
        }
        if self.closed.get()
            && let Some(waker) = self.waiting.take()
        {
            waker.wake();
        }
        due
    }

    fn settle_queue(&self, number: usize, served: &mut Served) {
        self.flush(number, served);
        if served.wants_interrupt(&self.ram) {
            self.interrupt(number);
        }
    }

    fn flush(&self, number: usize, served: &mut Served) {
        if let Err(violation) = served.flush(&self.ram) {
            self.violated(number, &violation);
        }
    }

    fn interrupt(&self, number: usize) {
        self.count(|statistics| statistics.interrupts += 1);
        if let Some(signal) = &self.signals.borrow()[number] {
            signal.signal();
        }
    }

    fn held(&self) -> u32 {
        let held = |place: &RefCell<Option<Transmit>>| place.borrow().as_ref().map_or(0, |transmit| u32::from(transmit.held));
        self.transmit.iter().map(held).sum()
    }

    /// Stops serving the driver: nothing is taken any more, and what is held comes to its end.
    pub async fn stop(&self) {
        self.closed.set(true);
        self.touched.set(true);
        core::future::poll_fn(|context| {
            self.take_completed();
            if self.held() == 0 {
                return Poll::Ready(());
            }
            self.waiting.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await;
        // What is done is returned: who goes on with these queues elsewhere knows nothing else of them.
        for pair in 0..MAX_PAIRS {
            if let Some(receive) = &mut *self.receive[pair].borrow_mut() {
                self.flush(receive_queue(pair), &mut receive.served);
            }
            if let Some(transmit) = &mut *self.transmit[pair].borrow_mut() {
                self.flush(receive_queue(pair) + 1, &mut transmit.served);
            }
        }
        self.attached.set(false);
        for pair in 0..MAX_PAIRS {
            self.receive[pair].replace(None);
            self.transmit[pair].replace(None);
        }
        self.control_queue.replace(None);
        self.signals.replace(Default::default());
    }
}
