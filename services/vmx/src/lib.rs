//! What serves people at one virtual machine. So far that is its serial console: the guest's output with scrollback, and its input.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(not(test), forbid(unsafe_code))]

extern crate alloc;

pub mod scrollback;
