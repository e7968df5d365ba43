//! Threads beside the first one, for what would keep it from everything else: computations, and calls that take long.

use alloc::{boxed::Box, collections::VecDeque, rc::Rc, sync::Arc, vec::Vec};
use core::{
    cell::RefCell,
    future::poll_fn,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Poll, Waker},
};
use tessera_device::platform::signal;
use tessera_hostd::future::LocalFuture;
use tessera_rt::{
    CNode, Mutex, Notification,
    abi::{Error, object::Rights},
    slots, start_info,
    thread::{self, Options},
};

/// The bit by which a worker tells the first thread that something is done.
const DONE: u64 = 2;
/// Bytes of a worker's stack.
const STACK: usize = 96 << 10;

type Job = Box<dyn FnOnce() + Send>;

/// What the worker and the first thread share.
#[derive(Default)]
struct Shared {
    waiting: Mutex<VecDeque<Job>>,
    /// Jobs that wait or run.
    open: AtomicUsize,
}

/// A thread that does one thing after the other.
pub struct Worker {
    shared: Arc<Shared>,
    wake: Notification,
    most: usize,
    wakers: Rc<RefCell<Vec<Waker>>>,
}

impl Worker {
    /// Starts one that takes at most `most` jobs at a time. It is as urgent as the first thread: below it, guests that never rest would keep it from ever being done.
    ///
    /// # Errors
    /// `NoMemory`: `memory` or `slots` of the manifest is too small.
    pub fn start(most: usize) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let done = signal(DONE)?;
        let own = shared.clone();
        let options = Options {
            priority: start_info().priority,
            stack: STACK,
            ..Options::default()
        };
        let handle = thread::spawn(&options, move |handle| {
            loop {
                let job = own.waiting.lock().pop_front();
                let Some(job) = job else {
                    // An error would only mean another look.
                    let _ = handle.notification.wait(None);
                    continue;
                };
                job();
                // Release: what the job wrote is seen by whoever sees that it is done; the lock of its result does the same.
                own.open.fetch_sub(1, Ordering::Release);
                let _ = done.signal();
            }
        })?;
        let wake = slots::take()?;
        CNode::OWN.copy(wake, CNode::OWN, handle.notification.slot(), Rights::SEND, 1)?;
        Ok(Self {
            shared,
            wake: Notification::new(wake),
            most,
            wakers: Rc::default(),
        })
    }

    /// Has the futures look whether they are ready; to be called in each turn of the first thread's loop.
    pub fn turn(&self) {
        for waker in self.wakers.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Has `work` done. `None`: so much is waiting that it was not taken.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> LocalFuture<'static, Option<T>> {
        // Relaxed: only this thread adds.
        if self.shared.open.load(Ordering::Relaxed) >= self.most {
            return Box::pin(core::future::ready(None));
        }
        self.shared.open.fetch_add(1, Ordering::Relaxed);
        let result = Arc::new(Mutex::new(None));
        let place = result.clone();
        self.shared.waiting.lock().push_back(Box::new(move || {
            let value = work();
            *place.lock() = Some(value);
        }));
        let _ = self.wake.signal();
        let wakers = self.wakers.clone();
        Box::pin(poll_fn(move |context| match result.lock().take() {
            Some(value) => Poll::Ready(Some(value)),
            None => {
                wakers.borrow_mut().push(context.waker().clone());
                Poll::Pending
            }
        }))
    }
}
