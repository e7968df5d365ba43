//! Puts a Linux kernel into guest RAM and a vCPU at its first instruction (Linux, Documentation/arch/x86/boot.rst, protocol 2.12 or newer, 64-bit entry).

pub mod bzimage;
pub mod layout;
pub mod loader;
pub mod registers;

pub use bzimage::{BzImage, ImageError};
pub use loader::{LoadError, Loaded, load};
