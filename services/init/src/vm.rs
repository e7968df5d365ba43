//! Virtual machines: what their processes share, and their start and end.
//!
//! A running machine owns its RAM, the console rings, two notifications and two endpoints. They outlive its VMX, which can be started again, and end with its VMM; the RAM when nobody holds it any more, see
//! [`crate::loan`].

use crate::arrange::{Item, arrange};
use crate::buddy::Block;
use crate::grants::file_source;
use crate::loan::{self, Lendable, State};
use crate::machine::Machine;
use crate::process::{Granted, Source, trouble};
use crate::root::{End, Root};
use crate::screen::VideoRam;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use tessera_abi::object::{ObjectKind, Rights};
use tessera_abi::syscall::MessageInfo;
use tessera_abi::{Error, PAGE_SIZE};
use tessera_manifest::{Begin, GuestFile, Manifest, SUSPENDED, Server, StartVm, Vm};
use tessera_proto::init::Level;
use tessera_proto::vm_manager::{VmService, VmState};
use tessera_proto::{Call, Failure, FailureKind};
use tessera_rt::message::Message;
use tessera_rt::{CNode, Endpoint, Notification, Reply, Untyped, slots, time};

const PAGE: u64 = PAGE_SIZE as u64;
/// RAM comes in frames of at most 2^this many pages (1 GiB), the largest that nested page tables map by one entry. The kernel zeroes one step by step, and init answers others between them.
const LARGEST_FRAME: u32 = 18;
/// And of at least 2^this many (2 MiB), so that it is mapped by large pages.
const SMALLEST_FRAME: u32 = 9;
/// Pages of the ring for the guest's output, which is also the scrollback: 64 KiB of data and the header.
const OUTPUT_PAGES: u64 = 17;
/// Pages of the ring for the guest's input: 4 KiB of data and the header.
const INPUT_PAGES: u64 = 2;
/// Badge with which the other side signals: its bit is the highest, so that the owner's own badges can count from the lowest.
const SIGNAL: u64 = 1 << 63;
/// Priority of vCPU threads, unless their VMM's own is lower.
const VCPU_PRIORITY: u8 = 20;
/// Name of the template whose end is its machine's end.
const VMM: &str = "vmm";

/// What a running machine owns.
#[derive(Debug)]
pub struct Running {
    /// Its RAM.
    pub lent: Lendable,
    pub(crate) shared: Vec<Block>,
    pub(crate) slots: Vec<u32>,
    /// How many frames of the RAM are there.
    made: usize,
    cpus: Vec<u32>,
    /// Served by the VMM.
    pub control: Endpoint,
    /// Served by the VMX.
    pub console: Endpoint,
    vmm_signal: Notification,
    vmx_signal: Notification,
    output: u32,
    input: u32,
    /// Frames of its screen, if it has one: grant, slot, bytes.
    pub(crate) screen: Vec<(&'static str, u32, u64)>,
}

/// A virtual machine.
#[derive(Debug)]
pub struct Entry {
    /// State.
    pub state: VmState,
    /// It was removed: the place is free for another.
    pub removed: bool,
    /// Starts of the machines that had this place before.
    pub earlier: u32,
    /// Starts since boot.
    pub starts: u32,
    /// TSC of the last.
    pub started: u64,
    /// Why it last ended.
    pub reason: String,
    /// Where its state is, or is to be.
    pub state_file: Option<GuestFile>,
    /// Where a datastore has its state, as far as was told.
    pub found: Option<GuestFile>,
    /// Its state was given up: what a datastore has of it yet goes before it starts.
    pub given_up: bool,
    /// What it was started with.
    pub begin: Begin,
    /// What it owns while it runs.
    pub running: Option<Running>,
}

impl Entry {
    /// A machine that was not started yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: VmState::Stopped,
            removed: false,
            earlier: 0,
            starts: 0,
            started: 0,
            reason: String::new(),
            state_file: None,
            found: None,
            given_up: false,
            begin: Begin::AsFound,
            running: None,
        }
    }
}

/// A machine whose RAM is being made, and who waits for it.
#[derive(Debug)]
pub struct Starting {
    /// The machine.
    pub vm: usize,
    /// Holds whoever asked; `None` for a start at boot.
    pub reply: Option<Reply>,
    /// Who wants to be connected as soon as it runs.
    pub connects: Vec<Connect>,
}

/// Somebody who waits for a connection.
#[derive(Debug)]
pub struct Connect {
    /// Holds the caller.
    pub reply: Reply,
    /// Who it is.
    pub badge: u64,
    /// To what.
    pub service: VmService,
}

