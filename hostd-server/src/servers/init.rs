//! init and the kernel: the machine, servers, their capabilities, the log, power.

use super::{Answer, LIST, failed, server};
use alloc::{
    collections::VecDeque,
    format,
    string::{String, ToString},
    vec::Vec,
};
use tessera_hostd::host::{
    CapabilityFacts, EndpointFacts, FIRST_PASSWORD, Failure, HostError, HostFacts, HostPower, LogFacts, ServerFacts, ServerUsage, Usage,
};
use tessera_proto::{
    collect,
    init::Level,
    supervisor::{CapabilityInfo, Client, ServerInfo, ServerState, SystemInfo},
};
use tessera_rt::{
    Connection, Trace,
    abi::{
        PAGE_SIZE,
        boot::Features,
        object::{ObjectKind, Rights},
    },
    grant, time,
};

/// How long init may take: it answers at once, but may have others before.
const PATIENCE: u64 = 10_000;
/// Most messages that the log is read with.
const LOG_CHUNKS: usize = 4096;
/// init's number among the servers.
const INIT: u64 = 0;
/// Its endpoint.
const INIT_ENDPOINT: &str = "init";

fn client() -> Answer<Client<Connection>> {
    Ok(Client(server("supervisor", PATIENCE)?))
}

fn all_servers(client: &mut Client<Connection>) -> Answer<Vec<ServerInfo>> {
    collect(LIST, |first| client.servers(first)).map_err(|error| failed("The servers cannot be listed", &error))
}

fn all_capabilities(client: &mut Client<Connection>, server: &ServerInfo) -> Answer<Vec<CapabilityInfo>> {
    collect(LIST, |first| client.capabilities(server.id, first))
        .map_err(|error| failed(&format!("The capabilities of {} cannot be listed", server.name), &error))
}

/// Ticks of the TSC in microseconds.
pub fn microseconds(ticks: u64) -> u64 {
    time::from_ticks(ticks, 1_000_000, time::hz())
}

/// The processor's clock rate in MHz.
pub fn cpu_mhz() -> u32 {
    u32::try_from(time::hz() / 1_000_000).unwrap_or(u32::MAX)
}

/// Maker or model of the processor: registers of `cpuid`, byte by byte (Intel SDM volume 2, CPUID, leaves 0x8000_0002 to 0x8000_0004).
fn cpu_model() -> String {
    let ask = core::arch::x86_64::__cpuid;
    if ask(0x8000_0000).eax < 0x8000_0004 {
        return String::new();
    }
    let words = (0x8000_0002..=0x8000_0004)
        .map(ask)
        .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]);
    let text: Vec<u8> = words.flat_map(u32::to_le_bytes).take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&text).trim().into()
}

fn rights(bits: u8) -> String {
    let letters = [
        (Rights::READ, 'r'),
        (Rights::WRITE, 'w'),
        (Rights::EXECUTE, 'x'),
        (Rights::SEND, 's'),
        (Rights::RECEIVE, 'v'),
        (Rights::GRANT, 'g'),
    ];
    let bits = Rights::from_bits_truncate(bits);
    letters
        .iter()
        .filter(|(right, _)| bits.contains(*right))
        .map(|(_, letter)| *letter)
        .collect()
}

fn capability(info: CapabilityInfo) -> CapabilityFacts {
    CapabilityFacts {
        name: info.name,
        kind: ObjectKind::from_u8(info.kind).map_or("unknown", ObjectKind::name).into(),
        rights: rights(info.rights),
        object: info.object,
        size: info.size,
    }
}

