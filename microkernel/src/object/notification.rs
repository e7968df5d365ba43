//! Notifications: a word of bits to signal and to wait for.

use core::cell::Cell;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use tessera_abi::object::{ObjectKind, size};

use super::Header;
use super::thread::Thread;
use crate::kref::Ref;

/// A notification. One thread may wait for it, and one may be bound to it.
#[repr(C)]
#[derive(Default)]
pub struct Notification {
    /// Header.
    pub header: Header,
    /// Bits that were signalled and not yet taken.
    bits: AtomicU64,
    /// The thread that waits, here or (if bound) in `Recv`.
    waiter: AtomicPtr<Thread>,
    /// The thread bound to it.
    pub bound: Cell<Option<Ref<Thread>>>,
}

const _: () = assert!(size_of::<Notification>() <= size::NOTIFICATION);

impl Notification {
    /// One with no bits and no thread.
    pub fn new() -> Self {
        Self { header: Header::new(ObjectKind::Notification), ..Self::default() }
    }

    /// Sets bits. Whoever sets them looks for the waiter afterwards, and whoever becomes the waiter looks for bits afterwards: both orders are
    /// sequentially consistent, so one of the two sees the other.
    #[inline(always)]
    pub fn set(&self, bits: u64) {
        self.bits.fetch_or(bits, Ordering::SeqCst);
    }

    /// Takes bits back that nobody has taken. Returns whether they were there.
    pub fn withdraw(&self, bits: u64) -> bool {
        self.bits.fetch_and(!bits, Ordering::SeqCst) & bits != 0
    }

    /// Whether there are bits.
    #[inline(always)]
    pub fn is_set(&self) -> bool {
        self.bits.load(Ordering::SeqCst) != 0
    }

    /// Takes all bits.
    #[inline(always)]
    pub fn take(&self) -> u64 {
        self.bits.swap(0, Ordering::SeqCst)
    }

    /// The thread that waits.
    #[inline(always)]
    pub fn waiter(&self) -> Option<Ref<Thread>> {
        let pointer = self.waiter.load(Ordering::SeqCst);
        // SAFETY: not null, and only `set_waiter` stores here, from a live reference that destroying the thread takes out again.
        (!pointer.is_null()).then(|| unsafe { Ref::new(pointer) })
    }

    /// Makes a thread the waiter, or nobody.
    #[inline(always)]
    pub fn set_waiter(&self, thread: Option<Ref<Thread>>) {
        self.waiter.store(thread.map_or(core::ptr::null_mut(), Ref::as_ptr), Ordering::SeqCst);
    }
}
