//! Network cards of an emulated machine, and what is behind them.

use super::Emulator;
use crate::{Result, fail};
use std::{
    fmt::{self, Display, Formatter, Write},
    fs,
    net::{Ipv4Addr, SocketAddrV4},
    path::Path,
    process::Command,
};

/// Most cards that Bochs' machine has room for.
const MOST_ON_BOCHS: usize = 4;

/// What a card is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// A network of its own that the emulator makes (slirp): a DHCP server is in it, and nothing outside is reached.
    Own,
    /// The same, from which this machine is reached at 10.0.2.2 and fec0::2.
    User(Vec<Forward>),
    /// Frames go as UDP packets between these ports of 127.0.0.1: the test's own, and the emulator's, which for Bochs is the one below.
    Udp {
        /// The test's.
        ours: u16,
        /// The emulator's.
        theirs: u16,
    },
}

/// A port of 127.0.0.1 that leads into an emulator's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Port of 127.0.0.1.
    pub here: u16,
    /// Where it leads.
    pub to: SocketAddrV4,
}

impl Forward {
    /// To a port of 10.0.2.15, the address that the first who asks gets.
    #[must_use]
    pub const fn new(here: u16, port: u16) -> Self {
        let to = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), port);
        Self { here, to }
    }
}

impl Display for Forward {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        write!(formatter, "tcp:127.0.0.1:{}-{}", self.here, self.to)
    }
}

/// A model of a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// A virtio network device.
    Virtio,
    /// Intel's 82540EM.
    E1000,
    /// Intel's 82574L; QEMU alone.
    E1000e,
    /// Intel's 82576; QEMU from 8.0 on.
    Igb,
}

impl Model {
    /// Whether the installed QEMU has it.
    #[must_use]
    pub fn is_known(self) -> bool {
        let options = Command::new("qemu-system-x86_64")
            .args(["-device", &format!("{},help", self.name())])
            .output();
        options.is_ok_and(|options| options.status.success() && !options.stdout.is_empty())
    }

    /// QEMU's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Virtio => "virtio-net-pci",
            Self::E1000 => "e1000",
            Self::E1000e => "e1000e",
            Self::Igb => "igb",
        }
    }
}

/// A network card.
#[derive(Clone, Debug)]
pub struct Nic {
    /// Model.
    pub model: Model,
    /// What it is in.
    pub network: Network,
    /// It can be taken away; QEMU alone.
    pub removable: bool,
}

impl Nic {
    /// A card that stays, in a network of its own.
    #[must_use]
    pub fn new(model: Model) -> Self {
        Self {
            model,
            network: Network::Own,
            removable: false,
        }
    }

    /// A card of the model that the emulator has: virtio on QEMU, an 82540EM on Bochs.
    #[must_use]
    pub fn usual(emulator: Emulator, network: Network) -> Self {
        let model = match emulator {
            Emulator::Qemu => Model::Virtio,
            Emulator::Bochs => Model::E1000,
        };
        Self {
            network,
            ..Self::new(model)
        }
    }

    /// The address of card number `number`.
    #[must_use]
    pub fn mac(number: usize) -> String {
        format!("52:54:00:00:00:{:02x}", number + 1)
    }

    /// QEMU's arguments for card number `number`: `nic0` in the network `net0`.
    pub(super) fn qemu(&self, number: usize) -> Vec<String> {
        let model = self.model.name();
        let network = match &self.network {
            Network::Own => format!("user,id=net{number},restrict=on"),
            Network::User(forwards) => {
                let mut network = format!("user,id=net{number}");
                for forward in forwards {
                    // Writing to a String does not fail.
                    let _ = write!(network, ",hostfwd={forward}");
                }
                network
            }
            Network::Udp { ours, theirs } => format!("socket,id=net{number},udp=127.0.0.1:{ours},localaddr=127.0.0.1:{theirs}"),
        };
        let mut arguments = vec!["-netdev".to_owned(), network];
        let mut bus = String::new();
        if self.removable {
            // Pulled out by PCI Express's own hot-plugging, without ACPI.
            arguments.extend(["-global".to_owned(), "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off".to_owned()]);
            arguments.extend([
                "-device".to_owned(),
                format!("pcie-root-port,id=nicport{number},chassis={}", number + 101),
            ]);
            bus = format!(",bus=nicport{number}");
        }
        let mac = Self::mac(number);
        arguments.extend([
            "-device".to_owned(),
            format!("{model},id=nic{number},netdev=net{number},mac={mac}{bus}"),
        ]);
        arguments
    }
}

/// Lines of Bochs' configuration, and what stands in its list of PCI slots.
pub(super) fn bochs(nics: &[Nic], logs: &Path, stem: &str) -> Result<(String, String)> {
    if nics.len() > MOST_ON_BOCHS || nics.iter().any(|nic| nic.model != Model::E1000 || nic.removable) {
        fail!("Bochs has {MOST_ON_BOCHS} network cards at most, e1000 that stay");
    }
    let (mut lines, mut slots) = (String::new(), String::new());
    for (number, nic) in nics.iter().enumerate() {
        let network = match &nic.network {
            Network::Own => "ethmod=slirp".to_owned(),
            Network::User(forwards) => {
                let script = logs.join(format!("{stem}.nic{number}.slirp"));
                let mut text = "# slirp config\nipv6_enabled = 1\n".to_owned();
                for forward in forwards {
                    // Writing to a String does not fail.
                    let _ = writeln!(text, "hostfwd = {forward}");
                }
                fs::write(&script, text)?;
                format!("ethmod=slirp, script=\"{}\"", script.display())
            }
            Network::Udp { ours, theirs } if theirs + 1 == *ours => format!("ethmod=socket, ethdev={theirs}"),
            Network::Udp { theirs, .. } => fail!("Bochs sends to the port behind its own, {theirs}"),
        };
        let _ = writeln!(lines, "e1000: card={number}, enabled=1, mac={}, {network}", Nic::mac(number));
        let _ = write!(slots, ", slot{}=e1000", number + 1);
    }
    Ok((lines, slots))
}
