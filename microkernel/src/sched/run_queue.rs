//! The ready threads of one processor, its timers and its accounting.

use core::cell::Cell;

use super::queue::Queue;
use super::timers::Timers;
use crate::kref::Ref;
use crate::object::thread::Thread;

/// Priorities.
pub const PRIORITIES: usize = 64;

/// Ready threads by priority.
pub struct RunQueue {
    /// Bit per priority that has ready threads.
    pub ready: Cell<u64>,
    lists: [Queue; PRIORITIES],
    /// Virtual time that a thread that wakes at a priority starts with at least, so that sleeping earns no credit.
    floor: [Cell<u64>; PRIORITIES],
    /// Threads that wait for a time.
    pub timers: Timers,
    /// When the current thread last was charged.
    pub charged_at: Cell<u64>,
    /// When the current thread's slice ends.
    pub slice_end: Cell<u64>,
    /// What the timer is set to; `u64::MAX`: nothing.
    pub armed: Cell<u64>,
    /// Ticks with nothing to do.
    pub idle: Cell<u64>,
    /// Switches made by the scheduler.
    pub switches: Cell<u64>,
}

impl Default for RunQueue {
    fn default() -> Self {
        Self {
            ready: Cell::new(0),
            lists: [const { Queue::new() }; PRIORITIES],
            floor: [const { Cell::new(0) }; PRIORITIES],
            timers: Timers::new(),
            charged_at: Cell::new(0),
            slice_end: Cell::new(0),
            armed: Cell::new(u64::MAX),
            idle: Cell::new(0),
            switches: Cell::new(0),
        }
    }
}

impl RunQueue {
    /// Whether somebody of more than `thread`'s priority is ready.
    #[inline(always)]
    pub fn has_above(&self, thread: &Thread) -> bool {
        self.ready.get() & thread.above.get() != 0
    }

    /// Whether a thread of exactly `priority` is ready.
    pub fn has_equal(&self, priority: u8) -> bool {
        self.ready.get() >> (priority & 63) & 1 != 0
    }

    /// Puts a thread that becomes ready after waiting where its virtual time belongs.
    #[inline(always)]
    pub fn wake(&self, thread: Ref<Thread>) {
        let priority = usize::from(thread.priority.get() & 63);
        if let Some(context) = thread.context.get() {
            context.virtual_time.set(context.virtual_time.get().max(self.floor[priority].get()));
        }
        self.insert(thread);
    }

    /// Puts a thread that was running where its virtual time belongs.
    #[inline(always)]
    pub fn insert(&self, thread: Ref<Thread>) {
        let priority = usize::from(thread.priority.get() & 63);
        let time = virtual_time(&thread);
        self.lists[priority].insert(thread, |other| virtual_time(other) > time);
        self.ready.set(self.ready.get() | 1 << priority);
        thread.queued.set(true);
    }

    /// Puts the running thread behind the first of its equals, when it is inserted. Returns whether there is one.
    pub fn give_way(&self, thread: Ref<Thread>) -> bool {
        let Some(first) = self.lists[usize::from(thread.priority.get() & 63)].head() else { return false };
        if let Some(context) = thread.context.get() {
            context.virtual_time.set(context.virtual_time.get().max(virtual_time(&first)));
        }
        true
    }

    /// Takes a thread out.
    pub fn remove(&self, thread: Ref<Thread>) {
        let priority = usize::from(thread.priority.get() & 63);
        self.lists[priority].remove(thread);
        if self.lists[priority].is_empty() {
            self.ready.set(self.ready.get() & !(1 << priority));
        }
        thread.queued.set(false);
    }

    /// Takes the thread out that should run.
    #[inline(always)]
    pub fn pop(&self) -> Option<Ref<Thread>> {
        let ready = self.ready.get();
        if ready == 0 {
            return None;
        }
        let priority = 63 - ready.leading_zeros() as usize;
        let list = &self.lists[priority];
        let thread = list.head()?;
        if list.is_only(thread) {
            list.clear();
            self.ready.set(ready & !(1 << priority));
        } else {
            list.remove(thread);
        }
        thread.queued.set(false);
        let floor = &self.floor[priority];
        floor.set(floor.get().max(virtual_time(&thread)));
        Some(thread)
    }
}

