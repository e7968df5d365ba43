//! What init answers.

use crate::loan::Lendable;
use crate::process::{keep_notification, trouble};
use crate::root::{End, Record, Root};

use crate::window::boot_info;
use alloc::string::{String, ToString};
use alloc::{collections::BTreeSet, format, vec::Vec};
use tessera_abi::object::{ObjectKind, Rights};
use tessera_abi::{PAGE_SIZE, boot::slot};
use tessera_manifest::slots as fixed;
use tessera_proto::init::Level;
use tessera_proto::supervisor::{
    CapabilityInfo, EndpointInfo, LogChunk, MemoryInfo, PciFunction, ServerInfo, ServerState, SystemInfo, ThreadInfo, ThreadState,
    WriteExecute,
};
use tessera_proto::{Call, Failure, FailureKind, Page, init, interface_of, iommu, supervisor, unknown_operation, vm_manager, vm_memory};
use tessera_rt::{AddressSpace, CNode, Endpoint, ResetKind, Thread, ThreadStatus, Trace, slots, start_info};

const PAGE: u64 = PAGE_SIZE as u64;
/// Number of init itself where servers are numbered.
const SELF: u64 = 0;
/// Number of the kernel where servers are numbered, for page tables only.
const KERNEL: u64 = u64::MAX;

/// Answers one request. Returns the length of the reply.
pub fn answer(root: &mut Root, call: &mut Call, request: &[u8], reply: &mut [u8]) -> usize {
    let Some(caller) = root.index_of(call.badge) else {
        return unknown_operation(reply);
    };
    let record = &root.servers[caller];
    // A request of a process that was ended while it waited has no one to answer to.
    let allowed = match interface_of(request) {
        Some(number) if number == init::INTERFACE.number => return init::dispatch(root, call, request, reply),
        Some(number) if number == supervisor::INTERFACE.number => record.supervisor,
        Some(number) if number == vm_manager::INTERFACE.number => record.vm_manager,
        Some(number) if number == vm_memory::INTERFACE.number => record.guests,
        Some(number) if number == iommu::INTERFACE.number => record.iommu,
        _ => return unknown_operation(reply),
    };
    if !allowed {
        return tessera_proto::refuse(FailureKind::NotAllowed, reply);
    }
    match interface_of(request) {
        Some(number) if number == supervisor::INTERFACE.number => supervisor::dispatch(root, call, request, reply),
        Some(number) if number == vm_memory::INTERFACE.number => vm_memory::dispatch(root, call, request, reply),
        Some(number) if number == iommu::INTERFACE.number => iommu::dispatch(root, call, request, reply),
        _ => vm_manager::dispatch(root, call, request, reply),
    }
}

impl Root {
    pub(crate) fn caller(&self, call: &Call) -> Result<usize, Failure> {
        self.index_of(call.badge).ok_or(FailureKind::NotAllowed.into())
    }

    /// The table of a server, or init's own for number 0.
    fn table_of(&self, server: u64) -> Result<CNode, Failure> {
        if server == SELF {
            return Ok(CNode::OWN);
        }
        self.index_of(server)
            .and_then(|index| self.servers[index].process.as_ref())
            .map(|process| process.cnode)
            .ok_or_else(|| Failure::new(FailureKind::NotFound, format_args!("server {server} does not run")))
    }

    /// Threads in a capability table from slot `first` on, each once: slot, identity, status.
    fn threads_in(table: CNode, first: u32) -> Vec<(u32, u64, ThreadStatus)> {
        let mut threads = Vec::new();
        let mut seen = BTreeSet::new();
        let Ok(scratch) = slots::take() else { return threads };
        for slot in used_slots(table, 1) {
            let Ok(description) = table.describe(slot) else { continue };
            if description.kind != ObjectKind::Thread || !seen.insert(description.object) || slot < first {
                continue;
            }
            if CNode::OWN.copy(scratch, table, slot, Rights::READ, 0).is_ok() {
                if let Ok(status) = Thread::new(scratch).info() {
                    threads.push((slot, description.object, status));
                }
                let _ = CNode::OWN.delete(scratch);
            }
        }
        slots::free(scratch);
        threads
    }

    /// General registers of a server's first faulted thread.
    #[must_use]
    pub fn faulted_registers(&self, index: usize) -> Option<[u64; 16]> {
        let table = self.servers[index].process.as_ref()?.cnode;
        let faulted = |(_, _, status): &(u32, u64, ThreadStatus)| thread_state(status.state) == ThreadState::Faulted;
        let (slot, ..) = Self::threads_in(table, 0).into_iter().find(faulted)?;
        let scratch = slots::take().ok()?;
        let registers = CNode::OWN
            .copy(scratch, table, slot, Rights::READ, 0)
            .and_then(|()| Thread::new(scratch).registers())
            .ok();
        slots::free(scratch);
        registers
    }

