//! The local APIC of one vCPU (Intel SDM volume 3, chapter 11): priorities, timer, modes. The register file is in `lapic_registers`.
//!
//! ```text
//! message -> inbox -> IRR --(priority above PPR)--> injected, ISR --(EOI)--> gone
//! ```
//!
//! IRR, ISR and TMR stand in the page that this thread shares with the kernel. What cannot be delivered at an entry, because the guest masks interrupts or the task
//! priority holds it back, the kernel delivers as soon as it can; and it adds what devices signal directly (`tessera_abi::apic`).
//!
//! The timer runs from a 1 GHz bus clock, or in TSC-deadline mode. Times are values of the host's time stamp counter.

mod saved;

pub use saved::SavedLapic;

use super::lapic_registers::{Lvt, initial_lvt, lvt};
use crate::clock::Clock;
use core::sync::atomic::Ordering;
use tessera_abi::apic::ApicPage;

/// Frequency of the timer's input in kHz, as told to guests in CPUID.
pub const TIMER_KHZ: u32 = 1_000_000;
/// No deadline.
pub const NEVER: u64 = u64::MAX;

/// APIC base register: this is the processor that boots.
pub const BASE_BSP: u64 = 1 << 8;
/// APIC base register: x2APIC mode.
pub const BASE_X2APIC: u64 = 1 << 10;
/// APIC base register: enabled.
pub const BASE_ENABLE: u64 = 1 << 11;
/// Where the registers are in memory; they cannot be moved.
pub const BASE_ADDRESS: u64 = 0xfee0_0000;

/// What a register write asks others to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Send this interrupt command.
    Ipi(u64),
    /// A level-triggered interrupt ended: tell the I/O APIC.
    EndLevel(u8),
    /// The identity that senders match changed.
    Destination,
}

/// Vectors by bit of a notification; 0: none.
pub type Routes = [u8; 64];

/// The local APIC.
#[derive(Clone, Debug)]
pub struct Lapic {
    pub(super) id: u32,
    pub(super) base: u64,
    pub(super) tpr: u8,
    /// Requests, what is in service, and trigger modes stand here, shared with the kernel.
    pub(crate) page: &'static ApicPage,
    /// What the guest's devices that signal this processor directly request, by bit of its thread's notification.
    routes: Routes,
    /// An interrupt was ended here since the last look.
    ended: bool,
    pub(super) logical: u8,
    pub(super) flat: bool,
    pub(super) spurious: u32,
    pub(super) error: u32,
    pub(super) error_latched: u32,
    pub(super) command: u64,
    pub(super) lvt: [Lvt; lvt::COUNT],
    pub(super) initial_count: u32,
    pub(super) divide: u32,
    /// TSC at which the timer fires next, or [`NEVER`].
    pub(super) deadline: u64,
    /// TSC ticks of one period, in periodic mode.
    period: u64,
    /// What the guest wrote to the TSC-deadline MSR.
    pub(super) tsc_deadline: u64,
    pub(super) clock: Clock,
}

impl Lapic {
    /// The APIC of vCPU `id` after power-on; vCPU 0 boots. `page` is that vCPU's.
    #[must_use]
    pub fn new(id: u32, clock: Clock, page: &'static ApicPage) -> Self {
        for set in [&page.in_service, &page.trigger_mode, &page.requests] {
            set.clear();
        }
        let this = Self {
            id,
            base: BASE_ADDRESS | BASE_ENABLE | if id == 0 { BASE_BSP } else { 0 },
            tpr: 0,
            page,
            routes: [0; 64],
            ended: false,
            logical: 0,
            flat: true,
            spurious: 0xff,
            error: 0,
            error_latched: 0,
            command: 0,
            lvt: initial_lvt(),
            initial_count: 0,
            divide: 0,
            deadline: NEVER,
            period: 0,
            tsc_deadline: 0,
            clock,
        };
        this.publish();
        this
    }

