//! IOMMUs: which memory a PCI function reaches. Intel's VT-d (Architecture Specification 3.3, legacy mode) and AMD-Vi (I/O Virtualization Technology Specification 3.05).
//!
//! A *domain* is what some functions reach, mapped one to one: a device's address is the physical address. A function that is in no domain reaches nothing. All units of a machine are of one kind and get the
//! same tables.
//!
//! ```text
//!  VT-d                                       AMD-Vi
//!  root table --bus--> context table          device table
//!                        | device, function     | bus, device, function
//!                        v                      v
//!                      domain number, first table of the domain
//!                        |
//!                        v
//!                      page tables, 3 or 4 levels, pages of 4 KiB, 2 MiB or 1 GiB
//! ```
//!
//! What is changed there counts only when the units have dropped what they remember of it: [`Iommu::unmap`] and [`Iommu::detach`] return when they have, or say that they have not, and then the memory must
//! not be used for anything else.
//!
//! The hardware is a trait, [`Hardware`]. Tests put a model of both kinds behind it, which remembers as the real ones do.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod acpi;
mod amd;
mod fault;
mod hardware;
mod iommu;
mod remapping;
mod source;
mod tables;
mod vtd;

pub use acpi::{Description, Kind, Reserved, Scope, UnitDescription, dmar, ivrs};
pub use fault::{Fault, FaultKind};
pub use hardware::{Error, Hardware};
pub use iommu::{Domain, Iommu};
pub use remapping::Route;
pub use source::Source;
