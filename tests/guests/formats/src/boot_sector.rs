//! A boot sector for tests. It runs in real mode and prints, for each thing that it tries, `BOOT name ok` or `BOOT name FAILED` on COM1, and in the end
//! `BOOT end N passed M failed`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("boot_sector.s"));

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
