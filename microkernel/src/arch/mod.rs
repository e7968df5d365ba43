//! The x86-64 machine: boot, processors, memory, interrupt controllers, timers. What only computes at boot (tables of the firmware, memory map, the kernel's own
//! page tables) stands in `tessera-boot`.

pub mod apic;
pub mod boot;
pub mod cpu;
pub mod descriptors;
pub mod entry;
pub mod ioapic;
pub mod log;
pub mod memory;
pub mod panic;
pub mod percpu;
pub mod power;
pub mod serial;
pub mod smp;
pub mod timer;

/// Interrupt vectors.
pub mod vector {
    /// First vector that devices get.
    pub const DEVICE_FIRST: u8 = 0x20;
    /// Last vector that devices get.
    pub const DEVICE_LAST: u8 = 0xdf;
    /// Where the two legacy interrupt controllers, all masked, would deliver a spurious interrupt: this vector and the 15 after it.
    pub const LEGACY_FIRST: u8 = 0xe0;
    /// Another processor asks this one to look at its run queue.
    pub const RESCHEDULE: u8 = 0xf0;
    /// Another processor asks this one to come into the kernel and drop its translations.
    pub const SHOOTDOWN: u8 = 0xf1;
    /// Another processor posted an interrupt to this one's guest; outside the guest it means nothing, for entries look.
    pub const POSTED: u8 = 0xf2;
    /// The processor's own timer.
    pub const TIMER: u8 = 0xfe;
    /// The local APIC withdrew an interrupt; no end-of-interrupt is due.
    pub const SPURIOUS: u8 = 0xff;
}
