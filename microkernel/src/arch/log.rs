//! The kernel's log: a ring that init may read as a frame. While the machine boots, lines also go to the serial port.

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use tessera_boot::regions::Region;

use super::{memory, serial};
use crate::log_ring::{LOG_BYTES, LogRing};

/// The ring fills whole pages; the lock stands in one of its own.
static RING: Mutex<LogRing> = Mutex::new(LogRing::new());
static CONSOLE_IS_OURS: AtomicBool = AtomicBool::new(true);

/// Writes a line to the kernel's log.
#[macro_export]
macro_rules! klog {
    ($($argument:tt)*) => { $crate::arch::log::line(::core::format_args!($($argument)*)) };
}

struct Sink<'a>(&'a mut LogRing);

impl fmt::Write for Sink<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.append(text.as_bytes());
        // Relaxed: the flag orders nothing; a line may still go out while it changes.
        if CONSOLE_IS_OURS.load(Ordering::Relaxed) {
            serial::send(text.as_bytes());
        }
        Ok(())
    }
}

/// Writes one line; `klog!` is the way to call it.
#[cold]
#[inline(never)]
pub fn line(text: fmt::Arguments<'_>) {
    let mut ring = RING.lock();
    let mut sink = Sink(&mut ring);
    // The sink never fails.
    let _ = fmt::Write::write_fmt(&mut sink, text);
    let _ = fmt::Write::write_str(&mut sink, "\n");
}

/// From now on the serial port belongs to user level; the log goes on.
pub fn release_console() {
    CONSOLE_IS_OURS.store(false, Ordering::Relaxed);
}

/// Where the log lies in physical memory: whole pages that begin with a `LogHeader`.
pub fn region() -> Region {
    Region::with_length(memory::kernel_virt_to_phys(core::ptr::from_ref(&*RING.lock()) as u64), LOG_BYTES as u64)
}

/// Calls `take` with the newest bytes, at most `limit`. Nothing if the log is being written, which a panic may have interrupted.
pub fn for_each_recent(limit: usize, mut take: impl FnMut(u8)) {
    if let Some(ring) = RING.try_lock() {
        ring.tail(limit).for_each(&mut take);
    }
}
