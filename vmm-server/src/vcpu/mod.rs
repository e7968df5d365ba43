//! One virtual processor: the loop around the guest.
//!
//! ```text
//!          +-> prepare (inbox, timers, what to inject) --> run the guest --> exit: one handler --+
//!          |   only if something changed                                                        |
//!          +-------------------------------------------------------------------------------------+
//! ```
//!
//! The loop is what every exit costs. It touches no lock and no heap; what only this processor uses is in [`Vcpu`], without atomics.

mod exits;
mod interrupts;
mod lengths;
mod memory;
mod msr;
mod refusal;
mod report;
mod saved;

pub use report::code_at;
pub use saved::SavedVcpu;

use crate::apic::{Inbox, Lapic, lapic::NEVER};
use crate::boot::registers;
use crate::machine::{Activity, Host, Machine, Phase, Run, Statistics};
use crate::paravirt::Paravirt;
use alloc::boxed::Box;
use lengths::LengthCache;
use msr::Registers;
use tessera_abi::apic::ApicPage;
use tessera_abi::vcpu::{Dirty, EVENT_VALID, ExitReason, VcpuState};

/// Why a processor cannot go on: a line for the report.
pub type Stop = &'static str;

/// A virtual processor, without its registers, which are in the page shared with the kernel.
pub struct Vcpu<'m, H: Host> {
    index: usize,
    machine: &'m Machine<H>,
    inbox: &'m Inbox,
    statistics: &'m Statistics,
    lapic: Lapic,
    paravirt: Paravirt,
    msrs: Registers,
    lengths: LengthCache,
    /// Added to the host's TSC for the guest.
    tsc_offset: u64,
    /// TSC value at which the guest must be left.
    deadline: u64,
    /// Something may have to be injected or waited for before the next entry.
    attention: bool,
    halted: bool,
    waiting_for_start: bool,
    nmi_pending: bool,
    /// Refused MSR accesses that were logged.
    logged: u32,
}

impl<'m, H: Host> Vcpu<'m, H> {
    /// Processor `index` of a machine, with its APIC's page.
    #[must_use]
    pub fn new(machine: &'m Machine<H>, index: usize, page: &'static ApicPage) -> Self {
        Self {
            index,
            machine,
            inbox: machine.interrupts.inbox(index),
            statistics: machine.statistics(index),
            lapic: Lapic::new(index as u32, machine.clock, page),
            paravirt: Paravirt::default(),
            msrs: Registers::new(),
            lengths: LengthCache::default(),
            tsc_offset: 0,
            deadline: NEVER,
            attention: true,
            halted: false,
            waiting_for_start: false,
            nmi_pending: false,
            logged: 0,
        }
    }

    /// What the processor's thread does, for as long as the process lives: waits for the machine to run, runs, parks.
    pub fn live(&mut self, host: &mut H, state: &mut VcpuState) -> ! {
        loop {
            if !self.park_until_running(host, state) {
                self.power_on(state);
            }
            self.run(host, state);
        }
    }

    /// Waits until the machine runs. True: it goes on with the state that it had, or that was restored.
    fn park_until_running(&mut self, host: &mut H, state: &mut VcpuState) -> bool {
        self.statistics.set_activity(Activity::Parked);
        host.wake_control();
        let mut kept = false;
        loop {
            match self.machine.phase() {
                Phase::Running => break,
                // What comes while the machine stands still belongs to its state.
                Phase::Suspending => {
                    kept = true;
                    self.take_what_comes(host, state);
                }
                Phase::Saving | Phase::Restoring if self.machine.has_turn(self.index) => {
                    kept = self.exchange(host, state);
                    host.wake_control();
                }
                Phase::Saving | Phase::Restoring => self.take_what_comes(host, state),
                Phase::Sleeping => {
                    kept = false;
                    self.sleep(host);
                }
                Phase::Loading | Phase::Failed | Phase::PoweredOff | Phase::Resetting => {
                    host.wait(NEVER);
                    kept = false;
                    // A kick that was for the machine's start leaves a mark that would hide the next one.
                    let _ = self.inbox.take_events();
                }
            }
        }
        self.attention = true;
        self.statistics.set_activity(Activity::Running);
        kept
    }

