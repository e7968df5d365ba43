//! Scheduling: fixed priorities, and inside a priority a proportional share by virtual time.
//!
//! Each processor has its own [`RunQueue`]; a thread stays on the processor it was configured for. A ready thread stands in its priority's list in the order of its scheduling
//! context's virtual time, which grows by the time consumed divided by the weight, so the head is whoever has had least of its share. A context with a budget that is used up
//! takes its thread off until its period ends.

pub mod queue;
pub mod run_queue;
pub mod timers;

#[cfg(target_os = "none")]
pub mod dispatch;

pub use run_queue::RunQueue;
