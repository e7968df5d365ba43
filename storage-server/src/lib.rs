//! The storage server: drivers of disks, and what is served from them.
//!
//! One thread, one loop: messages, interrupts and doorbells wake it, and nothing in it waits for a device. What has to wait is a future on the [executor](tessera_device::executor); requests of
//! guests go to a device at once and come back by number, without a future and without memory being allocated ([`disk`]).
//!
//! Everything here builds on a developer's machine too: a driver reaches its device through [hardware](tessera_device::hardware), and tests put devices of their own behind that.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod controller;
pub mod disk;
pub mod drivers;
pub mod guest;
pub mod pattern;
mod split;
pub mod stores;
