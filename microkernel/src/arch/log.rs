//! The kernel's log: a ring that init may read as a frame. While the machine boots, lines also go to the serial port.

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use tessera_boot::regions::Region;

use super::ring::{LOG_BYTES, LogRing};
use super::{memory, serial};

/// The ring stands alone, so that it fills whole pages.
struct Ring(UnsafeCell<LogRing>);

// SAFETY: the ring is only touched by whoever holds `LOCK`.
unsafe impl Sync for Ring {}

static RING: Ring = Ring(UnsafeCell::new(LogRing::new()));
static LOCK: Mutex<()> = Mutex::new(());
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
    let _guard = LOCK.lock();
    // SAFETY: the lock is held.
    let mut sink = Sink(unsafe { &mut *RING.0.get() });
    // The sink never fails.
    let _ = fmt::Write::write_fmt(&mut sink, text);
    let _ = fmt::Write::write_str(&mut sink, "\n");
}

/// From now on the serial port belongs to user level; the log goes on.
pub fn release_console() {
    CONSOLE_IS_OURS.store(false, Ordering::Relaxed);
}

/// Where the log lies in physical memory: whole pages that begin with a `LogHeader`.
#[must_use]
pub fn region() -> Region {
    Region::with_length(memory::kernel_virt_to_phys(RING.0.get() as u64), LOG_BYTES as u64)
}

/// Calls `take` with the newest bytes, at most `limit`. Nothing if the log is being written, which a panic may have interrupted.
pub fn for_each_recent(limit: usize, mut take: impl FnMut(u8)) {
    if let Some(_guard) = LOCK.try_lock() {
        // SAFETY: the lock is held.
        unsafe { &*RING.0.get() }.tail(limit).for_each(&mut take);
    }
}
