//! The server on the running system: the traits over capabilities.

mod networks;

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::{sync::atomic::AtomicU64, time::Duration};
use tessera_proto::{
    CallError, Failure, FailureKind, Slots, collect,
    datastore::{self, ChangedRanges, DatastoreInfo, EntryInfo},
    iommu::{self, DomainInfo, FaultInfo, IommuInfo},
    network::{self, Exercise, NicInfo},
    storage::{self, DiskEvent, DiskInfo, PartitionInfo},
    supervisor::{self, CapabilityInfo, EndpointInfo, LogChunk, MemoryInfo, PciFunction, ServerInfo, SystemInfo, ThreadInfo, WriteExecute},
    vm_console::{self, ConsoleChunk},
    vm_control::{self, Registers as VcpuRegisters, VcpuExits, VmInfo, VmMemory},
    vm_manager::{self, FilePlace, PassedInfo, VmConfig, VmService, VmSummary},
    vm_media::{self, Medium},
    vm_screen::{self, ScreenInfo},
};
use tessera_rt::{
    CNode, Connection, Endpoint, Frame, IoPorts, Irq, IrqControl, Notification, ResetKind, Trace,
    abi::{Error, MAX_CPUS, object::Rights},
    grant, log,
    manifest::slots as well_known,
    require, slots,
    start::{self, start_info},
    time, vm,
};
use tessera_shell::{
    host::{Answer, Change, CpuCounters, Host, IrqCounters, Machine, Reset},
    serial::{Registers, Serial},
    session::Session,
    shared::{LogText, TraceRing, zero_terminated},
    terminal::{Terminal, Wake},
};

/// Bits of the shell's notification.
const INPUT: u64 = 1;
/// The guest whose console is open has printed.
const CONSOLE: u64 = 2;
/// The log has grown.
const LOG: u64 = 4;
/// First port of COM1.
const COM1: u16 = 0x3f8;
/// More items than any list of the system has.
const LIST: usize = 4096;
/// How long a virtual machine's own servers may take to answer: they are not trusted to.
const PATIENCE_MS: u64 = 3000;

/// How long the storage server may take: as long as a disk, with a reset in between.
const DISK_PATIENCE_MS: u64 = 120_000;
/// How long the network server may take: a card that is slow to start, with others before it.
const NETWORK_PATIENCE_MS: u64 = 30_000;

struct Com1 {
    ports: IoPorts,
    irq: Irq,
}

impl Registers for Com1 {
    fn read(&mut self, offset: u16) -> u8 {
        // Without the port there is nobody to tell; all zeros is an idle receiver and a busy transmitter.
        self.ports.read_u8(COM1 + offset).unwrap_or(0)
    }

    fn write(&mut self, offset: u16, value: u8) {
        let _ = self.ports.write_u8(COM1 + offset, value);
    }

    fn acknowledge(&mut self) {
        let _ = self.irq.acknowledge();
    }
}

struct Line {
    serial: Serial<Com1>,
}

impl Terminal for Line {
    fn write(&mut self, bytes: &[u8]) {
        self.serial.write(bytes);
    }

    fn read(&mut self) -> Option<u8> {
        self.serial.read()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Wake {
        let deadline = timeout.map(|timeout| time::after(time::nanoseconds(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))));
        // An error is the deadline: the notification is the shell's own.
        let bits = Notification::FIRST.wait(deadline).unwrap_or(0);
        if bits & INPUT != 0 {
            self.serial.interrupted();
        }
        Wake {
            input: bits & INPUT != 0,
            console: bits & CONSOLE != 0,
            log: bits & LOG != 0,
        }
    }
}

/// An open console.
struct Console {
    name: String,
    slot: u32,
}

struct System {
    /// Notification that sends [`CONSOLE`].
    printed: u32,
    /// Notification that sends [`LOG`].
    logged: u32,
    trace: Option<Trace>,
    irq: Option<IrqControl>,
    console: Option<Console>,
    kernel_log: Option<&'static [AtomicU64]>,
    panic_record: Option<&'static [AtomicU64]>,
    rings: Vec<Option<&'static [AtomicU64]>>,
    supervisor: supervisor::Client<Connection>,
    manager: vm_manager::Client<Connection>,
}

