//! A proper stack for init, which begins on a small one inside of its program.

use crate::{Untyped, vm};
use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::convert::Infallible;
use tessera_abi::object::Rights;
use tessera_abi::{Error, PAGE_SIZE};

/// Bytes of the first stack.
pub const FIRST_SIZE: usize = 16 << 10;

/// The stack that init begins on.
#[repr(C, align(16))]
pub struct First(UnsafeCell<[u8; FIRST_SIZE]>);

// SAFETY: only the first thread uses it, as its stack, and never through this value.
unsafe impl Sync for First {}

/// The stack that init begins on.
#[doc(hidden)]
pub static FIRST: First = First(UnsafeCell::new([0; FIRST_SIZE]));

/// What goes on on the new stack; it never returns.
pub type Continuation = Box<dyn FnOnce() -> Infallible>;

/// Goes on in `run` on a new stack of `length` bytes, made out of `untyped`, with unmapped pages on both sides.
///
/// # Errors
/// The kernel's; does not return otherwise.
pub fn switch(untyped: Untyped, length: usize, run: Continuation) -> Result<Infallible, Error> {
    let stack = vm::map(untyped.frame(length.div_ceil(PAGE_SIZE) as u64)?, Rights::READ | Rights::WRITE, 0)?;
    let run = Box::into_raw(Box::new(run));
    let top = stack.address + stack.length as u64;
    go(top, run.cast())
}

#[cfg(target_os = "tessera")]
fn go(top: u64, run: *mut u8) -> ! {
    // SAFETY: the new stack is mapped and nobody else's; what is on the old one is never used again, since `enter` does not return.
    unsafe {
        core::arch::asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {enter}",
            "ud2",
            top = in(reg) top,
            in("rdi") run,
            enter = sym enter,
            options(noreturn)
        )
    }
}

#[cfg(not(target_os = "tessera"))]
fn go(_top: u64, run: *mut u8) -> ! {
    enter(run)
}

extern "C" fn enter(run: *mut u8) -> ! {
    // SAFETY: `switch` made the pointer by Box::into_raw from a box of this type.
    let run = unsafe { Box::from_raw(run.cast::<Continuation>()) };
    match run() {}
}
