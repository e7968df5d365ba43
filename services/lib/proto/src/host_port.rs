//! Ports of the virtual switch for servers of the host. Frames stand in memory that the two share, see `services/lib/host-port`; messages only open and close a port.

use crate::declare::interface;
use serde::{Deserialize, Serialize};

/// What a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPortInfo {
    /// Its address.
    pub mac: [u8; 6],
    /// Longest payload of a frame, in bytes.
    pub mtu: u16,
}

interface! {
    /// The caller's own port on the virtual switch.
    host_port = 14;

    /// Opens the port in a port group, or connects it there; an open one goes on with the frames that are in its rings. The Notification that comes along is signalled when frames have come; the one that is given is to
    /// be signalled when there are some to send.
    0 idempotent fn open(group: &'a str) takes 1 gives 1 -> HostPortInfo;
    /// Closes it.
    1 idempotent fn close() -> ();
}