#[inline]
fn virtual_time(thread: &Thread) -> u64 {
    thread.context.get().map_or(0, |context| context.virtual_time.get())
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::object::sched_context::SchedContext;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn thread(priority: u8, context: &SchedContext) -> Thread {
        let thread = Thread::new();
        thread.set_priority(priority);
        thread.context.set(Some(Ref::from(context)));
        thread
    }

    #[test]
    fn higher_priority_first_then_least_virtual_time() {
        let contexts: Vec<SchedContext> = (0..4).map(|_| SchedContext::new()).collect();
        let threads: Vec<Thread> = [5, 63, 5, 0].iter().zip(&contexts).map(|(&p, c)| thread(p, c)).collect();
        contexts[0].virtual_time.set(9);
        contexts[2].virtual_time.set(4);
        let queue = RunQueue::default();
        for thread in &threads {
            queue.insert(Ref::from(thread));
        }
        assert!(queue.has_above(&threads[0]) && !queue.has_above(&threads[1]));
        let order: Vec<usize> =
            core::iter::from_fn(|| queue.pop()).map(|t| threads.iter().position(|x| core::ptr::eq(x, t.as_ptr())).unwrap()).collect();
        assert_eq!(order, [1, 2, 0, 3]);
        assert_eq!(queue.ready.get(), 0);
    }

    #[test]
    fn who_gives_way_comes_behind_the_first_of_its_equals() {
        let contexts: Vec<SchedContext> = (0..3).map(|_| SchedContext::new()).collect();
        let threads: Vec<Thread> = [5, 5, 4].iter().zip(&contexts).map(|(&p, c)| thread(p, c)).collect();
        let [spinning, working, lesser] = [0, 1, 2].map(|number| Ref::from(&threads[number]));
        contexts[1].virtual_time.set(1000);
        let queue = RunQueue::default();
        queue.insert(lesser);
        assert!(!queue.give_way(spinning), "one of a lesser priority is none of its equals");
        queue.insert(working);
        assert!(queue.give_way(spinning));
        queue.insert(spinning);
        assert!(queue.pop() == Some(working), "though it had more of its share");
        assert!(queue.give_way(working), "the other waits now");
    }

    proptest! {
        /// Whoever spins gets time in proportion to the weight, whatever the weights are.
        #[test]
        fn spinning_threads_share_by_weight(weights in proptest::collection::vec(10..1000_u64, 2..6)) {
            let contexts: Vec<SchedContext> = weights.iter().map(|&w| { let c = SchedContext::new(); c.weight.set(w); c }).collect();
            let threads: Vec<Thread> = contexts.iter().map(|c| thread(7, c)).collect();
            let queue = RunQueue::default();
            for t in &threads { queue.wake(Ref::from(t)); }
            let slice = 1000;
            let mut now = 0;
            for _ in 0..20_000 {
                let t = queue.pop().unwrap();
                now += slice;
                t.context.get().unwrap().charge(slice, now);
                queue.insert(t);
            }
            let sum: u64 = weights.iter().sum();
            for (c, w) in contexts.iter().zip(&weights) {
                let share = c.consumed.get() as f64 / now as f64;
                let due = *w as f64 / sum as f64;
                prop_assert!((share - due).abs() < 0.01 + due * 0.02, "share {share} due {due}");
            }
        }

        /// A thread that slept long does not starve the others afterwards.
        #[test]
        fn sleeping_earns_no_credit(slices in 10..500_u64) {
            let contexts = [SchedContext::new(), SchedContext::new()];
            let threads = [thread(7, &contexts[0]), thread(7, &contexts[1])];
            let queue = RunQueue::default();
            queue.wake(Ref::from(&threads[0]));
            for i in 0..slices {
                let t = queue.pop().unwrap();
                t.context.get().unwrap().charge(100, i * 100);
                queue.insert(t);
            }
            queue.wake(Ref::from(&threads[1]));
            let mut runs = [0; 2];
            for _ in 0..20 {
                let t = queue.pop().unwrap();
                runs[usize::from(core::ptr::eq(t.as_ptr(), &threads[1]))] += 1;
                t.context.get().unwrap().charge(100, 0);
                queue.insert(t);
            }
            prop_assert!(runs[0] >= 9, "{runs:?}");
        }
    }
}
