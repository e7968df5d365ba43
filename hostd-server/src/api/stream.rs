//! What changed, for those who follow.

use crate::model::Change;
use alloc::{collections::VecDeque, string::String, vec::Vec};
use core::task::Waker;

/// Changes that are remembered for those who were away.
const MOST: usize = 2048;
/// Followers that wait.
const MOST_WAITING: usize = 1024;

#[derive(Default)]
pub(super) struct Changes {
    next: u64,
    recent: VecDeque<Change>,
    waiting: Vec<Waker>,
}

impl Changes {
    pub(super) fn push(&mut self, kind: &str, id: &str, change: &str) {
        self.next += 1;
        self.recent.push_back(Change {
            sequence: self.next,
            kind: kind.into(),
            id: id.into(),
            change: change.into(),
        });
        if self.recent.len() > MOST {
            self.recent.pop_front();
        }
        self.waiting.drain(..).for_each(Waker::wake);
    }

    pub(super) fn last(&self) -> u64 {
        self.next
    }

    pub(super) fn after(&self, sequence: u64, most: usize) -> Vec<Change> {
        self.recent
            .iter()
            .filter(|change| change.sequence > sequence)
            .take(most)
            .cloned()
            .collect()
    }

    pub(super) fn wait(&mut self, waker: &Waker) {
        if self.waiting.len() < MOST_WAITING && !self.waiting.iter().any(|other| other.will_wake(waker)) {
            self.waiting.push(waker.clone());
        }
    }
}

/// One line for each change.
pub(super) fn line(change: &Change) -> String {
    serde_json::to_string(change).unwrap_or_default()
}
