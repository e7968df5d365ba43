//! The device side of split virtqueues (virtio 1.2, 2.7) over memory that the guest changes while it is read.
//!
//! Everything that stands in guest memory is hostile. Each field is read once, in one access, and checked before it is used; what was read is not read again. Work is bounded: a chain ends after as many
//! descriptors as its table has. A broken rule is a [`Violation`], which says which one; the device then needs a reset, and nothing but that device is concerned.
//!
//! Requests may be completed in any order. Which are in flight stands in a [`Record`] in memory that outlives the process, so that a successor can take over: see there for how nothing is lost and
//! nothing is done twice in the guest's eyes, wherever the process was ended.
//!
//! ```text
//! Queue::pop --head--> Queue::chain --segments--> device works --> Queue::push --> Queue::needs_interrupt
//!      |                                                                |
//!      +------------------- Record: head in flight ---------------------+
//! ```
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod chain;
mod memory;
mod queue;
mod record;
mod violation;

pub use chain::{Chain, MAX_INDIRECT, Segment};
pub use memory::GuestMemory;
pub use queue::{Features, Layout, Queue};
pub use record::{MAX_SIZE, Record};
pub use violation::{Area, Violation};