    fn server_info(&self, index: usize, record: &Record) -> ServerInfo {
        let server = &self.manifest.servers[record.server];
        let threads = record
            .process
            .as_ref()
            .map(|process| Self::threads_in(process.cnode, 0))
            .unwrap_or_default();
        ServerInfo {
            id: index as u64 + 1,
            name: record.name.clone(),
            state: record.state,
            restarts: record.restarts,
            pages: record.process.as_ref().map_or(0, |process| process.pages),
            priority: server.priority,
            threads: threads.len() as u32,
            cpu_ticks: threads.iter().map(|(_, _, status)| status.consumed).sum(),
            started_tsc: record.started,
            vm: record.vm.map(|vm| self.manifest.vms[vm].name.clone()),
            last_end: record.last_end.clone(),
        }
    }

    fn own_info(&self) -> ServerInfo {
        let status = Thread::new(slot::THREAD).info().ok();
        ServerInfo {
            id: SELF,
            name: "init".into(),
            state: ServerState::Running,
            restarts: 0,
            pages: self.machine.own_pages,
            priority: status.map_or(0, |status| status.priority),
            threads: 1,
            cpu_ticks: status.map_or(0, |status| status.consumed),
            started_tsc: start_info().boot_tsc,
            vm: None,
            last_end: String::new(),
        }
    }

    fn provider_of(&self, endpoint: &str) -> String {
        let provides = |record: &&Record| {
            self.manifest.servers[record.server]
                .grants
                .iter()
                .any(|grant| matches!(&grant.resource, tessera_manifest::Resource::Provide { endpoint: name } if name == endpoint))
        };
        self.servers
            .iter()
            .find(provides)
            .map(|record| record.name.clone())
            .unwrap_or_default()
    }

    fn endpoint_info(name: String, provider: String, endpoint: Endpoint) -> EndpointInfo {
        let status = endpoint.info().ok();
        EndpointInfo {
            name,
            provider,
            calls: status.map_or(0, |status| status.calls),
            callers_waiting: status.map_or(0, |status| status.callers_waiting),
            receivers_waiting: status.map_or(0, |status| status.receivers_waiting),
            latency_ticks: status.map_or(0, |status| status.latency_ticks),
            latency_count: status.map_or(0, |status| status.latency_count),
        }
    }
}

/// Occupied slots of a table, from `first` on.
fn used_slots(table: CNode, first: u32) -> impl Iterator<Item = u32> {
    let end = table.slots().unwrap_or(0);
    let mut next = first.max(1);
    core::iter::from_fn(move || {
        let slot = table.next_used(next).ok().filter(|slot| *slot < end)?;
        next = slot + 1;
        Some(slot)
    })
}

fn thread_state(state: u8) -> ThreadState {
    match state {
        1 => ThreadState::Ready,
        2 => ThreadState::Receiving,
        3 => ThreadState::Calling,
        4 => ThreadState::AwaitingReply,
        5 => ThreadState::Waiting,
        6 => ThreadState::Faulted,
        7 => ThreadState::Throttled,
        _ => ThreadState::Stopped,
    }
}

/// Names of the slots that every server has filled.
fn fixed_name(slot: u32) -> &'static str {
    match slot {
        fixed::CNODE => "own table",
        fixed::ADDRESS_SPACE => "own space",
        fixed::THREAD => "first thread",
        fixed::UNTYPED => "own memory",
        fixed::INIT => "init",
        fixed::SCHED_CONTEXT => "own share",
        fixed::REPLY => "first reply",
        fixed::NOTIFICATION => "first signal",
        fixed::FAULT => "fault handler",
        _ => "",
    }
}

impl init::Server for Root {
    fn log(&mut self, call: &mut Call, level: Level, text: &str) -> Result<(), Failure> {
        let caller = self.caller(call)?;
        if text.len() > init::MAX_LINE {
            return Err(FailureKind::BadRequest.into());
        }
        let name = self.servers[caller].name.clone();
        self.write(level, &name, text);
        Ok(())
    }

    fn exit(&mut self, call: &mut Call, code: i32, reason: &str) -> Result<(), Failure> {
        let caller = self.caller(call)?;
        self.end(
            caller,
            &End::Exit {
                code,
                reason: reason.to_string(),
            },
        );
        Ok(())
    }

    fn panicked(&mut self, call: &mut Call, text: &str) -> Result<(), Failure> {
        let caller = self.caller(call)?;
        self.end(caller, &End::Panic(text.to_string()));
        Ok(())
    }

