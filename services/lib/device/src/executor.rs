//! Runs what has to wait: futures on the server's one thread.

use alloc::{boxed::Box, collections::VecDeque, sync::Arc, task::Wake, vec::Vec};
use core::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    task::{Context, Waker},
};
use tessera_rt::Mutex;

/// Tasks whose turn has come, in order. Behind a lock, since wakers have to be shareable between threads; here nobody shares them.
type Ready = Arc<Mutex<VecDeque<usize>>>;

struct Signal {
    task: usize,
    ready: Ready,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.ready.lock().push_back(self.task);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ready.lock().push_back(self.task);
    }
}

struct Task {
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Waker,
}

/// The executor.
#[derive(Default)]
pub struct Executor {
    tasks: RefCell<Vec<Task>>,
    free: RefCell<Vec<usize>>,
    ready: Ready,
}

impl Executor {
    /// No tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task, which runs at the next [`Self::run`]. Tasks may add tasks.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let task = self.free.borrow_mut().pop().unwrap_or(tasks.len());
        let future: Option<Pin<Box<dyn Future<Output = ()>>>> = Some(Box::pin(future));
        match tasks.get_mut(task) {
            Some(place) => place.future = future,
            None => tasks.push(Task {
                future,
                waker: Waker::from(Arc::new(Signal {
                    task,
                    ready: self.ready.clone(),
                })),
            }),
        }
        self.ready.lock().push_back(task);
    }

    /// Runs every task whose turn has come until none is left. A task that wakes itself has its next turn at the next call.
    pub fn run(&self) {
        let turns = self.ready.lock().len();
        for _ in 0..turns.max(1) * 4 {
            let Some(task) = self.ready.lock().pop_front() else { return };
            self.turn(task);
        }
    }

    fn turn(&self, task: usize) {
        // Taken out while it runs, so that it may add others.
        let taken = self
            .tasks
            .borrow_mut()
            .get_mut(task)
            .and_then(|task| Some((task.future.take()?, task.waker.clone())));
        // None: it was woken once more than it had to be, and has ended.
        let Some((mut future, waker)) = taken else { return };
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.free.borrow_mut().push(task);
        } else if let Some(place) = self.tasks.borrow_mut().get_mut(task) {
            place.future = Some(future);
        }
    }

    /// Whether a task's turn has come.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.ready.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::rc::Rc;
    use core::{cell::Cell, task::Poll};

    #[test]
    fn tasks_take_turns_and_add_others() {
        let executor = Rc::new(Executor::new());
        let steps = Rc::new(Cell::new(0));
        let (inner, counter) = (executor.clone(), steps.clone());
        executor.spawn(async move {
            for _ in 0..3 {
                let mut first = true;
                core::future::poll_fn(|context| {
                    if core::mem::take(&mut first) {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Ready(())
                })
                .await;
                counter.set(counter.get() + 1);
            }
            let counter = counter.clone();
            inner.spawn(async move { counter.set(counter.get() + 10) });
        });
        while executor.has_work() {
            executor.run();
        }
        assert_eq!(steps.get(), 13);
        // Places are used again.
        executor.spawn(async {});
        executor.run();
        assert_eq!(executor.tasks.borrow().len(), 2);
    }
}
