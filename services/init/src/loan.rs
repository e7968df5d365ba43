//! RAM of virtual machines, and lending it to servers that serve their devices.
//!
//! ```text
//!  start --> running, nobody holds it ---- end ----------------------------> taken back
//!                 |  ^                                                           ^
//!              borrow release                                                    |
//!                 v  |                                                           |
//!            running, held ---- end: each holder is signalled --> ending --------+
//!                                                                  each released or ended
//! ```
//!
//! A server that works in a machine's RAM, or has devices work in it, must not lose it from one moment to the next: devices would write into what is somebody else's by then. So the RAM of a machine that
//! ended waits here until nobody holds it. init waits for nobody meanwhile.

use crate::buddy::Block;
use crate::machine::Machine;
use crate::manage::{disk_config, file_place, nic_config};
use crate::process::{keep_notification, trouble};
use crate::root::Root;
use crate::screen::VideoRam;
use alloc::format;
use alloc::vec::Vec;
use tessera_abi::object::Rights;
use tessera_manifest::Vm;
use tessera_proto::init::Level;
use tessera_proto::vm_manager::FilePlace;
use tessera_proto::vm_memory::{self, Loan, MachineConfig, MemoryFrame, StateKind};
use tessera_proto::{Call, Failure, FailureKind, Page};
use tessera_rt::{CNode, Frame, Notification, slots};
use tessera_screen::VIDEO_BYTES;

/// What is lent may be read and written.
pub(crate) const READ_WRITE: Rights = Rights::READ.union(Rights::WRITE);

/// The state frames that a machine needs, and their pages.
pub fn states(config: &Vm) -> impl Iterator<Item = (StateKind, u64)> {
    // Who reads a machine's files, or writes its state, borrows its RAM too; it may be suspended at any time, with disks or without.
    let all = [
        (StateKind::Disks, (StateKind::Disks.pages() * config.disks.len().max(1)) as u64),
        (StateKind::Nics, (StateKind::Nics.pages() * config.nics.len()) as u64),
    ];
    all.into_iter().filter(|(_, pages)| *pages > 0)
}

/// A frame that keeps what a server knows of a machine's devices for its successor.
#[derive(Debug)]
pub struct State {
    /// What for.
    pub kind: StateKind,
    /// Its slot.
    pub slot: u32,
    /// The server that took it first; its successors have the same index.
    owner: Option<usize>,
}

impl State {
    /// One that nobody took.
    #[must_use]
    pub const fn new(kind: StateKind, slot: u32) -> Self {
        Self { kind, slot, owner: None }
    }
}

/// A server that borrowed a machine's RAM.
#[derive(Debug)]
pub struct Holder {
    /// Its index.
    server: usize,
    /// Slot of the notification that it wants signalled when the machine ends.
    signal: u32,
}

/// A machine's RAM and its state frames.
#[derive(Debug, Default)]
pub struct Lendable {
    /// Number of this start of the machine.
    pub number: u64,
    /// Blocks of the RAM.
    pub ram: Vec<Block>,
    /// Blocks of the state frames.
    pub state_blocks: Vec<Block>,
    /// Slots of all frames.
    pub slots: Vec<u32>,
    /// Frames of the RAM, in order: slot and bytes.
    pub frames: Vec<(u32, u64)>,
    /// The video RAM. Who borrows the RAM gets its pieces too, so that what a screen shows is part of a suspended machine's state; devices do not work in it.
    pub video: Option<VideoRam>,
    /// State frames.
    pub states: Vec<State>,
    holders: Vec<Holder>,
}

impl Lendable {
    /// Nothing yet, for start `number` of a machine.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Pages of RAM, video RAM and state.
    #[must_use]
    pub fn pages(&self) -> u64 {
        let video = self.video.as_ref().map_or(0, VideoRam::pages);
        self.ram.iter().chain(&self.state_blocks).map(Block::pages).sum::<u64>() + video
    }

    /// Takes everything back at once.
    pub fn reclaim(self, machine: &mut Machine) {
        for holder in self.holders {
            slots::free(holder.signal);
        }
        machine.reclaim(self.ram);
        machine.reclaim(self.state_blocks);
        if let Some(video) = self.video {
            video.reclaim(machine);
        }
        for slot in self.slots {
            slots::free(slot);
        }
    }

    fn lend(&mut self, server: usize, signal: u32) {
        self.give_back(server);
        self.holders.push(Holder { server, signal });
    }

    fn give_back(&mut self, server: usize) {
        if let Some(place) = self.holders.iter().position(|holder| holder.server == server) {
            slots::free(self.holders.swap_remove(place).signal);
        }
    }

    /// Its devices may go on writing there, whatever it says: the RAM stays held for ever.
    fn strand(&mut self, server: usize) {
        for holder in self.holders.iter_mut().filter(|holder| holder.server == server) {
            holder.server = usize::MAX;
        }
    }

    /// Addresses and lengths of the RAM's frames, as devices know them.
    fn ranges(&self) -> Vec<(u64, u64)> {
        self.frames
            .iter()
            .filter_map(|(slot, length)| Some((Frame::new(*slot).info().ok()?.physical, *length)))
            .collect()
    }

