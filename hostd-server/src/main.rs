//! hostd's program: the HTTPS server on the host's own port of the virtual switch.
#![cfg_attr(target_os = "tessera", no_std, no_main)]
#![deny(unsafe_code)]

#[cfg(target_os = "tessera")]
extern crate alloc;
#[cfg(target_os = "tessera")]
mod server;
#[cfg(target_os = "tessera")]
mod servers;
#[cfg(target_os = "tessera")]
tessera_rt::entry!(server::run);

#[cfg(not(target_os = "tessera"))]
fn main() {}
