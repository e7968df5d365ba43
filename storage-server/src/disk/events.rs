//! What happened to disks: their states, what they warn of, and requests that failed in a new way.

use alloc::{
    collections::VecDeque,
    string::{String, ToString},
    vec::Vec,
};
use tessera_proto::storage::{DiskEvent, DiskState};
use tessera_rt::log;

/// Events of a controller that are kept; older ones are forgotten.
pub const MAX_EVENTS: usize = 64;

/// The last events of a controller's disks, and the states that they were last seen in.
#[derive(Debug, Default)]
pub struct Events {
    kept: VecDeque<(u32, DiskEvent)>,
    states: Vec<DiskState>,
}

impl Events {
    /// Notes and logs one of disk `unit`, called `name`; `now` in milliseconds.
    pub fn add(&mut self, unit: u32, name: &str, now: u64, text: &str) {
        log::warn!("disk {name}: {text}");
        if self.kept.len() == MAX_EVENTS {
            self.kept.pop_front();
        }
        self.kept.push_back((
            unit,
            DiskEvent {
                at: now,
                text: text.to_string(),
            },
        ));
    }

    /// Notes what a disk is doing now; another state than before is an event.
    pub fn state(&mut self, unit: u32, name: &str, now: u64, state: DiskState) {
        let Some(before) = self.states.get_mut(unit as usize) else {
            // Units come in order.
            return self.states.push(state);
        };
        if core::mem::replace(before, state) != state {
            self.add(unit, name, now, describe(state));
        }
    }

    /// Those of a disk, oldest first.
    pub fn of(&self, unit: u32) -> Vec<DiskEvent> {
        let own = self.kept.iter().filter(|(whose, _)| *whose == unit);
        own.map(|(_, event)| event.clone()).collect()
    }
}

const fn describe(state: DiskState) -> &'static str {
    match state {
        DiskState::Ready => "it works again",
        DiskState::Empty => "its medium was taken out",
        DiskState::Resetting => "its controller is being reset",
        DiskState::Failed => "it failed, and resets do not help: replace it",
        DiskState::Gone => "it was taken away",
    }
}

/// Events that a driver has yet to tell. What a device makes up without end is cut off.
#[derive(Debug, Default)]
pub struct Told(Vec<String>);

impl Told {
    /// Adds one.
    pub fn push(&mut self, text: String) {
        if self.0.len() < MAX_EVENTS / 4 {
            self.0.push(text);
        }
    }

    /// Takes all.
    pub fn take(&mut self) -> Vec<String> {
        core::mem::take(&mut self.0)
    }
}