/// Maps granted memory that the kernel writes, if it was granted.
fn shared(name: &str) -> Option<&'static [AtomicU64]> {
    let mapping = match vm::map(Frame::new(grant(name)?), Rights::READ, 0) {
        Ok(mapping) => mapping,
        Err(error) => {
            log::warn!("{name} cannot be mapped: {}", error.text());
            return None;
        }
    };
    // SAFETY: the pages are mapped for the life of the process, page-aligned, and only ever loaded from, atomically, as the kernel writes them.
    Some(unsafe { core::slice::from_raw_parts(mapping.as_ptr().cast(), mapping.length / size_of::<AtomicU64>()) })
}

fn not_granted<T>(name: &str) -> Answer<T> {
    let detail = format!("the manifest does not grant `{name}` to the shell");
    Err(tessera_proto::CallError::Failed(Failure::new(FailureKind::NotAllowed, detail)))
}

fn iommu_client() -> Answer<iommu::Client<Connection>> {
    match grant("iommu") {
        Some(slot) => Ok(iommu::Client(Connection::new(Endpoint::new(slot)))),
        None => not_granted("iommu"),
    }
}

impl System {
    fn new(printed: u32, logged: u32) -> Self {
        Self {
            printed,
            logged,
            trace: grant("trace").map(Trace::new),
            irq: grant("irq-statistics").map(IrqControl::new),
            console: None,
            kernel_log: shared("kernel.log"),
            panic_record: shared("kernel.panic"),
            rings: (0..MAX_CPUS).map(|cpu| shared(&format!("trace.{cpu}"))).collect(),
            supervisor: supervisor::Client(start::connect("supervisor")),
            manager: vm_manager::Client(start::connect("vm_manager")),
        }
    }

    fn trace(&self) -> Answer<Trace> {
        self.trace.map_or_else(|| not_granted("trace"), Ok)
    }

    /// The storage server. Its disks may take long, and it may be starting.
    fn storage(&self) -> Answer<storage::Client<Connection>> {
        match grant("storage") {
            Some(slot) => Ok(storage::Client(Connection::with_timeout(
                Endpoint::new(slot),
                time::milliseconds(DISK_PATIENCE_MS),
            ))),
            None => not_granted("storage"),
        }
    }

    /// The network server. It may be starting.
    fn network(&self) -> Answer<network::Client<Connection>> {
        match grant("net") {
            Some(slot) => Ok(network::Client(Connection::with_timeout(
                Endpoint::new(slot),
                time::milliseconds(NETWORK_PATIENCE_MS),
            ))),
            None => not_granted("net"),
        }
    }

    /// The storage server once more, for its datastores.
    fn stores(&self) -> Answer<datastore::Client<Connection>> {
        self.storage().map(|client| datastore::Client(client.0))
    }

    fn connect(&mut self, name: &str, service: VmService) -> Answer<u32> {
        let slot = slots::take()?;
        match self.manager.connect(name, service, Slots(slot)) {
            Ok(()) => Ok(slot),
            Err(error) => {
                slots::free(slot);
                Err(error)
            }
        }
    }

    /// Asks a machine's VMM something.
    fn control<T>(&mut self, name: &str, ask: impl FnOnce(&mut vm_control::Client<Connection>) -> Answer<T>) -> Answer<T> {
        let slot = self.connect(name, VmService::Control)?;
        let answer = ask(&mut vm_control::Client(patient(slot)));
        slots::free(slot);
        answer
    }

    /// Asks a machine's VMM something about its CD-ROM drive.
    fn media<T>(&mut self, name: &str, ask: impl FnOnce(&mut vm_media::Client<Connection>) -> Answer<T>) -> Answer<T> {
        let slot = self.connect(name, VmService::Control)?;
        let answer = ask(&mut vm_media::Client(patient(slot)));
        slots::free(slot);
        answer
    }

    /// Asks a machine's VMX something about the screen.
    fn screen<T>(&mut self, name: &str, ask: impl FnOnce(&mut vm_screen::Client<Connection>) -> Answer<T>) -> Answer<T> {
        let slot = self.connect(name, VmService::Console)?;
        let answer = ask(&mut vm_screen::Client(patient(slot)));
        slots::free(slot);
        answer
    }

    fn open_console(&self) -> Answer<vm_console::Client<Connection>> {
        let console = self.console.as_ref().ok_or(Error::BadState)?;
        Ok(vm_console::Client(patient(console.slot)))
    }
}

/// A connection to a server that may not answer.
fn patient(slot: u32) -> Connection {
    Connection::with_timeout(Endpoint::new(slot), time::milliseconds(PATIENCE_MS))
}

impl Host for System {
    fn now(&mut self) -> u64 {
        time::now()
    }

