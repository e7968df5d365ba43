//! The VMX server: puts the console's rings and notifications in place and serves `vm_console`.
#![cfg_attr(target_os = "tessera", no_std, no_main)]

#[cfg(target_os = "tessera")]
mod server;
#[cfg(target_os = "tessera")]
tessera_rt::entry!(server::run);

#[cfg(not(target_os = "tessera"))]
fn main() {}