    fn ready(&mut self, call: &mut Call) -> Result<(), Failure> {
        let caller = self.caller(call)?;
        if self.servers[caller].state == ServerState::Starting {
            self.servers[caller].state = ServerState::Running;
        }
        Ok(())
    }

    fn bus_master(&mut self, call: &mut Call, device: u32) -> Result<(), Failure> {
        let caller = self.caller(call)?;
        self.devices.bus_master(caller, device, true)
    }

    fn no_bus_master(&mut self, call: &mut Call, device: u32) -> Result<(), Failure> {
        let caller = self.caller(call)?;
        self.devices.bus_master(caller, device, false)
    }

    fn reset_device(&mut self, call: &mut Call, device: u32, begin: bool) -> Result<u32, Failure> {
        let caller = self.caller(call)?;
        self.devices.reset_held(caller, device, begin)
    }

    fn device_memory(&mut self, call: &mut Call, pages: u32) -> Result<(), Failure> {
        self.lend_device_memory(call, pages)
    }

    fn video_memory(&mut self, call: &mut Call, piece: u32, make: bool) -> Result<(), Failure> {
        let caller = self.caller(call)?;
        self.give_video(call, caller, piece, make)
    }
}

impl supervisor::Server for Root {
    fn system(&mut self, _call: &mut Call) -> Result<SystemInfo, Failure> {
        let boot = boot_info();
        Ok(SystemInfo {
            product: self.manifest.product.clone(),
            abi_version: boot.abi_version,
            cpus: self.machine.cpus,
            tsc_hz: boot.tsc_hz,
            boot_tsc: boot.boot_tsc,
            features: boot.features,
            ram_bytes: boot.ram_bytes,
            wall_clock: boot.wall_clock,
            command_line: self.machine.command_line.clone(),
        })
    }

    fn servers(&mut self, _call: &mut Call, first: u32) -> Result<Page<ServerInfo>, Failure> {
        let first = first as usize;
        let own = (first == 0).then(|| (0, self.own_info())).into_iter();
        // A machine that does not run yet or any more has no servers, only the names they would have.
        let runs = |vm| self.machines.is_running(vm) && !self.starting.iter().any(|starting| starting.vm == vm);
        let others = self.servers.iter().enumerate().skip(first.saturating_sub(1));
        let others = others.filter(|(_, record)| record.vm.is_none_or(runs));
        Ok(Page::fill(own.chain(
            others.map(|(index, record)| (index as u32 + 1, self.server_info(index, record))),
        )))
    }

    fn threads(&mut self, _call: &mut Call, server: u64, first: u32) -> Result<Page<ThreadInfo>, Failure> {
        let mut threads = Self::threads_in(self.table_of(server)?, first);
        if server == SELF {
            // init holds everybody's threads; its own is the one it was started with.
            threads.retain(|(slot, ..)| *slot == slot::THREAD);
        }
        Ok(Page::fill(threads.into_iter().map(|(slot, object, status)| {
            let info = ThreadInfo {
                slot,
                object,
                state: thread_state(status.state),
                priority: status.priority,
                cpu: status.cpu,
                no_fpu: status.flags & tessera_abi::object::thread::NO_FPU != 0,
                cpu_ticks: status.consumed,
                switches: status.switches,
                rip: status.rip,
            };
            (slot, info)
        })))
    }

    fn capabilities(&mut self, _call: &mut Call, server: u64, first: u32) -> Result<Page<CapabilityInfo>, Failure> {
        let table = self.table_of(server)?;
        let process = self.index_of(server).and_then(|index| self.servers[index].process.as_ref());
        let name = |slot: u32| -> String {
            let grants = process.map(|process| process.grants.as_slice()).unwrap_or_default();
            match grants.iter().find(|grant| grant.slot == slot) {
                Some(grant) => grant.name.clone(),
                None if server != SELF => fixed_name(slot).to_string(),
                None => String::new(),
            }
        };
        Ok(Page::fill(used_slots(table, first).filter_map(|slot| {
            let description = table.describe(slot).ok()?;
            let info = CapabilityInfo {
                slot,
                name: name(slot),
                kind: description.kind as u8,
                rights: description.rights.bits(),
                badge: description.badge,
                object: description.object,
                size: description.size,
                copies: description.copies,
            };
            Some((slot, info))
        })))
    }

