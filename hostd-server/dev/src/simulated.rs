//! A host that is made up: machines that start and echo, disks that hold files, charts that move.

mod store;
mod terminal;

use smol::Timer;
use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};
use tessera_hostd::{host::*, http::BodySource};

use store::{Bytes, Entry, Sink, Store, entry_facts};
use terminal::{Terminal, View};

const GIB: u64 = 1 << 30;
/// A recording: the begin of a pcapng file.
const CAPTURED: &[u8] = &[0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0];

struct Machine {
    spec: VmSpec,
    run: VmRun,
    started: Instant,
    /// How often it was started.
    starts: u64,
    console: Rc<RefCell<Terminal>>,
}

/// The simulated host.
pub struct Simulated {
    start: Instant,
    machines: RefCell<BTreeMap<String, Machine>>,
    stores: RefCell<BTreeMap<String, Store>>,
    switches: RefCell<BTreeMap<String, SwitchSpec>>,
    captures: RefCell<Vec<CaptureFacts>>,
    groups: RefCell<BTreeMap<String, PortGroupSpec>>,
    interfaces: RefCell<BTreeMap<String, InterfaceSpec>>,
    time_servers: RefCell<Vec<String>>,
    log: RefCell<VecDeque<LogFacts>>,
    restarts: Cell<u32>,
    delay: Duration,
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.as_millis() as u64)
}

fn fail<T>(failure: Failure, message: impl Into<String>) -> Result<T, HostError> {
    Err(HostError::new(failure, message))
}

fn missing(what: &str, name: &str) -> HostError {
    HostError::new(Failure::NotFound, format!("There is no {what} {name}"))
}

impl Simulated {
    /// A host with two drives, a datastore with some files, a switch and two port groups. Machines take `delay` to start.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        let host = Self {
            start: Instant::now(),
            machines: RefCell::default(),
            stores: RefCell::default(),
            switches: RefCell::default(),
            captures: RefCell::default(),
            groups: RefCell::default(),
            interfaces: RefCell::default(),
            time_servers: RefCell::default(),
            log: RefCell::default(),
            restarts: Cell::new(0),
            delay,
        };
        let mut store = Store {
            device: "nvme0n1".into(),
            capacity: 512 * GIB,
            entries: BTreeMap::new(),
        };
        for folder in ["kernels", "iso"] {
            let _ = store.insert(folder, EntryKind::Folder, 0);
        }
        for (path, size) in [
            ("kernels/vmlinuz", 8 << 20),
            ("kernels/initramfs.cpio", 4 << 20),
            ("iso/alpine.iso", 6 << 20),
        ] {
            if let Ok(entry) = store.insert(path, EntryKind::File, 0) {
                entry.data.borrow_mut().resize(size, 0x5a);
            }
        }
        host.stores.borrow_mut().insert("datastore1".into(), store);
        let switch = SwitchSpec {
            name: "vSwitch0".into(),
            mtu: 1500,
            uplinks: vec!["eth0".into()],
            policies: Some(SwitchPolicies::default()),
        };
        host.switches.borrow_mut().insert("vSwitch0".into(), switch);
        for name in ["VM Network", "Management Network"] {
            let group = PortGroupSpec {
                name: name.into(),
                switch: "vSwitch0".into(),
                policies: Some(GroupPolicies::default()),
                ..PortGroupSpec::default()
            };
            host.groups.borrow_mut().insert(name.into(), group);
        }
        let interface = InterfaceSpec {
            name: "vmk0".into(),
            port_group: "Management Network".into(),
            mac: "52:54:00:12:34:56".into(),
            dhcp: true,
            ipv4: Some("10.0.2.15".into()),
            netmask: Some("255.255.255.0".into()),
            gateway: Some("10.0.2.2".into()),
            ipv6: vec!["fec0::5054:ff:fe12:3456".into()],
        };
        host.interfaces.borrow_mut().insert("vmk0".into(), interface);
        host.note("init", "info", "12 servers started");
        host.note("storage", "info", "datastore1 on nvme0n1 is open");
        host
    }

    fn note(&self, source: &str, level: &str, message: &str) {
        let mut log = self.log.borrow_mut();
        log.push_back(LogFacts {
            unix_ms: unix_ms(),
            source: source.into(),
            level: level.into(),
            message: message.into(),
        });
        if log.len() > 2000 {
            log.pop_front();
        }
    }

    fn store<T>(&self, name: &str, what: impl FnOnce(&mut Store) -> Result<T, HostError>) -> Result<T, HostError> {
        what(self.stores.borrow_mut().get_mut(name).ok_or_else(|| missing("datastore", name))?)
    }

    fn entry<T>(&self, store: &str, path: &str, what: impl FnOnce(&mut Entry) -> Result<T, HostError>) -> Result<T, HostError> {
        self.store(store, |own| what(own.entries.get_mut(path).ok_or_else(|| missing("file", path))?))
    }

    fn machine<T>(&self, name: &str, what: impl FnOnce(&mut Machine) -> Result<T, HostError>) -> Result<T, HostError> {
        what(self.machines.borrow_mut().get_mut(name).ok_or_else(|| missing("machine", name))?)
    }

    fn wave(&self, period: f64) -> f64 {
        (1.0 + (self.start.elapsed().as_secs_f64() / period).sin()) / 2.0
    }
}

