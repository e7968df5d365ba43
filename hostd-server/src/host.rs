//! What hostd asks of the rest of the host. The host implements it with messages to other servers, tests and the developer's machine with a simulation.
//!
//! Things are named as the servers name them; object identifiers such as `vm-12` are hostd's alone. Sizes are bytes.

mod machine;
mod network;
mod store;
mod system;

pub use crate::model::{DiskController, NicModel};
use crate::{future::LocalFuture, http::BodySource};
use alloc::{boxed::Box, string::String, vec::Vec};
pub use machine::*;
pub use network::*;
pub use store::*;
pub use system::*;
pub use tessera_vswitch::{Mirror, Security, Shaping, Teaming};

/// Why something could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no such thing.
    NotFound,
    /// There is one already.
    Exists,
    /// It is in use, or in a state that forbids it.
    Busy,
    /// No room, or no memory.
    NoSpace,
    /// It cannot be as it was asked for.
    Invalid,
    /// This host cannot do that.
    Unsupported,
    /// The server that does it does not answer now.
    Unavailable,
    /// It was tried and went wrong.
    Failed,
}

/// A failure and what to tell about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostError {
    /// Kind.
    pub failure: Failure,
    /// What happened to what, a sentence.
    pub message: String,
}

impl HostError {
    /// A failure with its sentence.
    pub fn new(failure: Failure, message: impl Into<String>) -> Self {
        Self {
            failure,
            message: message.into(),
        }
    }
}

/// What a host answers, when it does.
pub type Reply<'a, T> = LocalFuture<'a, Result<T, HostError>>;

/// How the line begins that shows the first password on the host's console, and nowhere else.
pub const FIRST_PASSWORD: &str = "Log in as root with the password ";

/// Everything that hostd asks of the host.
pub trait Host {
    /// The machine.
    fn facts(&self) -> Reply<'_, HostFacts>;
    /// What is used now.
    fn usage(&self) -> Reply<'_, Usage>;
    /// Switches the host off, or starts it again.
    fn host_power(&self, action: HostPower) -> Reply<'_, ()>;

    /// Servers.
    fn servers(&self) -> Reply<'_, Vec<ServerFacts>>;
    /// Who calls whom.
    fn endpoints(&self) -> Reply<'_, Vec<EndpointFacts>>;
    /// A server's capabilities.
    fn capabilities<'a>(&'a self, server: &'a str) -> Reply<'a, Vec<CapabilityFacts>>;
    /// Starts a server again.
    fn restart_server<'a>(&'a self, server: &'a str) -> Reply<'a, ()>;
    /// The newest lines of the log, oldest first, of one server or (empty) of all.
    fn log<'a>(&'a self, source: &'a str, most: usize) -> Reply<'a, Vec<LogFacts>>;
    /// What the image is made of: component, version, licence.
    fn licences(&self) -> Reply<'_, Vec<(String, String, String)>>;

    /// PCI functions but for bridges.
    fn functions(&self) -> Reply<'_, Vec<FunctionFacts>>;

