//! A disk's condition: what it measures, and whether it warns (SMART, ACS-3, 7.46).

use super::{InFlight, OWN, Port};
use crate::controller::{Operation, Segment};
use crate::drivers::ahci::fis::Command;
use crate::drivers::identify_ata;
use tessera_device::hardware::Platform;

/// Milliseconds between two looks at the condition.
const HEALTH_MS: u64 = 30_000;
/// Bytes of the data.
const LENGTH: u32 = 512;
/// Where the frame that ends a command arrives, from the list on: behind the headers and 64 bytes of other frames (AHCI 1.3.1, 4.2.1).
const LAST_FRAME: usize = 1024 + 0x40;
/// Bytes 5 and 6 of that frame, when a threshold is exceeded.
const WARNS: [u8; 2] = [0xf4, 0x2c];

impl Port {
    /// Asks once and waits. Only while the driver starts.
    pub(super) fn first_health(&mut self, platform: &dyn Platform) {
        if self.command(platform, &Command::smart(), LENGTH).is_err() {
            return;
        }
        self.take_measures();
        if self.command(platform, &Command::smart_status(), 0).is_ok() {
            self.take_warning();
        }
        self.health_asked = Some(platform.now());
    }

    fn take_measures(&mut self) {
        let mut bytes = [0; LENGTH as usize];
        self.scratch.copy_out(0, &mut bytes);
        let failing = self.health.failing;
        self.health = identify_ata::health(&bytes);
        self.health.failing = failing;
    }

    fn take_warning(&mut self) {
        let mut bytes = [0; 2];
        self.list.copy_out(LAST_FRAME + 5, &mut bytes);
        self.health.failing = Some(bytes == WARNS);
    }

    /// The driver's own command has completed.
    pub(super) fn health_told(&mut self) {
        if self.asked_for_warning {
            self.take_warning();
        } else {
            self.take_measures();
        }
    }

    /// Asks, if it is time and nothing is at work: for the measures and for the warning by turns.
    pub(super) fn ask_health(&mut self, now: u64) {
        let due = self.health_asked.is_some_and(|asked| now.saturating_sub(asked) >= HEALTH_MS / 2);
        if !due || self.flying.iter().any(Option::is_some) {
            return;
        }
        self.health_asked = Some(now);
        self.asked_for_warning = !self.asked_for_warning;
        let memory = [Segment {
            physical: self.scratch.physical(),
            length: LENGTH,
        }];
        if self.asked_for_warning {
            Command::smart_status().write(&self.header(0), &self.table(0), &[]);
        } else {
            Command::smart().write(&self.header(0), &self.table(0), &memory);
        }
        self.flying[0] = Some(InFlight {
            tag: OWN,
            operation: Operation::Flush,
            sector: 0,
            sectors: 0,
            since: now,
            queued: false,
            again: false,
            issued: true,
        });
        self.issue(0, false);
    }
}