/// All virtual machines, in the manifest's order.
#[derive(Debug)]
pub struct Machines {
    /// Suspended machines that are not known yet: their names, and where their states are.
    pub found: Vec<(String, GuestFile)>,
    /// The machines.
    pub entries: Vec<Entry>,
    /// RAM of machines that ended, which somebody holds.
    pub ending: Vec<Lendable>,
}

impl Running {
    /// Takes the memory, and makes everything but the RAM of it.
    fn reserve(machine: &mut Machine, config: &Vm, number: u64) -> Result<Self, Failure> {
        let mut running = Self {
            lent: Lendable::new(number),
            shared: vec![],
            slots: vec![],
            made: 0,
            cpus: vec![],
            control: Endpoint::new(0),
            console: Endpoint::new(0),
            vmm_signal: Notification::new(0),
            vmx_signal: Notification::new(0),
            output: 0,
            input: 0,
            screen: vec![],
        };
        match running.build(machine, config) {
            Ok(()) => Ok(running),
            Err(failure) => {
                running.end(machine).reclaim(machine);
                Err(failure)
            }
        }
    }

    fn build(&mut self, machine: &mut Machine, config: &Vm) -> Result<(), Failure> {
        let exhausted = |machine: &Machine| {
            let (free, largest) = machine.free();
            Failure::new(
                FailureKind::Exhausted,
                format_args!(
                    "{} MiB of RAM are wanted, {} MiB are free, {} MiB in one piece: stop another virtual machine or give this one less",
                    config.memory >> 20,
                    free / 256,
                    largest / 256
                ),
            )
        };
        self.lent.ram = machine
            .take_pages(config.memory / PAGE, SMALLEST_FRAME, LARGEST_FRAME)
            .ok_or_else(|| exhausted(machine))?;
        let items = [
            Item::new(ObjectKind::Endpoint, 0),
            Item::new(ObjectKind::Endpoint, 0),
            Item::new(ObjectKind::Notification, 0),
            Item::new(ObjectKind::Notification, 0),
            Item::whole_frame(OUTPUT_PAGES),
            Item::whole_frame(INPUT_PAGES),
        ];
        let made = Self::make_shared(machine, &items, &mut self.shared, &mut self.slots)?;
        let [control, console, vmm_signal, vmx_signal, output, input] = made;
        self.control = Endpoint::new(control);
        self.console = Endpoint::new(console);
        self.vmm_signal = Notification::new(vmm_signal);
        self.vmx_signal = Notification::new(vmx_signal);
        self.output = output;
        self.input = input;
        if config.display {
            self.make_screen(machine)?;
        }
        for (kind, pages) in loan::states(config) {
            let items = [Item::whole_frame(pages)];
            let [slot] = Self::make_shared(machine, &items, &mut self.lent.state_blocks, &mut self.lent.slots)?;
            self.lent.states.push(State::new(kind, slot));
        }
        for _ in 0..config.vcpus {
            self.cpus.push(machine.place_vcpu());
        }
        Ok(())
    }

    /// Makes the next portion of the RAM, which the kernel zeroes. Answers true when all of it is there.
    fn make_ram(&mut self) -> Result<bool, Failure> {
        let Some(block) = self.lent.ram.get(self.made) else {
            return Ok(true);
        };
        let (memory, pages) = (Untyped::new(block.slot), block.pages());
        // The slot of a frame that is in the making.
        let slot = match self.lent.frames.get(self.made) {
            Some((slot, _)) => *slot,
            None => {
                let slot = take_slot(&mut self.lent.slots)?;
                self.lent.frames.push((slot, pages * PAGE));
                slot
            }
        };
        match memory.retype_step(ObjectKind::Frame, pages, CNode::OWN, slot, 1) {
            Err(Error::Again) => {}
            outcome => {
                outcome.map_err(trouble("making its RAM"))?;
                self.made += 1;
            }
        }
        Ok(self.made == self.lent.ram.len())
    }

    pub(crate) fn make_shared<const N: usize>(
        machine: &mut Machine,
        items: &[Item; N],
        blocks: &mut Vec<Block>,
        slots: &mut Vec<u32>,
    ) -> Result<[u32; N], Failure> {
        let arrangement = arrange(items);
        let mut made = [0; N];
        // Others may be there from before.
        let first = blocks.len();
        for pages in &arrangement.blocks {
            blocks.push(machine.take(pages.ilog2()).ok_or(Failure::from(FailureKind::Exhausted))?);
        }
        for placement in &arrangement.placements {
            let slot = take_slot(slots)?;
            Untyped::new(blocks[first + placement.block].slot)
                .retype(items[placement.item].kind, placement.size, CNode::OWN, slot, 1)
                .map_err(trouble("making what its servers share"))?;
            made[placement.item] = slot;
        }
        Ok(made)
    }

