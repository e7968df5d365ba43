//! The tests, one file for each topic.

mod boot;
mod conformance;
mod datastore;
mod debian_net;
mod entry;
mod firmware;
mod format;
mod fuzz;
mod guest;
mod guest_ahci;
mod guest_disk;
mod guest_disk_more;
pub(crate) mod guest_net;
mod hostile_guest;
mod install;
mod iommu;
mod isolation;
mod lifecycle;
pub(crate) mod management;
mod management_agent;
mod management_browser;
mod management_cloud_init;
mod management_command_line;
mod management_load;
mod management_network;
mod management_passthrough;
mod management_settings;
mod management_state;
mod management_tls;
mod net_switch;
mod network;
mod panic_record;
mod passthrough;
mod power_cuts;
mod screen;
mod screen_browser;
pub(crate) mod screen_memory;
mod screen_tablet;
mod share;
mod shell;
mod sleep;
mod storage;
mod suspend;

pub(crate) use install::is_only_named;

use crate::{Context, Outcome, Result, machine::Emulator};
use std::time::Duration;

/// A test.
#[derive(Clone, Copy)]
pub struct Case {
    /// `topic/what`.
    pub name: &'static str,
    /// What holds when it passes.
    pub about: &'static str,
    /// Minutes it usually takes at most on QEMU.
    pub minutes: u32,
    /// Minutes it usually takes at most on Bochs; none: it does not run there, for what it tests is the same on both and Bochs is slow.
    pub bochs: Option<u32>,
    /// The test.
    pub run: fn(&Context) -> Result<Outcome>,
}

impl Case {
    /// Minutes it usually takes at most; none: it does not run there.
    #[must_use]
    pub fn minutes(&self, emulator: Emulator) -> Option<u32> {
        match emulator {
            Emulator::Qemu => Some(self.minutes),
            Emulator::Bochs => self
                .bochs
                .filter(|_| !LONG_ON_BOCHS.contains(&self.name) || std::env::var_os("TESSERA_BOCHS_ALL").is_some()),
        }
    }

    /// Why it may be tried twice on an emulator, if it may. It shows that it was.
    #[must_use]
    pub fn second_try(&self, emulator: Emulator) -> Option<&'static str> {
        match emulator {
            // OVMF raises and lowers the task priority all the time.
            Emulator::Qemu if self.name.starts_with("firmware/uefi") => {
                Some("QEMU 7.2 now and then ends itself by an assertion about its own lock when a guest changes its task priority")
            }
            // A fault in its memory management, with nothing of its own in its log.
            Emulator::Qemu if self.name == "storage/removal" => {
                Some("QEMU 7.2 now and then crashes when an NVMe controller with commands under way is pulled out")
            }
            _ => None,
        }
    }

    /// The watchdog: five times what it usually takes.
    #[must_use]
    pub fn limit(&self, emulator: Emulator) -> Duration {
        Duration::from_secs(u64::from(self.minutes(emulator).unwrap_or(self.minutes)) * 300)
    }
}

/// Topics whose hosts run no guests.
const WITHOUT_GUESTS: [&str; 8] = ["boot", "entry", "fuzz", "isolation", "net", "panic", "shell", "storage"];

/// Whether the hosts of a test run guests.
#[must_use]
pub fn has_guests(test: &str) -> bool {
    let topic = test.split_once('/').map_or(test, |(topic, _)| topic);
    !WITHOUT_GUESTS.contains(&topic)
}

/// What is left out on Bochs, because it takes minutes there, unless `TESSERA_BOCHS_ALL` is set (`make test-bochs-long`).
const LONG_ON_BOCHS: [&str; 35] = [
    "datastore/full",
    "datastore/made-at-run-time",
    "datastore/snapshot-and-revert",
    "debian-net/kill-under-load",
    "firmware/bios-ahci-disk",
    "firmware/uefi-ahci-disk",
    "firmware/uefi-cdrom",
    "guest-disk/4-queues",
    "guest-disk/ahci",
    "guest-disk/hostile-queues",
    "guest-disk/kill-storage-under-load",
    "guest-disk/memory-comes-back",
    "guest-net/e1000e",
    "guest-net/hostile-queues",
    "guest-net/kill-net",
    "guest-net/memory-comes-back",
    "guest-net/no-group",
    "guest-net/two-guests",
    "guest/memory-1-gib",
    "isolation/spin",
    "lifecycle/start-stop-1000",
    "management/first-steps",
    "net-switch/changes",
    "net-switch/flood",
    "net-switch/policies",
    "net-switch/shaping",
    "net-switch/vlans",
    "net-switch/watch",
    "screen/tablet",
    "sleep/2-vcpus",
    "sleep/bios",
    "sleep/debian",
    "sleep/uefi",
    "suspend/2-vcpus",
    "suspend/go-on",
];

/// All tests.
#[must_use]
pub fn all() -> Vec<Case> {
    [
        boot::CASES,
        entry::CASES,
        shell::CASES,
        guest::CASES,
        guest_ahci::CASES,
        guest_disk::CASES,
        guest_disk_more::CASES,
        guest_net::CASES,
        debian_net::CASES,
        net_switch::CASES,
        datastore::CASES,
        power_cuts::CASES,
        format::CASES,
        firmware::CASES,
        conformance::CASES,
        share::CASES,
        isolation::CASES,
        hostile_guest::CASES,
        fuzz::CASES,
        lifecycle::CASES,
        panic_record::CASES,
        storage::CASES,
        iommu::CASES,
        passthrough::CASES,
        management::CASES,
        management_agent::CASES,
        management_browser::CASES,
        management_cloud_init::CASES,
        management_command_line::CASES,
        management_load::CASES,
        management_network::CASES,
        management_passthrough::CASES,
        management_settings::CASES,
        management_state::CASES,
        management_tls::CASES,
        screen::CASES,
        screen_browser::CASES,
        screen_memory::CASES,
        screen_tablet::CASES,
        install::CASES,
        network::CASES,
        suspend::CASES,
        sleep::CASES,
    ]
    .concat()
}
