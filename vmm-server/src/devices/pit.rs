//! The 8254 programmable interval timer (Intel 8254 datasheet): channel 0 is interrupt line 0, channel 2 is gated and read at port 0x61.
//!
//! Nothing ticks: each channel knows when it was loaded, and counts are computed when somebody looks. Times are nanoseconds of guest time.

use serde::{Deserialize, Serialize};

/// Input clock in Hz.
pub const HZ: u64 = 1_193_182;
/// No deadline.
const NEVER: u64 = u64::MAX;
/// Faster interrupts than this are slowed down: a guest may not keep the host busy (50 µs).
const SHORTEST_PERIOD: u64 = 60;

/// How a two-byte counter is read or written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Access {
    #[default]
    Low,
    High,
    LowHigh,
}

/// One counter.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Channel {
    mode: u8,
    bcd: bool,
    access: Access,
    /// Reload value, 1 to 65536 (10000 in BCD).
    reload: u32,
    /// A low byte was written, the high byte must follow.
    low_written: Option<u8>,
    /// The next read is of the high byte.
    read_high: bool,
    /// Latched count and how many bytes of it are left to read.
    latched: Option<u16>,
    latched_status: Option<u8>,
    /// Counting began at this tick; `None`: not loaded yet, or waiting for the gate.
    start: Option<u64>,
    gate: bool,
    /// Count at the moment the gate stopped it.
    frozen: u32,
}

impl Channel {
    const fn new(gate: bool) -> Self {
        Self {
            mode: 3,
            bcd: false,
            access: Access::LowHigh,
            reload: 65536,
            low_written: None,
            read_high: false,
            latched: None,
            latched_status: None,
            start: None,
            gate,
            frozen: 65536,
        }
    }

    const fn is_periodic(&self) -> bool {
        self.mode == 2 || self.mode == 3
    }

    /// Count, as a guest reads it.
    fn count(&self, tick: u64) -> u16 {
        let Some(start) = self.start else { return self.encode(self.frozen) };
        let elapsed = tick.saturating_sub(start);
        let reload = u64::from(self.reload);
        let count = match self.mode {
            2 => reload - elapsed % reload,
            // Mode 3 counts down by two, twice per period, through even values.
            3 => (reload - (elapsed * 2) % reload) & !1,
            // The others count on through zero.
            _ => reload.wrapping_sub(elapsed) & 0xffff,
        };
        self.encode(count as u32)
    }

    fn encode(&self, count: u32) -> u16 {
        if !self.bcd {
            return count as u16;
        }
        let count = count % 10000;
        ((count / 1000) << 12 | (count / 100 % 10) << 8 | (count / 10 % 10) << 4 | (count % 10)) as u16
    }

    fn decode(&self, value: u16) -> u32 {
        let (value, limit) = if self.bcd {
            let digit = |shift: u32| u32::from(value >> shift & 15).min(9);
            (digit(12) * 1000 + digit(8) * 100 + digit(4) * 10 + digit(0), 10000)
        } else {
            (u32::from(value), 65536)
        };
        let value = if value == 0 { limit } else { value };
        // A divisor of 1 is not allowed in modes 2 and 3.
        if self.is_periodic() { value.max(2) } else { value }
    }

    /// The output pin.
    fn output(&self, tick: u64) -> bool {
        let Some(start) = self.start else { return self.mode != 0 };
        let elapsed = tick.saturating_sub(start);
        let reload = u64::from(self.reload);
        match self.mode {
            0 | 1 => elapsed >= reload,
            2 => elapsed % reload != reload - 1,
            3 => elapsed % reload < reload.div_ceil(2),
            // The strobe of modes 4 and 5 is low for one tick.
            _ => elapsed != reload,
        }
    }

    /// First tick after `tick` at which the output rises.
    fn next_rise(&self, tick: u64) -> u64 {
        let Some(start) = self.start else { return NEVER };
        let elapsed = tick.saturating_sub(start);
        let reload = u64::from(self.reload);
        match self.mode {
            2 | 3 => start + (elapsed / reload + 1) * reload,
            0 | 1 if elapsed < reload => start + reload,
            4 | 5 if elapsed <= reload => start + reload + 1,
            _ => NEVER,
        }
    }

    fn load(&mut self, value: u16, tick: u64) {
        self.reload = self.decode(value);
        self.frozen = self.reload;
        // Modes 1 and 5 wait for the gate to rise.
        self.start = if self.gate && self.mode != 1 && self.mode != 5 {
            Some(tick)
        } else {
            None
        };
    }