    /// Takes back everything but the RAM.
    fn end(self, machine: &mut Machine) -> Lendable {
        for cpu in self.cpus {
            let count = &mut machine.vcpus_on[cpu as usize];
            *count = count.saturating_sub(1);
        }
        machine.reclaim(self.shared);
        for slot in self.slots {
            slots::free(slot);
        }
        self.lent
    }

    /// Processor of its first virtual processor.
    #[must_use]
    pub fn first_cpu(&self) -> Option<u32> {
        self.cpus.first().copied()
    }

    /// Pages shared by its processes alone.
    #[must_use]
    pub fn own_pages(&self) -> u64 {
        self.shared.iter().map(Block::pages).sum()
    }

    /// Pages shared by its processes, with the video RAM that there is.
    #[must_use]
    pub fn shared_pages(&self) -> u64 {
        self.own_pages() + self.lent.video.as_ref().map_or(0, VideoRam::pages)
    }
}

fn take_slot(taken: &mut Vec<u32>) -> Result<u32, Failure> {
    let slot = slots::take().map_err(trouble("init has no slot left"))?;
    taken.push(slot);
    Ok(slot)
}

impl Machines {
    /// None runs.
    #[must_use]
    pub fn new(manifest: &Manifest) -> Self {
        let entries = manifest.vms.iter().map(|_| Entry::new()).collect();
        Self {
            found: vec![],
            entries,
            ending: vec![],
        }
    }

    /// Whether a machine runs.
    #[must_use]
    pub fn is_running(&self, vm: usize) -> bool {
        self.entries.get(vm).is_some_and(|entry| entry.running.is_some())
    }

    /// Whether a template is the one whose end is its machine's end.
    #[must_use]
    pub fn is_vmm(&self, manifest: &Manifest, server: usize) -> bool {
        manifest.servers[server].per_vm && manifest.servers[server].name == VMM
    }

    /// What a process of a machine is started with: its start information, its notification, and its processor.
    #[must_use]
    pub fn place(&self, vm: usize, manifest: &Manifest, server: &Server, cpu: u32) -> (Option<StartVm>, Option<Notification>, u32) {
        let Some(running) = self.entries.get(vm).and_then(|entry| entry.running.as_ref()) else {
            return (None, None, cpu);
        };
        let start = StartVm {
            config: manifest.vms[vm].clone(),
            cpus: running.cpus.clone(),
            vcpu_priority: VCPU_PRIORITY.min(server.priority),
            begin: self.entries[vm].begin,
        };
        if server.name == VMM {
            // Where its vCPUs are, so that it wakes them without asking another processor.
            (Some(start), Some(running.vmm_signal), running.cpus.first().copied().unwrap_or(cpu))
        } else {
            (Some(start), Some(running.vmx_signal), cpu)
        }
    }

    /// What a process of a machine gets beside what the manifest grants.
    ///
    /// # Errors
    /// A file is not there, or the machine does not run.
    pub fn grants(&self, vm: usize, manifest: &Manifest, server: &Server) -> Result<Vec<Granted>, Failure> {
        let running = self
            .entries
            .get(vm)
            .and_then(|entry| entry.running.as_ref())
            .ok_or_else(|| Failure::new(FailureKind::BadState, "its virtual machine does not run"))?;
        let config = &manifest.vms[vm];
        let mut granted = vec![];
        let mut add = |name: &str, source: Source, length: u64, large: bool| {
            granted.push(Granted {
                name: name.to_string(),
                source,
                length,
                large,
            });
        };
        let copy = |slot: u32, rights: Rights, badge: u64| Source::Copy { slot, rights, badge };
        let all = Rights::READ | Rights::WRITE | Rights::EXECUTE;
        let serve = Rights::RECEIVE | Rights::GRANT | Rights::READ;
        let vmm = server.name == VMM;
        let (endpoint, own, other) = if vmm {
            (running.control, running.vmm_signal, running.vmx_signal)
        } else {
            (running.console, running.vmx_signal, running.vmm_signal)
        };
        let names = if vmm {
            ["vmm.signal", "vmx.signal"]
        } else {
            ["vmx.signal", "vmm.signal"]
        };
        add("control", copy(endpoint.slot(), serve, 0), 0, false);
        add(names[0], copy(own.slot(), Rights::all(), 0), 0, false);
        add(names[1], copy(other.slot(), Rights::SEND, SIGNAL), 0, false);
        let read_write = Rights::READ | Rights::WRITE;
        add("console.output", copy(running.output, read_write, 0), OUTPUT_PAGES * PAGE, false);
        add("console.input", copy(running.input, read_write, 0), INPUT_PAGES * PAGE, false);
        for (name, slot, length) in &running.screen {
            // VMX only looks at the picture.
            let writes = vmm || *name == tessera_screen::INPUT;
            let rights = if writes { read_write } else { Rights::READ };
            add(name, copy(*slot, rights, 0), *length, false);
        }
        if vmm {
            for (index, (slot, length)) in running.lent.frames.iter().enumerate() {
                add(&format!("ram.{index}"), copy(*slot, all, 0), *length, true);
            }
            let files = [
                ("kernel", Some(&config.kernel)),
                ("initramfs", config.initramfs.as_ref()),
                ("cdrom", config.cdrom.as_ref()),
            ];
            for (name, file) in files {
                // What is in a datastore the monitor gets from the storage server.
                if let Some(GuestFile::Image(file)) = file {
                    let (source, length) = file_source(manifest, file)?;
                    add(name, source, length, false);
                }
            }
            let rom = tessera_screen::ROM;
            // An image may go without: firmware that shows nothing on a screen has its serial port.
            if config.display && config.firmware.is_some() && manifest.files.iter().any(|file| file.name == rom) {
                let (source, length) = file_source(manifest, rom)?;
                add(rom, source, length, false);
            }
        }
        Ok(granted)
    }
}

