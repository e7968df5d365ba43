//! The network server's program.
#![cfg_attr(target_os = "tessera", no_std, no_main)]

#[cfg(not(target_os = "tessera"))]
fn main() {}