    fn own_name(&self) -> &str {
        &start_info().name
    }

    fn system(&mut self) -> Answer<SystemInfo> {
        self.supervisor.system()
    }

    fn servers(&mut self) -> Answer<Vec<ServerInfo>> {
        collect(LIST, |first| self.supervisor.servers(first))
    }

    fn threads(&mut self, server: u64) -> Answer<Vec<ThreadInfo>> {
        collect(LIST, |first| self.supervisor.threads(server, first))
    }

    fn capabilities(&mut self, server: u64) -> Answer<Vec<CapabilityInfo>> {
        collect(LIST, |first| self.supervisor.capabilities(server, first))
    }

    fn endpoints(&mut self) -> Answer<Vec<EndpointInfo>> {
        collect(LIST, |first| self.supervisor.endpoints(first))
    }

    fn pci(&mut self) -> Answer<Vec<PciFunction>> {
        collect(LIST, |first| self.supervisor.pci(first))
    }

    fn iommu(&mut self) -> Answer<IommuInfo> {
        iommu_client()?.info()
    }

    fn iommu_domains(&mut self) -> Answer<Vec<DomainInfo>> {
        let mut client = iommu_client()?;
        collect(LIST, |first| client.domains(first))
    }

    fn iommu_faults(&mut self) -> Answer<Vec<FaultInfo>> {
        let mut client = iommu_client()?;
        collect(LIST, |first| client.faults(first))
    }

    fn disks(&mut self) -> Answer<Vec<DiskInfo>> {
        let mut storage = self.storage()?;
        collect(LIST, |first| storage.disks(first))
    }

    fn partitions(&mut self, disk: &str) -> Answer<Vec<PartitionInfo>> {
        let mut storage = self.storage()?;
        collect(LIST, |first| storage.partitions(disk, first))
    }

    fn disk_events(&mut self, disk: &str) -> Answer<Vec<DiskEvent>> {
        let mut storage = self.storage()?;
        collect(LIST, |first| storage.events(disk, first))
    }

    fn disk_read(&mut self, disk: &str, sector: u64, offset: u32, length: u32) -> Answer<Vec<u8>> {
        self.storage()?.read(disk, sector, offset, length).map(|answer| answer.data)
    }

    fn disk_exercise(&mut self, disk: &str, sector: u64, count: u32, seed: u64) -> Answer<()> {
        self.storage()?.exercise(disk, sector, count, seed)
    }

    fn nics(&mut self) -> Answer<Vec<NicInfo>> {
        let mut network = self.network()?;
        collect(LIST, |first| network.nics(first))
    }

    fn nic_exercise(&mut self, nic: &str, rounds: u32) -> Answer<Exercise> {
        self.network()?.exercise(nic, rounds)
    }

    fn datastores(&mut self) -> Answer<Vec<DatastoreInfo>> {
        let mut stores = self.stores()?;
        collect(LIST, |first| stores.list(first))
    }

    fn datastore_browse(&mut self, store: &str, folder: &str) -> Answer<Vec<EntryInfo>> {
        let mut stores = self.stores()?;
        collect(LIST, |first| stores.browse(store, folder, first))
    }

    fn datastore_stat(&mut self, store: &str, path: &str) -> Answer<EntryInfo> {
        self.stores()?.stat(store, path)
    }

    fn datastore_snapshots(&mut self, store: &str, disk: &str) -> Answer<Vec<EntryInfo>> {
        let mut stores = self.stores()?;
        collect(LIST, |first| stores.snapshots(store, disk, first))
    }

    fn datastore_change_id(&mut self, store: &str, disk: &str) -> Answer<u64> {
        self.stores()?.change_id(store, disk)
    }

    fn datastore_changed(&mut self, store: &str, disk: &str, since: u64, from: u64) -> Answer<ChangedRanges> {
        self.stores()?.changed(store, disk, since, from)
    }

    fn datastore_change(&mut self, change: &Change<'_>) -> Answer<()> {
        let mut stores = self.stores()?;
        match *change {
            Change::Folder { store, path } => stores.create_folder(store, path),
            Change::Disk { store, path, options } => stores.create_disk(store, path, options),
            Change::Grow { store, path, size } => stores.grow_disk(store, path, size),
            Change::Move { store, from, to } => stores.rename(store, from, to),
            Change::Remove { store, path } => stores.remove(store, path),
            Change::Snapshot { store, disk, name } => stores.create_snapshot(store, disk, name),
            Change::Forget { store, disk, name } => stores.remove_snapshot(store, disk, name),
            Change::Revert { store, disk, name } => stores.revert(store, disk, name),
            Change::Clone { store, disk, name, path } => stores.clone_snapshot(store, disk, name, path),
            Change::Format { disk, partition, label } => stores.format(disk, partition, label),
        }
    }

