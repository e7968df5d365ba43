//! What happens before the guest is entered: messages from others, timers, and the choice of what to inject.

use super::Vcpu;
use crate::apic::{Effect, Event, Message, routing::Delivery};
use crate::boot::registers;
use crate::devices::virtio;
use crate::emulator::{self, MAX_INSTRUCTION};
use crate::machine::{Activity, Host, Phase};
use tessera_abi::vcpu::{
    Dirty, EVENT_ERROR, EVENT_EXCEPTION, EVENT_INTERRUPT, EVENT_NMI, EVENT_SOFTWARE, EVENT_VALID, ExitReason, VcpuState, WINDOW_DELIVER,
    WINDOW_EXIT, segment,
};

const INTERRUPT_FLAG: u64 = 1 << 9;
const TRAP_FLAG: u64 = 1 << 8;
pub(super) const RESUME_FLAG: u64 = 1 << 16;
/// #DB.
pub(super) const DEBUG: u8 = 1;
const SHADOW: u32 = 1;
pub(super) const NMI_BLOCKED: u32 = 2;
pub(super) const EVENT_TYPE: u32 = 7 << 8;
impl<H: Host> Vcpu<'_, H> {
    /// Gets ready for the next entry; sleeps while the processor is halted or waits for its start. False: the machine no longer runs.
    #[cold]
    #[inline(never)]
    pub(super) fn prepare(&mut self, host: &mut H, state: &mut VcpuState) -> bool {
        loop {
            let events = self.inbox.take_events();
            let phase = self.machine.phase();
            if matches!(phase, Phase::Running | Phase::Suspending) {
                // What came until the machine stands still belongs to its state.
                self.take(events, state);
            }
            if phase != Phase::Running {
                return false;
            }
            let now = H::now();
            self.lapic.run_timer(now);
            if self.index == 0 {
                let guest_now = self.machine.clock.ns(now);
                if guest_now >= self.machine.interrupts.chipset_deadline() || events & Event::LOOK != 0 {
                    let request = self.machine.chipset().run(guest_now, &self.machine.interrupts);
                    if let Some(request) = request {
                        self.machine.request(request);
                        continue;
                    }
                }
            }
            if self.machine.take_news() {
                host.wake_control();
            }
            if !self.inbox.is_empty() {
                continue;
            }
            self.withdraw_skip();
            self.lapic.set_task_priority(state.cr8 as u8);
            self.lapic.take_posted();
            self.update_deadline();
            if !self.waiting_for_start && (!self.halted || self.can_wake(state)) {
                break;
            }
            if self.deadline > now {
                self.statistics.set_activity(if self.waiting_for_start {
                    Activity::WaitForStart
                } else {
                    Activity::Halted
                });
                let bits = host.wait(self.deadline);
                self.take_signal(bits);
                self.statistics.set_activity(Activity::Running);
            }
        }
        self.halted = false;
        self.end_halt_in_shadow(host, state);
        self.inject(state);
        true
    }

    /// An interrupt waits behind STI, and what comes next is HLT, which it would end at once: HLT is done with then, which spares two exits. It also keeps the interrupt
    /// from coming in before HLT, which would then wait for the next one, where a host forgets the shadow at the entry (QEMU's emulation of AMD-V does).
    fn end_halt_in_shadow(&mut self, host: &mut H, state: &mut VcpuState) {
        const HLT: u8 = 0xf4;
        let waits = self.lapic.deliverable().is_some() || self.external() || self.nmi_pending;
        let shadow = state.interrupt_shadow & SHADOW != 0 && state.rflags & (INTERRUPT_FLAG | TRAP_FLAG) == INTERRUPT_FLAG;
        // What was written to the page and not yet taken over would be lost.
        let settled = state.dirty == 0 && (state.inject | state.vectoring) & EVENT_VALID == 0;
        if !(waits && shadow && settled) {
            return;
        }
        host.sync(state);
        let mut bytes = [0; MAX_INSTRUCTION];
        let ring = state.segments[segment::SS].attributes >> 5 & 3;
        if ring == 0 && emulator::fetch(state, &self.machine.memory, &mut bytes).is_ok_and(|length| length > 0) && bytes[0] == HLT {
            state.rip = state.rip.wrapping_add(1);
            state.interrupt_shadow &= !SHADOW;
        }
    }

    /// Takes a signal's bits. What they mean beyond the interrupts that they are routed to is looked up.
    pub(super) fn take_signal(&mut self, bits: u64) {
        // What the guest ended unseen must not hold them back.
        self.withdraw_skip();
        let others = self.lapic.take_signal(bits);
        if others >> virtio::FIRST_SIGNAL != 0 {
            let machine = self.machine;
            let mut chipset = machine.chipset();
            chipset.signalled(others, &machine.interrupts, Some(self.index));
            chipset.run_hidden(&machine.memory, &machine.interrupts);
        }
    }

    pub(super) fn take(&mut self, events: u32, state: &mut VcpuState) {
        if events & Event::ROUTES != 0 {
            self.lapic.set_routes(self.inbox.routes());
        }
        if events & Event::VECTORS != 0 {
            let lapic = &mut self.lapic;
            self.inbox
                .take_vectors(|index, vectors, level| lapic.accept_word(index, vectors, level));
        }
        if events & Event::NMI != 0 {
            self.nmi_pending = true;
        }
        if events & Event::INIT != 0 {
            self.init(state);
        }
        if events & Event::START_UP != 0 && self.waiting_for_start {
            registers::start_in_real_mode(state, self.inbox.start_page());
            self.waiting_for_start = false;
            self.halted = false;
        }
    }

    /// INIT (SDM volume 3, 10.4): registers as after power-on, MTRRs and the TSC stay, then wait for a start-up message. The processor that
    /// boots would start at the firmware's reset vector; there is no firmware, so for it the machine is reset.
    fn init(&mut self, state: &mut VcpuState) {
        if self.index == 0 {
            self.machine.stop(Phase::Resetting);
            return;
        }
        self.lapic.init();
        self.publish_destination();
        registers::start_in_real_mode(state, 0);
        self.nmi_pending = false;
        self.halted = false;
        self.waiting_for_start = true;
    }

    /// Makes the APIC's logical identity known to senders.
    pub(super) fn publish_destination(&self) {
        let (logical, flat) = self.lapic.logical();
        self.inbox
            .set_destination(self.lapic.is_enabled(), self.lapic.is_x2apic(), flat, logical);
    }

    fn external(&self) -> bool {
        self.index == 0 && self.machine.interrupts.external() && self.lapic.accepts_external()
    }

    const fn accepts_interrupts(state: &VcpuState) -> bool {
        state.rflags & INTERRUPT_FLAG != 0 && state.interrupt_shadow & SHADOW == 0
    }

    fn can_wake(&self, state: &VcpuState) -> bool {
        self.nmi_pending
            || state.vectoring & EVENT_VALID != 0
            || (Self::accepts_interrupts(state) && (self.lapic.deliverable().is_some() || self.external()))
    }

    /// Chooses the event for the next entry: what an exit interrupted, NMI, APIC, 8259.
    fn inject(&mut self, state: &mut VcpuState) {
        state.request_window = 0;
        state.request_nmi_window = 0;
        self.attention = false;
        if state.inject & EVENT_VALID != 0 {
            // A handler put an exception there; everything else waits for it.
            self.request_windows(state);
        } else if state.vectoring & EVENT_VALID != 0 {
            self.inject_again(state);
            self.request_windows(state);
        } else if self.nmi_pending && state.interrupt_shadow & (SHADOW | NMI_BLOCKED) == 0 {
            self.nmi_pending = false;
            state.inject = EVENT_VALID | EVENT_NMI | 2;
            self.request_windows(state);
        } else if Self::accepts_interrupts(state) && self.inject_interrupt(state) {
            self.statistics.count_injection();
            self.request_windows(state);
            if self.lapic.may_skip_end() && state.request_window == 0 {
                self.paravirt.offer_skip(&self.machine.memory);
                self.lapic.set_end_unknown(self.paravirt.skip_offered);
            }
        } else {
            self.request_windows(state);
        }
        state.vectoring = 0;
    }

    fn inject_interrupt(&mut self, state: &mut VcpuState) -> bool {
        // Where the processor delivers what the APIC has, that comes afterwards.
        if let Some(vector) = self.lapic.deliverable()
            && state.processor_delivers == 0
        {
            self.lapic.deliver(vector);
            state.inject = EVENT_VALID | EVENT_INTERRUPT | u32::from(vector);
            return true;
        }
        if !self.external() {
            return false;
        }
        let now = self.machine.clock.ns(H::now());
        let vector = self.machine.chipset().acknowledge(now, &self.machine.interrupts);
        if let Some(vector) = vector {
            state.inject = EVENT_VALID | EVENT_INTERRUPT | u32::from(vector);
        }
        vector.is_some()
    }

    /// The delivery of an event was interrupted by the exit: it begins again.
    fn inject_again(&mut self, state: &mut VcpuState) {
        state.inject = state.vectoring;
        state.inject_error = state.vectoring_error;
        if state.vectoring & EVENT_TYPE == EVENT_SOFTWARE && state.instruction_length == 0 {
            // Without its length, the instruction itself is executed again and raises the event anew.
            state.inject = 0;
        }
    }

    fn request_windows(&self, state: &mut VcpuState) {
        if self.external() {
            state.request_window = WINDOW_EXIT;
        }
        // Whether something in service or the task priority holds it back, the kernel sees by itself; a processor that delivers is told whatever may have changed.
        if self.lapic.has_requests() || state.processor_delivers != 0 {
            state.request_window |= WINDOW_DELIVER;
        }
        if self.nmi_pending {
            state.request_nmi_window = 1;
        }
    }

    /// Looks whether the guest used the paravirtual end of interrupt. Before anything that depends on what is in service.
    pub(super) fn withdraw_skip(&mut self) {
        if !self.paravirt.skip_offered {
            return;
        }
        self.lapic.set_end_unknown(false);
        if self.paravirt.withdraw_skip(&self.machine.memory) {
            let effect = self.lapic.end();
            self.apply(effect);
        }
    }

    /// Does for others what a register write of the local APIC asks.
    pub(super) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::None => (),
            Effect::Destination => self.publish_destination(),
            Effect::EndLevel(vector) => {
                self.machine.chipset().end_of_interrupt(vector, &self.machine.interrupts);
            }
            Effect::Ipi(command) => self.send(command),
        }
        // What has ended holds nothing back any more, which a processor that delivers by itself is told at the next entry.
        self.attention |= self.lapic.has_requests() | self.lapic.take_ended();
    }

    /// Sends an interrupt command (SDM volume 3, 11.6.1).
    fn send(&mut self, command: u64) {
        let wide = self.lapic.is_x2apic();
        let message = Message {
            destination: if wide { (command >> 32) as u32 } else { (command >> 56) as u32 },
            logical: command & 1 << 11 != 0,
            wide,
            delivery: Delivery::from_bits(command >> 8),
            vector: command as u8,
            level: false,
        };
        // INIT with level de-assert does nothing on any processor since the Pentium 4.
        if message.delivery == Delivery::Init && command & 1 << 14 == 0 {
            return;
        }
        let everyone = (1 << self.machine.vcpus()) - 1;
        let interrupts = &self.machine.interrupts;
        match command >> 18 & 3 {
            0 => interrupts.send(&message, Some(self.index)),
            1 => interrupts.deliver(1 << self.index, &message, Some(self.index)),
            2 => interrupts.deliver(everyone, &message, Some(self.index)),
            _ => interrupts.deliver(everyone & !(1 << self.index), &message, Some(self.index)),
        }
    }

    /// The guest gets an exception instead of the instruction's effect. A fault's flags on the stack have RF set (SDM volume 3, 17.3.1.1); a debug exception that is raised
    /// here is a trap.
    pub(super) fn raise(&mut self, state: &mut VcpuState, vector: u8, error: Option<u32>) {
        if vector != DEBUG {
            state.rflags |= RESUME_FLAG;
        }
        state.inject = EVENT_VALID | EVENT_EXCEPTION | u32::from(vector) | if error.is_some() { EVENT_ERROR } else { 0 };
        state.inject_error = error.unwrap_or(0);
    }

    /// As [`Self::raise`], for a page fault.
    pub(super) fn raise_page_fault(&mut self, state: &mut VcpuState, address: u64, error: u32) {
        // Only after a full exit, so the rest of the group is current.
        state.cr2 = address;
        state.dirty |= Dirty::CONTROL.bits();
        self.raise(state, 14, Some(error));
    }

    /// The local timer or the chipset wants attention.
    pub(super) const fn deadline_passed(&mut self) {
        self.attention = true;
    }

    /// Whether the exit's event was interrupted during its delivery.
    pub(super) const fn was_vectoring(state: &VcpuState) -> bool {
        state.vectoring & EVENT_VALID != 0
    }

    /// Reason of the last exit.
    pub(super) fn reason(state: &VcpuState) -> ExitReason {
        ExitReason::from_u32(state.reason).unwrap_or(ExitReason::Unknown)
    }
}
