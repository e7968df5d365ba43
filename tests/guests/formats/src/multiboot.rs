//! A Multiboot kernel for tests. It runs in 32-bit protected mode and prints what it was given, then for each thing that it tries `MULTI name ok` or
//! `MULTI name FAILED` on COM1, and in the end `MULTI end N passed M failed`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("multiboot.s"));

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
