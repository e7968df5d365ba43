//! What a driver offers: a controller with its disks.

use alloc::{string::String, vec::Vec};
use tessera_block::{Geometry, IoError};
pub use tessera_device::Segment;
use tessera_proto::storage::{DiskHealth, DiskState};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Device to memory.
    Read,
    /// Memory to device.
    Write,
    /// What was written before is safe afterwards.
    Flush,
    /// Content is no longer needed.
    Discard,
    /// Reads as zeros afterwards.
    WriteZeroes,
}

/// A request to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What to do.
    pub operation: Operation,
    /// First sector; 0 for a flush.
    pub sector: u64,
    /// Sectors; 0 for a flush.
    pub sectors: u64,
    /// Memory of a read or write, together `sectors` long; else empty.
    pub segments: &'a [Segment],
}

impl Request<'_> {
    /// A flush.
    pub const FLUSH: Request<'static> = Request {
        operation: Operation::Flush,
        sector: 0,
        sectors: 0,
        segments: &[],
    };

    /// Bytes of its memory.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> u64 {
        if let [one] = self.segments {
            return one.length.into();
        }
        self.segments.iter().map(|segment| u64::from(segment.length)).sum()
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// All queues are full: offer it again when something has completed.
    Full,
    /// It can never be done.
    Error(IoError),
}

impl From<IoError> for Refused {
    fn from(error: IoError) -> Self {
        Self::Error(error)
    }
}

/// A disk of a controller, as it is at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Name: the driver's prefix with the controller's number, and what tells it from others of the controller.
    pub name: String,
    /// Model.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// Revision of its firmware.
    pub firmware: String,
    /// Sizes and abilities.
    pub geometry: Geometry,
    /// Queues.
    pub queues: u16,
    /// State.
    pub state: DiskState,
    /// Condition.
    pub health: DiskHealth,
    /// Resets since the driver started it.
    pub resets: u64,
}

/// Where a driver says which requests have completed.
pub type Done<'a> = dyn FnMut(u32, Result<(), IoError>) + 'a;

/// A controller under its driver. None of this waits.
pub trait Controller {
    /// The driver's name.
    fn driver(&self) -> &'static str;

    /// Disk number `unit`, from 0 on; `None` past the last. Disks do not change their numbers; one that was taken away stays, as [`DiskState::Gone`].
    fn unit(&self, unit: u32) -> Option<Unit>;

    /// What happened to a disk since this was last asked, beside changes of its state: warnings of the device and errors that it noted itself.
    fn events(&mut self, _unit: u32) -> Vec<String> {
        Vec::new()
    }

    /// Whether a request can be one command: its length, and how its memory lies.
    fn fits(&self, unit: u32, request: &Request<'_>) -> bool;

    /// Whether a disk takes [`Operation::WriteZeroes`]; if not, zeros are written.
    fn zeroes(&self, unit: u32) -> bool;

    /// Prepares a request that [`Self::fits`]; it is started by [`Self::commit`] at the latest. Its number comes back from [`Self::poll`], once, whatever happens; the device touches its memory until then.
    ///
    /// # Errors
    /// See [`Refused`]; the number does not come back then.
    fn submit(&mut self, unit: u32, request: &Request<'_>, tag: u32, now: u64) -> Result<(), Refused>;

    /// Starts what was prepared.
    fn commit(&mut self) {}

    /// Looks for what has completed, after [`Self::commit`]. Called at each interrupt, and now and then without one.
    fn poll(&mut self, done: &mut Done<'_>);

    /// Looks after what takes too long, goes on with a reset, notices that the device is gone, asks for its condition. Called every [`WATCH_MS`] milliseconds.
    fn watch(&mut self, now: u64, done: &mut Done<'_>);

    /// Whether it raises interrupts; if not, it is polled while it has something to do.
    fn has_interrupts(&self) -> bool;

    /// From now on requests may complete without an interrupt, for [`Self::poll`] is called often; or no longer.
    fn set_quiet(&mut self, _quiet: bool) {}

    /// Whether requests are in flight that will not interrupt.
    fn works_quietly(&self) -> bool {
        false
    }
}

/// Milliseconds between two calls of [`Controller::watch`].
pub const WATCH_MS: u64 = 250;
/// Milliseconds that a command may take.
pub const COMMAND_MS: u64 = 15_000;
