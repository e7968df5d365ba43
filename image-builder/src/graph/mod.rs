//! The capability graph: who holds what. Holders (the servers) stand on one side, everything that can be held on the other; a line is a capability.
//!
//! The graph is drawn from the same description that the manifest is made of, with what every server is given anyhow: see [`Graph::new`].

mod layout;
mod svg;

use crate::{
    system::{Need, Server, System},
    units::show_size,
};
use std::collections::BTreeMap;

pub use layout::{Layout, Rect};

/// The grant by whose name init offers virtual machines to its holder.
const VM_MANAGER: &str = "vm_manager";

/// Sections of the things that can be held, in the order in which they are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Section {
    /// What init makes for each virtual machine that runs.
    Machine,
    /// Endpoints of the system.
    Endpoint,
    /// The kernel's own objects.
    Kernel,
    /// Ports, interrupts, registers.
    Device,
    /// Memory that servers share.
    Memory,
    /// Files of the bundle.
    File,
}

impl Section {
    /// Heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Machine => "Each virtual machine's own",
            Self::Endpoint => "Endpoints",
            Self::Kernel => "Kernel",
            Self::Device => "Devices",
            Self::Memory => "Shared memory",
            Self::File => "Files",
        }
    }
}

/// Something that can be held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// Section.
    pub section: Section,
    /// Name.
    pub title: String,
}

/// How something is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The holder acts on it: calls, reads, writes.
    Uses,
    /// The holder receives there: it provides the service.
    Provides,
    /// The holder may ask init for it while it runs: the control endpoints of virtual machines.
    OnRequest,
    /// Every server has it: the endpoint of init, for log lines and faults.
    Always,
}

/// A capability: index of the holder, name under which it asks for it, index of the resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Index into [`Graph::holders`].
    pub holder: usize,
    /// Name of the grant.
    pub name: String,
    /// Index into [`Graph::resources`].
    pub resource: usize,
    /// How.
    pub hold: Hold,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Name.
    pub name: String,
    /// Beside the name.
    pub note: String,
    /// Below the name.
    pub details: String,
    /// Instantiated for each virtual machine.
    pub per_vm: bool,
}

/// A virtual machine: name and properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Name.
    pub name: String,
    /// Lines below.
    pub details: Vec<String>,
}

/// The graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// Product.
    pub title: String,
    /// Servers; the root server first.
    pub holders: Vec<Holder>,
    /// What they hold.
    pub resources: Vec<Resource>,
    /// Who holds what.
    pub edges: Vec<Edge>,
    /// Virtual machines, for which the per-machine servers are started.
    pub machines: Vec<Machine>,
}