    /// Machines that the host knows.
    fn vms(&self) -> Reply<'_, Vec<VmFacts>>;
    /// How a machine that the host knows is made up.
    fn vm_spec<'a>(&'a self, name: &'a str) -> Reply<'a, VmSpec>;
    /// Makes a machine known, or makes a stopped one up anew. It is stopped.
    fn define_vm<'a>(&'a self, old_name: Option<&'a str>, spec: &'a VmSpec) -> Reply<'a, ()>;
    /// Puts something into the drive of a machine with firmware, or takes out what is there, also while it runs.
    fn change_medium<'a>(&'a self, name: &'a str, medium: Option<DiskSpec>) -> Reply<'a, ()>;
    /// Forgets a stopped machine.
    fn forget_vm<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Starts, stops, …
    fn vm_power<'a>(&'a self, name: &'a str, action: VmPower) -> Reply<'a, ()>;
    /// Its serial console.
    fn vm_console<'a>(&'a self, name: &'a str) -> Reply<'a, Box<dyn Console>>;
    /// Its screen: bytes of RFB both ways, or those of a picture.
    fn vm_screen<'a>(&'a self, name: &'a str, view: ScreenView) -> Reply<'a, Box<dyn Console>>;
    /// Presses keys together (make codes of scan code set 1, a prefix E0 as upper byte), then types a text, at its keyboard.
    fn vm_type<'a>(&'a self, name: &'a str, keys: &'a [u16], text: &'a str) -> Reply<'a, ()>;
    /// Has the guest's agent bring its file systems to rest, so that their disks are as after an unmount, or let them go on.
    fn vm_freeze<'a>(&'a self, name: &'a str, frozen: bool) -> Reply<'a, ()>;
    /// Writes a running machine's memory and devices' state into a file. It is suspended afterwards; then [`Host::restore_vm`] has it go on.
    fn save_vm<'a>(&'a self, name: &'a str, store: &'a str, path: &'a str) -> Reply<'a, ()>;
    /// Makes a stopped machine go on from such a file.
    fn restore_vm<'a>(&'a self, name: &'a str, store: &'a str, path: &'a str) -> Reply<'a, ()>;

    /// Disk drives.
    fn devices(&self) -> Reply<'_, Vec<DeviceFacts>>;
    /// Datastores.
    fn stores(&self) -> Reply<'_, Vec<StoreFacts>>;
    /// Makes a datastore on a drive. What is on it is lost.
    fn create_store<'a>(&'a self, device: &'a str, name: &'a str) -> Reply<'a, ()>;
    /// Has a datastore use all of its drive.
    fn grow_store<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Removes a datastore and all that is in it.
    fn remove_store<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// What is in a folder, by name.
    fn browse<'a>(&'a self, store: &'a str, folder: &'a str) -> Reply<'a, Vec<EntryFacts>>;
    /// What is known of an entry.
    fn stat<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, EntryFacts>;
    /// Makes a folder.
    fn create_folder<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, ()>;
    /// Gives an entry another name or folder.
    fn rename<'a>(&'a self, store: &'a str, from: &'a str, to: &'a str) -> Reply<'a, ()>;
    /// Removes a file, an empty folder, or a disk with its snapshots.
    fn remove<'a>(&'a self, store: &'a str, path: &'a str) -> Reply<'a, ()>;
    /// Reads a file, or the contents of a disk, from `offset` on; `length` bytes or to the end.
    fn read_file<'a>(&'a self, store: &'a str, path: &'a str, offset: u64, length: Option<u64>) -> Reply<'a, Box<dyn BodySource>>;
    /// Writes a file from `offset` on, which is not past its end; it is made if `offset` is 0, and then what was there is replaced.
    fn write_file<'a>(&'a self, store: &'a str, path: &'a str, offset: u64) -> Reply<'a, Box<dyn FileSink>>;
    /// Makes a virtual disk.
    fn create_disk<'a>(&'a self, store: &'a str, path: &'a str, size: u64, thick: bool) -> Reply<'a, ()>;
    /// Makes a disk larger.
    fn grow_disk<'a>(&'a self, store: &'a str, path: &'a str, size: u64) -> Reply<'a, ()>;
    /// Takes a snapshot of a disk.
    fn snapshot_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()>;
    /// Removes a snapshot.
    fn remove_snapshot<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()>;
    /// Makes a disk what it was.
    fn revert_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str) -> Reply<'a, ()>;
    /// Makes a disk that goes on from a snapshot.
    fn clone_disk<'a>(&'a self, store: &'a str, path: &'a str, snapshot: &'a str, to: &'a str) -> Reply<'a, ()>;

    /// Network cards.
    fn nics(&self) -> Reply<'_, Vec<NicFacts>>;
    /// Virtual switches.
    fn switches(&self) -> Reply<'_, Vec<SwitchSpec>>;
    /// Makes a switch, or changes the one of that name.
    fn set_switch<'a>(&'a self, name: &'a str, spec: &'a SwitchSpec) -> Reply<'a, ()>;
    /// Removes a switch without port groups.
    fn remove_switch<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Port groups.
    fn port_groups(&self) -> Reply<'_, Vec<PortGroupSpec>>;
    /// Makes a port group, or changes the one of that name.
    fn set_port_group<'a>(&'a self, name: &'a str, spec: &'a PortGroupSpec) -> Reply<'a, ()>;
    /// Removes a port group that nothing is connected to.
    fn remove_port_group<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Ports of all switches.
    fn ports(&self) -> Reply<'_, Vec<PortFacts>>;
    /// Recordings of ports.
    fn captures(&self) -> Reply<'_, Vec<CaptureFacts>>;
    /// Begins one of a port that keeps up to `snap` bytes of each frame; its number.
    fn start_capture<'a>(&'a self, port: &'a str, snap: u32) -> Reply<'a, u32>;
    /// What there is of its file (pcapng) from byte `from` on, all or a part. What lies before is forgotten.
    fn read_capture(&self, id: u32, from: u64) -> Reply<'_, Vec<u8>>;
    /// Ends one; its file can still be read.
    fn stop_capture(&self, id: u32) -> Reply<'_, ()>;
    /// Forgets one.
    fn remove_capture(&self, id: u32) -> Reply<'_, ()>;
    /// The host's own interfaces.
    fn interfaces(&self) -> Reply<'_, Vec<InterfaceSpec>>;
    /// Changes an interface of the host a moment later, so that the answer gets to whoever asked; connections may end. If nobody who may log in is heard within a minute then,
    /// it becomes what it was. Of `ipv6`, those with a slash are set by hand.
    fn set_interface<'a>(&'a self, spec: &'a InterfaceSpec) -> Reply<'a, ()>;
    /// Somebody who is logged in was heard: the host can be reached as it is.
    fn reached(&self) {}
    /// Sets name and resolver.
    fn set_dns<'a>(&'a self, spec: &'a DnsSpec) -> Reply<'a, ()>;
    /// Addresses of a name.
    fn resolve<'a>(&'a self, name: &'a str) -> Reply<'a, Vec<String>>;
    /// Sets the time servers; none: the clock runs free.
    fn set_time_servers<'a>(&'a self, servers: &'a [String]) -> Reply<'a, ()>;
    /// What the time servers say.
    fn time(&self) -> Reply<'_, TimeFacts>;
    /// The certificate.
    fn certificate(&self) -> Reply<'_, CertificateFacts>;
    /// Replaces certificate chain and key, both PEM.
    fn set_certificate<'a>(&'a self, chain: &'a str, key: &'a str) -> Reply<'a, ()>;
    /// Makes a new certificate of the host's own with this host name and the present addresses.
    fn renew_certificate<'a>(&'a self, name: &'a str) -> Reply<'a, ()>;
    /// Writes to the host's own console.
    fn announce(&self, line: &str);
}
