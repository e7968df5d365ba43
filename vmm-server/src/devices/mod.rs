//! The devices of a guest's board, one file each, and the [`Chipset`] that connects them to ports, addresses and interrupt lines.
//!
//! No device knows of the others or of the host: it is told a register access and the guest's time (nanoseconds since the machine
//! started), and says what its interrupt line does and when it wants to be run next.

pub mod ahci;
pub mod chipset;
pub mod debug_port;
pub mod e1000e;
pub mod flash;
pub mod fw_cfg;
pub mod hpet;
pub mod keyboard;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod power;
pub mod pvpanic;
pub mod rtc;
pub mod uart;
pub mod vga;
pub mod virtio;
pub mod watchdog;
pub mod xhci;

pub use chipset::{Chipset, Console};
pub use power::Request;
