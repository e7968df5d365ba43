//! The network server: drivers of network cards, the virtual switch, and guests' network devices.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

pub mod bounce;
pub mod capture;
pub mod drivers;
pub mod exercise;
pub mod guest;
pub mod keep;
pub mod nic;
pub mod offload;
pub mod packet;
pub mod switch;
pub mod tag;
