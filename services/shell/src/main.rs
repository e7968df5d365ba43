//! The shell server: puts the serial port and the system's capabilities behind the shell's traits.
#![cfg_attr(target_os = "tessera", no_std, no_main)]

#[cfg(target_os = "tessera")]
extern crate alloc;
#[cfg(target_os = "tessera")]
mod server;
#[cfg(target_os = "tessera")]
tessera_rt::entry!(server::run);

#[cfg(not(target_os = "tessera"))]
fn main() {}
