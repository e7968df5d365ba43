//! The root server itself: its books, and what happens when a server starts or ends.

use crate::backoff::Backoff;
use crate::buddy::Block;
use crate::devices::Devices;
use crate::log::Log;
use crate::machine::Machine;
use crate::process::{Process, Spec};
use crate::protection::Protection;
use crate::vm::{Machines, Starting};
use crate::window::boot_info;
use crate::zero_ahead::ZeroAhead;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use tessera_abi::object::{ObjectKind, size};
use tessera_manifest::{Manifest, PciClass, Resource, Restart, SUSPENDED, Server};
use tessera_proto::init::Level;
use tessera_proto::supervisor::ServerState;
use tessera_proto::{Failure, FailureKind};
use tessera_rt::{CNode, Endpoint, Notification, Reply, Untyped, slots, start_info, time};

/// Callers that can wait at once for the start of a machine that the manifest does not have, or to be connected to one that is starting.
const WAITING: usize = 32;

/// Why a server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It said that its work is done.
    Exit {
        /// 0: in order.
        code: i32,
        /// What it said.
        reason: String,
    },
    /// It panicked.
    Panic(String),
    /// It faulted.
    Fault(String),
    /// Somebody asked for it.
    Killed,
    /// The virtual machine that it belongs to ended.
    WithMachine,
}

impl End {
    /// One line.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Exit { code: 0, reason } if reason.is_empty() => "finished".into(),
            Self::Exit { code: 0, reason } => format!("finished: {reason}"),
            Self::Exit { code: SUSPENDED, reason } => reason.clone(),
            Self::Exit { code, reason } => format!("gave up with code {code}: {reason}"),
            Self::Panic(text) => format!("panicked: {text}"),
            Self::Fault(text) => text.clone(),
            Self::Killed => "killed".into(),
            Self::WithMachine => "ended with its virtual machine".into(),
        }
    }

    /// Whether this is how things should be.
    #[must_use]
    pub const fn in_order(&self) -> bool {
        matches!(self, Self::Exit { code: 0, .. } | Self::Killed | Self::WithMachine)
    }

    /// How the log has it. A machine whose state is on disk may end as it should, or because it cannot be resumed.
    fn level(&self) -> Level {
        match self {
            Self::Exit { code: SUSPENDED, reason } if reason == "suspended" => Level::Info,
            Self::Exit { code: SUSPENDED, .. } => Level::Warn,
            _ if self.in_order() => Level::Info,
            _ => Level::Error,
        }
    }
}

/// A server, whether it runs or not. Its number is its place in the list, plus 1.
#[derive(Debug)]
pub struct Record {
    /// Name.
    pub name: String,
    /// Index in the manifest.
    pub server: usize,
    /// Virtual machine that it belongs to.
    pub vm: Option<usize>,
    /// Processor of its first thread.
    pub cpu: u32,
    /// State.
    pub state: ServerState,
    /// How often it was started again.
    pub restarts: u32,
    /// TSC of its last start.
    pub started: u64,
    /// Why it last ended.
    pub last_end: String,
    /// TSC at which it is started again.
    pub restart_at: Option<u64>,
    /// Counts failures.
    pub backoff: Backoff,
    /// The process, while there is one.
    pub process: Option<Process>,
    /// Slot with a notification for new log lines.
    pub follower: Option<u32>,
    /// Slot with a notification for changes of virtual machines.
    pub machine_follower: Option<u32>,
    /// May use the `supervisor` interface.
    pub supervisor: bool,
    /// May use the `vm_manager` interface.
    pub vm_manager: bool,
    /// May use the `vm_memory` interface.
    pub guests: bool,
    /// May use the `iommu` interface.
    pub iommu: bool,
}

impl Record {
    /// A server that was not started yet.
    fn new(declared: &Server, server: usize, name: String, vm: Option<usize>, cpu: u32) -> Self {
        let uses = |name: &str| {
            declared
                .grants
                .iter()
                .any(|grant| grant.name == name && matches!(&grant.resource, Resource::Use { endpoint } if endpoint == "init"))
        };
        Self {
            name,
            server,
            vm,
            cpu,
            state: ServerState::Ended,
            restarts: 0,
            started: 0,
            last_end: String::new(),
            restart_at: None,
            backoff: Backoff::default(),
            process: None,
            follower: None,
            machine_follower: None,
            supervisor: uses("supervisor"),
            vm_manager: uses("vm_manager"),
            guests: uses("guests"),
            iommu: uses("iommu"),
        }
    }
}

