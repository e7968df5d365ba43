//! init: the machine, its servers, the log.

use super::{LIST, error, ticks_to_us};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::arch::x86_64::__cpuid;
use tessera_hostd::host::{CapabilityFacts, EndpointFacts, HostError, HostFacts, LogFacts, ServerFacts, ServerUsage, Usage, VmUsage};
use tessera_proto::{
    collect, storage,
    supervisor::{Client, ServerState},
};
use tessera_rt::{
    Connection,
    abi::{
        PAGE_SIZE,
        object::{ObjectKind, Rights},
    },
    start, time,
};

const PAGE: u64 = PAGE_SIZE as u64;
/// init itself, where servers are numbered.
const INIT: u64 = 0;
/// Its endpoint.
const INIT_ENDPOINT: &str = "init";

/// A client.
pub fn client() -> Client<Connection> {
    Client(start::connect("supervisor"))
}

/// The processor's own name (CPUID leaves 0x8000_0002 to 4).
fn cpu_model() -> String {
    if __cpuid(0x8000_0000).eax < 0x8000_0004 {
        return String::new();
    }
    let leaves = (0x8000_0002..=0x8000_0004).map(__cpuid);
    let bytes: Vec<u8> = leaves
        .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
        .flat_map(u32::to_le_bytes)
        .take_while(|byte| *byte != 0)
        .collect();
    String::from_utf8_lossy(&bytes).trim().to_string()
}

/// What tells that virtual machines can run (Intel SDM, CPUID leaf 1; AMD APM, leaf 0x8000_0001).
fn virtualization() -> &'static str {
    if __cpuid(1).ecx & 1 << 5 != 0 {
        "VT-x"
    } else if __cpuid(0x8000_0000).eax >= 0x8000_0001 && __cpuid(0x8000_0001).ecx & 1 << 2 != 0 {
        "AMD-V"
    } else {
        ""
    }
}

/// The machine.
pub fn facts() -> Result<HostFacts, HostError> {
    let system = client().system().map_err(|failure| error("the host", failure))?;
    let (name, version) = system.product.rsplit_once(' ').unwrap_or((&system.product, ""));
    Ok(HostFacts {
        version: version.into(),
        build: format!("{name}, kernel interface {}", system.abi_version),
        vendor: String::new(),
        model: String::new(),
        serial: String::new(),
        cpu_model: cpu_model(),
        sockets: 1,
        cores: system.cpus,
        threads: system.cpus,
        cpu_mhz: (system.tsc_hz / 1_000_000) as u32,
        virtualization: virtualization().into(),
        memory: system.ram_bytes,
        sensors: Vec::new(),
    })
}

/// What is used now.
pub fn usage() -> Result<Usage, HostError> {
    let failed = |failure| error("the host", failure);
    let mut client = client();
    let memory = client.memory().map_err(failed)?;
    let system = client.system().map_err(failed)?;
    let servers = collect(LIST, |first| client.servers(first)).map_err(failed)?;
    let mut usage = Usage {
        memory: memory.total.saturating_sub(memory.free) * PAGE,
        uptime_ms: time::from_ticks(time::now().saturating_sub(system.boot_tsc), 1000, system.tsc_hz),
        ..Usage::default()
    };
    for server in &servers {
        let cpu_us = ticks_to_us(server.cpu_ticks);
        usage.cpu_us += cpu_us;
        usage.servers.push(ServerUsage {
            name: server.name.clone(),
            cpu_us,
            memory: server.pages * PAGE,
        });
    }
    // What stands below is told when the servers that know it answer.
    if let Ok(mut client) = super::stores::disks() {
        let disks = collect(LIST, |first| client.disks(first)).unwrap_or_default();
        for disk in disks {
            usage.disk.0 += disk.statistics.read_bytes;
            usage.disk.1 += disk.statistics.written_bytes;
        }
    }
    if let Ok(nics) = super::network::nics() {
        for nic in nics {
            usage.network.0 += nic.statistics.received_bytes;
            usage.network.1 += nic.statistics.sent_bytes;
        }
    }
    let of_guests: Vec<storage::GuestDiskStatistics> = super::stores::disks()
        .ok()
        .and_then(|mut client| collect(LIST, |first| client.guest_disks(first)).ok())
        .unwrap_or_default();
    let machines = super::machines::list().unwrap_or_default();
    for vm in machines.iter().filter(|vm| vm.state == tessera_proto::vm_manager::VmState::Running) {
        let own = servers.iter().filter(|server| server.vm.as_deref() == Some(vm.name.as_str()));
        let disks = of_guests.iter().filter(|disk| disk.vm == vm.name);
        usage.vms.push(VmUsage {
            name: vm.name.clone(),
            cpu_us: own.map(|server| ticks_to_us(server.cpu_ticks)).sum(),
            // All of it is there from the start.
            memory: vm.memory,
            disk: disks.fold((0, 0), |(read, written), disk| (read + disk.reads.1, written + disk.writes.1)),
            network: (0, 0),
            exits: super::machines::exits(&vm.name, vm.vcpus),
            uptime_ms: time::from_ticks(time::now().saturating_sub(vm.started_tsc), 1000, time::hz()),
        });
    }
    Ok(usage)
}

