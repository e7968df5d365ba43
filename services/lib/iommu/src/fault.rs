//! What units report.

use crate::Source;
use core::fmt;

/// What a function tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// To read.
    Read,
    /// To write.
    Write,
    /// To raise an interrupt that is not its own.
    Interrupt,
    /// The unit does not say.
    Unknown,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Interrupt => "interrupt",
            Self::Unknown => "access",
        })
    }
}

/// A request that a unit refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose it was; `None`: the unit does not say.
    pub source: Option<Source>,
    /// The address; `None`: the unit does not say.
    pub address: Option<u64>,
    /// What was tried.
    pub kind: FaultKind,
    /// The unit's own number for the reason (VT-d 7.1.3; AMD-Vi 2.5: the event's code).
    pub reason: u8,
}
