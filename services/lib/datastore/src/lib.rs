//! Datastores: virtual disks, snapshots, files and folders on a device or a partition of it, safe against power cuts.
//!
//! The format is our own and stands in `docs/datastore.md`. In short: everything but the data of disks is copied on write, and a superblock that is written last says where the newest
//! copy begins. Each file, disk and snapshot has a tree that leads from its blocks to the device's. A pointer knows in which generation its block was written, so a snapshot
//! is a copy of one pointer: what was born before it is shared. Between commits, an intent log of a few blocks makes flushes durable.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bytes;
mod cache;
mod changes;
mod check;
mod commit;
mod data;
mod error;
pub mod gpt;
mod layout;
mod log;
mod memory;
mod names;
mod pointer;
mod quiet;
mod reclaim;
mod record;
mod request;
mod resize;
mod snapshots;
mod space;
mod state;
mod store;
mod superblock;
mod sync;
mod tickets;
mod walk;

pub use changes::Changes;
pub use check::{CheckOptions, Problem, Report, check, repair};
pub use error::Error;
pub use layout::BLOCK;
pub use memory::Memory;
pub use names::{DiskOptions, Info, Usage};
pub use record::Kind;
pub use request::{Extent, MAX_REQUEST, Ticket, Translated};
pub use store::{FormatOptions, MountOptions, Store};