    fn set_gate(&mut self, gate: bool, tick: u64) {
        if gate == self.gate {
            return;
        }
        self.gate = gate;
        match (self.mode, gate) {
            (1 | 5 | 2 | 3, true) => self.start = Some(tick),
            (0 | 4, true) => self.start = Some(tick.saturating_sub(u64::from(self.reload.saturating_sub(self.frozen)))),
            (1 | 5, false) => (),
            (_, false) => {
                if let Some(start) = self.start {
                    let elapsed = tick.saturating_sub(start).min(u64::from(self.reload));
                    self.frozen = if self.is_periodic() {
                        self.reload
                    } else {
                        self.reload - elapsed as u32
                    };
                }
                self.start = None;
            }
            _ => (),
        }
    }

    fn write(&mut self, value: u8, tick: u64) {
        match self.access {
            Access::Low => self.load(u16::from(value), tick),
            Access::High => self.load(u16::from(value) << 8, tick),
            Access::LowHigh => match self.low_written.take() {
                None => {
                    self.low_written = Some(value);
                    if self.mode == 0 {
                        // The first byte stops the count of mode 0.
                        self.start = None;
                    }
                }
                Some(low) => self.load(u16::from_le_bytes([low, value]), tick),
            },
        }
    }

    fn read(&mut self, tick: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched.unwrap_or_else(|| self.count(tick)).to_le_bytes();
        let (byte, last) = match self.access {
            Access::Low => (low, true),
            Access::High => (high, true),
            Access::LowHigh => {
                self.read_high = !self.read_high;
                if self.read_high { (low, false) } else { (high, true) }
            }
        };
        if last {
            self.latched = None;
        }
        byte
    }

    fn latch(&mut self, tick: u64) {
        if self.latched.is_none() {
            self.latched = Some(self.count(tick));
        }
    }

    fn latch_status(&mut self, tick: u64) {
        if self.latched_status.is_none() {
            let access = match self.access {
                Access::Low => 1,
                Access::High => 2,
                Access::LowHigh => 3,
            };
            let null = self.start.is_none();
            self.latched_status =
                Some(u8::from(self.output(tick)) << 7 | u8::from(null) << 6 | access << 4 | self.mode << 1 | u8::from(self.bcd));
        }
    }

    fn program(&mut self, value: u8, tick: u64) {
        self.access = match value >> 4 & 3 {
            0 => return self.latch(tick),
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowHigh,
        };
        self.mode = match value >> 1 & 7 {
            6 => 2,
            7 => 3,
            mode => mode,
        };
        self.bcd = value & 1 != 0;
        self.low_written = None;
        self.read_high = false;
        self.latched = None;
        self.latched_status = None;
        self.start = None;
        self.frozen = self.reload;
    }
}

/// The three counters and port 0x61.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pit {
    channels: [Channel; 3],
    speaker: bool,
    /// Tick of the next interrupt, or [`NEVER`].
    next: u64,
}

impl Default for Pit {
    fn default() -> Self {
        Self::new()
    }
}

const fn tick_of(ns: u64) -> u64 {
    (ns as u128 * HZ as u128 / 1_000_000_000) as u64
}

const fn ns_of(tick: u64) -> u64 {
    if tick == NEVER {
        NEVER
    } else {
        ((tick as u128 * 1_000_000_000).div_ceil(HZ as u128)) as u64
    }
}

