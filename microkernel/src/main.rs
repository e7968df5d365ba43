//! The kernel's image. Everything stands in the library; the linker starts from `_start` in `arch::boot`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
use tessera_kernel as _;

/// On a developer's machine there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {}