    fn memory(&mut self) -> Answer<MemoryInfo> {
        self.supervisor.memory()
    }

    fn kill(&mut self, server: &str) -> Answer<()> {
        self.supervisor.kill(server)
    }

    fn restart(&mut self, server: &str) -> Answer<()> {
        self.supervisor.restart(server)
    }

    fn log(&mut self, cursor: u64) -> Answer<LogChunk> {
        self.supervisor.log(cursor)
    }

    fn follow_log(&mut self) -> Answer<()> {
        self.supervisor.follow_log([self.logged])
    }

    fn vms(&mut self) -> Answer<Vec<VmSummary>> {
        collect(LIST, |first| self.manager.list(first))
    }

    fn vm_config(&mut self, name: &str) -> Answer<VmConfig> {
        self.manager.config(name)
    }

    fn vm_passthrough(&mut self, name: &str) -> Answer<Vec<PassedInfo>> {
        self.manager.passthrough(name)
    }

    fn vm_create(&mut self, config: VmConfig) -> Answer<()> {
        self.manager.create(config)
    }

    fn vm_remove(&mut self, name: &str) -> Answer<()> {
        self.manager.remove(name)
    }

    fn vm_start(&mut self, name: &str) -> Answer<()> {
        self.manager.start(name)
    }

    fn vm_stop(&mut self, name: &str) -> Answer<()> {
        let state = self.manager.state_file(name)?;
        self.manager.stop(name)?;
        match state {
            // It was given up.
            Some(FilePlace::Store { store, path }) => match self.stores()?.remove(&store, &path) {
                Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotFound => Ok(()),
                removed => removed,
            },
            _ => Ok(()),
        }
    }

    fn vm_info(&mut self, name: &str) -> Answer<VmInfo> {
        self.control(name, |vmm| vmm.info())
    }

    fn vm_exits(&mut self, name: &str, vcpu: u32) -> Answer<VcpuExits> {
        self.control(name, |vmm| vmm.exits(vcpu))
    }

    fn vm_memory(&mut self, name: &str) -> Answer<VmMemory> {
        self.control(name, |vmm| vmm.memory())
    }

    fn vm_set_balloon(&mut self, name: &str, bytes: u64) -> Answer<()> {
        self.control(name, |vmm| vmm.set_balloon(bytes))
    }

    fn vm_registers(&mut self, name: &str, vcpu: u32) -> Answer<VcpuRegisters> {
        self.control(name, |vmm| vmm.registers(vcpu))
    }

    fn vm_medium(&mut self, name: &str) -> Answer<Medium> {
        self.media(name, |vmm| vmm.medium())
    }

    fn vm_set_medium(&mut self, name: &str, medium: Option<FilePlace>, running: bool) -> Answer<()> {
        let before = self.manager.config(name)?.cdrom;
        self.manager.set_medium(name, medium.clone())?;
        if !running {
            return Ok(());
        }
        let told = self.media(name, |vmm| vmm.change(medium));
        if told.is_err() {
            // The guest has what it had. What went wrong first is what counts.
            let _ = self.manager.set_medium(name, before);
        }
        told
    }

    fn vm_suspend(&mut self, name: &str, file: FilePlace) -> Answer<()> {
        self.manager.set_state_file(name, Some(file))?;
        self.control(name, |vmm| vmm.suspend())
    }

    fn vm_resume(&mut self, name: &str) -> Answer<()> {
        self.manager.resume(name, false)
    }

    fn vm_reset(&mut self, name: &str) -> Answer<()> {
        self.control(name, |vmm| vmm.reset())
    }

    fn vm_power_button(&mut self, name: &str) -> Answer<()> {
        self.control(name, |vmm| vmm.power_button())
    }

    fn vm_nmi(&mut self, name: &str, vcpu: u32) -> Answer<()> {
        self.control(name, |vmm| vmm.inject_nmi(vcpu))
    }

    fn vm_screen(&mut self, name: &str) -> Answer<ScreenInfo> {
        self.screen(name, |vmx| vmx.info())
    }

