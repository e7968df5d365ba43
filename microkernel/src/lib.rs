//! The microkernel: scheduling, memory isolation, capabilities, IPC, interrupts to user level, and the processor's way into and out of guests.
//!
//! It has no heap, never touches the FPU, runs with interrupts off, and trusts nothing that user level can write. What only computes is built and tested on
//! the developer's machine too; what touches the machine is built for the kernel's target alone.
#![cfg_attr(not(test), no_std)]

pub mod kref;
pub mod log_ring;
pub mod object;
pub mod sched;
pub mod virt;

#[cfg(target_os = "none")]
pub mod arch;
#[cfg(target_os = "none")]
pub mod interrupt;
#[cfg(target_os = "none")]
pub mod lock;
#[cfg(target_os = "none")]
pub mod start;
#[cfg(target_os = "none")]
pub mod syscall;
#[cfg(target_os = "none")]
pub mod trace;

#[cfg(target_os = "none")]
pub use start::{ap as start_ap, bsp as start_bsp};
