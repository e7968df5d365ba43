//! Slots: what the controller knows of a device and its endpoints, and their contexts in the guest's memory (xHCI 1.2, 4.5, 4.8, 6.2). The controller writes contexts for its driver and never believes what it finds there.

use super::ring::Ring;
use super::tablet::Setup;
use crate::memory::GuestMemory;
use serde::{Deserialize, Serialize};

/// Slots.
pub const SLOTS: usize = 4;
/// Bytes of a context.
pub const CONTEXT: u64 = 32;
/// Contexts, by number: the slot's own, the control endpoint's, endpoint 1 in's.
pub const CONTROL: u8 = 1;
pub const REPORTS: u8 = 3;
/// Longest answer to a request.
pub const ANSWER: usize = 96;

/// How far a slot is (4.5.3), as its context says it; a free one and one that is enabled look alike there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    #[default]
    Free,
    Enabled,
    Default,
    Addressed,
    Configured,
}

/// How an endpoint is (4.8.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    #[default]
    Disabled,
    Running,
    Halted,
    Stopped,
    Error,
}

/// Bytes on their way to the driver.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sending {
    pub bytes: heapless::Vec<u8, ANSWER>,
    pub sent: usize,
}

impl Sending {
    /// What is left.
    pub fn rest(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }
}

/// A control transfer whose request came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Control {
    /// The device sends.
    pub is_in: bool,
    /// It did not know the request.
    pub stalled: bool,
    pub sending: Sending,
}

impl Control {
    pub const fn begun(setup: Setup) -> Self {
        Self {
            is_in: setup.is_in(),
            stalled: false,
            sending: Sending {
                bytes: heapless::Vec::new(),
                sent: 0,
            },
        }
    }
}

/// An endpoint.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Endpoint {
    pub state: State,
    pub ring: Ring,
    /// Its doorbell was rung, and its ring was not seen empty since.
    pub rung: bool,
    /// Its doorbell was rung since it is set up: somebody asks for reports.
    pub polled: bool,
    /// The transfer under way has come to a packet that was short.
    pub short: bool,
    /// Bytes that the transfer moved, for events that say so (4.11.5.2).
    pub moved: u32,
    pub control: Option<Control>,
    pub report: Option<Sending>,
}

impl Endpoint {
    /// One that runs, with its ring at this place.
    pub fn running(pointer: u64) -> Self {
        Self {
            state: State::Running,
            ring: Ring::at(pointer),
            ..Self::default()
        }
    }

    /// It goes on elsewhere: nothing of a transfer is left.
    pub fn move_to(&mut self, pointer: u64) {
        *self = Self {
            state: self.state,
            ring: Ring::at(pointer),
            report: self.report.take(),
            ..Self::default()
        };
    }
}

/// A slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Slot {
    pub stage: Stage,
    /// Where the driver wants to read of it.
    pub context: u64,
    pub control: Endpoint,
    pub reports: Endpoint,
}

impl Slot {
    /// An endpoint by the number of its context.
    pub const fn endpoint(&mut self, number: u8) -> Option<&mut Endpoint> {
        match number {
            CONTROL => Some(&mut self.control),
            REPORTS => Some(&mut self.reports),
            _ => None,
        }
    }

    /// Says in the slot's context how far it is, and the device's address. What is not RAM is not written.
    pub fn tell_stage(&self, memory: &GuestMemory, address: u8) {
        let stage: u32 = match self.stage {
            Stage::Free | Stage::Enabled => 0,
            Stage::Default => 1,
            Stage::Addressed => 2,
            Stage::Configured => 3,
        };
        let _ = memory.write_u32(self.context.wrapping_add(12), stage << 27 | u32::from(address));
    }

    /// Says in an endpoint's context how it is, and where its ring is.
    pub fn tell_endpoint(&mut self, memory: &GuestMemory, number: u8) {
        let context = self.context.wrapping_add(CONTEXT * u64::from(number));
        let Some(endpoint) = self.endpoint(number) else { return };
        let state: u32 = match endpoint.state {
            State::Disabled => 0,
            State::Running => 1,
            State::Halted => 2,
            State::Stopped => 3,
            State::Error => 4,
        };
        if let Some(first) = memory.read_u32(context) {
            // The same word was just read.
            let _ = memory.write_u32(context, first & !7 | state);
            let _ = memory.write_slice(context.wrapping_add(8), &endpoint.ring.pointer().to_le_bytes());
        }
    }
}