    /// Waits, and takes signals and messages. A message that stayed would hide the next one's kick.
    fn take_what_comes(&mut self, host: &mut H, state: &mut VcpuState) {
        let bits = host.wait(NEVER);
        self.take_signal(bits);
        let events = self.inbox.take_events();
        self.take(events, state);
    }

    /// The machine sleeps: the first processor's thread minds what may wake it in time.
    fn sleep(&self, host: &mut H) {
        let machine = self.machine;
        let due = if self.index == 0 {
            machine.interrupts.chipset_deadline()
        } else {
            u64::MAX
        };
        host.wait(if due == u64::MAX { NEVER } else { machine.clock.tsc(due) });
        let _ = self.inbox.take_events();
        let now = machine.clock.ns(H::now());
        if self.index == 0 && now >= machine.interrupts.chipset_deadline() {
            // A watchdog has no power either: nothing is asked for.
            let _ = machine.chipset().run(now, &machine.interrupts);
        }
        if self.index == 0 && (machine.phase() != Phase::Sleeping || machine.chipset().is_woken()) {
            host.wake_control();
        }
    }

    /// Takes the state down, or takes the one over that is there, as the machine's phase says. Answers whether the processor can go on.
    fn exchange(&mut self, host: &mut H, state: &mut VcpuState) -> bool {
        let machine = self.machine;
        if machine.phase() == Phase::Saving {
            let saved = self.save(host, state);
            // Whatever came of it, the registers are what they were.
            machine.give(self.index, saved.map(Box::new));
            return true;
        }
        let restored = match machine.taken(self.index) {
            Some(saved) => self.restore(host, state, &saved),
            None => Err("there is no state for this processor"),
        };
        let good = restored.is_ok();
        machine.restored(self.index, restored);
        good
    }

    /// Power-on state: the first processor at the kernel's entry, the others waiting for a start-up message.
    pub fn power_on(&mut self, state: &mut VcpuState) {
        *self = Self::new(self.machine, self.index, self.lapic.page);
        // The guest's TSC starts at 0, on all processors alike.
        self.tsc_offset = self.machine.clock.start().wrapping_neg();
        state.tsc_offset = self.tsc_offset;
        if self.index == 0 {
            registers::start(state, self.machine.first_instruction());
            self.lapic.set_virtual_wire();
        } else {
            registers::start_in_real_mode(state, 0);
            self.waiting_for_start = true;
        }
        state.dirty = Dirty::all().bits();
    }

    /// Runs until the machine is no longer running.
    pub fn run(&mut self, host: &mut H, state: &mut VcpuState) {
        loop {
            if (self.attention || !self.inbox.is_empty() || state.vectoring & EVENT_VALID != 0) && !self.prepare(host, state) {
                return;
            }
            match host.run(state, self.deadline) {
                Run::Exit => {
                    let reason = state.reason;
                    let began = self.statistics.count_exit(reason).then(H::now);
                    if let Err(stop) = self.handle(host, state) {
                        self.fail(host, state, stop);
                        return;
                    }
                    if let Some(began) = began {
                        self.statistics.add_time(reason, H::now().wrapping_sub(began));
                    }
                }
                Run::Kicked(bits) => {
                    self.statistics.count_exit(ExitReason::Notified as u32);
                    self.take_signal(bits);
                    self.attention = true;
                }
                Run::Refused(error) => {
                    self.fail_refused(error);
                    return;
                }
            }
        }
    }

    /// When the guest must be left next.
    #[inline]
    fn update_deadline(&mut self) {
        let mut deadline = self.lapic.deadline();
        if self.index == 0 {
            let chipset = self.machine.interrupts.chipset_deadline();
            if chipset != u64::MAX {
                deadline = deadline.min(self.machine.clock.tsc(chipset));
            }
        }
        self.deadline = deadline;
    }
}

#[cfg(test)]
mod tests;
