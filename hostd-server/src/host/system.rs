//! The machine itself: what it is, its servers, devices, clock and certificate.

use alloc::{string::String, vec::Vec};

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct HostFacts {
    /// Product's version.
    pub version: String,
    /// What tells this build from others.
    pub build: String,
    /// Maker of the machine.
    pub vendor: String,
    /// Its model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Model of the processors.
    pub cpu_model: String,
    /// Sockets.
    pub sockets: u32,
    /// Cores.
    pub cores: u32,
    /// Processors as the kernel counts them.
    pub threads: u32,
    /// Clock rate in MHz.
    pub cpu_mhz: u32,
    /// `VT-x` or `AMD-V`.
    pub virtualization: String,
    /// Memory.
    pub memory: u64,
    /// Name and state (`green`, `yellow`, `red`, `gray`) of each sensor.
    pub sensors: Vec<(String, String, String)>,
}

/// What is used now. Ticks and counts only grow; rates are made of differences.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Memory in use.
    pub memory: u64,
    /// Processor time used by everything, in microseconds, all processors together.
    pub cpu_us: u64,
    /// Milliseconds since power-on.
    pub uptime_ms: u64,
    /// Of each server.
    pub servers: Vec<ServerUsage>,
    /// Of each running machine.
    pub vms: Vec<VmUsage>,
    /// Bytes read and written by all disks.
    pub disk: (u64, u64),
    /// Bytes received and sent by all network cards.
    pub network: (u64, u64),
}

/// What a server uses.
#[derive(Clone, Debug, Default)]
pub struct ServerUsage {
    /// Name.
    pub name: String,
    /// Processor time in microseconds.
    pub cpu_us: u64,
    /// Memory.
    pub memory: u64,
    /// It is part of a machine, whose own counters tell more.
    pub of_vm: bool,
}

/// What a machine uses.
#[derive(Clone, Debug, Default)]
pub struct VmUsage {
    /// Name.
    pub name: String,
    /// Processor time in microseconds, guest and exits.
    pub cpu_us: u64,
    /// Memory that the guest touched.
    pub memory: u64,
    /// Bytes read and written.
    pub disk: (u64, u64),
    /// Bytes received and sent.
    pub network: (u64, u64),
    /// Exits.
    pub exits: u64,
    /// Milliseconds since its start.
    pub uptime_ms: u64,
}

/// A server's state.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    /// Name.
    pub name: String,
    /// `starting`, `running`, `waiting` or `ended`.
    pub state: String,
    /// The machine that it belongs to.
    pub vm: Option<String>,
    /// How often it was started again.
    pub restarts: u32,
    /// Threads.
    pub threads: u32,
    /// Memory.
    pub memory: u64,
    /// Why it last ended; empty if it never did.
    pub last_end: String,
}

/// A named endpoint between servers: who may call whom.
#[derive(Clone, Debug, Default)]
pub struct EndpointFacts {
    /// Its interface.
    pub interface: String,
    /// Who calls.
    pub from: String,
    /// Who serves.
    pub to: String,
    /// Calls since the start.
    pub calls: u64,
}

/// A capability of a server.
#[derive(Clone, Debug, Default)]
pub struct CapabilityFacts {
    /// Name under which it was granted; empty: the server made it.
    pub name: String,
    /// Kind of object.
    pub kind: String,
    /// Rights, as letters.
    pub rights: String,
    /// Number of the object: equal for capabilities to the same object.
    pub object: u64,
    /// Size in the object's unit: pages, ports, slots.
    pub size: u64,
}

/// A line of the log.
#[derive(Clone, Debug, Default)]
pub struct LogFacts {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Server.
    pub source: String,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// Text.
    pub message: String,
}

/// A PCI function of the host, which is no bridge.
#[derive(Clone, Debug, Default)]
pub struct FunctionFacts {
    /// Address, such as `0000:03:00.0`.
    pub address: String,
    /// Vendor and device.
    pub identity: (u16, u16),
    /// Base class, sub-class, programming interface.
    pub class: (u8, u8, u8),
    /// An IOMMU confines it to the memory of whoever has it.
    pub confined: bool,
    /// It can raise no interrupts but its own.
    pub remapped: bool,
    /// The server that drives it; empty: none.
    pub server: String,
    /// The running machine that has it; empty: none.
    pub machine: String,
    /// No server gets it any more.
    pub kept: bool,
    /// Other functions of its device.
    pub together: Vec<String>,
    /// Why no machine can have it; empty: one can.
    pub problem: String,
    /// What the host uses it for, which it does not give up; empty: nothing.
    pub used: String,
}

/// What to do to the host's power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPower {
    /// Start again.
    Reboot,
    /// Switch off.
    Shutdown,
}

/// Time servers and what they say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TimeFacts {
    /// The clock follows the servers.
    pub synchronized: bool,
    /// How far the clock was off at the last answer, in microseconds.
    pub offset_us: Option<i64>,
    /// The server that was heard last.
    pub server: Option<String>,
    /// How fast the clock runs, in parts per billion.
    pub drift_ppb: Option<i64>,
}

/// The host's certificate.
#[derive(Clone, Debug, Default)]
pub struct CertificateFacts {
    /// Subject.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// Milliseconds since 1970.
    pub not_before_ms: u64,
    /// Milliseconds since 1970.
    pub not_after_ms: u64,
    /// SHA-256 of the certificate, in hexadecimal digits.
    pub fingerprint: String,
    /// It vouches for itself.
    pub self_signed: bool,
}