    /// Shows the kernel what it may do by itself in the mode that the APIC is in.
    pub(super) fn publish(&self) {
        // Relaxed: the kernel looks on behalf of this thread.
        self.page.x2apic.store(u32::from(self.is_x2apic()), Ordering::Relaxed);
        let takes = self.is_software_enabled();
        for (place, &vector) in self.page.routes.iter().zip(&self.routes) {
            place.store(if takes { vector } else { 0 }, Ordering::Relaxed);
        }
    }

    /// Sets the routes.
    pub fn set_routes(&mut self, routes: Routes) {
        self.routes = routes;
        self.publish();
    }

    /// Takes a signal's bits that came here instead of to the guest. Returns those that are not routed.
    pub fn take_signal(&mut self, bits: u64) -> u64 {
        if self.is_software_enabled() { self.page.route(bits) } else { bits }
    }

    /// Says whether the guest may end what is in service unseen.
    pub fn set_end_unknown(&self, unknown: bool) {
        // Relaxed: as in `publish`.
        self.page.end_unknown.store(u32::from(unknown), Ordering::Relaxed);
    }

    /// INIT: everything but the base register returns to its power-on state (11.4.7.3).
    pub fn init(&mut self) {
        *self = Self {
            base: self.base,
            routes: self.routes,
            ..Self::new(self.id, self.clock, self.page)
        };
        self.publish();
    }

    /// Virtual wire mode, as firmware leaves the processor that boots (MultiProcessor Specification 1.4, 3.6.2.2): enabled, with the 8259 at LINT0 and
    /// non-maskable interrupts at LINT1. A program that knows no APIC gets its interrupts only so.
    pub fn set_virtual_wire(&mut self) {
        self.spurious = 0x10f;
        self.publish();
        self.lvt[lvt::LINT0] = Lvt(7 << 8);
        self.lvt[lvt::LINT1] = Lvt(4 << 8);
    }

    /// The base register.
    #[must_use]
    pub const fn base(&self) -> u64 {
        self.base
    }

    /// Writes the base register (11.4.3, 11.12.5). False: the write is refused with #GP.
    #[must_use]
    pub fn set_base(&mut self, value: u64) -> bool {
        let modes = BASE_ENABLE | BASE_X2APIC;
        let (old, new) = (self.base & modes, value & modes);
        let moved = value & !(modes | BASE_BSP) != BASE_ADDRESS;
        let invalid = new == BASE_X2APIC || (old == modes && new == BASE_ENABLE) || (old == 0 && new == modes);
        if moved || invalid {
            return false;
        }
        if new == 0 {
            self.init();
        }
        self.base = BASE_ADDRESS | new | self.base & BASE_BSP;
        self.publish();
        true
    }

    /// Whether it is in x2APIC mode.
    #[inline]
    #[must_use]
    pub const fn is_x2apic(&self) -> bool {
        self.base & BASE_X2APIC != 0
    }

    /// Whether the registers are in memory.
    #[must_use]
    pub const fn is_xapic(&self) -> bool {
        self.base & (BASE_X2APIC | BASE_ENABLE) == BASE_ENABLE
    }

    /// Whether it is enabled at all.
    #[must_use]
    pub const fn is_enabled(&self) -> bool {
        self.base & BASE_ENABLE != 0
    }

    /// Whether software enabled it, so that it takes interrupts.
    #[must_use]
    pub const fn is_software_enabled(&self) -> bool {
        self.is_enabled() && self.spurious & 0x100 != 0
    }

    /// Logical identity and whether the format is flat.
    #[must_use]
    pub const fn logical(&self) -> (u8, bool) {
        (self.logical, self.flat)
    }

    /// Whether the pin LINT0 lets the 8259 through.
    #[must_use]
    pub const fn accepts_external(&self) -> bool {
        !self.is_enabled() || self.lvt[lvt::LINT0].is_external()
    }

