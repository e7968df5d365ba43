//! What the kernel computes while it boots, before anything else runs.
//!
//! The boot loader's information, the firmware's tables, the boot module's header, the clocks and the record of the last panic come from outside, so
//! they are read here, by safe code without a heap that only turns bytes into values: it reaches nothing that it was not given, loops no longer than its
//! input, and panics on none. What the kernel's page tables will show is worked out here too, so that it can be tested.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod acpi;
pub mod bundle;
pub mod calendar;
pub mod clock;
pub mod descriptors;
pub mod extended;
pub mod features;
pub mod kernel_map;
pub mod memory_map;
pub mod multiboot2;
pub mod paging;
pub mod panic_record;
pub mod regions;
pub mod svm;
pub mod vmx;

mod bytes;
