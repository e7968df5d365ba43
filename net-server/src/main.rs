//! The network server's program: puts drivers on the devices that init gave, and serves.
#![cfg_attr(target_os = "tessera", no_std, no_main)]

#[cfg(target_os = "tessera")]
extern crate alloc;
#[cfg(target_os = "tessera")]
mod server;
#[cfg(target_os = "tessera")]
tessera_rt::entry!(server::run);

#[cfg(not(target_os = "tessera"))]
fn main() {}