    /// The RAM as the guest knows it: its address there, its own, and bytes.
    #[must_use]
    pub fn guest_memory(&self) -> Vec<(u64, u64, u64)> {
        let mut guest = 0;
        let place = |(slot, length): &(u32, u64)| {
            let place = (guest, Frame::new(*slot).info().ok()?.physical, *length);
            guest += length;
            Some(place)
        };
        self.frames.iter().map_while(place).collect()
    }

    fn is_held_by(&self, server: usize) -> bool {
        self.holders.iter().any(|holder| holder.server == server)
    }
}

impl Root {
    /// A machine's RAM is not needed by its own servers any more: it is taken back, or waits for those who hold it.
    pub fn end_loans(&mut self, lent: Lendable) {
        if lent.holders.is_empty() {
            lent.reclaim(&mut self.machine);
            return;
        }
        for holder in &lent.holders {
            // A notification that is gone went with its server, whose end gives the RAM back.
            let _ = Notification::new(holder.signal).signal();
        }
        self.machines.ending.push(lent);
    }

    /// A server ended: it holds nothing any more.
    pub fn forget_holder(&mut self, server: usize) {
        let running = self.machines.entries.iter_mut().filter_map(|entry| entry.running.as_mut());
        for lent in running.map(|running| &mut running.lent).chain(&mut self.machines.ending) {
            lent.give_back(server);
        }
        self.take_back_ending();
    }

    fn take_back_ending(&mut self) {
        while let Some(place) = self.machines.ending.iter().position(|lent| lent.holders.is_empty()) {
            let lent = self.machines.ending.swap_remove(place);
            let line = format!("took back {} MiB of a virtual machine that ended", lent.pages() / 256);
            lent.reclaim(&mut self.machine);
            self.say(Level::Debug, &line);
        }
    }

    fn all_lendable(&mut self) -> impl Iterator<Item = (&mut Lendable, bool)> {
        let running = self.machines.entries.iter_mut().filter_map(|entry| entry.running.as_mut());
        let running = running.map(|running| (&mut running.lent, false));
        running.chain(self.machines.ending.iter_mut().map(|lent| (lent, true)))
    }

    /// The machine with that number that the caller has borrowed.
    fn held(&mut self, call: &Call, machine: u64) -> Result<&mut Lendable, Failure> {
        let caller = self.index_of(call.badge).ok_or(Failure::from(FailureKind::NotAllowed))?;
        let mut all = self.all_lendable();
        let found = all.find(|(lent, _)| lent.number == machine && lent.is_held_by(caller));
        found
            .map(|(lent, _)| lent)
            .ok_or_else(|| Failure::new(FailureKind::NotFound, "the caller has not borrowed this machine's memory"))
    }

    /// Bytes of RAM that a server has borrowed.
    #[must_use]
    pub fn borrowed_by(&self, server: usize) -> u64 {
        let running = self.machines.entries.iter().filter_map(|entry| entry.running.as_ref());
        let all = running.map(|running| &running.lent).chain(&self.machines.ending);
        let held = all.filter(|lent| lent.is_held_by(server));
        held.flat_map(|lent| &lent.frames).map(|(_, length)| length).sum()
    }

    /// Has a server's devices reach RAM.
    fn open(&mut self, server: usize, ranges: &[(u64, u64)]) -> Result<(), Failure> {
        for (done, (address, length)) in ranges.iter().enumerate() {
            if let Err(failure) = self.protection.map(&mut self.machine, server, *address, *length) {
                self.close(server, &ranges[..done]);
                return Err(failure);
            }
        }
        Ok(())
    }

    /// Has them not reach it any more. Answers whether that is so.
    fn close(&mut self, server: usize, ranges: &[(u64, u64)]) -> bool {
        let mut closed = true;
        for (address, length) in ranges {
            closed &= self.protection.unmap(&mut self.machine, server, *address, *length);
        }
        if !closed {
            self.say(
                Level::Error,
                "the IOMMU does not answer: memory that devices may still reach is not used again",
            );
        }
        closed
    }

    /// Has the reply take along a copy of a frame. The slot is freed when the reply is sent.
    pub(crate) fn give_frame(&mut self, call: &mut Call, slot: u32, rights: Rights) -> Result<(), Failure> {
        let copy = slots::take().map_err(trouble("init has no slot left"))?;
        if let Err(error) = CNode::OWN.copy(copy, CNode::OWN, slot, rights, 0) {
            slots::free(copy);
            return Err(trouble("lending memory")(error));
        }
        call.give(copy);
        self.sent.push(copy);
        Ok(())
    }
}

