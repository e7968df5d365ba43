//! What serves people at one virtual machine: its serial console, the guest's output with scrollback and its input; and its screen, keyboard and mouse, drawn from the video RAM and served in RFB.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), forbid(unsafe_code))]

extern crate alloc;

pub mod deflate;
pub mod keys;
pub mod picture;
pub mod png;
pub mod rfb;
pub mod scrollback;
pub mod views;
