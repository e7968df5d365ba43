//! What virtual switches and port groups say about traffic, and what is seen of it.

use super::text::{Few, Id, Ranged};
use alloc::{string::String, vec::Vec};
use tessera_vswitch as vswitch;

/// Bits in a second.
pub type Rate = Ranged<100_000, 1_000_000_000_000>;
/// Bytes that may go at once.
pub type Burst = Ranged<1024, 1_073_741_824>;

model! {
    /// A limit of a port's traffic.
    pub struct TrafficLimit {
        /// Bits in a second, in the long run.
        pub average: Rate,
        /// Bits in a second while a burst lasts; not below the average.
        pub peak: Rate,
        /// Bytes that may go beyond the average at once.
        pub burst: Burst,
    }

    /// Limits of a port, each way as its owner sees it.
    pub struct TrafficShaping {
        /// Of what it sends; none: as much as there is.
        pub sent: Option<TrafficLimit>,
        /// Of what it is given.
        pub received: Option<TrafficLimit>,
    }

    /// How an uplink is chosen among those that work.
    #[derive(Copy, Eq, Default)]
    pub enum LoadBalancing {
        /// By the port.
        #[default]
        Port,
        /// By the sender's address.
        SourceMac,
        /// The first that works, in their order.
        Order,
    }

    /// How uplinks share the work, and stand in for each other.
    pub struct UplinkTeaming {
        /// How one is chosen.
        pub balance: LoadBalancing,
        /// Uplinks in use; empty: all that are not on standby.
        pub active: Few<Id, 16>,
        /// Used in their order while no active one works.
        pub standby: Few<Id, 16>,
    }

    /// Copies of what a port sends and is given go to another port of the same switch.
    pub struct PortMirror {
        /// The port that is watched, such as `debian.0`.
        pub from: Id,
        /// The port that gets the copies.
        pub to: Id,
    }

    /// Frames and their bytes.
    pub struct Traffic {
        /// Frames.
        pub frames: u64,
        /// Bytes.
        pub bytes: u64,
    }

    /// Frames that a switch dropped for a reason.
    pub struct DroppedFrames {
        /// Why, such as `forged`.
        pub reason: String,
        /// The same in words.
        pub text: String,
        /// How many.
        pub frames: u64,
    }

    /// Who is at a port.
    #[derive(Copy, Eq)]
    pub enum SwitchPortKind {
        /// A machine.
        Machine,
        /// The host itself.
        Host,
        /// A network card of the host.
        Uplink,
    }

    /// A port of a virtual switch. Counters are since it was connected.
    pub struct SwitchPort {
        /// Identifier: its name.
        pub id: String,
        /// Name: `MACHINE.N` for network card N of a machine, `host-N` for a server of the host, an uplink's is its network card's.
        pub name: String,
        /// Who is there.
        pub kind: SwitchPortKind,
        /// The switch.
        pub switch: String,
        /// The port group; an uplink has none.
        pub port_group: Option<String>,
        /// VLAN.
        pub vlan: u32,
        /// The address in use.
        pub mac: String,
        /// Link.
        pub link_up: bool,
        /// It uses an address that it must not have: nothing goes in or out.
        pub blocked: bool,
        /// The uplink that it uses now.
        pub uplink: Option<String>,
        /// What came from it.
        pub received: Traffic,
        /// What it was given.
        pub sent: Traffic,
        /// Frames for many, of both.
        pub multicast: u64,
        /// What was dropped.
        pub dropped: Vec<DroppedFrames>,
    }

    /// A recording of what goes through a port, as a pcapng file.
    pub struct Capture {
        /// Identifier.
        pub id: String,
        /// The port.
        pub port: String,
        /// Bytes of each frame that are kept.
        pub snap_length: u32,
        /// Bytes of the file that wait to be fetched.
        pub waiting: u32,
        /// Frames that were recorded.
        pub frames: u64,
        /// Frames that found no room, since nobody fetched those before.
        pub lost: u64,
        /// It goes on.
        pub running: bool,
    }

    /// A recording to begin.
    pub struct CaptureCreate {
        /// The port.
        pub port: Id,
        /// Bytes of each frame that are kept, 256 unless something is said.
        pub snap_length: Option<Ranged<1, 65535>>,
    }
}

fn limit(limit: TrafficLimit) -> vswitch::Limits {
    vswitch::Limits {
        average: limit.average.get(),
        peak: limit.peak.get(),
        burst: limit.burst.get(),
    }
}

fn shown(limit: vswitch::Limits) -> TrafficLimit {
    TrafficLimit {
        average: Rate::clamped(limit.average),
        peak: Rate::clamped(limit.peak),
        burst: Burst::clamped(limit.burst),
    }
}

impl From<TrafficShaping> for vswitch::Shaping {
    fn from(shaping: TrafficShaping) -> Self {
        Self {
            sent: shaping.sent.map(limit),
            received: shaping.received.map(limit),
        }
    }
}

impl From<vswitch::Shaping> for TrafficShaping {
    fn from(shaping: vswitch::Shaping) -> Self {
        Self {
            sent: shaping.sent.map(shown),
            received: shaping.received.map(shown),
        }
    }
}

fn names(list: Few<Id, 16>) -> Vec<String> {
    list.0.into_iter().map(Id::into_string).collect()
}

/// Names that an identifier's rule does not allow cannot be said here: the manifest's are all within it.
fn ids(names: &[String]) -> Few<Id, 16> {
    Few(names.iter().filter_map(|name| Id::parse(name).ok()).collect())
}

impl From<UplinkTeaming> for vswitch::Teaming {
    fn from(teaming: UplinkTeaming) -> Self {
        Self {
            balance: match teaming.balance {
                LoadBalancing::Port => vswitch::Balance::Port,
                LoadBalancing::SourceMac => vswitch::Balance::SourceMac,
                LoadBalancing::Order => vswitch::Balance::Order,
            },
            active: names(teaming.active),
            standby: names(teaming.standby),
        }
    }
}

impl From<vswitch::Teaming> for UplinkTeaming {
    fn from(teaming: vswitch::Teaming) -> Self {
        Self {
            balance: match teaming.balance {
                vswitch::Balance::Port => LoadBalancing::Port,
                vswitch::Balance::SourceMac => LoadBalancing::SourceMac,
                vswitch::Balance::Order => LoadBalancing::Order,
            },
            active: ids(&teaming.active),
            standby: ids(&teaming.standby),
        }
    }
}

impl From<PortMirror> for vswitch::Mirror {
    fn from(mirror: PortMirror) -> Self {
        Self {
            from: mirror.from.into_string(),
            to: mirror.to.into_string(),
        }
    }
}

/// Mirrors whose ports' names can be said here: machines, servers and cards have such.
#[must_use]
pub fn mirrors(all: &[vswitch::Mirror]) -> Vec<PortMirror> {
    let shown = |mirror: &vswitch::Mirror| {
        Some(PortMirror {
            from: Id::parse(&mirror.from).ok()?,
            to: Id::parse(&mirror.to).ok()?,
        })
    };
    all.iter().filter_map(shown).collect()
}
