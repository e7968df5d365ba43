//! Resets of functions, between which init does other things.

use super::{Devices, Entry};
use crate::machine::Machine;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use tessera_pci::{Reset, Step};
use tessera_proto::{Failure, FailureKind};
use tessera_rt::time;

/// Milliseconds after which whoever waits for a reset asks again.
const ASK_AGAIN_MS: u32 = 20;

/// A reset that is under way.
#[derive(Debug)]
pub(super) struct Resetting {
    reset: Reset,
    /// When it goes on (TSC).
    due: u64,
}

impl Entry {
    /// Whether its reset is not over yet.
    #[must_use]
    pub const fn is_resetting(&self) -> bool {
        self.reset.is_some()
    }
}

impl Devices {
    fn find_reset(&self, index: usize) -> Option<Reset> {
        let entry = self.entries.get(index)?;
        Reset::find(self.spaces.get(entry.space)?, entry.function.address, &entry.function.capabilities)
    }

    /// Whether a function can be reset by itself.
    #[must_use]
    pub fn can_reset(&self, index: usize) -> bool {
        self.entries[index].is_resetting() || self.find_reset(index).is_some()
    }

    /// Begins to reset a function: it may not access memory any more and raises no interrupts. One reset that is under way will do.
    pub fn begin_reset(&mut self, index: usize) {
        self.quiet(index);
        if self.entries[index].reset.is_none() {
            let due = time::now();
            self.entries[index].gone = false;
            self.entries[index].reset = self.find_reset(index).map(|reset| Resetting { reset, due });
        }
    }

    /// When the next step of a reset is due (TSC).
    pub(super) fn reset_deadline(&self) -> Option<u64> {
        self.entries.iter().filter_map(|entry| Some(entry.reset.as_ref()?.due)).min()
    }

    /// Goes on with the resets that are due. A function that somebody holds answers to its registers and interrupts afterwards as before. Answers lines for the log.
    pub fn look_at_resets(&mut self, machine: &Machine) -> Vec<String> {
        let mut lines = Vec::new();
        for index in 0..self.entries.len() {
            let entry = &mut self.entries[index];
            let Some(resetting) = entry.reset.as_mut().filter(|resetting| resetting.due <= time::now()) else {
                continue;
            };
            let Some(space) = self.spaces.get(entry.space) else { continue };
            match resetting.reset.step(space, entry.function.address) {
                Step::Wait(milliseconds) => {
                    resetting.due = time::after(time::milliseconds(milliseconds.into()));
                    continue;
                }
                Step::Done => {}
                Step::Gone => {
                    entry.gone = true;
                    lines.push(format!("PCI function {} did not come back from its reset", entry.function.address));
                }
            }
            entry.reset = None;
            if !entry.gone && entry.holder.is_some() {
                self.wake(index, machine);
            }
        }
        lines
    }

    /// Resets the `number`th function of a server, if `begin`; answers the milliseconds after which to ask again, and 0 when it is over.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported`; `Internal`: it did not come back.
    pub fn reset_held(&mut self, server: usize, number: u32, begin: bool) -> Result<u32, Failure> {
        let index = self.held(server, number)?;
        if begin {
            if !self.can_reset(index) {
                return Err(Failure::new(FailureKind::Unsupported, "the function cannot be reset by itself"));
            }
            self.begin_reset(index);
        }
        let entry = &self.entries[index];
        if entry.gone {
            return Err(Failure::new(FailureKind::Internal, "the function did not come back from its reset"));
        }
        Ok(if entry.is_resetting() { ASK_AGAIN_MS } else { 0 })
    }
}
