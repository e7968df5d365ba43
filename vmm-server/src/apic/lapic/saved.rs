//! The local APIC of a suspended machine.

use super::{Lapic, NEVER};
use crate::apic::lapic_registers::{Lvt, lvt};
use serde::{Deserialize, Serialize};
use tessera_abi::apic::VectorSet;

/// Its registers. Times are those of the host on which it was suspended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedLapic {
    base: u64,
    tpr: u8,
    logical: u8,
    flat: bool,
    spurious: u32,
    error: u32,
    error_latched: u32,
    command: u64,
    lvt: [Lvt; lvt::COUNT],
    initial_count: u32,
    divide: u32,
    tsc_deadline: u64,
    /// Nanoseconds until the timer fires, and of one period.
    left: Option<u64>,
    period: u64,
    in_service: [u32; 8],
    trigger_mode: [u32; 8],
    requests: [u32; 8],
}

fn words(set: &VectorSet) -> [u32; 8] {
    core::array::from_fn(|index| set.register(index).get())
}

fn set_words(set: &VectorSet, words: &[u32; 8]) {
    for (index, word) in words.iter().enumerate() {
        set.register(index).set(*word);
    }
}

impl Lapic {
    /// What it knows at the TSC value `now`.
    #[must_use]
    pub fn save(&self, now: u64) -> SavedLapic {
        let left = self.clock.ticks_to_ns(self.deadline.saturating_sub(now));
        SavedLapic {
            base: self.base,
            tpr: self.tpr,
            logical: self.logical,
            flat: self.flat,
            spurious: self.spurious,
            error: self.error,
            error_latched: self.error_latched,
            command: self.command,
            lvt: self.lvt,
            initial_count: self.initial_count,
            divide: self.divide,
            tsc_deadline: self.tsc_deadline,
            left: (self.deadline != NEVER).then_some(left),
            period: self.clock.ticks_to_ns(self.period),
            in_service: words(&self.page.in_service),
            trigger_mode: words(&self.page.trigger_mode),
            requests: words(&self.page.requests),
        }
    }

    /// Makes this one, which did nothing yet, what another was. Its timer has as long to run as it had then.
    pub fn restore(&mut self, saved: &SavedLapic, now: u64) {
        self.base = saved.base;
        self.tpr = saved.tpr;
        self.logical = saved.logical;
        self.flat = saved.flat;
        self.spurious = saved.spurious;
        self.error = saved.error;
        self.error_latched = saved.error_latched;
        self.command = saved.command;
        self.lvt = saved.lvt;
        self.initial_count = saved.initial_count;
        self.divide = saved.divide;
        self.tsc_deadline = saved.tsc_deadline;
        self.deadline = saved.left.map_or(NEVER, |left| now.saturating_add(self.clock.ns_to_ticks(left)));
        self.period = self.clock.ns_to_ticks(saved.period.max(10_000));
        set_words(&self.page.in_service, &saved.in_service);
        set_words(&self.page.trigger_mode, &saved.trigger_mode);
        set_words(&self.page.requests, &saved.requests);
        self.publish();
    }
}
