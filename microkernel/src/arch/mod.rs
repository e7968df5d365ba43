//! The x86-64 machine: boot, processors, memory, interrupt controllers, timers. What only computes at boot (tables of the firmware, memory map, the kernel's own
//! page tables) stands in `tessera-boot`.

pub mod ring;

#[cfg(target_os = "none")]
pub mod apic;
#[cfg(target_os = "none")]
pub mod boot;
#[cfg(target_os = "none")]
pub mod clock;
#[cfg(target_os = "none")]
pub mod cpu;
#[cfg(target_os = "none")]
pub mod descriptors;
#[cfg(target_os = "none")]
pub mod entry;
#[cfg(target_os = "none")]
pub mod ioapic;
#[cfg(target_os = "none")]
pub mod log;
#[cfg(target_os = "none")]
pub mod memory;
#[cfg(target_os = "none")]
pub mod panic;
#[cfg(target_os = "none")]
pub mod percpu;
#[cfg(target_os = "none")]
pub mod power;
#[cfg(target_os = "none")]
pub mod serial;
#[cfg(target_os = "none")]
pub mod smp;
#[cfg(target_os = "none")]
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
    /// The processor's own timer.
    pub const TIMER: u8 = 0xfe;
    /// The local APIC withdrew an interrupt; no end-of-interrupt is due.
    pub const SPURIOUS: u8 = 0xff;
}