impl Root {
    /// The machine with that name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn machine_named(&self, name: &str) -> Result<usize, Failure> {
        self.manifest
            .vms
            .iter()
            .zip(&self.machines.entries)
            .position(|(vm, entry)| vm.name == name && !entry.removed)
            .ok_or_else(|| Failure::new(FailureKind::NotFound, format_args!("there is no virtual machine `{name}`")))
    }

    /// Begins to start a machine, anew or with its state: takes its memory. Its RAM is made bit by bit between other things, by [`Root::go_on`], which then starts its processes.
    ///
    /// # Errors
    /// It runs already, or memory is used up; nothing is left behind then.
    pub fn start_vm(&mut self, vm: usize, begin: Begin) -> Result<(), Failure> {
        let config = &self.manifest.vms[vm];
        if self.machines.is_running(vm) {
            let text = format_args!("virtual machine {} runs already", config.name);
            return Err(Failure::new(FailureKind::BadState, text));
        }
        if !self.manifest.servers.iter().any(|server| server.per_vm && server.name == VMM) {
            let text = format_args!("the manifest has no template `{VMM}`, which runs virtual machines");
            return Err(Failure::new(FailureKind::Unsupported, text));
        }
        self.prepare_functions(vm)?;
        let config = &self.manifest.vms[vm];
        // The start's count makes it another machine than the last one of that name.
        let starts = u64::from(self.machines.entries[vm].earlier) + u64::from(self.machines.entries[vm].starts);
        let number = ((starts + 1) << 32) | (vm as u64 + 1);
        let running = Running::reserve(&mut self.machine, config, number)?;
        let entry = &mut self.machines.entries[vm];
        entry.running = Some(running);
        entry.state = VmState::Running;
        entry.started = time::now();
        entry.starts = entry.starts.saturating_add(1);
        entry.begin = begin;
        entry.reason.clear();
        let line = format!(
            "virtual machine {} starts: {} MiB, {} vCPUs",
            config.name,
            config.memory >> 20,
            config.vcpus
        );
        self.starting.push_back(Starting {
            vm,
            reply: None,
            connects: vec![],
        });
        self.say(Level::Info, &line);
        self.machine_changed();
        Ok(())
    }

    /// Does the next bit of what is begun. Answers when the next one is due, as a TSC value: a while later, a quarter as
    /// long as this one took, so that others get their turn.
    pub fn go_on(&mut self) -> Option<u64> {
        let vm = self.starting.front()?.vm;
        let begin = time::now();
        let made = match &mut self.machines.entries[vm].running {
            Some(running) => running.make_ram(),
            // Ended meanwhile; `end_vm` forgets the start too.
            None => Err(FailureKind::BadState.into()),
        };
        let outcome = match made {
            Ok(false) => {
                let now = time::now();
                return Some(now.saturating_add((now - begin) / 4));
            }
            Ok(true) => match self.functions_ready(vm) {
                Ok(Some(later)) => return Some(later),
                Ok(None) => self.start_processes(vm),
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &outcome {
            self.end_vm(vm, VmState::Failed, &failure.to_string());
        }
        self.started(vm, &outcome);
        Some(time::now())
    }

    /// Tells whoever waits for a machine's start how it went.
    fn started(&mut self, vm: usize, outcome: &Result<(), Failure>) {
        let Some(place) = self.starting.iter().position(|starting| starting.vm == vm) else {
            return;
        };
        let Some(starting) = self.starting.remove(place) else { return };
        if let Some(reply) = starting.reply {
            self.answer_later(reply, &mut Call::default(), 0, outcome);
        }
        for Connect { reply, badge, service } in starting.connects {
            let mut call = Call::new(badge, 0, 0);
            let connected = outcome.clone().and_then(|()| self.connect_to(&mut call, vm, service));
            self.answer_later(reply, &mut call, 1, &connected);
        }
    }

    /// Sends an answer that was put off, and has its Reply to spare again.
    fn answer_later(&mut self, reply: Reply, call: &mut Call, gives: usize, result: &Result<(), Failure>) {
        let mut message = Message::take();
        let length = tessera_proto::answer(call, gives, result, message.bytes());
        let given = message.send_caps(call.given());
        let mut words = message.load(length);
        // BadState: the caller is gone, which is as good.
        let _ = reply.send(MessageInfo::new(length, given), &mut words);
        drop(message);
        self.replies.push(reply);
        for slot in call.given() {
            slots::free(*slot);
        }
    }

    /// Has the reply to `call` take along an endpoint of a running machine's service, badged with the caller's number. The slot is to be freed when the reply is sent.
    ///
    /// # Errors
    /// It does not run; no slot is left.
    pub fn connect_to(&self, call: &mut Call, vm: usize, service: VmService) -> Result<(), Failure> {
        let name = &self.manifest.vms[vm].name;
        let stopped = || Failure::new(FailureKind::BadState, format_args!("virtual machine {name} does not run"));
        let running = self.machines.entries[vm].running.as_ref().ok_or_else(stopped)?;
        let endpoint = match service {
            VmService::Control => running.control,
            VmService::Console => running.console,
        };
        let slot = slots::take().map_err(trouble("init has no slot left"))?;
        let rights = Rights::SEND | Rights::GRANT;
        if let Err(error) = CNode::OWN.copy(slot, CNode::OWN, endpoint.slot(), rights, call.badge) {
            slots::free(slot);
            return Err(trouble("connecting")(error));
        }
        call.give(slot);
        Ok(())
    }

    fn start_processes(&mut self, vm: usize) -> Result<(), Failure> {
        // VMX first: templates that are not the VMM are its helpers and should be there when the guest speaks.
        for last in [false, true] {
            for index in 0..self.servers.len() {
                let record = &self.servers[index];
                if record.vm != Some(vm) || self.machines.is_vmm(&self.manifest, record.server) != last {
                    continue;
                }
                self.servers[index].restarts = 0;
                self.servers[index].backoff = crate::backoff::Backoff::default();
                self.try_start(index)
                    .map_err(|failure| Failure::new(failure.kind, format_args!("{}: {failure}", self.servers[index].name)))?;
            }
        }
        Ok(())
    }

    /// Its VMM ended, and so it ends.
    pub fn machine_ended(&mut self, vm: usize, end: &End) {
        let state = match end {
            End::Exit { code: SUSPENDED, reason } => {
                let entry = &mut self.machines.entries[vm];
                entry.given_up = false;
                if entry.state_file.is_none() {
                    entry.state_file = entry.found.clone();
                }
                return self.end_vm(vm, VmState::Suspended, &reason.clone());
            }
            end if end.in_order() => VmState::Stopped,
            _ => VmState::Failed,
        };
        self.end_vm(vm, state, &end.text());
    }

    /// Ends all processes of a machine and takes back everything it owns.
    pub fn end_vm(&mut self, vm: usize, state: VmState, reason: &str) {
        for index in 0..self.servers.len() {
            if self.servers[index].vm == Some(vm) {
                if self.servers[index].process.is_some() {
                    self.take_down(index, &End::WithMachine);
                }
                self.servers[index].restart_at = None;
                self.servers[index].state = tessera_proto::supervisor::ServerState::Ended;
            }
        }
        let entry = &mut self.machines.entries[vm];
        entry.state = state;
        entry.reason = reason.to_string();
        if let Some(running) = entry.running.take() {
            let lent = running.end(&mut self.machine);
            self.end_loans(lent);
        }
        self.started(
            vm,
            &Err(Failure::new(
                FailureKind::BadState,
                format_args!("ended while it started: {reason}"),
            )),
        );
        let line = format!("virtual machine {} ended: {reason}", self.manifest.vms[vm].name);
        self.say(if state == VmState::Failed { Level::Error } else { Level::Info }, &line);
        self.machine_changed();
    }
}
