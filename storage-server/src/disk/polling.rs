//! Polling controllers instead of being interrupted by them.
//!
//! While guests have many requests at once, they come by with the next one before long, and whoever serves them can look for what has ended on the way: an interrupt, which stops the guest, is
//! saved. Where nobody comes by, a timer has the server look.

/// Whether polling a controller pays: a slow device is polled in vain.
#[derive(Clone, Copy, Default)]
pub struct Polling {
    /// Ticks between two looks; none: nobody is busy.
    wait: Option<u64>,
    /// When somebody last looked and had a reason to, in ticks.
    last: u64,
    /// Looks in vain since one was not.
    vain: u32,
    /// Questions that are left until it is tried again.
    rest: u32,
}

impl Polling {
    /// Looks in vain after which the device is taken to be slow, and questions until it is tried again.
    const VAIN: u32 = 8;
    const REST: u32 = 1024;

    /// Busy guests come by after so many ticks; none: nobody is busy. Whether it is to be polled.
    pub const fn pays(&mut self, wait: Option<u64>) -> bool {
        self.rest = self.rest.saturating_sub(1);
        self.wait = wait;
        self.rest == 0 && wait.is_some()
    }

    /// Ticks until the next look.
    pub fn wait(self, otherwise: u64) -> u64 {
        self.wait.unwrap_or(otherwise) << self.vain.min(5)
    }

    /// Somebody looked, and so many had ended. Who comes by earlier than was agreed does not look in vain.
    pub fn polled(&mut self, now: u64, ended: usize) {
        if ended > 0 {
            self.vain = 0;
        } else if now.saturating_sub(self.last) < self.wait(0) {
            return;
        } else {
            self.vain = self.vain.saturating_add(1);
        }
        self.last = now;
        if self.vain >= Self::VAIN {
            self.rest = Self::REST;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_device_is_polled_in_vain_for_a_while_only() {
        let (mut polling, mut now) = (Polling::default(), 0);
        let mut looks = 0;
        for _ in 0..4096 {
            if polling.pays(Some(50)) {
                now += polling.wait(0);
                polling.polled(now, 0);
                looks += 1;
            }
        }
        assert!((8..=64).contains(&looks), "{looks}");
        let (mut polling, mut now) = (Polling::default(), 0);
        let paid = (0..4096u32).filter(|round| {
            let pays = polling.pays(Some(50));
            now += polling.wait(0);
            polling.polled(now, (round % 4 == 0).into());
            pays
        });
        assert_eq!(paid.count(), 4096, "one look in four is enough");
        assert!(!polling.pays(None));
    }

    #[test]
    fn who_comes_by_early_does_not_look_in_vain() {
        let mut polling = Polling::default();
        for now in 0..1000 {
            polling.polled(now, usize::from(now % 49 == 0));
            assert!(polling.pays(Some(50)), "at {now}");
        }
    }
}