fn server_facts(info: ServerInfo) -> ServerFacts {
    ServerFacts {
        name: info.name,
        state: match info.state {
            ServerState::Starting => "starting",
            ServerState::Running => "running",
            ServerState::Waiting => "waiting",
            ServerState::Ended => "ended",
        }
        .into(),
        vm: info.vm,
        restarts: info.restarts,
        threads: info.threads,
        memory: info.pages.saturating_mul(PAGE_SIZE as u64),
        last_end: info.last_end,
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

fn is_endpoint(info: &CapabilityInfo, right: Rights) -> bool {
    info.kind == ObjectKind::Endpoint as u8 && Rights::from_bits_truncate(info.rights).contains(right)
}

/// Processor time of everything in ticks. Without the kernel's own counters, what the present threads have used.
fn busy_ticks(system: &SystemInfo, servers: &[ServerInfo]) -> u64 {
    let of_processors = grant("trace").and_then(|slot| {
        let mut busy = 0u64;
        for cpu in 0..system.cpus {
            let status = Trace::new(slot).cpu(cpu).ok().flatten()?;
            let passed = status.tsc.saturating_sub(system.boot_tsc);
            busy = busy.saturating_add(passed.saturating_sub(status.idle));
        }
        Some(busy)
    });
    of_processors.unwrap_or_else(|| servers.iter().map(|server| server.cpu_ticks).fold(0, u64::saturating_add))
}

/// init.
pub struct Init;

impl Init {
    pub fn facts(self) -> Answer<HostFacts> {
        let system = client()?
            .system()
            .map_err(|error| failed("init does not tell what the machine is", &error))?;
        let features = Features::from_bits_truncate(system.features);
        let virtualization = if features.contains(Features::SVM) {
            "AMD-V"
        } else if features.contains(Features::VMX) {
            "VT-x"
        } else {
            ""
        };
        Ok(HostFacts {
            version: system.product.rsplit(' ').next().unwrap_or_default().into(),
            build: format!("kernel interface {}", system.abi_version),
            cpu_model: cpu_model(),
            sockets: 1,
            cores: system.cpus,
            threads: system.cpus,
            cpu_mhz: cpu_mhz(),
            virtualization: virtualization.into(),
            memory: system.ram_bytes,
            // Maker, model and serial number stand in tables of the firmware that nobody reads yet.
            ..HostFacts::default()
        })
    }

    /// What is used, as far as init knows, and the servers, for what others know of them.
    pub fn usage(self) -> Answer<(Usage, Vec<ServerInfo>)> {
        let mut client = client()?;
        let trouble = |error| failed("init does not tell what is used", &error);
        let (system, memory) = (client.system().map_err(trouble)?, client.memory().map_err(trouble)?);
        let servers = all_servers(&mut client)?;
        let of_server = |server: &ServerInfo| ServerUsage {
            name: server.name.clone(),
            cpu_us: microseconds(server.cpu_ticks),
            memory: server.pages.saturating_mul(PAGE_SIZE as u64),
            of_vm: server.vm.is_some(),
        };
        let usage = Usage {
            memory: memory.total.saturating_sub(memory.free).saturating_mul(PAGE_SIZE as u64),
            cpu_us: microseconds(busy_ticks(&system, &servers)),
            uptime_ms: time::from_ticks(time::now().saturating_sub(system.boot_tsc), 1000, time::hz()),
            servers: servers.iter().map(of_server).collect(),
            ..Usage::default()
        };
        Ok((usage, servers))
    }

    pub fn power(self, action: HostPower) -> Answer<()> {
        client()?
            .end_machine(action == HostPower::Reboot)
            .map_err(|error| failed("The host was not ended", &error))
    }

    pub fn servers(self) -> Answer<Vec<ServerFacts>> {
        Ok(all_servers(&mut client()?)?.into_iter().map(server_facts).collect())
    }

    /// Who calls whom, by the capabilities that they hold.
    pub fn endpoints(self) -> Answer<Vec<EndpointFacts>> {
        let mut client = client()?;
        let servers = all_servers(&mut client)?;
        let endpoints = collect(LIST, |first| client.endpoints(first)).map_err(|error| failed("The endpoints cannot be listed", &error))?;
        // A server that ends meanwhile calls nobody. init itself holds a copy of everything and calls nobody.
        let held: Vec<(&ServerInfo, Vec<CapabilityInfo>)> = servers
            .iter()
            .filter(|server| server.id != INIT)
            .map(|server| (server, all_capabilities(&mut client, server).unwrap_or_default()))
            .collect();
        let mut found = Vec::new();
        for (caller, capabilities) in &held {
            // What init did not grant, such as a connection to a machine's servers, has no name and is no arrangement of the system.
            let uses = capabilities
                .iter()
                .filter(|info| !info.name.is_empty() && is_endpoint(info, Rights::SEND));
            for used in uses {
                let serves = |info: &&CapabilityInfo| info.object == used.object && is_endpoint(info, Rights::RECEIVE);
                let provider = held
                    .iter()
                    .find_map(|(server, others)| others.iter().find(serves).map(|own| (*server, own)));
                let calls = match provider {
                    Some((server, own)) => {
                        let known = |name: &str| endpoints.iter().find(|info| info.provider == server.name && info.name == name);
                        known(&own.name).or_else(|| known(&used.name))
                    }
                    None => endpoints.iter().find(|info| info.name == INIT_ENDPOINT),
                };
                found.push(EndpointFacts {
                    interface: used.name.clone(),
                    from: caller.name.clone(),
                    to: provider.map_or_else(|| "init".to_string(), |(server, _)| server.name.clone()),
                    calls: calls.map_or(0, |info| info.calls),
                });
            }
        }
        Ok(found)
    }

    pub fn capabilities(self, name: &str) -> Answer<Vec<CapabilityFacts>> {
        let mut client = client()?;
        let servers = all_servers(&mut client)?;
        let Some(server) = servers.iter().find(|server| server.name == name) else {
            return Err(HostError::new(Failure::NotFound, format!("There is no server {name}")));
        };
        Ok(all_capabilities(&mut client, server)?.into_iter().map(capability).collect())
    }

    pub fn restart(self, name: &str) -> Answer<()> {
        client()?
            .restart(name)
            .map_err(|error| failed(&format!("{name} was not started again"), &error))
    }

    /// The newest lines. init knows when it received them by the TSC; `unix_ms` is now.
    pub fn log(self, source: &str, most: usize, unix_ms: u64) -> Answer<Vec<LogFacts>> {
        let mut client = client()?;
        let (mut lines, mut cursor) = (VecDeque::new(), 0);
        let present = time::now();
        for _ in 0..LOG_CHUNKS {
            let chunk = client.log(cursor).map_err(|error| failed("The log cannot be read", &error))?;
            if chunk.next == cursor {
                break;
            }
            cursor = chunk.next;
            for line in chunk.lines {
                // The first password is for whoever stands at the console.
                if most == 0 || (!source.is_empty() && line.server != source) || line.text.contains(FIRST_PASSWORD) {
                    continue;
                }
                if lines.len() >= most {
                    lines.pop_front();
                }
                let ago = time::from_ticks(present.saturating_sub(line.tsc), 1000, time::hz());
                lines.push_back(LogFacts {
                    unix_ms: unix_ms.saturating_sub(ago),
                    source: line.server,
                    level: level(line.level).into(),
                    message: line.text,
                });
            }
        }
        Ok(lines.into())
    }
}