/// PCI functions: address, vendor and device, class, the server that drives it, what for, why no machine can have it.
type Function = (&'static str, (u16, u16), (u8, u8, u8), &'static str, &'static str, &'static str);
const FUNCTIONS: [Function; 6] = [
    (
        "0000:00:1f.2",
        (0x8086, 0x2922),
        (1, 6, 1),
        "storage",
        "",
        "it cannot be reset by itself",
    ),
    (
        "0000:01:00.0",
        (0x144d, 0xa808),
        (1, 8, 2),
        "storage",
        "the datastore datastore1 is on its disk nvme0n1",
        "",
    ),
    ("0000:02:00.0", (0x8086, 0x10d3), (2, 0, 0), "net", "", ""),
    ("0000:03:00.0", (0x144d, 0xa808), (1, 8, 2), "", "", ""),
    ("0000:04:00.0", (0x10de, 0x2204), (3, 0, 0), "", "", ""),
    ("0000:04:00.1", (0x10de, 0x1aef), (4, 3, 0), "", "", ""),
];

fn now<'a, T: 'a>(value: Result<T, HostError>) -> Reply<'a, T> {
    Box::pin(async move { value })
}

impl Host for Simulated {
    fn facts(&self) -> Reply<'_, HostFacts> {
        now(Ok(HostFacts {
            version: env!("CARGO_PKG_VERSION").into(),
            build: "simulated".into(),
            vendor: "Tessera".into(),
            model: "Simulated host".into(),
            serial: "SIM-1".into(),
            cpu_model: "Simulated processor".into(),
            sockets: 1,
            cores: 4,
            threads: 8,
            cpu_mhz: 2400,
            virtualization: "AMD-V".into(),
            memory: 32 * GIB,
            sensors: vec![
                ("Processor temperature".into(), "48 °C".into(), "green".into()),
                ("nvme0n1".into(), "3 % used".into(), "green".into()),
            ],
        }))
    }
    fn usage(&self) -> Reply<'_, Usage> {
        let us = self.start.elapsed().as_micros() as u64;
        let machines = self.machines.borrow();
        let running = machines.values().filter(|machine| machine.run == VmRun::On);
        let vms: Vec<VmUsage> = running
            .enumerate()
            .map(|(index, machine)| {
                let share = 0.2 + 0.3 * self.wave(40.0 + index as f64 * 17.0);
                let mib = us / 1000;
                VmUsage {
                    name: machine.spec.name.clone(),
                    cpu_us: (us as f64 * share * f64::from(machine.spec.vcpus)) as u64,
                    memory: (machine.spec.memory as f64 * (0.3 + 0.1 * self.wave(90.0))) as u64,
                    disk: (mib * 700, mib * 300),
                    network: (mib * 90, mib * 40),
                    exits: us / 300,
                    uptime_ms: machine.started.elapsed().as_millis() as u64,
                }
            })
            .collect();
        let servers = ["init", "storage", "net", "hostd", "shell"]
            .iter()
            .enumerate()
            .map(|(index, name)| ServerUsage {
                name: (*name).into(),
                cpu_us: us / (30 + index as u64 * 20),
                memory: (4 + index as u64 * 3) << 20,
                of_vm: false,
            });
        now(Ok(Usage {
            memory: (2 << 30) + vms.iter().map(|vm| vm.memory).sum::<u64>(),
            cpu_us: us / 10 + vms.iter().map(|vm| vm.cpu_us).sum::<u64>(),
            uptime_ms: us / 1000 + 3_600_000,
            servers: servers.collect(),
            disk: vms.iter().fold((0, 0), |sum, vm| (sum.0 + vm.disk.0, sum.1 + vm.disk.1)),
            network: vms.iter().fold((0, 0), |sum, vm| (sum.0 + vm.network.0, sum.1 + vm.network.1)),
            vms,
        }))
    }
    fn host_power(&self, action: HostPower) -> Reply<'_, ()> {
        self.note("init", "warn", &format!("{action:?}: a simulated host stays as it is"));
        now(Ok(()))
    }
    fn servers(&self) -> Reply<'_, Vec<ServerFacts>> {
        let fixed = ["init", "storage", "net", "hostd", "shell"].map(|name| (name.to_string(), None));
        let machines = self.machines.borrow();
        let monitors = machines
            .values()
            .filter(|machine| machine.run == VmRun::On)
            .map(|machine| (format!("vmm.{}", machine.spec.name), Some(machine.spec.name.clone())));
        let all = fixed.into_iter().chain(monitors).map(|(name, vm)| ServerFacts {
            name,
            state: "running".into(),
            vm,
            restarts: self.restarts.get(),
            threads: 2,
            memory: 8 << 20,
            last_end: String::new(),
        });
        now(Ok(all.collect()))
    }
    fn endpoints(&self) -> Reply<'_, Vec<EndpointFacts>> {
        let calls = self.start.elapsed().as_millis() as u64;
        let edges = [
            ("hostd", "init", "supervisor", 20),
            ("hostd", "storage", "datastore", 7),
            ("hostd", "net", "switch", 90),
            ("shell", "init", "supervisor", 400),
        ];
        now(Ok(edges
            .iter()
            .map(|(from, to, interface, pace)| EndpointFacts {
                interface: (*interface).into(),
                from: (*from).into(),
                to: (*to).into(),
                calls: calls / pace,
            })
            .collect()))
    }
    fn capabilities<'a>(&'a self, server: &'a str) -> Reply<'a, Vec<CapabilityFacts>> {
        if !["init", "storage", "net", "hostd", "shell"].contains(&server) {
            return now(Err(missing("server", server)));
        }
        now(Ok(vec![CapabilityFacts {
            name: "log".into(),
            kind: "Endpoint".into(),
            rights: "s".into(),
            object: 17,
            size: 1,
        }]))
    }
    fn restart_server<'a>(&'a self, server: &'a str) -> Reply<'a, ()> {
        if !["storage", "net", "hostd", "shell"].contains(&server) {
            return now(Err(missing("server that can be restarted called", server)));
        }
        self.restarts.set(self.restarts.get() + 1);
        self.note("init", "warn", &format!("{server} was started again"));
        now(Ok(()))
    }
    fn log<'a>(&'a self, source: &'a str, most: usize) -> Reply<'a, Vec<LogFacts>> {
        let log = self.log.borrow();
        let all: Vec<LogFacts> = log
            .iter()
            .filter(|line| source.is_empty() || line.source == source)
            .cloned()
            .collect();
        now(Ok(all[all.len().saturating_sub(most)..].to_vec()))
    }
    fn licences(&self) -> Reply<'_, Vec<(String, String, String)>> {
        now(Ok(vec![
            ("tessera".into(), env!("CARGO_PKG_VERSION").into(), "Apache-2.0 OR MIT".into()),
            ("serde".into(), "1.0".into(), "Apache-2.0 OR MIT".into()),
        ]))
    }
    fn functions(&self) -> Reply<'_, Vec<FunctionFacts>> {
        let machines = self.machines.borrow();
        let facts = |(address, identity, class, server, used, problem): Function| {
            let own = |machine: &&Machine| machine.spec.passthrough.iter().any(|passed| passed == address);
            let runs = machines.values().find(|machine| machine.run == VmRun::On && own(machine));
            let device = address.split('.').next();
            FunctionFacts {
                address: address.into(),
                identity,
                class,
                confined: true,
                remapped: true,
                server: if runs.is_some() { String::new() } else { server.into() },
                machine: runs.map(|machine| machine.spec.name.clone()).unwrap_or_default(),
                kept: false,
                together: FUNCTIONS
                    .iter()
                    .filter(|other| other.0 != address && other.0.split('.').next() == device)
                    .map(|other| other.0.into())
                    .collect(),
                problem: problem.into(),
                used: used.into(),
            }
        };
        now(Ok(FUNCTIONS.into_iter().map(facts).collect()))
    }
    fn vms(&self) -> Reply<'_, Vec<VmFacts>> {
        let machines = self.machines.borrow();
        let all = machines.values().enumerate().map(|(index, machine)| VmFacts {
            name: machine.spec.name.clone(),
            run: machine.run,
            asleep: machine.run == VmRun::On && machine.console.borrow().asleep,
            reason: String::new(),
            start: (machine.run != VmRun::Off).then_some(machine.starts),
            panics: machine.console.borrow().panics,
            watchdog_timeouts: machine.console.borrow().watchdog_timeouts,
            addresses: if machine.run == VmRun::On && !machine.spec.nics.is_empty() {
                vec![format!("10.0.3.{}", index + 10)]
            } else {
                Vec::new()
            },
        });
        now(Ok(all.collect()))
    }
    fn vm_spec<'a>(&'a self, name: &'a str) -> Reply<'a, VmSpec> {
        let machines = self.machines.borrow();
        now(machines
            .get(name)
            .map(|machine| machine.spec.clone())
            .ok_or_else(|| missing("machine", name)))
    }
    fn define_vm<'a>(&'a self, old_name: Option<&'a str>, spec: &'a VmSpec) -> Reply<'a, ()> {
        let mut machines = self.machines.borrow_mut();
        if old_name != Some(&spec.name) && machines.contains_key(&spec.name) {
            return now(fail(Failure::Exists, format!("There is a machine {} already", spec.name)));
        }
        if let Some(old) = old_name {
            match machines.get(old) {
                None => return now(Err(missing("machine", old))),
                Some(machine) if machine.run == VmRun::On => return now(fail(Failure::Busy, format!("{old} runs"))),
                Some(_) => machines.remove(old),
            };
        }
        machines.insert(
            spec.name.clone(),
            Machine {
                spec: spec.clone(),
                run: VmRun::Off,
                started: Instant::now(),
                starts: 0,
                console: Rc::default(),
            },
        );
        now(Ok(()))
    }
    fn forget_vm<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        now(self
            .machines
            .borrow_mut()
            .remove(name)
            .map(|_| ())
            .ok_or_else(|| missing("machine", name)))
    }
    fn change_medium<'a>(&'a self, name: &'a str, medium: Option<DiskSpec>) -> Reply<'a, ()> {
        now(self.machine(name, |machine| {
            machine.spec.cdrom = medium;
            Ok(())
        }))
    }
    fn vm_power<'a>(&'a self, name: &'a str, action: VmPower) -> Reply<'a, ()> {
        Box::pin(async move {
            let passed = self.machine(name, |machine| Ok(machine.spec.passthrough.clone()))?;
            Timer::after(self.delay).await;
            if action == VmPower::Start {
                let functions = self.functions().await?;
                let taken = functions
                    .iter()
                    .find(|function| passed.contains(&function.address) && !function.machine.is_empty());
                if let Some(taken) = taken {
                    let text = format!(
                        "PCI function {} is not free: virtual machine {} has it, and runs",
                        taken.address, taken.machine
                    );
                    return fail(Failure::Busy, text);
                }
            }
            self.machine(name, |machine| {
                machine.console.borrow_mut().asleep = false;
                match action {
                    VmPower::Wake => {}
                    VmPower::Start | VmPower::Reset => {
                        machine.run = VmRun::On;
                        if action == VmPower::Start {
                            machine.starts += 1;
                            let mut console = machine.console.borrow_mut();
                            (console.panics, console.watchdog_timeouts) = (0, 0);
                        }
                        machine.started = Instant::now();
                        machine
                            .console
                            .borrow_mut()
                            .write(format!("\r\nLinux version 6.1 (simulated) on {name}\r\nWelcome.\r\n/ # ").as_bytes());
                    }
                    VmPower::Stop | VmPower::Shutdown => machine.run = VmRun::Off,
                    VmPower::Suspend => machine.run = VmRun::Suspended,
                    VmPower::Resume => machine.run = VmRun::On,
                }
                Ok(())
            })?;
            self.note("init", "info", &format!("{name}: {action:?}"));
            Ok(())
        })
    }
    fn vm_console<'a>(&'a self, name: &'a str) -> Reply<'a, Box<dyn Console>> {
        now(self.machine(name, |machine| Ok(Box::new(View(machine.console.clone(), 0)) as Box<dyn Console>)))
    }
    fn vm_screen<'a>(&'a self, name: &'a str, view: ScreenView) -> Reply<'a, Box<dyn Console>> {
        let none = format!("{name} has no screen: it is made up ({view:?})");
        now(self.machine(name, |_| Err(HostError::new(Failure::Unsupported, none))))
    }
    fn vm_type<'a>(&'a self, name: &'a str, _keys: &'a [u16], text: &'a str) -> Reply<'a, ()> {
        now(self.machine(name, |machine| {
            machine.console.borrow_mut().take_in(text.as_bytes());
            Ok(())
        }))
    }
    fn vm_freeze<'a>(&'a self, name: &'a str, _frozen: bool) -> Reply<'a, ()> {
        now(self.machine(name, |machine| match machine.run {
            VmRun::On => Ok(()),
            _ => Err(HostError::new(Failure::Busy, format!("{name} does not run"))),
        }))
    }
    fn save_vm<'a>(&'a self, name: &'a str, store: &'a str, path: &'a str) -> Reply<'a, ()> {
        let saved = self.machine(name, |_| Ok(())).and_then(|()| {
            self.store(store, |own| {
                own.insert(path, EntryKind::File, 0)
                    .map(|entry| entry.data.borrow_mut().resize(1 << 20, 0))
            })
        });
        now(saved)
    }
    fn restore_vm<'a>(&'a self, name: &'a str, store: &'a str, path: &'a str) -> Reply<'a, ()> {
        let found = self.entry(store, path, |_| Ok(()));
        now(found.and_then(|()| {
            self.machine(name, |machine| {
                machine.run = VmRun::Suspended;
                Ok(())
            })
        }))
    }
    fn devices(&self) -> Reply<'_, Vec<DeviceFacts>> {
        let device = |name: &str, model: &str, kind: &str, size| DeviceFacts {
            name: name.into(),
            model: model.into(),
            kind: kind.into(),
            size,
            sector_size: 512,
            health: "green".into(),
        };
        now(Ok(vec![
            device("nvme0n1", "Simulated NVMe", "NVMe", 512 * GIB),
            device("ahci1", "Simulated disk", "AHCI", 64 * GIB),
        ]))
    }
    fn stores(&self) -> Reply<'_, Vec<StoreFacts>> {
        let stores = self.stores.borrow();
        let all = stores.iter().map(|(name, store)| StoreFacts {
            name: name.clone(),
            device: store.device.clone(),
            capacity: store.capacity,
            free: store.capacity - store.used().min(store.capacity),
            provisioned: store
                .entries
                .values()
                .map(|entry| entry.size.max(entry.data.borrow().len() as u64))
                .sum(),
            problem: String::new(),
        });
        now(Ok(all.collect()))
    }
    fn create_store<'a>(&'a self, device: &'a str, name: &'a str) -> Reply<'a, ()> {
        Box::pin(async move {
            Timer::after(self.delay).await;
            let mut stores = self.stores.borrow_mut();
            if stores.contains_key(name) {
                return fail(Failure::Exists, format!("There is a datastore {name} already"));
            }
            stores.insert(
                name.into(),
                Store {
                    device: device.into(),
                    capacity: 64 * GIB,
                    entries: BTreeMap::new(),
                },
            );
            Ok(())
        })
    }
    fn grow_store<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        now(self.store(name, |_| Ok(())))
    }
    fn remove_store<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        now(self
            .stores
            .borrow_mut()
            .remove(name)
            .map(|_| ())
            .ok_or_else(|| missing("datastore", name)))
    }
    fn browse<'a>(&'a self, store: &'a str, folder: &'a str) -> Reply<'a, Vec<EntryFacts>> {
        now(self.store(store, |own| {
            if !folder.is_empty() && own.entries.get(folder).is_none_or(|entry| entry.kind != EntryKind::Folder) {
                return Err(missing("folder", folder));
            }
            let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            let inside = own
                .entries
                .iter()
                .filter_map(|(path, entry)| Some((path.strip_prefix(&prefix)?, entry)))
                .filter(|(rest, _)| !rest.contains('/'));
            Ok(inside.map(|(name, entry)| entry_facts(name, entry)).collect())
        }))
    }
    fn stat<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, EntryFacts> {
        now(self.entry(store, path, |entry| Ok(entry_facts(path, entry))))
    }
    fn create_folder<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, ()> {
        now(self.store(store, |own| own.insert(path, EntryKind::Folder, 0).map(|_| ())))
    }
    fn rename<'a>(&'a self, store: &'a str, from: &'a str, to: &'a str) -> Reply<'a, ()> {
        now(self.store(store, |own| {
            if !own.entries.contains_key(from) {
                return Err(missing("file", from));
            }
            if own.entries.contains_key(to) {
                return fail(Failure::Exists, format!("There is {to} already"));
            }
            let below = format!("{from}/");
            if !own.parent_is_there(to) || to.starts_with(&below) {
                return fail(Failure::NotFound, format!("There is no folder for {to}"));
            }
            let moved: Vec<String> = own
                .entries
                .keys()
                .filter(|path| *path == from || path.starts_with(&below))
                .cloned()
                .collect();
            for path in moved {
                if let Some(entry) = own.entries.remove(&path) {
                    own.entries.insert(format!("{to}{}", &path[from.len()..]), entry);
                }
            }
            Ok(())
        }))
    }
    fn remove<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, ()> {
        now(self.store(store, |own| {
            let below = format!("{path}/");
            if own.entries.keys().any(|other| other.starts_with(&below)) {
                return fail(Failure::Busy, format!("The folder {path} is not empty"));
            }
            own.entries.remove(path).map(|_| ()).ok_or_else(|| missing("file", path))
        }))
    }
    fn read_file<'a>(&'a self, store: &'a str, path: &'a str, offset: u64, length: Option<u64>) -> Reply<'a, Box<dyn BodySource>> {
        now(self.entry(store, path, |entry| {
            let size = entry_facts(path, entry).size;
            let end = length.map_or(size, |length| size.min(offset.saturating_add(length)));
            let at = offset.min(end);
            Ok(Box::new(Bytes {
                data: entry.data.clone(),
                at,
                end,
                length: end - at,
            }) as Box<dyn BodySource>)
        }))
    }
    fn write_file<'a>(&'a self, store: &'a str, path: &'a str, offset: u64) -> Reply<'a, Box<dyn FileSink>> {
        now(self.store(store, |own| {
            if !own.entries.contains_key(path) {
                own.insert(path, EntryKind::File, 0)?;
            }
            let entry = own.entries.get_mut(path).ok_or_else(|| missing("file", path))?;
            if entry.kind != EntryKind::File {
                return fail(Failure::Busy, format!("{path} is not a file"));
            }
            entry.modified_ms = unix_ms();
            if offset == 0 {
                entry.data.borrow_mut().clear();
            }
            Ok(Box::new(Sink {
                data: entry.data.clone(),
                at: offset as usize,
            }) as Box<dyn FileSink>)
        }))
    }
    fn create_disk<'a>(&'a self, store: &'a str, path: &'a str, size: u64, _: bool) -> Reply<'a, ()> {
        now(self.store(store, |own| {
            if size > own.capacity {
                fail(Failure::NoSpace, format!("{path} is larger than the datastore"))
            } else {
                own.insert(path, EntryKind::Disk, size).map(|_| ())
            }
        }))
    }
    fn grow_disk<'a>(&'a self, store: &'a str, path: &'a str, size: u64) -> Reply<'a, ()> {
        now(self.entry(store, path, |entry| {
            entry.size = entry.size.max(size);
            Ok(())
        }))
    }
    fn snapshot_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()> {
        now(self.entry(store, path, |entry| {
            entry.snapshots.push(snapshot.into());
            Ok(())
        }))
    }
    fn remove_snapshot<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()> {
        now(self.entry(store, path, |entry| {
            entry.snapshots.retain(|name| name != snapshot);
            Ok(())
        }))
    }
    fn revert_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()> {
        now(self.entry(store, path, |entry| {
            if entry.snapshots.iter().any(|name| name == snapshot) {
                Ok(())
            } else {
                Err(missing("snapshot", snapshot))
            }
        }))
    }
    fn clone_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str, to: &'a str) -> Reply<'a, ()> {
        let size = self.entry(store, path, |entry| {
            if entry.snapshots.iter().any(|name| name == snapshot) {
                Ok(entry.size)
            } else {
                Err(missing("snapshot", snapshot))
            }
        });
        now(size.and_then(|size| self.store(store, |own| own.insert(to, EntryKind::Disk, size).map(|_| ()))))
    }
    fn nics(&self) -> Reply<'_, Vec<NicFacts>> {
        let nic = |name: &str, mac: &str, link_up| NicFacts {
            name: name.into(),
            driver: "virtio-net".into(),
            mac: mac.into(),
            link_up,
            speed_mbps: 10_000,
        };
        now(Ok(vec![
            nic("eth0", "52:54:00:12:34:56", true),
            nic("eth1", "52:54:00:12:34:57", false),
        ]))
    }
    fn switches(&self) -> Reply<'_, Vec<SwitchSpec>> {
        now(Ok(self.switches.borrow().values().cloned().collect()))
    }
    fn set_switch<'a>(&'a self, name: &'a str, spec: &'a SwitchSpec) -> Reply<'a, ()> {
        let mut all = self.switches.borrow_mut();
        let mut new = spec.clone();
        if new.policies.is_none() {
            new.policies = all
                .get(name)
                .map_or_else(|| Some(SwitchPolicies::default()), |old| old.policies.clone());
        }
        all.insert(name.into(), new);
        now(Ok(()))
    }
    fn remove_switch<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        now(self
            .switches
            .borrow_mut()
            .remove(name)
            .map(|_| ())
            .ok_or_else(|| missing("switch", name)))
    }
    fn port_groups(&self) -> Reply<'_, Vec<PortGroupSpec>> {
        now(Ok(self.groups.borrow().values().cloned().collect()))
    }
    fn set_port_group<'a>(&'a self, name: &'a str, spec: &'a PortGroupSpec) -> Reply<'a, ()> {
        let mut all = self.groups.borrow_mut();
        let mut new = spec.clone();
        if new.policies.is_none() {
            new.policies = all
                .get(name)
                .map_or_else(|| Some(GroupPolicies::default()), |old| old.policies.clone());
        }
        all.insert(name.into(), new);
        now(Ok(()))
    }
    fn remove_port_group<'a>(&'a self, name: &'a str) -> Reply<'a, ()> {
        now(self
            .groups
            .borrow_mut()
            .remove(name)
            .map(|_| ())
            .ok_or_else(|| missing("port group", name)))
    }
    fn ports(&self) -> Reply<'_, Vec<PortFacts>> {
        let management = PortFacts {
            name: "host-4".into(),
            kind: PortKind::Host,
            switch: "vSwitch0".into(),
            group: Some("Management Network".into()),
            mac: "52:54:00:12:34:56".into(),
            link_up: true,
            uplink: Some("eth0".into()),
            received: (12, 3400),
            sent: (10, 1200),
            dropped: vec![("forged".into(), "from another address than the port's".into(), 3)],
            ..PortFacts::default()
        };
        let uplink = PortFacts {
            name: "eth0".into(),
            kind: PortKind::Uplink,
            group: None,
            dropped: Vec::new(),
            ..management.clone()
        };
        now(Ok(vec![management, uplink]))
    }
    fn captures(&self) -> Reply<'_, Vec<CaptureFacts>> {
        now(Ok(self.captures.borrow().clone()))
    }
    fn start_capture<'a>(&'a self, port: &'a str, snap: u32) -> Reply<'a, u32> {
        let mut all = self.captures.borrow_mut();
        if !["host-4", "eth0"].contains(&port) {
            return now(Err(missing("port", port)));
        }
        if all.len() >= 4 {
            return now(Err(HostError::new(Failure::NoSpace, "There are 4 captures already: remove one")));
        }
        let id = all.last().map_or(1, |last| last.id + 1);
        all.push(CaptureFacts {
            id,
            port: port.into(),
            snap,
            waiting: CAPTURED.len() as u32,
            frames: 1,
            lost: 0,
            running: true,
        });
        now(Ok(id))
    }
    fn read_capture(&self, id: u32, from: u64) -> Reply<'_, Vec<u8>> {
        let known = self.captures.borrow().iter().any(|one| one.id == id);
        now(match usize::try_from(from).ok().and_then(|from| CAPTURED.get(from..)) {
            _ if !known => Err(missing("capture", &id.to_string())),
            Some(rest) => Ok(rest.to_vec()),
            None => Err(HostError::new(Failure::Invalid, "That byte is not there yet")),
        })
    }
    fn stop_capture(&self, id: u32) -> Reply<'_, ()> {
        let mut all = self.captures.borrow_mut();
        let found = all.iter_mut().find(|one| one.id == id);
        now(found
            .map(|one| one.running = false)
            .ok_or_else(|| missing("capture", &id.to_string())))
    }
    fn remove_capture(&self, id: u32) -> Reply<'_, ()> {
        self.captures.borrow_mut().retain(|one| one.id != id);
        now(Ok(()))
    }
    fn interfaces(&self) -> Reply<'_, Vec<InterfaceSpec>> {
        now(Ok(self.interfaces.borrow().values().cloned().collect()))
    }
    fn set_interface<'a>(&'a self, spec: &'a InterfaceSpec) -> Reply<'a, ()> {
        self.interfaces.borrow_mut().insert(spec.name.clone(), spec.clone());
        now(Ok(()))
    }
    fn set_dns<'a>(&'a self, _: &'a DnsSpec) -> Reply<'a, ()> {
        now(Ok(()))
    }
    fn resolve<'a>(&'a self, name: &'a str) -> Reply<'a, Vec<String>> {
        now(if name == "localhost" {
            Ok(vec!["127.0.0.1".into()])
        } else {
            fail(Failure::NotFound, format!("No server knows {name}"))
        })
    }
    fn set_time_servers<'a>(&'a self, servers: &'a [String]) -> Reply<'a, ()> {
        self.time_servers.replace(servers.to_vec());
        now(Ok(()))
    }
    fn time(&self) -> Reply<'_, TimeFacts> {
        let server = self.time_servers.borrow().first().cloned();
        now(Ok(TimeFacts {
            synchronized: server.is_some(),
            offset_us: server.is_some().then_some(-420),
            drift_ppb: server.is_some().then_some(1800),
            server,
        }))
    }
    fn certificate(&self) -> Reply<'_, CertificateFacts> {
        let day = 86_400_000;
        now(Ok(CertificateFacts {
            subject: "CN=tessera".into(),
            issuer: "CN=tessera".into(),
            not_before_ms: unix_ms() - day,
            not_after_ms: unix_ms() + 365 * day,
            fingerprint: "ab".repeat(32),
            self_signed: true,
        }))
    }
    fn set_certificate<'a>(&'a self, _: &'a str, _: &'a str) -> Reply<'a, ()> {
        now(fail(Failure::Unsupported, "A simulated host has no certificate"))
    }
    fn renew_certificate<'a>(&'a self, _: &'a str) -> Reply<'a, ()> {
        now(fail(Failure::Unsupported, "A simulated host has no certificate"))
    }
    fn announce(&self, line: &str) {
        println!("{line}");
    }
}
