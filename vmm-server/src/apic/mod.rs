//! Interrupt delivery between the processors of a guest: local APICs, the I/O APIC, and what carries messages between them.

pub mod ioapic;
pub mod lapic;
pub mod lapic_registers;
pub mod routing;

pub use ioapic::IoApic;
pub use lapic::{Effect, Lapic, SavedLapic};
pub use routing::{Delivery, Event, Inbox, Interrupts, Kick, Message};
