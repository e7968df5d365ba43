//! Ports of the root hub (xHCI 1.2, 4.19, 5.4.8): one of USB 2 with the tablet, one of USB 3 with nothing, which drivers expect.

use serde::{Deserialize, Serialize};

/// Port status and control: connected, enabled, in reset; power; states of the link; speed; "write link state".
const CONNECTED: u32 = 1;
const ENABLED: u32 = 1 << 1;
const RESET: u32 = 1 << 4;
const LINK: u32 = 0xf << 5;
const POWER: u32 = 1 << 9;
const HIGH_SPEED: u32 = 3 << 10;
const WRITE_LINK: u32 = 1 << 16;
/// What changed: the connection, a reset ended, the link's state; all of them.
const CONNECTION_CHANGED: u32 = 1 << 17;
const RESET_CHANGED: u32 = 1 << 21;
const LINK_CHANGED: u32 = 1 << 22;
const CHANGES: u32 = 0x7f << 17;
/// What the driver can write beside: wakes that are enabled.
const PLAIN: u32 = 7 << 25;
/// States of the link.
const UP: u32 = 0;
const SUSPENDED: u32 = 3;
const NOTHING: u32 = 5;
const POLLING: u32 = 7;
const RESUMING: u32 = 15;

/// A port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    status: u32,
    /// Something changed that the driver was not told of.
    pub news: bool,
}

impl Port {
    /// After power-on or a reset of the controller.
    pub const fn new(connected: bool) -> Self {
        let status = if connected {
            CONNECTED | CONNECTION_CHANGED | HIGH_SPEED | POLLING << 5
        } else {
            NOTHING << 5
        };
        Self {
            status: status | POWER,
            news: connected,
        }
    }

    /// Its status.
    pub const fn read(self) -> u32 {
        self.status
    }

    /// Whether its device can be spoken to.
    pub const fn is_enabled(self) -> bool {
        self.status & ENABLED != 0
    }

    const fn link(self) -> u32 {
        (self.status & LINK) >> 5
    }

    const fn set_link(&mut self, state: u32) {
        self.status = self.status & !LINK | state << 5;
    }

    const fn changed(&mut self, what: u32) {
        self.news |= self.status & what == 0;
        self.status |= what;
    }

    /// Writes its control. Answers whether its device was reset.
    pub const fn write(&mut self, value: u32) -> bool {
        self.status &= !(value & CHANGES);
        self.status = self.status & !PLAIN | value & PLAIN;
        if self.status & CONNECTED == 0 {
            return false;
        }
        if value & RESET != 0 {
            self.set_link(UP);
            self.status |= ENABLED;
            self.changed(RESET_CHANGED);
            return true;
        }
        if value & ENABLED != 0 {
            self.status &= !ENABLED;
            self.set_link(POLLING);
        } else if value & WRITE_LINK != 0 && self.is_enabled() {
            match ((value & LINK) >> 5, self.link()) {
                (UP, SUSPENDED | RESUMING) => {
                    self.set_link(UP);
                    self.changed(LINK_CHANGED);
                }
                (SUSPENDED, UP) => self.set_link(SUSPENDED),
                (RESUMING, SUSPENDED) => self.set_link(RESUMING),
                _ => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reset_enables_the_device() {
        let mut port = Port::new(true);
        assert_eq!(
            port.read() & (CONNECTED | ENABLED | CONNECTION_CHANGED),
            CONNECTED | CONNECTION_CHANGED
        );
        port.news = false;
        assert!(port.write(POWER | RESET) && port.news);
        assert_eq!(port.read() & (ENABLED | RESET | LINK | RESET_CHANGED), ENABLED | RESET_CHANGED);
        port.write(POWER | CHANGES);
        assert_eq!(port.read() & (CHANGES | ENABLED), ENABLED);
        port.write(WRITE_LINK | SUSPENDED << 5);
        port.write(WRITE_LINK | RESUMING << 5);
        port.write(WRITE_LINK);
        assert_eq!(port.read() & (LINK | LINK_CHANGED), LINK_CHANGED);
        port.write(ENABLED);
        assert!(!port.is_enabled());
    }

    proptest! {
        #[test]
        fn a_port_without_a_device_has_none(values in prop::collection::vec(any::<u32>(), 0..20)) {
            let mut port = Port::new(false);
            for value in values {
                prop_assert!(!port.write(value));
                prop_assert_eq!(port.read() & (CONNECTED | ENABLED | RESET), 0);
            }
        }
    }
}
