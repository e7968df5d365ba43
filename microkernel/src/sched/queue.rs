//! Circular doubly-linked lists through the threads themselves: no memory, any member leaves in constant time.

use core::cell::Cell;

use crate::kref::Ref;
use crate::object::thread::Thread;

/// A list of threads; a thread is in one at most.
#[repr(transparent)]
#[derive(Default)]
pub struct Queue {
    head: Cell<Option<Ref<Thread>>>,
}

impl Queue {
    /// An empty list.
    pub const fn new() -> Self {
        Self { head: Cell::new(None) }
    }

    /// The first thread.
    #[inline(always)]
    pub fn head(&self) -> Option<Ref<Thread>> {
        self.head.get()
    }

    /// Whether nobody is in it.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    /// Appends `thread`, which is in no list.
    #[inline(always)]
    pub fn push(&self, thread: Ref<Thread>) {
        match self.head.get() {
            None => {
                thread.queue_next.set(Some(thread));
                thread.queue_previous.set(Some(thread));
                self.head.set(Some(thread));
            }
            Some(head) => insert_before(head, thread),
        }
    }

    /// Inserts `thread` before the first member for which `later` holds, or at the end.
    #[inline(always)]
    pub fn insert(&self, thread: Ref<Thread>, later: impl Fn(&Thread) -> bool) {
        let Some(head) = self.head.get() else {
            self.push(thread);
            return;
        };
        let mut at = head;
        loop {
            if later(&at) {
                insert_before(at, thread);
                if at == head {
                    self.head.set(Some(thread));
                }
                return;
            }
            at = next_of(at);
            if at == head {
                insert_before(head, thread);
                return;
            }
        }
    }

    /// Takes `thread`, which is in this list, out.
    #[inline(always)]
    pub fn remove(&self, thread: Ref<Thread>) {
        let next = next_of(thread);
        if next == thread {
            self.head.set(None);
        } else {
            let previous = thread.queue_previous.get();
            next.queue_previous.set(previous);
            if let Some(previous) = previous {
                previous.queue_next.set(Some(next));
            }
            if self.head.get() == Some(thread) {
                self.head.set(Some(next));
            }
        }
    }

    /// Whether `head`, the first, is the only one.
    #[inline(always)]
    pub fn is_only(&self, head: Ref<Thread>) -> bool {
        head.queue_next.get() == Some(head)
    }

    /// Forgets its only member.
    #[inline(always)]
    pub fn clear(&self) {
        self.head.set(None);
    }

    /// Takes `thread` as the first member; the list is empty.
    #[inline(always)]
    pub fn begin(&self, thread: Ref<Thread>) {
        thread.queue_next.set(Some(thread));
        thread.queue_previous.set(Some(thread));
        self.head.set(Some(thread));
    }

    /// Takes the first out.
    #[inline(always)]
    pub fn pop(&self) -> Option<Ref<Thread>> {
        let head = self.head.get()?;
        self.remove(head);
        Some(head)
    }

    /// Members, first to last.
    pub fn iter(&self) -> impl Iterator<Item = Ref<Thread>> {
        let head = self.head.get();
        let mut at = head;
        core::iter::from_fn(move || {
            let item = at?;
            let next = next_of(item);
            at = if Some(next) == head { None } else { Some(next) };
            Some(item)
        })
    }
}

#[inline(always)]
fn next_of(thread: Ref<Thread>) -> Ref<Thread> {
    // A member's link is always set; a thread alone links to itself.
    thread.queue_next.get().unwrap_or(thread)
}

#[inline(always)]
fn insert_before(at: Ref<Thread>, thread: Ref<Thread>) {
    let previous = at.queue_previous.get().unwrap_or(at);
    thread.queue_previous.set(Some(previous));
    thread.queue_next.set(Some(at));
    previous.queue_next.set(Some(thread));
    at.queue_previous.set(Some(thread));
}
