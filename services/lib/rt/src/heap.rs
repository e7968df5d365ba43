//! The heap. What is not claimed here does not exist: a server's memory is what its manifest says.

use crate::lock::RawLock;
use talc::{TalcLock, source::Manual};

#[global_allocator]
static HEAP: TalcLock<RawLock, Manual> = TalcLock::new(Manual);

/// Adds memory to the heap.
///
/// # Safety
/// The memory is mapped readable and writable, stays so, and is used by nobody else.
pub unsafe fn claim(base: *mut u8, length: usize) {
    if length > 0 {
        // SAFETY: the caller's. A heap that is too small for the allocator's own data is simply not used.
        let _ = unsafe { HEAP.lock().claim(base, length) };
    }
}
