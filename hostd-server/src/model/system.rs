//! Tasks, events, counters, servers, logs, inventory.
use alloc::{string::String, vec::Vec};

model! {
    /// What became of a task.
    #[derive(Copy, Eq)]
    pub enum TaskState {
        /// Waits.
        Queued,
        /// Runs.
        Running,
        /// Done.
        Success,
        /// Went wrong.
        Error,
        /// Was cancelled.
        Cancelled,
    }

    /// Why something failed.
    pub struct Fault {
        /// What happened.
        pub message: String,
    }

    /// Long work.
    pub struct Task {
        /// Identifier.
        pub id: String,
        /// What it does, such as `vm.start`.
        pub name: String,
        /// To which object.
        pub target: Option<String>,
        /// That object's name.
        pub target_name: Option<String>,
        /// Who asked for it.
        pub user: String,
        /// State.
        pub state: TaskState,
        /// Per cent.
        pub progress: Option<u32>,
        /// It can be cancelled.
        pub cancelable: bool,
        /// When it was asked for.
        pub queued: String,
        /// When it began.
        pub started: Option<String>,
        /// When it ended.
        pub completed: Option<String>,
        /// Why it failed.
        pub error: Option<Fault>,
        /// What it made.
        pub result: Option<String>,
    }

    /// How bad.
    #[derive(Copy, Eq)]
    pub enum Severity {
        /// For information.
        Info,
        /// Look at it.
        Warning,
        /// Something failed.
        Error,
    }

    /// Something that happened.
    pub struct Event {
        /// Identifier.
        pub id: String,
        /// When.
        pub time: String,
        /// How bad.
        pub severity: Severity,
        /// Kind, such as `vm.started`.
        pub kind: String,
        /// A sentence.
        pub message: String,
        /// Who did it.
        pub user: Option<String>,
        /// To which object.
        pub target: Option<String>,
    }

    /// A value at a time.
    pub struct Sample {
        /// Seconds since 1970.
        pub time: u64,
        /// Value.
        pub value: f64,
    }

    /// Values of a counter over time.
    pub struct CounterSeries {
        /// Whose.
        pub entity: String,
        /// Counter, such as `cpu.usage`.
        pub counter: String,
        /// Unit.
        pub unit: String,
        /// Seconds between two samples.
        pub interval: u64,
        /// Samples, oldest first.
        pub samples: Vec<Sample>,
    }

    /// A server in the picture.
    pub struct ServerNode {
        /// Name.
        pub name: String,
        /// `kernel`, `server` or `vm`.
        pub kind: String,
        /// State.
        pub state: String,
        /// Memory.
        pub memory: u64,
        /// Processor in per cent of one.
        pub cpu_percent: f64,
        /// Threads.
        pub threads: u32,
        /// How often it was started again.
        pub restarts: u32,
        /// Why it last ended.
        pub last_end: String,
    }

    /// Who calls whom.
    pub struct ServerEdge {
        /// Caller.
        pub from: String,
        /// Callee.
        pub to: String,
        /// Interface.
        pub interface: String,
        /// Calls a second.
        pub messages_per_second: f64,
    }

    /// Servers and messages.
    pub struct ServerGraph {
        /// Servers.
        pub servers: Vec<ServerNode>,
        /// Messages.
        pub edges: Vec<ServerEdge>,
    }

    /// A capability of a server.
    pub struct Capability {
        /// Name it was granted under.
        pub name: String,
        /// Kind of object.
        pub kind: String,
        /// Rights.
        pub rights: String,
        /// Object.
        pub object: u64,
        /// Size.
        pub size: u64,
    }

    /// A line of the log.
    pub struct LogLine {
        /// When.
        pub time: String,
        /// Server.
        pub source: String,
        /// Level.
        pub level: String,
        /// Text.
        pub message: String,
    }

    /// A licence of something in the image.
    pub struct Licence {
        /// What.
        pub component: String,
        /// Version.
        pub version: String,
        /// Licence.
        pub licence: String,
    }

    /// When a service runs.
    #[derive(Copy, Eq)]
    pub enum ServicePolicy {
        /// With the host.
        On,
        /// Only when started by hand.
        Off,
        /// When it is needed.
        Automatic,
    }

    /// A service.
    pub struct Service {
        /// Identifier.
        pub id: String,
        /// Name.
        pub name: String,
        /// What it does.
        pub description: String,
        /// It runs.
        pub running: bool,
        /// When it runs.
        pub policy: ServicePolicy,
        /// It cannot be stopped.
        pub required: bool,
    }

    /// A change of a service.
    pub struct ServicePatch {
        /// When it runs.
        pub policy: ServicePolicy,
    }

    /// An object of the inventory.
    pub struct InventoryObject {
        /// Identifier.
        pub id: String,
        /// `folder`, `datacenter`, `computeResource`, `resourcePool`, `host`, `virtualMachine`, `datastore` or `network`.
        pub kind: String,
        /// Name.
        pub name: String,
        /// Where it is.
        pub parent: Option<String>,
    }

    /// A change somewhere.
    pub struct Change {
        /// Number; they grow by one.
        pub sequence: u64,
        /// Kind of object: `host`, `vm`, `snapshot`, `datastore`, `network`, `task`, `event`, `user`.
        pub kind: String,
        /// Object.
        pub id: String,
        /// `created`, `updated` or `removed`.
        pub change: String,
    }

    /// A configuration to restore: what `GET /host/backup` gave.
    pub struct Backup {
        /// Version of the format: 1.
        pub format: super::text::Ranged<1, 1>,
        /// Keys and values of the state.
        pub state: Vec<BackupEntry>,
    }

    /// An entry of a backup.
    pub struct BackupEntry {
        /// Key.
        pub key: String,
        /// Value, JSON.
        pub value: String,
    }

    /// What the API is, for those who are not logged in yet.
    pub struct About {
        /// Product.
        pub product: String,
        /// Version.
        pub version: String,
        /// Version of the API.
        pub api: String,
    }

    /// An error.
    pub struct Problem {
        /// What kind, for programs.
        pub code: String,
        /// What happened to what.
        pub message: String,
        /// What to do.
        pub hint: String,
    }
}

/// One page of a list.
#[derive(Clone, Debug, serde::Serialize)]
#[cfg_attr(feature = "description", derive(schemars::JsonSchema))]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one begins (`cursor`); null: this is the last.
    pub next: Option<String>,
}