impl Pit {
    /// After power-on: nothing counts.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            channels: [Channel::new(true), Channel::new(true), Channel::new(false)],
            speaker: false,
            next: NEVER,
        }
    }

    /// Reads a byte from 0x40 to 0x43 or 0x61.
    pub fn read(&mut self, port: u16, now: u64) -> u8 {
        let tick = tick_of(now);
        match port {
            0x40..=0x42 => self.channels[usize::from(port - 0x40)].read(tick),
            0x61 => {
                let channel = &self.channels[2];
                // Bit 4 toggles with memory refresh, every 15 µs.
                u8::from(channel.gate) | u8::from(self.speaker) << 1 | ((now / 15_085) as u8 & 1) << 4 | u8::from(channel.output(tick)) << 5
            }
            _ => 0xff,
        }
    }

    /// Writes a byte to one of these ports.
    pub fn write(&mut self, port: u16, value: u8, now: u64) {
        let tick = tick_of(now);
        match port {
            0x40..=0x42 => self.channels[usize::from(port - 0x40)].write(value, tick),
            0x43 if value >> 6 == 3 => {
                for (i, channel) in self.channels.iter_mut().enumerate() {
                    if value >> (i + 1) & 1 != 0 {
                        if value & 0x10 == 0 {
                            channel.latch_status(tick);
                        }
                        if value & 0x20 == 0 {
                            channel.latch(tick);
                        }
                    }
                }
            }
            0x43 => self.channels[usize::from(value >> 6)].program(value, tick),
            0x61 => {
                self.channels[2].set_gate(value & 1 != 0, tick);
                self.speaker = value & 2 != 0;
            }
            _ => (),
        }
        if matches!(port, 0x40 | 0x43) {
            self.next = self.channels[0].next_rise(tick);
        }
    }

    /// Guest time of the next interrupt, or `u64::MAX`.
    #[must_use]
    pub const fn deadline(&self) -> u64 {
        ns_of(self.next)
    }

    /// Whether line 0 gives an edge now. Edges that nobody could see pass as one.
    pub fn run(&mut self, now: u64) -> bool {
        let tick = tick_of(now);
        if tick < self.next {
            return false;
        }
        let next = self.channels[0].next_rise(tick);
        self.next = if next == NEVER { NEVER } else { next.max(tick + SHORTEST_PERIOD) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn periodic_interrupts_at_the_programmed_rate() {
        let mut pit = Pit::new();
        assert_eq!(pit.deadline(), NEVER);
        for (port, value) in [(0x43, 0x34), (0x40, 0xa9), (0x40, 0x04)] {
            pit.write(port, value, 0); // 1193: 1 kHz
        }
        let mut edges = 0;
        while pit.deadline() <= 1000 * MS {
            let now = pit.deadline();
            assert!(pit.run(now));
            assert!(!pit.run(now), "one edge each");
            edges += 1;
        }
        assert_eq!(edges, 1000);
        assert!(pit.run(5000 * MS) && !pit.run(5000 * MS), "missed edges do not pile up");
    }

    #[test]
    fn one_shot() {
        let mut pit = Pit::new();
        for (port, value) in [(0x43, 0x30), (0x40, 0xa9), (0x40, 0x04)] {
            pit.write(port, value, 0);
        }
        assert!((MS - 2000..MS + 2000).contains(&pit.deadline()));
        assert!(pit.run(2 * MS));
        assert_eq!(pit.deadline(), NEVER);
    }

    #[test]
    fn counts_down_and_latches() {
        let mut pit = Pit::new();
        for (port, value) in [(0x43, 0x34), (0x40, 0), (0x40, 0)] {
            pit.write(port, value, 0);
        }
        pit.write(0x43, 0, 10 * MS);
        let low = pit.read(0x40, 20 * MS);
        let high = pit.read(0x40, 30 * MS);
        assert_eq!(u16::from_le_bytes([low, high]), (65536 - 11931) as u16, "the latch holds still");
    }

    /// The way kernels calibrate: gate channel 2, mode 0, watch the output at 0x61.
    #[test]
    fn channel_2_through_port_0x61() {
        let mut pit = Pit::new();
        pit.write(0x61, 1, 0);
        for (port, value) in [(0x43, 0xb0), (0x42, 0xa9), (0x42, 0x04)] {
            pit.write(port, value, 0);
        }
        assert_eq!(pit.read(0x61, MS / 2) & 0x21, 1);
        assert_eq!(pit.read(0x61, MS + 2000) & 0x21, 0x21);
        pit.write(0x61, 0, 2 * MS);
        assert_eq!(pit.read(0x61, 2 * MS) & 1, 0);
    }

    #[test]
    fn read_back_command() {
        let mut pit = Pit::new();
        pit.write(0x43, 0x36, 0);
        pit.write(0x40, 0, 0);
        pit.write(0x40, 0x10, 0);
        pit.write(0x43, 0xe2, 0); // status of channel 0
        assert_eq!(pit.read(0x40, 0) & 0x3f, 0x36);
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((any::<bool>(), 0u16..5, any::<u8>(), 0u64..10_000_000), 1..300)) {
            let mut pit = Pit::new();
            let mut now = 0;
            for (write, place, value, step) in operations {
                now += step;
                let port = if place == 4 { 0x61 } else { 0x40 + place };
                if write { pit.write(port, value, now) } else { pit.read(port, now); }
                pit.run(now);
                prop_assert!(pit.deadline() > now);
            }
        }
    }
}
