//! A boot sector for tests of screens. It writes a line into the text page, shows what is typed in the third line, and how far the mouse went in the fifth. The key G makes it draw a
//! pattern in a mode of 640 by 480 pixels, where each further key adds a white square at the bottom.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(not(target_os = "none"))]
fn main() {}

#[cfg(target_os = "none")]
core::arch::global_asm!(include_str!("screen.s"));

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
