//! The host.
use super::text::{Few, HostName, Notes, Pem};
use alloc::{string::String, vec::Vec};

model! {
    /// How well something is.
    #[derive(Copy, Eq)]
    pub enum Health {
        /// Well.
        Green,
        /// Look at it.
        Yellow,
        /// Act now.
        Red,
        /// Unknown.
        Gray,
    }

    /// The product.
    pub struct Product {
        /// Name.
        pub name: String,
        /// Version.
        pub version: String,
        /// What tells this build from others.
        pub build: String,
    }

    /// What the machine is made of.
    pub struct Hardware {
        /// Maker.
        pub vendor: String,
        /// Model.
        pub model: String,
        /// Serial number.
        pub serial: String,
        /// Model of the processors.
        pub cpu_model: String,
        /// Sockets.
        pub sockets: u32,
        /// Cores.
        pub cores: u32,
        /// Threads.
        pub threads: u32,
        /// Clock rate.
        pub cpu_mhz: u32,
        /// `VT-x` or `AMD-V`.
        pub virtualization: String,
        /// Memory.
        pub memory: u64,
    }

    /// What is used now.
    pub struct HostUsage {
        /// Processors in use.
        pub cpu_mhz: f64,
        /// Processors in all.
        pub cpu_capacity_mhz: u64,
        /// Memory in use.
        pub memory: u64,
        /// Memory in all.
        pub memory_capacity: u64,
        /// Storage in use.
        pub storage: u64,
        /// Storage in all.
        pub storage_capacity: u64,
    }

    /// The host.
    pub struct Host {
        /// Identifier.
        pub id: String,
        /// Its name on the network.
        pub name: String,
        /// Product.
        pub product: Product,
        /// Hardware.
        pub hardware: Hardware,
        /// Usage.
        pub usage: HostUsage,
        /// Seconds since power-on.
        pub uptime_seconds: u64,
        /// The host's clock.
        pub time: String,
        /// Health.
        pub health: Health,
        /// It takes no new work.
        pub maintenance_mode: bool,
        /// Only accounts that are excepted are let in.
        pub lockdown_mode: bool,
        /// Whether inventory and settings outlive a restart.
        pub state_persistent: bool,
        /// Addresses at which it is managed.
        pub management_addresses: Vec<String>,
    }

    /// A sensor.
    pub struct Sensor {
        /// Name.
        pub name: String,
        /// What it reads.
        pub reading: String,
        /// Health.
        pub health: Health,
    }

    /// A PCI function of the host, which is no bridge, and whether a machine can have it for itself.
    pub struct PciDevice {
        /// Its address.
        pub address: String,
        /// Vendor, four hexadecimal digits.
        pub vendor_id: String,
        /// Device, likewise.
        pub device_id: String,
        /// Base class, sub-class and programming interface, two digits each.
        pub class_id: String,
        /// What it is, for people.
        pub name: String,
        /// An IOMMU confines it to the memory of whoever has it.
        pub confined: bool,
        /// It can raise no interrupts but its own.
        pub interrupts_confined: bool,
        /// The server of the host that drives it now; it is started again without it when a machine that is to have it starts.
        pub server: Option<String>,
        /// The running machine that has it.
        pub vm: Option<String>,
        /// Machines that are made up with it.
        pub configured: Vec<String>,
        /// Other functions of its device: a machine has to have them too.
        pub together: Vec<String>,
        /// Why no machine can have it now; null: one can.
        pub problem: Option<String>,
    }

    /// Something that is switched on or off.
    pub struct Switched {
        /// On.
        pub enabled: bool,
    }

    /// Lockdown.
    pub struct Lockdown {
        /// On.
        pub enabled: bool,
        /// Accounts that are let in nevertheless. Left out: as before.
        pub exceptions: Option<Few<super::text::UserName, 16>>,
    }

    /// Time.
    pub struct TimeConfig {
        /// NTP servers.
        pub servers: Vec<String>,
        /// The clock follows them.
        pub enabled: bool,
        /// The host's clock.
        pub now: String,
        /// Whether a server was heard and the clock follows.
        pub synchronized: bool,
        /// How far the clock was off at the last answer.
        pub offset_seconds: Option<f64>,
        /// The server that answered last.
        pub server: Option<String>,
        /// How fast the clock runs, in parts per million.
        pub drift_ppm: Option<f64>,
        /// Always `UTC`.
        pub timezone: String,
    }

    /// Time servers to use.
    pub struct TimeSettings {
        /// NTP servers.
        pub servers: Few<HostName, 8>,
        /// Follow them.
        pub enabled: bool,
    }

    /// Name resolution.
    pub struct DnsConfig {
        /// The host's name.
        pub host_name: HostName,
        /// Its domain.
        #[serde(default)]
        pub domain: Notes,
        /// DNS servers, as addresses.
        pub servers: Few<HostName, 8>,
        /// Domains that are tried for short names.
        #[serde(default)]
        pub search_domains: Few<HostName, 8>,
        /// Servers and domains come by DHCP.
        #[serde(default)]
        pub dhcp: bool,
    }

    /// A name to resolve.
    pub struct ResolveRequest {
        /// Name.
        pub name: HostName,
    }

    /// What a name stands for.
    pub struct Resolved {
        /// Addresses.
        pub addresses: Vec<String>,
    }

    /// The host's certificate.
    pub struct Certificate {
        /// Subject.
        pub subject: String,
        /// Issuer.
        pub issuer: String,
        /// Valid from.
        pub not_before: String,
        /// Valid until.
        pub not_after: String,
        /// SHA-256 in hexadecimal digits.
        pub fingerprint: String,
        /// It vouches for itself.
        pub self_signed: bool,
    }

    /// A certificate to use from now on.
    pub struct CertificateRequest {
        /// Chain, PEM, the host's own first.
        pub certificate: Pem,
        /// Private key, PEM.
        pub key: Pem,
    }
}
impl Default for Notes {
    fn default() -> Self {
        Self::parse("").unwrap_or_else(|_| unreachable!("an empty text keeps the rule"))
    }
}
impl<T, const MOST: usize> Default for Few<T, MOST> {
    fn default() -> Self {
        Self(Vec::new())
    }
}
