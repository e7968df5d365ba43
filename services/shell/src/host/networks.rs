//! Virtual switches, as commands see them.

use super::Answer;
use alloc::vec::Vec;
use tessera_proto::{
    capture::{CaptureChunk, CaptureInfo},
    hostd::Echo,
    switch::{AddressInfo, Group, GroupInfo, PortInfo, Settings, SwitchInfo},
};

/// What is to be changed about switches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum NetworkChange<'a> {
    /// Make a switch.
    CreateSwitch(Settings),
    /// Change a switch.
    ChangeSwitch(Settings),
    /// Remove a switch.
    RemoveSwitch(&'a str),
    /// Make a port group.
    CreateGroup { switch: &'a str, group: Group },
    /// Change a port group.
    ChangeGroup(Group),
    /// Remove a port group.
    RemoveGroup(&'a str),
    /// Make a card an uplink.
    Link { switch: &'a str, nic: &'a str },
    /// Take an uplink away.
    Unlink { switch: &'a str, nic: &'a str },
    /// Mirror a port, or no more.
    Mirror {
        switch: &'a str,
        from: &'a str,
        to: Option<&'a str>,
    },
    /// Take a port's link up or down.
    PortLink { port: &'a str, up: bool },
}

impl NetworkChange<'_> {
    /// What it is, in the infinitive.
    #[must_use]
    pub const fn doing(&self) -> &'static str {
        match self {
            Self::CreateSwitch(_) => "make the switch",
            Self::ChangeSwitch(_) => "change the switch",
            Self::RemoveSwitch(_) => "remove the switch",
            Self::CreateGroup { .. } => "make the port group",
            Self::ChangeGroup(_) => "change the port group",
            Self::RemoveGroup(_) => "remove the port group",
            Self::Link { .. } => "link the network card",
            Self::Unlink { .. } => "unlink the network card",
            Self::Mirror { .. } => "mirror the port",
            Self::PortLink { .. } => "change the port's link",
        }
    }
}

/// The network server's switches. It answers its refusal, or that it cannot be reached, as an error.
#[allow(clippy::missing_errors_doc)]
pub trait Networks {
    /// Switches.
    fn switches(&mut self) -> Answer<Vec<SwitchInfo>>;
    /// Port groups.
    fn port_groups(&mut self) -> Answer<Vec<GroupInfo>>;
    /// Ports.
    fn ports(&mut self) -> Answer<Vec<PortInfo>>;
    /// Addresses that a switch knows.
    fn addresses(&mut self, switch: &str) -> Answer<Vec<AddressInfo>>;
    /// Changes something.
    fn network_change(&mut self, change: NetworkChange<'_>) -> Answer<()>;
    /// Sends an echo request from the management port, and waits for the answer.
    fn ping(&mut self, to: &str, sequence: u16, bytes: u16, wait_ms: u32) -> Answer<Echo>;
    /// Captures.
    fn captures(&mut self) -> Answer<Vec<CaptureInfo>>;
    /// Begins one.
    fn capture_start(&mut self, port: &str, snap: u32) -> Answer<u32>;
    /// Reads its file from a byte on.
    fn capture_read(&mut self, id: u32, from: u64) -> Answer<CaptureChunk>;
    /// Ends one.
    fn capture_stop(&mut self, id: u32) -> Answer<()>;
    /// Forgets one.
    fn capture_remove(&mut self, id: u32) -> Answer<()>;
}