    /// Takes a vector into the IRR.
    pub fn accept(&mut self, vector: u8, level: bool) {
        if vector < 16 {
            self.raise_error(1 << 6);
            return;
        }
        if !self.is_software_enabled() {
            return;
        }
        self.page.requests.insert(vector);
        let modes = &self.page.trigger_mode;
        if level { modes.insert(vector) } else { modes.remove(vector) }
    }

    /// Takes 64 vectors at once, as the inbox has them.
    pub fn accept_word(&mut self, index: usize, vectors: u64, level: u64) {
        let usable = if index == 0 { !0xffff } else { !0 };
        if vectors & !usable != 0 {
            self.raise_error(1 << 6);
        }
        if self.is_software_enabled() {
            let vectors = vectors & usable;
            for half in 0..2 {
                let (fresh, level) = ((vectors >> (32 * half)) as u32, (level >> (32 * half)) as u32);
                let (requests, modes) = (
                    self.page.requests.register(index * 2 + half),
                    self.page.trigger_mode.register(index * 2 + half),
                );
                requests.set(requests.get() | fresh);
                modes.set(modes.get() & !fresh | fresh & level);
            }
        }
    }

    /// Takes over what was posted while the guest ran and did not reach it. Before the thread waits: then nobody posts.
    pub fn take_posted(&self) {
        let _ = self.page.take_posted();
    }

    /// Whether the IRR holds anything at all.
    #[inline]
    #[must_use]
    pub fn has_requests(&self) -> bool {
        !self.page.requests.is_empty()
    }

    /// Processor priority (11.8.3.1).
    #[must_use]
    pub fn ppr(&self) -> u8 {
        let service = match self.page.in_service.highest() {
            Some(vector) => vector & 0xf0,
            None => 0,
        };
        if self.tpr & 0xf0 >= service { self.tpr } else { service }
    }

    /// The vector to deliver now, if its priority suffices.
    #[must_use]
    pub fn deliverable(&self) -> Option<u8> {
        self.page.request().filter(|vector| vector >> 4 > self.tpr >> 4)
    }

    /// The vector was delivered: from the IRR to the ISR.
    pub fn deliver(&mut self, vector: u8) {
        self.page.accept(vector);
    }

    /// End of interrupt: the highest vector leaves the ISR.
    pub fn end(&mut self) -> Effect {
        let Some(vector) = self.page.in_service.highest() else {
            return Effect::None;
        };
        self.page.in_service.remove(vector);
        self.ended = true;
        self.ended(vector)
    }

    /// Whether an interrupt was ended by [`Self::end`] since the last call.
    pub const fn take_ended(&mut self) -> bool {
        core::mem::replace(&mut self.ended, false)
    }

    /// A vector left the ISR.
    pub fn ended(&self, vector: u8) -> Effect {
        if self.page.trigger_mode.contains(vector) && self.spurious & 1 << 12 == 0 {
            Effect::EndLevel(vector)
        } else {
            Effect::None
        }
    }

    /// Whether the paravirtual end of interrupt may stand in for the next one: exactly one vector in service, edge-triggered, and nothing else waiting.
    #[must_use]
    pub fn may_skip_end(&self) -> bool {
        let service = &self.page.in_service;
        match service.highest() {
            Some(vector) => service.is_only(vector) && !self.page.trigger_mode.contains(vector) && !self.has_requests(),
            None => false,
        }
    }

    /// Task priority, as CR8 shows it.
    #[must_use]
    pub const fn task_priority(&self) -> u8 {
        self.tpr >> 4
    }

    /// Sets the task priority from CR8.
    #[inline]
    pub const fn set_task_priority(&mut self, cr8: u8) {
        if self.tpr >> 4 != cr8 & 15 {
            self.tpr = cr8 << 4;
        }
    }

