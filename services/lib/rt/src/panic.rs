//! A panic says where it was and ends the server; init decides what comes next.

use crate::{Connection, Endpoint, message, text::Line, thread};
use core::fmt::Write;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use tessera_manifest::slots;
use tessera_proto::init::{Client, MAX_LINE};

static PANICS: AtomicU32 = AtomicU32::new(0);
static HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Has a panic call `hook` instead of telling init. For init.
pub fn set_hook(hook: fn(&str) -> !) {
    HOOK.store(hook as *mut (), Ordering::Release);
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Relaxed: only the count matters.
    if PANICS.fetch_add(1, Ordering::Relaxed) > 8 {
        // Reporting panics too: fault, which init is told by the kernel.
        trap();
    }
    let mut text = Line::<MAX_LINE>::new();
    if let Some(location) = info.location() {
        let _ = write!(text, "{}:{}: ", location.file(), location.line());
    }
    let _ = write!(text, "{}", info.message());
    let hook = HOOK.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: only `set_hook` stores here, and function pointers and data pointers have the same size and form on this target.
        let hook: fn(&str) -> ! = unsafe { core::mem::transmute(hook) };
        hook(text.as_str())
    }
    message::reclaim();
    let _ = Client(Connection::new(Endpoint::new(slots::INIT))).panicked(text.as_str());
    thread::stop_current()
}

/// Ends in a fault.
pub(crate) fn trap() -> ! {
    // SAFETY: raises an invalid-opcode exception and never continues.
    unsafe { core::arch::asm!("ud2", options(noreturn, nostack)) }
}
