//! The files that the guest is started with: mapped from the image, or read by the storage server straight into the guest's RAM.

use super::devices::{Backend, PATIENCE_MS};
use super::storage::Disks;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use tessera_abi::object::Rights;
use tessera_manifest::GuestFile;
use tessera_proto::guest_disk::{BootFile, Client, MAX_READ};
use tessera_rt::{Connection, Endpoint, Frame, log, start, time, vm};
use tessera_vmm::boot::{File, Part, file::HEAD};
use tessera_vmm::memory::GuestMemory;

/// A file in a datastore.
pub struct Stored {
    endpoint: Endpoint,
    file: BootFile,
    length: u64,
    head: Vec<u8>,
}

impl Stored {
    fn open(file: BootFile, place: &str) -> Result<Self, String> {
        let grant = start::find(Disks::SERVER)
            .ok_or("the machine has files in datastores, but its monitor no way to them: grant it `storage = { use = \"storage\" }`")?;
        let endpoint = Endpoint::new(grant.slot);
        let patient = Connection::with_timeout(endpoint, time::milliseconds(PATIENCE_MS));
        let failed = |error| format!("{place} cannot be read: {error}");
        let length = Client(patient).file(file).map_err(failed)?;
        let mut stored = Self {
            endpoint,
            file,
            length,
            head: Vec::new(),
        };
        // Only a kernel is looked into.
        while file == BootFile::Kernel && (stored.head.len() as u64) < length.min(HEAD as u64) {
            let offset = stored.head.len() as u64;
            let part = stored.client().read_file(file, offset, MAX_READ as u32).map_err(failed)?;
            if part.data.is_empty() {
                return Err(format!("{place} ends before its length"));
            }
            stored.head.extend_from_slice(&part.data);
        }
        Ok(stored)
    }

    /// The storage server, for this machine's files.
    pub fn client(&self) -> Client<Connection> {
        Client(Connection::new(self.endpoint))
    }
}

impl File for Stored {
    fn length(&self) -> u64 {
        self.length
    }

    fn head(&self) -> &[u8] {
        &self.head
    }

    fn load(&self, memory: &GuestMemory, address: u64, part: Part) -> Option<()> {
        if !memory.contains(address, part.length) {
            return None;
        }
        let loaded = self.client().load_file(self.file, part.offset, part.length, address);
        loaded.inspect_err(|error| log::error!("{:?}: {error}", self.file)).ok()
    }
}

/// Opens a file in a datastore.
pub fn stored(which: BootFile, store: &str, path: &str) -> Result<Stored, String> {
    Stored::open(which, &format!("{path} in datastore {store}"))
}

/// Opens a file of the machine's description; none is an empty one.
pub fn open(file: Option<&GuestFile>, which: BootFile) -> Result<Box<dyn File + Send>, String> {
    match (file, which) {
        (None, _) => Ok(Box::new(&[][..])),
        (Some(GuestFile::Image(_)), BootFile::Kernel) => Ok(Box::new(mapped("kernel")?)),
        (Some(GuestFile::Image(_)), BootFile::Initramfs) => Ok(Box::new(mapped("initramfs")?)),
        (Some(GuestFile::Image(_)), BootFile::Cdrom) => Ok(Box::new(mapped("cdrom")?)),
        (Some(GuestFile::Image(_)), BootFile::State) => Err("a machine's state is in a datastore".into()),
        (Some(GuestFile::Image(_)), BootFile::Variables) => Err("variables cannot be kept in the image".into()),
        (Some(GuestFile::Store { store, path }), _) => Ok(Box::new(stored(which, store, path)?)),
    }
}

/// A file from the image, mapped read-only; empty if it was not granted.
pub fn mapped(name: &str) -> Result<&'static [u8], String> {
    let Some(grant) = start::find(name) else { return Ok(&[]) };
    let here = vm::map(Frame::new(grant.slot), Rights::READ, 0)
        .map_err(|error| format!("a file of the image cannot be mapped: {}", error.text()))?;
    let length = usize::try_from(grant.length).unwrap_or(usize::MAX).min(here.length);
    // SAFETY: mapped read-only for the life of the process; the image never changes.
    Ok(unsafe { core::slice::from_raw_parts(here.as_ptr(), length) })
}
