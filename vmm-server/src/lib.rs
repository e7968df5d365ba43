//! The virtual machine monitor: what a guest finds where hardware would be. One process runs one virtual machine.
//!
//! Everything here is plain logic over a [`memory::GuestMemory`] and the pages of `tessera_abi::vcpu`, and runs on a developer's machine in
//! tests; `main.rs` wires it to the kernel.
//!
//! ```text
//! kernel --exit--> vcpu --port/MMIO--> devices::Chipset --pin--> 8259, I/O APIC --message--> inbox of a vCPU --> its local APIC --> inject
//! ```
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod acpi;
pub mod apic;
pub mod boot;
pub mod clock;
pub mod cpuid;
pub mod devices;
pub mod emulator;
pub mod machine;
pub mod memory;
pub mod paravirt;
pub mod vcpu;

/// Most virtual processors of one guest.
pub const MAX_VCPUS: usize = 8;