    fn endpoints(&mut self, _call: &mut Call, first: u32) -> Result<Page<EndpointInfo>, Failure> {
        let mut all = Vec::new();
        all.push(Self::endpoint_info("init".into(), "init".into(), self.endpoint));
        for named in &self.endpoints {
            all.push(Self::endpoint_info(
                named.name.clone(),
                self.provider_of(&named.name),
                named.endpoint,
            ));
        }
        for (vm, entry) in self.manifest.vms.iter().zip(&self.machines.entries) {
            if let Some(running) = &entry.running {
                let name = &vm.name;
                all.push(Self::endpoint_info(
                    format!("{name}.control"),
                    format!("vmm.{name}"),
                    running.control,
                ));
                all.push(Self::endpoint_info(
                    format!("{name}.console"),
                    format!("vmx.{name}"),
                    running.console,
                ));
            }
        }
        Ok(Page::fill((0..).zip(all).skip(first as usize)))
    }

    fn memory(&mut self, _call: &mut Call) -> Result<MemoryInfo, Failure> {
        let boot = boot_info();
        let (free, largest_free) = self.machine.free();
        let machines = || self.machines.entries.iter().filter_map(|entry| entry.running.as_ref());
        let shared: u64 = machines().map(|running| running.own_pages()).sum();
        let ending = self.machines.ending.iter().map(Lendable::pages).sum::<u64>();
        let guests: u64 = machines().map(|running| running.lent.pages()).sum::<u64>() + ending;
        let processes: u64 = self
            .servers
            .iter()
            .filter_map(|record| record.process.as_ref())
            .map(|process| process.pages)
            .sum();
        let (total, bundle, init) = (boot.ram_bytes / PAGE, boot.bundle_length.div_ceil(PAGE), self.machine.own_pages);
        let servers = processes + shared + self.protection.lent_pages();
        let kernel = total.saturating_sub(bundle + init + servers + guests + free);
        Ok(MemoryInfo {
            total,
            kernel,
            bundle,
            init,
            servers,
            guests,
            free,
            largest_free,
            zeroed: self.machine.zeroed(),
        })
    }

    fn kill(&mut self, call: &mut Call, server: &str) -> Result<(), Failure> {
        let index = self.named(server)?;
        if self.servers[index].process.is_none() {
            return Err(Failure::new(FailureKind::BadState, format_args!("server `{server}` does not run")));
        }
        let by = self.servers[self.caller(call)?].name.clone();
        self.say(Level::Warn, &format!("{by} kills {server}"));
        self.end(index, &End::Killed);
        Ok(())
    }

    fn restart(&mut self, _call: &mut Call, server: &str) -> Result<(), Failure> {
        let index = self.named(server)?;
        Root::restart(self, index)
    }

    fn log(&mut self, _call: &mut Call, cursor: u64) -> Result<LogChunk, Failure> {
        Ok(self.log.read(cursor))
    }

    fn follow_log(&mut self, call: &mut Call) -> Result<(), Failure> {
        let caller = self.caller(call)?;
        let slot = keep_notification(call)?;
        if let Some(old) = self.servers[caller].follower.replace(slot) {
            slots::free(old);
        }
        Ok(())
    }

    fn check_wx(&mut self, _call: &mut Call, server: u64) -> Result<WriteExecute, Failure> {
        let space = match server {
            KERNEL => None,
            SELF => Some(AddressSpace::OWN),
            _ => {
                let process = self.index_of(server).and_then(|index| self.servers[index].process.as_ref());
                let missing = || Failure::new(FailureKind::NotFound, format_args!("server {server} does not run"));
                Some(process.ok_or_else(missing)?.space)
            }
        };
        let report = Trace::new(slot::TRACE)
            .check_wx(space)
            .map_err(trouble("looking through page tables"))?;
        Ok(WriteExecute {
            pages: report.pages,
            violations: report.violations,
            first: report.first,
        })
    }

    fn pci(&mut self, _call: &mut Call, first: u32) -> Result<Page<PciFunction>, Failure> {
        let all = first as usize..self.devices.entries.len();
        Ok(Page::fill(all.filter_map(|index| Some((index as u32, self.pci_function(index)?)))))
    }

    fn end_machine(&mut self, _call: &mut Call, restart: bool) -> Result<(), Failure> {
        let kind = if restart { ResetKind::Restart } else { ResetKind::PowerOff };
        Trace::new(slot::TRACE).reset(kind).map_err(trouble("ending the machine"))
    }
}

impl Root {
    fn pci_function(&self, index: usize) -> Option<PciFunction> {
        let holder = self.devices.entries.get(index)?.holder;
        let name = match holder.and_then(|holder| self.servers.get(holder)) {
            Some(record) => record.name.clone(),
            None => self.kept_for(index).map(|vm| format!("kept for {vm}")).unwrap_or_default(),
        };
        self.devices.describe(index, &name)
    }
}
