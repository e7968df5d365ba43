//! What a machine's monitor and its VMX share of a screen, a keyboard and pointers: video RAM, a page with the registers of the graphics card, and a ring of what people type and move.
//!
//! The guest writes the video RAM, the monitor the registers; VMX reads both, draws the picture that they mean, and writes the ring. None of them holds anything that its successor does not find there.
#![cfg_attr(not(test), no_std)]

mod input;
mod memory;
mod registers;

pub use input::{Event, LENGTH as EVENT_LENGTH, MOST as MOST_PLACE};
pub use memory::Memory;
pub use registers::{LENGTH as REGISTERS_LENGTH, Registers, vbe};

/// Grant: the video RAM.
pub const VIDEO: &str = "screen.video";
/// Grant: the page with the registers.
pub const REGISTERS: &str = "screen.registers";
/// Grant: the ring of [`Event`]s.
pub const INPUT: &str = "screen.input";
/// File of the image, and grant of the monitor of a machine with firmware: the graphics card's own firmware.
pub const ROM: &str = "vga-bios";
/// Bytes of the video RAM, a power of two: enough for 1920 by 1080 pixels of 32 bits, and for two pictures of 1280 by 800, which Linux wants to have room for.
pub const VIDEO_BYTES: u64 = 8 << 20;