    /// TSC value at which [`Self::run_timer`] must be called, or [`NEVER`].
    #[inline]
    #[must_use]
    pub const fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Fires the timer if its time has come.
    pub fn run_timer(&mut self, now: u64) {
        if now < self.deadline {
            return;
        }
        match self.timer_mode() {
            TimerMode::Periodic if self.period != 0 => {
                // Periods that nobody could see pass as one.
                let missed = (now - self.deadline) / self.period;
                self.deadline += (missed + 1) * self.period;
            }
            _ => {
                self.deadline = NEVER;
                self.tsc_deadline = 0;
            }
        }
        let entry = self.lvt[lvt::TIMER];
        if !entry.is_masked() {
            self.accept(entry.vector(), false);
        }
    }

    pub(super) const fn timer_mode(&self) -> TimerMode {
        match self.lvt[lvt::TIMER].0 >> 17 & 3 {
            0 => TimerMode::OneShot,
            1 => TimerMode::Periodic,
            2 => TimerMode::Deadline,
            _ => TimerMode::Off,
        }
    }

    /// Bus clocks of one count: 1 to 128 (11.5.4).
    const fn divisor(&self) -> u64 {
        let code = self.divide & 3 | self.divide >> 1 & 4;
        1 << ((code + 1) & 7)
    }

    pub(super) fn start_count(&mut self, count: u32, now: u64) {
        self.initial_count = count;
        if matches!(self.timer_mode(), TimerMode::Deadline | TimerMode::Off) {
            return;
        }
        self.schedule(u64::from(count), now);
    }

    fn schedule(&mut self, count: u64, now: u64) {
        if self.initial_count == 0 {
            self.deadline = NEVER;
            return;
        }
        // A period below 10 µs would keep the host busy for nothing.
        self.period = self.clock.ns_to_ticks((u64::from(self.initial_count) * self.divisor()).max(10_000));
        self.deadline = now.saturating_add(self.clock.ns_to_ticks(count * self.divisor()));
    }

    /// The current count register.
    pub(super) fn current_count(&self, now: u64) -> u32 {
        if self.deadline == NEVER || matches!(self.timer_mode(), TimerMode::Deadline | TimerMode::Off) {
            return 0;
        }
        let left = self.clock.ticks_to_ns(self.deadline.saturating_sub(now)) / self.divisor();
        left.min(u64::from(self.initial_count)) as u32
    }

    pub(super) fn set_divide(&mut self, value: u32, now: u64) {
        let count = self.current_count(now);
        self.divide = value & 0xb;
        if self.deadline != NEVER && !matches!(self.timer_mode(), TimerMode::Deadline) {
            self.schedule(u64::from(count), now);
        }
    }

    /// Reads the TSC-deadline MSR.
    #[must_use]
    pub const fn tsc_deadline(&self) -> u64 {
        self.tsc_deadline
    }

    /// Writes the TSC-deadline MSR: a value of the guest's TSC, which is the host's plus `offset`. 0 disarms; ignored outside TSC-deadline mode (11.5.4.1).
    #[inline]
    pub fn set_tsc_deadline(&mut self, value: u64, offset: u64) {
        if !matches!(self.timer_mode(), TimerMode::Deadline) {
            return;
        }
        self.tsc_deadline = value;
        // A guest deadline before the host's zero is long past.
        self.deadline = if value == 0 {
            NEVER
        } else {
            let host = value.wrapping_sub(offset);
            if (offset as i64) < 0 && host < value {
                NEVER - 1
            } else if (offset as i64) > 0 && host > value {
                0
            } else {
                host.min(NEVER - 1)
            }
        };
    }

    /// Reports an error condition (11.5.3).
    pub(super) fn raise_error(&mut self, bit: u32) {
        self.error_latched |= bit;
        let entry = self.lvt[lvt::ERROR];
        if !entry.is_masked() && entry.vector() >= 16 {
            self.accept(entry.vector(), false);
        }
    }
}

/// How the timer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    /// Once.
    OneShot,
    /// Again and again.
    Periodic,
    /// Until the TSC reaches a value.
    Deadline,
    /// Reserved encoding.
    Off,
}

#[cfg(test)]
#[path = "lapic_tests.rs"]
mod tests;