impl vm_memory::Server for Root {
    fn machine(&mut self, _call: &mut Call, server: u64) -> Result<MachineConfig, Failure> {
        let none = || Failure::new(FailureKind::NotFound, "that server belongs to no running virtual machine");
        let vm = self.index_of(server).and_then(|index| self.servers[index].vm).ok_or_else(none)?;
        let entry = &self.machines.entries[vm];
        let lent = &entry.running.as_ref().ok_or_else(none)?.lent;
        let config = &self.manifest.vms[vm];
        Ok(MachineConfig {
            machine: lent.number,
            name: config.name.clone(),
            memory: config.memory,
            video: lent.video.as_ref().map_or(0, |_| VIDEO_BYTES),
            frames: lent.frames.len() as u32,
            disks: config.disks.iter().map(disk_config).collect(),
            nics: config.nics.iter().map(nic_config).collect(),
            files: [
                Some(&config.kernel),
                config.initramfs.as_ref(),
                config.cdrom.as_ref(),
                entry.state_file.as_ref(),
                config.variables.as_ref(),
            ]
            .map(|file| file.map(file_place).filter(|place| matches!(place, FilePlace::Store { .. })))
            .into(),
        })
    }

    fn borrow_memory(&mut self, call: &mut Call, machine: u64) -> Result<(), Failure> {
        let caller = self.index_of(call.badge).ok_or(Failure::from(FailureKind::NotAllowed))?;
        let gone = || Failure::new(FailureKind::NotFound, "this virtual machine has ended");
        let mut all = self.all_lendable();
        let lent = all.find(|(lent, ending)| lent.number == machine && !ending).map(|(lent, _)| lent);
        let lent = lent.ok_or_else(gone)?;
        let (held, ranges) = (lent.is_held_by(caller), lent.ranges());
        drop(all);
        if !held {
            self.open(caller, &ranges)?;
        }
        let slot = keep_notification(call).inspect_err(|_| {
            if !held {
                self.close(caller, &ranges);
            }
        })?;
        if let Some((lent, _)) = self.all_lendable().find(|(lent, _)| lent.number == machine) {
            lent.lend(caller, slot);
        }
        Ok(())
    }

    fn frame(&mut self, call: &mut Call, machine: u64, number: u32) -> Result<MemoryFrame, Failure> {
        let lent = self.held(call, machine)?;
        let none = || Failure::new(FailureKind::NotFound, format_args!("there is no frame {number}"));
        let (slot, length) = *lent.frames.get(number as usize).ok_or_else(none)?;
        let address = lent.frames.iter().take(number as usize).map(|(_, length)| length).sum();
        self.give_frame(call, slot, READ_WRITE)?;
        Ok(MemoryFrame { address, length })
    }

    fn state(&mut self, call: &mut Call, machine: u64, kind: StateKind) -> Result<(), Failure> {
        let caller = self.index_of(call.badge).ok_or(Failure::from(FailureKind::NotAllowed))?;
        let none = || Failure::new(FailureKind::NotFound, "the machine has no such devices");
        let mut states = self.held(call, machine)?.states.iter_mut();
        let state = states.find(|state| state.kind == kind).ok_or_else(none)?;
        if *state.owner.get_or_insert(caller) != caller {
            return Err(Failure::new(FailureKind::NotAllowed, "another server keeps its state there"));
        }
        let slot = state.slot;
        self.give_frame(call, slot, READ_WRITE)
    }

    fn release(&mut self, call: &mut Call, machine: u64) -> Result<(), Failure> {
        let caller = self.index_of(call.badge).ok_or(Failure::from(FailureKind::NotAllowed))?;
        // Not held is as good: the call may be a repetition.
        if let Ok(ranges) = self.held(call, machine).map(|lent| lent.ranges()) {
            let closed = self.close(caller, &ranges);
            if let Ok(lent) = self.held(call, machine) {
                if closed {
                    lent.give_back(caller);
                } else {
                    lent.strand(caller);
                }
            }
        }
        self.take_back_ending();
        Ok(())
    }

    fn loans(&mut self, call: &mut Call, first: u32) -> Result<Page<Loan>, Failure> {
        let caller = self.index_of(call.badge).ok_or(Failure::from(FailureKind::NotAllowed))?;
        let held = self.all_lendable().filter(|(lent, _)| lent.is_held_by(caller));
        let loans = held.map(|(lent, ending)| Loan {
            machine: lent.number,
            ending,
        });
        Ok(Page::fill((0..).zip(loans).skip(first as usize)))
    }

    fn found_state(&mut self, call: &mut Call, name: &str, file: FilePlace) -> Result<(), Failure> {
        self.index_of(call.badge).ok_or(Failure::from(FailureKind::NotAllowed))?;
        self.machine_is_suspended(name, file);
        Ok(())
    }

    fn video(&mut self, call: &mut Call, machine: u64, piece: u32, make: bool) -> Result<(), Failure> {
        self.held(call, machine)?;
        // Borrowed anew, beside the memory that a piece is made of.
        let running = self.machines.entries.iter_mut().filter_map(|entry| entry.running.as_mut());
        let mut all = running.map(|running| &mut running.lent).chain(&mut self.machines.ending);
        let lent = all
            .find(|lent| lent.number == machine)
            .ok_or(Failure::from(FailureKind::NotFound))?;
        let slot = lent.video_piece(&mut self.machine, piece, make)?;
        self.give_frame(call, slot, READ_WRITE)
    }
}
