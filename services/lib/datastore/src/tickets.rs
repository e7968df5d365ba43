//! Which requests are under way, so that no block is given to somebody else while an older request still reads or writes it.

use alloc::collections::VecDeque;

/// Requests under way, counted by the epoch in which they began. Beginning and ending are a few instructions each.
#[derive(Debug)]
pub struct Tickets {
    first: u64,
    counts: VecDeque<u32>,
}

impl Default for Tickets {
    fn default() -> Self {
        Self {
            first: 0,
            counts: VecDeque::from([0]),
        }
    }
}

impl Tickets {
    /// A request begins; gives the epoch, which `end` wants back.
    #[inline]
    pub fn begin(&mut self) -> u64 {
        if let Some(count) = self.counts.back_mut() {
            *count += 1;
        }
        self.current()
    }

    /// A request of that epoch ended.
    #[inline]
    pub fn end(&mut self, epoch: u64) {
        if let Some(count) = self.counts.get_mut(epoch.wrapping_sub(self.first) as usize) {
            *count = count.saturating_sub(1);
        }
        while self.counts.len() > 1 && self.counts[0] == 0 {
            self.counts.pop_front();
            self.first += 1;
        }
    }

    /// The epoch of requests that begin now.
    pub fn current(&self) -> u64 {
        self.first + self.counts.len() as u64 - 1
    }

    /// A new epoch begins; gives the one that ended.
    pub fn advance(&mut self) -> u64 {
        let ended = self.current();
        self.counts.push_back(0);
        self.end(u64::MAX);
        ended
    }

    /// Whether somebody may wait for requests of an earlier epoch.
    pub fn is_waited_for(&self) -> bool {
        self.counts.len() > 1
    }

    /// Whether every request of that epoch and earlier ones has ended.
    pub fn ended(&self, epoch: u64) -> bool {
        self.first > epoch
    }
}
