//! The kernel interface: everything the microkernel and user level agree on, declared once.
//!
//! No pointers cross this interface. Small arguments travel in registers; longer ones stand in pages that belong to a
//! kernel object and are mapped into its owner: the [`utcb::Utcb`] of a thread and the [`vcpu::VcpuState`] of a vCPU.
#![no_std]
#![forbid(unsafe_code)]

pub mod apic;
pub mod boot;
pub mod bundle;
pub mod error;
pub mod fault;
pub mod layout;
pub mod object;
pub mod syscall;
pub mod trace;
pub mod utcb;
pub mod vcpu;
pub mod virt;

pub use error::Error;

/// Version of the kernel interface; changes when an old server could misunderstand a new kernel.
pub const ABI_VERSION: u32 = 1;
/// Bytes in a page, the unit of all memory that capabilities name.
pub const PAGE_SIZE: usize = 4096;
/// Bytes in a large page.
pub const LARGE_PAGE_SIZE: usize = 2 << 20;
/// Processors the kernel will start; more than this many stay parked.
pub const MAX_CPUS: usize = 32;
