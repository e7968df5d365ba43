//! What servers that drive devices share: how they reach registers ([`hardware`]), memory that devices read and write ([`dma`]), the memory of guests ([`ram`], [`loan`]), and futures for what has to wait
//! ([`executor`]). Drivers and device models build on the traits here; on a developer's machine, tests put devices made of code behind them.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod dma;
pub mod executor;
mod function;
pub mod hardware;
pub mod later;
pub mod loan;
mod memory;
mod piece;
pub mod platform;
pub mod ram;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod virtio;

pub use dma::DmaBuffer;
pub use executor::Executor;
pub use function::{Device, text};
pub use hardware::{Platform, Ports, Registers, wait_until};
pub use memory::{Memory, Segment};
pub use piece::Piece;
pub use ram::{Ram, RamFrame};