impl Graph {
    /// The graph of a checked system. Beside the grants it shows what needs none: the root server has all that nobody else was given, every server can
    /// call it, and the servers of a virtual machine have that machine's parts (`tessera_manifest::StartVm`).
    #[must_use]
    pub fn new(system: &System) -> Self {
        let mut wanted: Vec<(usize, String, Resource, Hold)> = Vec::new();
        let resource = |section, title: &str| Resource {
            section,
            title: title.to_string(),
        };
        let init = || resource(Section::Endpoint, "init");
        let mut graph = Self {
            title: system.product.clone(),
            ..Self::default()
        };
        graph.holders.push(Holder {
            name: system.root.value.clone(),
            note: "root server".into(),
            details: "all memory, and every device that nobody was given".into(),
            per_vm: false,
        });
        wanted.push((0, "init".into(), init(), Hold::Provides));
        for server in &system.servers {
            let holder = graph.holders.len();
            graph.holders.push(Holder {
                name: server.name.value.clone(),
                note: format!("priority {}", server.priority.value),
                details: details(server),
                per_vm: server.per_vm,
            });
            for grant in &server.grants {
                let (section, title) = match &grant.need {
                    Need::Share(other, length) => shared(&server.name.value, other, *length),
                    need => show(need),
                };
                let hold = if matches!(grant.need, Need::Provide(_)) {
                    Hold::Provides
                } else {
                    Hold::Uses
                };
                wanted.push((holder, grant.name.value.clone(), Resource { section, title }, hold));
                // Whoever may manage virtual machines gets their control endpoints handed out.
                if grant.name.value == VM_MANAGER && grant.need == Need::Use("init".into()) && !system.vms.is_empty() {
                    let parts = system.servers.iter().filter(|server| server.per_vm).flat_map(machine_parts);
                    let controls = parts.filter(|(_, _, hold)| *hold == Hold::Provides);
                    wanted.extend(
                        controls.map(|(name, title, _)| (holder, name.to_string(), resource(Section::Machine, title), Hold::OnRequest)),
                    );
                }
            }
            for other in &system.servers {
                let shares = other.grants.iter().filter_map(|grant| match &grant.need {
                    Need::Share(name, length) if *name == server.name.value => Some((&grant.name.value, *length)),
                    _ => None,
                });
                for (name, length) in shares {
                    let (section, title) = shared(&other.name.value, &server.name.value, length);
                    wanted.push((holder, name.clone(), Resource { section, title }, Hold::Uses));
                }
            }
            if !server.grants.iter().any(|grant| grant.need == Need::Use("init".into())) {
                wanted.push((holder, "log and faults".into(), init(), Hold::Always));
            }
            if server.per_vm {
                wanted.extend(
                    machine_parts(server)
                        .into_iter()
                        .map(|(name, title, hold)| (holder, name.to_string(), resource(Section::Machine, title), hold)),
                );
            }
        }
        let mut indices: BTreeMap<Resource, usize> = wanted.iter().map(|(_, _, resource, _)| (resource.clone(), 0)).collect();
        for (index, (resource, place)) in indices.iter_mut().enumerate() {
            *place = index;
            graph.resources.push(resource.clone());
        }
        graph.edges = wanted
            .into_iter()
            .map(|(holder, name, resource, hold)| Edge {
                holder,
                name,
                resource: indices[&resource],
                hold,
            })
            .collect();
        graph.machines = system
            .vms
            .iter()
            .map(|vm| {
                let mut details = vec![format!(
                    "{}, {} vCPU{}",
                    show_size(vm.memory.value),
                    vm.vcpus,
                    if vm.vcpus == 1 { "" } else { "s" }
                )];
                details.push(format!("kernel {}", vm.kernel.value));
                details.extend(vm.initramfs.as_ref().map(|file| format!("initramfs {}", file.value)));
                details.extend(vm.passthrough.iter().map(|passed| format!("has {} of the host", passed.value)));
                details.push(if vm.autostart { "starts at boot" } else { "started on request" }.into());
                Machine {
                    name: vm.name.value.clone(),
                    details,
                }
            })
            .collect();
        graph
    }

    /// The drawing.
    #[must_use]
    pub fn to_svg(&self) -> String {
        svg::draw(self, &Layout::new(self))
    }
}

fn details(server: &Server) -> String {
    let mut parts = Vec::new();
    if server.program.value != server.name.value {
        parts.push(format!("runs {}", server.program.value));
    }
    for (name, bytes) in [("heap", &server.heap), ("stack", &server.stack), ("objects", &server.memory)] {
        if bytes.value > 0 {
            parts.push(format!("{name} {}", show_size(bytes.value)));
        }
    }
    parts.join(" · ")
}

fn shared(server: &str, other: &str, length: u64) -> (Section, String) {
    (Section::Memory, format!("{server} and {other}, {}", show_size(length)))
}

fn show(need: &Need) -> (Section, String) {
    match need {
        Need::Provide(endpoint) | Need::Use(endpoint) => (Section::Endpoint, endpoint.clone()),
        Need::IoPorts(first, 1) => (Section::Device, format!("I/O port {first:#x}")),
        Need::IoPorts(first, count) => (
            Section::Device,
            format!("I/O ports {first:#x} to {:#x}", u32::from(*first) + count - 1),
        ),
        Need::Irq(line) => (Section::Device, format!("interrupt line {line}")),
        Need::Mmio(address, length) => (Section::Device, format!("registers {address:#x}, {}", show_size(*length))),
        Need::Pci(class) => (Section::Device, format!("PCI {} controllers", class.name())),
        Need::Share(other, length) => shared("", other, *length),
        Need::File(file) => (Section::File, file.clone()),
        Need::KernelLog => (Section::Kernel, "log, panic record, trace rings".into()),
        Need::Trace => (Section::Kernel, "trace mask, statistics, reset".into()),
        Need::IrqStatistics => (Section::Kernel, "interrupt statistics".into()),
    }
}

/// What init gives the servers of a virtual machine beside their grants.
fn machine_parts(server: &Server) -> Vec<(&'static str, &'static str, Hold)> {
    let console = ("console", "console rings and their signals", Hold::Uses);
    match server.name.value.as_str() {
        "vmm" => vec![
            ("ram", "guest memory", Hold::Uses),
            ("kernel, initramfs", "guest's boot files", Hold::Uses),
            console,
            ("control", "control endpoint of its VMM", Hold::Provides),
        ],
        "vmx" => vec![console, ("control", "control endpoint of its VMX", Hold::Provides)],
        _ => Vec::new(),
    }
}
