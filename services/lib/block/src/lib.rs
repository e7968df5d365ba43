//! The contract between what holds bytes (a disk behind a driver, a partition, an image file, memory) and what gives them meaning (a datastore).
//!
//! Everything is asynchronous and single-threaded: a request may wait for hardware, and others go on meanwhile. No `Send` is asked for, so
//! implementations use `Cell` and `RefCell` freely, as long as they hold no borrow across an `await`.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod device;
mod error;
mod executor;
mod geometry;
mod memory;
mod partition;

pub use device::BlockDevice;
pub use error::IoError;
pub use executor::block_on;
pub use geometry::Geometry;
pub use memory::{Counts, MemoryDevice};
pub use partition::Partition;
