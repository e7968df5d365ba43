//! Devices whose queues the monitor works at itself, because requests are rare and concern nobody but the guest: entropy, memory balloon, console, the line of a guest's agent.

mod agent;
pub mod balloon;
mod console;
mod memory;
mod queues;
mod rng;

pub use agent::Agent;
pub use balloon::Balloon;
pub use console::Port;
pub use queues::{Queues, Request};
pub use rng::Rng;

use super::DeviceConfig;
use crate::memory::GuestMemory;
use tessera_virtqueue::Violation;

/// What such devices reach beside the guest's memory.
pub trait Outside {
    /// Fills with bytes that nobody can guess; false: there is no source.
    fn random(&mut self, bytes: &mut [u8]) -> bool;
    /// Shows what the guest wrote to its console.
    fn show(&mut self, bytes: &[u8]);
    /// Takes what was typed for the guest's console, as far as there is something: the number of bytes.
    fn typed(&mut self, bytes: &mut [u8]) -> usize;
}

/// A device.
pub trait Local: Send {
    /// What it is to the guest.
    fn config(&self) -> DeviceConfig;
    /// The driver set the queues up.
    fn start(&mut self) {}
    /// Likewise, and the driver is in the middle of its work: the machine was suspended.
    fn resumed(&mut self) {}
    /// Works at the queues for a bounded time. True: there may be more to do.
    ///
    /// # Errors
    /// The driver broke a rule; nothing is done until it resets the device.
    fn serve(&mut self, queues: &mut Queues, memory: &GuestMemory, outside: &mut dyn Outside) -> Result<bool, Violation>;
}

/// Requests of one queue that are served before others get their turn.
const TURN: usize = 64;

#[cfg(test)]
mod testing;
