//! Network cards of an emulated machine, each in a network of its own that the emulator makes (slirp): a DHCP server is in it, and nothing outside is reached.

use crate::{Result, fail};
use std::process::Command;

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
    /// It can be taken away; QEMU alone.
    pub removable: bool,
}

impl Nic {
    /// A card that stays.
    #[must_use]
    pub fn new(model: Model) -> Self {
        Self { model, removable: false }
    }

    /// The address of card number `number`.
    #[must_use]
    pub fn mac(number: usize) -> String {
        format!("52:54:00:00:00:{:02x}", number + 1)
    }

    /// QEMU's arguments for card number `number`: `nic0` in the network `net0`.
    pub(super) fn qemu(&self, number: usize) -> Vec<String> {
        let model = self.model.name();
        let mut arguments = vec!["-netdev".to_owned(), format!("user,id=net{number},restrict=on")];
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
pub(super) fn bochs(nics: &[Nic]) -> Result<(String, String)> {
    match nics {
        [] => Ok((String::new(), String::new())),
        [
            Nic {
                model: Model::E1000,
                removable: false,
            },
        ] => {
            let line = format!("e1000: enabled=1, mac={}, ethmod=slirp\n", Nic::mac(0));
            Ok((line, ", slot1=e1000".into()))
        }
        _ => fail!("Bochs has one network card at most here, an e1000 that stays"),
    }
}