/// Adds the records of a virtual machine's servers.
pub fn add_servers(servers: &mut Vec<Record>, manifest: &Manifest, machine: &Machine, vm: usize, name: &str) {
    for (index, server) in manifest.servers.iter().enumerate().filter(|(_, server)| server.per_vm) {
        let place = servers.len() as u32;
        let name = format!("{}.{name}", server.name);
        servers.push(Record::new(server, index, name, Some(vm), machine.cpu_for(server.cpu, place)));
    }
}

/// A named endpoint.
#[derive(Clone, Debug)]
pub struct NamedEndpoint {
    /// Name.
    pub name: String,
    /// init's own capability, with all rights.
    pub endpoint: Endpoint,
}

/// init.
#[derive(Debug)]
pub struct Root {
    /// Memory and devices.
    pub machine: Machine,
    /// PCI.
    pub devices: Devices,
    /// What devices reach.
    pub protection: Protection,
    /// What the manifest says.
    pub manifest: Manifest,
    /// The log.
    pub log: Log,
    /// All servers.
    pub servers: Vec<Record>,
    /// All virtual machines.
    pub machines: Machines,
    /// init's endpoint.
    pub endpoint: Endpoint,
    /// init's reply.
    pub reply: Reply,
    /// Endpoints of the manifest.
    pub endpoints: Vec<NamedEndpoint>,
    /// Interrupt lines that were taken: line and slot.
    pub lines: Vec<(u32, u32)>,
    /// Slots to empty when the present reply is sent.
    pub sent: Vec<u32>,
    /// Machines whose start has begun.
    pub starting: VecDeque<Starting>,
    /// Memory that servers share.
    pub shares: Vec<crate::share::Share>,
    /// Zeroes free memory; `None`: its thread could not be started.
    pub zero_ahead: Option<ZeroAhead>,
    /// Replies to spare, for answers that come later.
    pub replies: Vec<Reply>,
    /// Memory that init's own objects are made of.
    _own: Block,
}

impl Root {
    /// Sets up the books.
    ///
    /// # Errors
    /// The kernel's refusals: memory or slots are used up.
    pub fn new(mut machine: Machine, manifest: Manifest) -> Result<Self, Failure> {
        let trouble = |error| crate::process::trouble("making init's own objects")(error);
        // One reply for the present call, and some for those who wait for a machine's start, or to be connected.
        let replies = 1 + manifest.vms.len() + WAITING;
        let bytes = size::ENDPOINT * (manifest.endpoints.len() + 1) + size::REPLY * replies;
        let order = (bytes as u64).div_ceil(4096).next_power_of_two().ilog2();
        let own = machine.take(order).ok_or(Failure::from(FailureKind::Exhausted))?;
        machine.own_pages += own.pages();
        let memory = Untyped::new(own.slot);
        let make = |kind| {
            let slot = slots::take().map_err(trouble)?;
            memory.retype(kind, 0, CNode::OWN, slot, 1).map_err(trouble)?;
            Ok::<u32, Failure>(slot)
        };
        let endpoint = Endpoint::new(make(ObjectKind::Endpoint)?);
        let mut endpoints = Vec::new();
        for name in &manifest.endpoints {
            endpoints.push(NamedEndpoint {
                name: name.clone(),
                endpoint: Endpoint::new(make(ObjectKind::Endpoint)?),
            });
        }
        let reply = Reply::new(make(ObjectKind::Reply)?);
        let spare = (1..replies)
            .map(|_| make(ObjectKind::Reply).map(Reply::new))
            .collect::<Result<_, _>>()?;
        let mut servers = Vec::new();
        for (index, server) in manifest.servers.iter().enumerate().filter(|(_, server)| !server.per_vm) {
            let place = servers.len() as u32;
            servers.push(Record::new(
                server,
                index,
                server.name.clone(),
                None,
                machine.cpu_for(server.cpu, place),
            ));
        }
        for (vm, config) in manifest.vms.iter().enumerate() {
            add_servers(&mut servers, &manifest, &machine, vm, &config.name);
        }
        let machines = Machines::new(&manifest);
        // In this order: what the firmware had devices do ends before their accesses are refused.
        let devices = Devices::find(&machine);
        let protection = Protection::start(&mut machine);
        let zero_ahead = ZeroAhead::start(&mut machine);
        let failed = zero_ahead.as_ref().err().copied();
        let mut root = Self {
            machine,
            devices,
            protection,
            manifest,
            log: Log::new(),
            servers,
            machines,
            endpoint,
            reply,
            endpoints,
            lines: vec![],
            sent: vec![],
            starting: VecDeque::new(),
            shares: vec![],
            zero_ahead: zero_ahead.ok(),
            replies: spare,
            _own: own,
        };
        root.reserve_functions();
        if let Some(error) = failed {
            root.say(
                Level::Warn,
                &format!("free memory is not zeroed ahead, starts take longer: {}", error.text()),
            );
        }
        Ok(root)
    }