    fn vm_screen_text(&mut self, name: &str, first: u32) -> Answer<String> {
        self.screen(name, |vmx| vmx.text(first))
    }

    fn vm_type(&mut self, name: &str, text: &str) -> Answer<u32> {
        self.screen(name, |vmx| vmx.type_text(text))
    }

    fn console_open(&mut self, name: &str) -> Answer<()> {
        if self.console.as_ref().is_none_or(|console| console.name != name) {
            self.console_close();
            let slot = self.connect(name, VmService::Console)?;
            self.console = Some(Console {
                name: name.to_string(),
                slot,
            });
        }
        let printed = self.printed;
        self.open_console()?.attach([printed])
    }

    fn console_read(&mut self, cursor: u64) -> Answer<ConsoleChunk> {
        self.open_console()?.read(cursor)
    }

    fn console_write(&mut self, data: &[u8]) -> Answer<usize> {
        self.open_console()?.write(data).map(|taken| taken as usize)
    }

    fn console_close(&mut self) {
        if let Ok(mut console) = self.open_console() {
            // It may be gone already.
            let _ = console.detach();
        }
        if let Some(console) = self.console.take() {
            slots::free(console.slot);
        }
    }

    fn machine(&mut self) -> Answer<Machine> {
        let status = self.trace()?.machine()?;
        Ok(Machine {
            features: status.features.bits(),
            tsc_hz: status.tsc_hz,
            cpus: status.cpus,
            backend: status.backend,
            virt_found: status.virt_found,
            virt_used: status.virt_used,
        })
    }

    fn cpu(&mut self, cpu: u32) -> Answer<Option<CpuCounters>> {
        Ok(self.trace()?.cpu(cpu)?.map(|status| CpuCounters {
            apic: status.apic,
            idle: status.idle,
            interrupts: status.interrupts,
            switches: status.switches,
            tsc: status.tsc,
            shootdowns: status.shootdowns,
        }))
    }

    fn irq(&mut self, index: u32) -> Answer<Option<IrqCounters>> {
        let Some(control) = self.irq else {
            return not_granted("irq-statistics");
        };
        Ok(control.info(index)?.map(|status| IrqCounters {
            used: status.used,
            count: status.count,
            line: status.line,
            cpu: status.cpu,
            masked: status.masked,
        }))
    }

    fn check_wx(&mut self, server: u64) -> Answer<WriteExecute> {
        self.supervisor.check_wx(server)
    }

    fn reset(&mut self, how: Reset) -> Answer<()> {
        let kind = match how {
            Reset::Reboot => ResetKind::Restart,
            Reset::PowerOff => ResetKind::PowerOff,
            Reset::Panic => ResetKind::Panic,
        };
        Ok(self.trace()?.reset(kind)?)
    }

    fn trace_mask(&mut self, mask: u64) -> Answer<()> {
        Ok(self.trace()?.set_mask(mask)?)
    }

    fn trace_ring(&self, cpu: u32) -> Option<TraceRing<'_>> {
        self.rings.get(cpu as usize).copied().flatten().and_then(TraceRing::new)
    }

    fn kernel_log(&self) -> Option<LogText<'_>> {
        self.kernel_log.and_then(LogText::new)
    }

    fn panic_record(&self) -> String {
        self.panic_record.map_or_else(String::new, zero_terminated)
    }
}

/// A copy of the shell's notification that signals `bit`.
fn signal(bit: u64) -> Result<u32, Error> {
    let slot = slots::take()?;
    CNode::OWN.copy(slot, CNode::OWN, well_known::NOTIFICATION, Rights::SEND, bit)?;
    Ok(slot)
}

/// As [`signal`]; without a slot for it, output comes when a key is typed.
fn wake(bit: u64) -> u32 {
    signal(bit).unwrap_or_else(|error| {
        log::error!("the shell cannot be woken: {}", error.text());
        0
    })
}

/// The program.
pub fn run() {
    let irq = Irq::new(require("com1-irq"));
    let bound = signal(INPUT).and_then(|slot| irq.bind(Notification::new(slot)));
    if let Err(error) = bound {
        // Without it the shell hears nothing, but what it prints may still help.
        log::error!("the serial port's interrupt cannot be bound: {}", error.text());
    }
    let ports = IoPorts::new(require("com1"));
    let mut line = Line {
        serial: Serial::new(Com1 { ports, irq }),
    };
    let mut system = System::new(wake(CONSOLE), wake(LOG));
    start::ready();
    Session::new().run(&mut system, &mut line);
}