/// The servers.
pub fn servers() -> Result<Vec<ServerFacts>, HostError> {
    let mut client = client();
    let servers = collect(LIST, |first| client.servers(first)).map_err(|failure| error("the servers", failure))?;
    let fact = |server: tessera_proto::supervisor::ServerInfo| ServerFacts {
        name: server.name,
        state: match server.state {
            ServerState::Starting => "starting",
            ServerState::Running => "running",
            ServerState::Waiting => "waiting",
            ServerState::Ended => "ended",
        }
        .into(),
        vm: server.vm,
        restarts: server.restarts,
        threads: server.threads,
        memory: server.pages * PAGE,
        last_end: server.last_end,
    };
    Ok(servers.into_iter().map(fact).collect())
}

/// Who calls whom.
pub fn endpoints() -> Result<Vec<EndpointFacts>, HostError> {
    let failed = |failure| error("the endpoints", failure);
    let mut client = client();
    let endpoints = collect(LIST, |first| client.endpoints(first)).map_err(failed)?;
    let servers = collect(LIST, |first| client.servers(first)).map_err(failed)?;
    let mut facts = Vec::new();
    for server in servers.iter().filter(|server| server.id != INIT && server.threads > 0) {
        let held = collect(LIST, |first| client.capabilities(server.id, first)).unwrap_or_default();
        let send = |rights: u8| Rights::from_bits_truncate(rights).contains(Rights::SEND);
        let uses = |name: &str| {
            held.iter()
                .any(|capability| capability.kind == ObjectKind::Endpoint as u8 && send(capability.rights) && capability.name == name)
        };
        for endpoint in &endpoints {
            if endpoint.name != INIT_ENDPOINT && endpoint.provider != server.name && uses(&endpoint.name) {
                facts.push(EndpointFacts {
                    interface: endpoint.name.clone(),
                    from: server.name.clone(),
                    to: endpoint.provider.clone(),
                    calls: endpoint.calls,
                });
            }
        }
        // Everybody speaks with init.
        facts.push(EndpointFacts {
            interface: INIT_ENDPOINT.into(),
            from: server.name.clone(),
            to: "init".into(),
            calls: endpoints
                .iter()
                .find(|endpoint| endpoint.name == INIT_ENDPOINT)
                .map_or(0, |endpoint| endpoint.calls),
        });
    }
    Ok(facts)
}

/// What a server holds.
pub fn capabilities(server: &str) -> Result<Vec<CapabilityFacts>, HostError> {
    let mut client = client();
    let failed = |failure| error(server, failure);
    let servers = collect(LIST, |first| client.servers(first)).map_err(failed)?;
    let found = servers
        .iter()
        .find(|known| known.name == server)
        .ok_or_else(|| super::not_found("server", server))?;
    let held = collect(LIST, |first| client.capabilities(found.id, first)).map_err(failed)?;
    let fact = |capability: tessera_proto::supervisor::CapabilityInfo| CapabilityFacts {
        name: capability.name,
        kind: ObjectKind::from_u8(capability.kind).map_or_else(|| capability.kind.to_string(), |kind| format!("{kind:?}")),
        rights: rights(capability.rights),
        object: capability.object,
        size: capability.size,
    };
    Ok(held.into_iter().map(fact).collect())
}

fn rights(bits: u8) -> String {
    let names = Rights::from_bits_truncate(bits).iter_names();
    names.map(|(name, _)| name.to_lowercase()).collect::<Vec<_>>().join(" ")
}

/// Starts a server anew.
pub fn restart(server: &str) -> Result<(), HostError> {
    client().restart(server).map_err(|failure| error(server, failure))
}

/// The newest lines of the log.
pub fn log(source: &str, most: usize) -> Result<Vec<LogFacts>, HostError> {
    let mut client = client();
    let mut lines = Vec::new();
    let mut cursor = 0;
    loop {
        let chunk = client.log(cursor).map_err(|failure| error("the log", failure))?;
        let end = chunk.next == cursor || chunk.lines.is_empty();
        cursor = chunk.next;
        lines.extend(chunk.lines.into_iter().filter(|line| source.is_empty() || line.server == source));
        let excess = lines.len().saturating_sub(most);
        lines.drain(..excess);
        if end {
            break;
        }
    }
    let fact = |line: tessera_proto::supervisor::LogLine| LogFacts {
        unix_ms: time::wall_clock(line.tsc).map_or(0, |seconds| seconds * 1000),
        source: line.server,
        level: format!("{}", line.level),
        message: line.text,
    };
    Ok(lines.into_iter().map(fact).collect())
}
