//! What a machine's monitor and its VMX share of a screen, a keyboard and pointers: video RAM, a page with the registers of the graphics card, and a ring of what people type and move.
//!
//! The video RAM is made in pieces, the first at the machine's start and each other when it is first touched. What is not made reads as zero. Behind the registers stands which pieces there are; who maps them asks init.
//!
//! The guest writes the video RAM, the monitor the registers; VMX reads both, draws the picture that they mean, and writes the ring. None of them holds anything that its successor does not find there.
#![cfg_attr(not(test), no_std)]

mod input;
mod memory;
mod registers;

pub use input::{Event, LENGTH as EVENT_LENGTH, MOST as MOST_PLACE};
pub use memory::Memory;
pub use registers::{LENGTH as REGISTERS_LENGTH, Registers, pieces, store_pieces, vbe};

/// Grant: the page with the registers.
pub const REGISTERS: &str = "screen.registers";
/// Grant: the ring of [`Event`]s.
pub const INPUT: &str = "screen.input";
/// File of the image, and grant of the monitor of a machine with firmware: the graphics card's own firmware.
pub const ROM: &str = "vga-bios";
/// Bytes of the video RAM, a power of two: enough for 1920 by 1080 pixels of 32 bits, and for two pictures of 1280 by 800, which Linux wants to have room for.
pub const VIDEO_BYTES: u64 = 8 << 20;
/// Bytes of a piece of it. A machine has the first from its start and init makes the others when they are touched: a text screen needs one, 1024 by 768 pixels of 32 bits two. It is the size of a large page, so that guests'
/// page tables need no further level for it, wherever they place it.
pub const PIECE_BYTES: u64 = 2 << 20;
/// How many pieces there are.
pub const PIECES: usize = (VIDEO_BYTES / PIECE_BYTES) as usize;