    /// Adds a line to the log and tells those who follow it.
    pub fn write(&mut self, level: Level, name: &str, text: &str) {
        self.log.add(time::now(), name, level, text);
        for record in &mut self.servers {
            if let Some(slot) = record.follower
                && Notification::new(slot).signal().is_err()
            {
                // The follower's notification is gone.
                slots::free(slot);
                record.follower = None;
            }
        }
    }

    /// Adds a line of init's own.
    pub fn say(&mut self, level: Level, text: &str) {
        self.write(level, "init", text);
    }

    /// The server with that number.
    #[must_use]
    pub fn index_of(&self, id: u64) -> Option<usize> {
        let index = usize::try_from(id.checked_sub(1)?).ok()?;
        (index < self.servers.len()).then_some(index)
    }

    /// The server with that name.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn named(&self, name: &str) -> Result<usize, Failure> {
        self.servers
            .iter()
            .position(|record| record.name == name)
            .ok_or_else(|| Failure::new(FailureKind::NotFound, format_args!("there is no server `{name}`")))
    }

    /// Starts all servers and machines that the manifest says.
    pub fn start_all(&mut self) {
        let line = format!(
            "{}: {} processors, {} MiB free, {} servers, {} virtual machines",
            self.manifest.product,
            self.machine.cpus,
            self.machine.free().0 / 256,
            self.servers.iter().filter(|record| record.vm.is_none()).count(),
            self.manifest.vms.len()
        );
        self.say(Level::Info, &line);
        let line = self.devices.summary();
        self.say(Level::Info, &line);
        let (level, line) = self.protection.summary();
        self.say(level, &line);
        for index in 0..self.servers.len() {
            if self.servers[index].vm.is_none() {
                self.start(index);
            }
        }
        for vm in 0..self.manifest.vms.len() {
            if self.manifest.vms[vm].autostart
                && let Err(failure) = self.start_vm(vm, tessera_manifest::Begin::AsFound)
            {
                let line = format!("virtual machine {} does not start: {failure}", self.manifest.vms[vm].name);
                self.say(Level::Error, &line);
            }
        }
    }

    /// Starts a server; says so in the log. A server that cannot be started is tried again, as if it had failed.
    pub fn start(&mut self, index: usize) {
        if let Err(failure) = self.try_start(index) {
            let line = format!("{} does not start: {failure}", self.servers[index].name);
            self.say(Level::Error, &line);
            self.servers[index].last_end = failure.to_string();
            self.after(index, false);
        }
    }

    /// Starts a server.
    ///
    /// # Errors
    /// Why it could not be made.
    pub fn try_start(&mut self, index: usize) -> Result<(), Failure> {
        if self.servers[index].process.is_some() {
            return Err(Failure::new(FailureKind::BadState, "it runs already"));
        }
        let (grants, devices) = match self.resolve(index) {
            Ok(resolved) => resolved,
            Err(failure) => {
                self.devices.release(index);
                self.unconfine(index);
                return Err(failure);
            }
        };
        let record = &self.servers[index];
        let server = &self.manifest.servers[record.server];
        let program = self
            .manifest
            .programs
            .iter()
            .find(|program| program.name == server.program)
            .ok_or_else(|| Failure::new(FailureKind::NotFound, format_args!("there is no program `{}`", server.program)))?;
        let (vm, notification, cpu) = match record.vm {
            Some(vm) => self.machines.place(vm, &self.manifest, server, record.cpu),
            None => (None, None, record.cpu),
        };
        // Whatever runs, there is no more RAM than the machine has.
        let lent = if record.guests { boot_info().ram_bytes } else { 0 };
        let network = Resource::Pci { class: PciClass::Network };
        let drives = server.grants.iter().any(|grant| grant.resource == network);
        let switches = if drives { &self.manifest.switches[..] } else { &[] };
        // What draws and sends a screen takes much more memory than the rest.
        let display = record.vm.is_some_and(|vm| self.manifest.vms[vm].display);
        let vcpus = record.vm.map_or(0, |vm| self.manifest.vms[vm].vcpus);
        let passed = devices.len() as u64 * if vm.is_some() { crate::passthrough::MONITOR_MEMORY } else { 0 };
        let spec = Spec {
            server,
            heap: if display { server.screen_heap } else { server.heap },
            untyped: server.untyped + u64::from(vcpus) * server.vcpu_untyped + passed,
            program,
            lent,
            name: record.name.clone(),
            id: index as u64 + 1,
            restarts: record.restarts,
            cpu,
            grants,
            devices,
            switches,
            vm,
            notification,
            init: self.endpoint,
        };
        let started = Process::start(&mut self.machine, &spec);
        let process = match started {
            Ok(process) => process,
            Err(failure) => {
                self.devices.release(index);
                self.unconfine(index);
                return Err(failure);
            }
        };
        let record = &mut self.servers[index];
        let line = format!("started {} (server {}, {} KiB)", record.name, index + 1, process.pages * 4);
        record.process = Some(process);
        record.state = ServerState::Starting;
        record.started = time::now();
        record.restart_at = None;
        self.say(Level::Info, &line);
        Ok(())
    }

    /// Ends a server's process, if it has one, without a thought for what comes after.
    pub fn take_down(&mut self, index: usize, end: &End) {
        let record = &mut self.servers[index];
        record.last_end = end.text();
        record.state = ServerState::Ended;
        record.restart_at = None;
        for slot in [record.follower.take(), record.machine_follower.take()].into_iter().flatten() {
            slots::free(slot);
        }
        if let Some(process) = record.process.take() {
            // Before its memory is somebody else's: no device of its writes there any more.
            self.devices.release(index);
            self.unconfine(index);
            process.end(&mut self.machine);
        }
        self.forget_holder(index);
    }

    /// A server ended or is to end: takes everything back and does what its policy says.
    pub fn end(&mut self, index: usize, end: &End) {
        if self.servers[index].process.is_none() {
            return;
        }
        let line = format!("{} (server {}) {}", self.servers[index].name, index + 1, end.text());
        self.say(end.level(), &line);
        self.take_down(index, end);
        match self.servers[index].vm {
            Some(vm) if self.machines.is_vmm(&self.manifest, self.servers[index].server) => self.machine_ended(vm, end),
            _ => self.after(index, false),
        }
    }

    /// What comes after a server's end: its next start, unless its policy or its machine's end forbids.
    fn after(&mut self, index: usize, at_once: bool) {
        let record = &mut self.servers[index];
        let again =
            self.manifest.servers[record.server].restart == Restart::Always && record.vm.is_none_or(|vm| self.machines.is_running(vm));
        if !again && !at_once {
            record.state = ServerState::Ended;
            return;
        }
        let ran = time::from_ticks(time::now().saturating_sub(record.started), 1000, start_info().tsc_hz);
        let wait = if at_once { 0 } else { record.backoff.ended(ran) };
        record.restarts = record.restarts.saturating_add(1);
        record.state = ServerState::Waiting;
        record.restart_at = Some(time::after(time::milliseconds(wait)));
    }

    /// Ends a server if it runs, and starts it at once.
    ///
    /// # Errors
    /// `BadState` for a server whose virtual machine does not run.
    pub fn restart(&mut self, index: usize) -> Result<(), Failure> {
        let record = &self.servers[index];
        if let Some(vm) = record.vm {
            let vmm = self.machines.is_vmm(&self.manifest, record.server);
            let starting = self.starting.iter().any(|starting| starting.vm == vm);
            if vmm || starting || !self.machines.is_running(vm) {
                return Err(Failure::new(
                    FailureKind::BadState,
                    format_args!("{} lives and dies with its virtual machine: stop and start that", record.name),
                ));
            }
        }
        if record.process.is_some() {
            let line = format!("{} is restarted", record.name);
            self.say(Level::Info, &line);
            self.take_down(index, &End::Killed);
        }
        self.after(index, true);
        Ok(())
    }

    /// When something is due next.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        let restarts = self.servers.iter().filter_map(|record| record.restart_at);
        let zeroing = self.zero_ahead.as_ref().and_then(|ahead| ahead.deadline(&self.machine));
        restarts
            .chain(self.devices.deadline())
            .chain(self.protection.deadline())
            .chain(zeroing)
            .min()
    }

    /// Starts the servers whose waiting is over, and looks after what can be taken out.
    pub fn start_due(&mut self) {
        for line in self.devices.look_at_slots() {
            self.say(Level::Warn, &line);
        }
        for line in self.devices.look_at_resets(&self.machine) {
            self.say(Level::Error, &line);
        }
        self.look_at_faults();
        if let Some(ahead) = &mut self.zero_ahead {
            ahead.look(&self.machine);
        }
        let now = time::now();
        for index in 0..self.servers.len() {
            if self.servers[index].restart_at.is_some_and(|at| at <= now) {
                self.servers[index].restart_at = None;
                self.start(index);
            }
        }
    }
}
