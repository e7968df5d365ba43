//! Interrupts that the kernel delivers from the APIC's page: routed signals, from here and from another processor, and requests that wait.

use crate::guest::Guest;
use crate::report::{line, verdict};
use core::arch::x86_64::__cpuid;
use core::sync::atomic::{AtomicU32, Ordering};
use tessera_rt::abi::Error;
use tessera_rt::abi::apic::ApicPage;
use tessera_rt::abi::object::Rights;
use tessera_rt::abi::vcpu::{Dirty, EVENT_INTERRUPT, EVENT_VALID, ExitReason, WINDOW_DELIVER, WINDOW_EXIT, gpr};
use tessera_rt::abi::virt::VirtFeatures;
use tessera_rt::{CNode, Notification, RunOutcome, Trace, grant, slots, thread, time};

/// Where the guest starts.
const CODE: usize = 0x1000;
/// The handler of [`VECTOR`]: it halts.
const HANDLER: usize = 0x1100;
/// The handler of [`ENDING`]: it ends the interrupt by the x2APIC's register, then halts.
const ENDING_HANDLER: usize = 0x1200;
/// Routed from bit 5.
const VECTOR: u8 = 0x41;
/// Routed from bit 6.
const ENDING: u8 = 0x52;
/// `1: jmp 1`, with interrupts as they come.
const SPIN: &[u8] = &[0xeb, 0xfe];
/// `nop; nop; sti; nop; 1: jmp 1`.
const UNMASK: &[u8] = &[0x90, 0x90, 0xfb, 0x90, 0xeb, 0xfe];
const INTERRUPT_FLAG: u64 = 1 << 9;
/// Signals that each of the other threads sends.
const TURNS: u32 = 20;
/// 1: the guest is about to run.
static TURN: AtomicU32 = AtomicU32::new(0);

/// How a run ended.
#[derive(Debug, PartialEq)]
enum End {
    /// Halted here.
    Halt(u64),
    /// With these bits.
    Signal(u64),
    /// At the deadline, or at the window.
    Other(u32),
}

struct World {
    guest: Guest,
    apic: &'static ApicPage,
}

impl World {
    /// Lets the guest begin with `code`, nothing requested and nothing in service, and interrupts masked or not.
    fn begin(&self, code: &[u8], flags: u64) {
        self.guest.write(CODE, code.iter().copied());
        self.guest.start_at(CODE);
        for set in [&self.apic.in_service, &self.apic.requests, &self.apic.trigger_mode] {
            set.clear();
        }
        self.apic.end_unknown.store(0, Ordering::Relaxed);
        self.apic.x2apic.store(0, Ordering::Relaxed);
        let state = self.guest.state;
        // SAFETY: the page belongs to this vCPU, which does not run.
        unsafe {
            (*state).rflags |= flags;
            (*state).gpr[gpr::RSP] = 0x7000;
            (*state).request_window = 0;
            (*state).inject = 0;
            (*state).interrupt_shadow = 0;
            (*state).cr8 = 0;
            (*state).dirty |= Dirty::TPR.bits();
        }
    }

    fn ask(&self, window: u32) {
        // SAFETY: as above.
        unsafe { (*self.guest.state).request_window = window };
    }

    fn run(&self, patience_ms: u64) -> Result<End, Error> {
        let deadline = time::after(time::milliseconds(patience_ms));
        let outcome = self.guest.vcpu.run(Some(deadline))?;
        // SAFETY: the vCPU does not run.
        let state = unsafe { self.guest.state.read_volatile() };
        Ok(match outcome {
            RunOutcome::Notified(bits) => End::Signal(bits),
            RunOutcome::Exit if state.reason == ExitReason::Halt as u32 => End::Halt(state.rip),
            RunOutcome::Exit => End::Other(state.reason),
        })
    }
}

/// A capability to the first thread's notification that sets one bit.
fn bit(number: u32) -> Result<Notification, Error> {
    let slot = slots::take()?;
    CNode::OWN.copy(slot, CNode::OWN, Notification::FIRST.slot(), Rights::SEND, 1 << number)?;
    Ok(Notification::new(slot))
}

/// Tries them all.
pub fn run() {
    match tried() {
        Ok(Ok(())) => verdict("deliver", None),
        Ok(Err((what, end))) => verdict("deliver", Some(format_args!("{what}: {end:?}"))),
        Err(error) => verdict("deliver", Some(format_args!("cannot be tried: {}", error.text()))),
    }
}

fn tried() -> Result<Result<(), (&'static str, End)>, Error> {
    let guest = Guest::new()?;
    guest.write(usize::from(VECTOR) * 4, [0, 0x11, 0, 0]);
    guest.write(usize::from(ENDING) * 4, [0, 0x12, 0, 0]);
    guest.write(HANDLER, [0xf4]);
    // mov ecx, 0x80b; xor eax, eax; xor edx, edx; wrmsr; hlt
    guest.write(
        ENDING_HANDLER,
        [0x66, 0xb9, 0x0b, 0x08, 0, 0, 0x66, 0x31, 0xc0, 0x66, 0x31, 0xd2, 0x0f, 0x30, 0xf4],
    );
    let ended_at = ENDING_HANDLER as u64 + 14;
    // SAFETY: the page behind the state page, mapped for the life of the process; all of it is atomic.
    let apic = unsafe { &*guest.state.add(1).cast::<ApicPage>() };
    apic.routes[5].store(VECTOR, Ordering::Relaxed);
    apic.routes[6].store(ENDING, Ordering::Relaxed);
    let world = World { guest, apic };
    let (plain, routed, ending) = (bit(4)?, bit(5)?, bit(6)?);
    let used = grant("trace")
        .map(Trace::new)
        .map_or(Ok(VirtFeatures::empty()), |trace| trace.machine().map(|machine| machine.virt_used))?;
    macro_rules! expect {
        ($what:literal, $patience:literal, $right:pat) => {
            match world.run($patience)? {
                $right => verdict($what, None),
                end => return Ok(Err(($what, end))),
            }
        };
    }
    const HALTED: u64 = HANDLER as u64;

    world.begin(SPIN, INTERRUPT_FLAG);
    routed.signal()?;
    expect!("routed-before-entry", 1000, End::Halt(HALTED));
    if !apic.in_service.contains(VECTOR) || !apic.requests.is_empty() {
        return Ok(Err(("routed-registers", End::Other(0))));
    }

    world.begin(UNMASK, 0);
    routed.signal()?;
    expect!("routed-while-masked", 1000, End::Halt(HALTED));

    world.begin(SPIN, INTERRUPT_FLAG);
    routed.signal()?;
    plain.signal()?;
    expect!("routed-beside-a-signal", 1000, End::Signal(0x10));
    expect!("routed-after-a-signal", 1000, End::Halt(HALTED));

    world.begin(SPIN, INTERRUPT_FLAG);
    apic.in_service.insert(VECTOR | 0xf);
    routed.signal()?;
    expect!("held-by-one-in-service", 20, End::Other(8));
    apic.in_service.clear();
    world.ask(WINDOW_DELIVER);
    expect!("let-through-by-its-end", 1000, End::Halt(HALTED));

    world.begin(SPIN, INTERRUPT_FLAG);
    apic.in_service.insert(VECTOR | 0xf);
    apic.end_unknown.store(1, Ordering::Relaxed);
    routed.signal()?;
    expect!("held-by-what-may-have-ended", 1000, End::Signal(0x20));

    world.begin(SPIN, INTERRUPT_FLAG);
    // SAFETY: as in `begin`.
    unsafe { (*world.guest.state).cr8 = 4 };
    routed.signal()?;
    expect!("held-by-the-task-priority", 20, End::Other(8));
    // SAFETY: as above.
    unsafe {
        (*world.guest.state).cr8 = 3;
        (*world.guest.state).dirty |= Dirty::TPR.bits();
    }
    world.ask(WINDOW_DELIVER);
    expect!("let-through-by-the-task-priority", 1000, End::Halt(HALTED));

    // The VMM's own window comes first.
    world.begin(UNMASK, 0);
    world.ask(WINDOW_EXIT);
    routed.signal()?;
    expect!("window-of-the-monitor", 1000, End::Other(7));
    world.ask(0);
    expect!("window-of-the-kernel", 1000, End::Halt(HALTED));

    // Without the length of the instruction the kernel leaves the end to the VMM.
    world.begin(SPIN, INTERRUPT_FLAG);
    apic.x2apic.store(1, Ordering::Relaxed);
    ending.signal()?;
    match world.run(1000)? {
        End::Halt(at) if at == ended_at && apic.in_service.is_empty() => verdict("ended-by-the-kernel", None),
        End::Other(4) if !used.contains(VirtFeatures::NEXT_RIP) => verdict("ended-by-the-monitor", None),
        end => return Ok(Err(("ended", end))),
    }
    world.begin(SPIN, INTERRUPT_FLAG);
    ending.signal()?;
    expect!("ended-without-x2apic", 1000, End::Other(4));
    world.begin(SPIN, INTERRUPT_FLAG);
    apic.x2apic.store(1, Ordering::Relaxed);
    apic.requests.insert(ENDING);
    apic.trigger_mode.insert(ENDING);
    world.ask(WINDOW_DELIVER);
    // The exit is that of the instruction, or where the processor delivers, that of the end.
    expect!("end-of-a-level", 1000, End::Other(4 | 25));

    // An event whose delivery an exit interrupted that nobody saw stands beside what there is to inject, which comes first.
    world.begin(SPIN, INTERRUPT_FLAG);
    // SAFETY: as in `begin`.
    unsafe { (*world.guest.state).vectoring = EVENT_VALID | EVENT_INTERRUPT | u32::from(VECTOR) };
    expect!("interrupted-event", 1000, End::Halt(HALTED));
    world.begin(SPIN, INTERRUPT_FLAG);
    // SAFETY: as in `begin`.
    unsafe {
        (*world.guest.state).vectoring = EVENT_VALID | EVENT_INTERRUPT | u32::from(ENDING);
        (*world.guest.state).inject = EVENT_VALID | EVENT_INTERRUPT | u32::from(VECTOR);
    }
    expect!("event-before-an-interrupted-one", 1000, End::Halt(HALTED));

    // While it runs: from this processor and from another one.
    let here = __cpuid(1).ebx >> 24;
    for (name, cpu) in [("signalled-from-here", here), ("signalled-from-elsewhere", here ^ 1)] {
        let elsewhere = cpu != here;
        let options = thread::Options {
            priority: tessera_rt::start_info().priority,
            cpu,
            ..thread::Options::default()
        };
        let began = thread::spawn(&options, move |_| {
            for _ in 0..TURNS {
                while TURN.load(Ordering::Acquire) == 0 {
                    time::sleep_until(time::after(time::milliseconds(1)));
                }
                // Release: pairs with the other side's.
                TURN.store(0, Ordering::Release);
                let _ = routed.signal();
            }
        });
        if began.is_err_and(|error| error == Error::Unsupported) {
            // One processor.
            continue;
        }
        began?;
        let before = world.guest.vcpu.info()?.in_kernel;
        for _ in 0..TURNS {
            world.begin(SPIN, INTERRUPT_FLAG);
            // The turn before is in service still where the processor keeps that.
            world.ask(WINDOW_DELIVER);
            TURN.store(1, Ordering::Release);
            match world.run(5000)? {
                End::Halt(at) if at == HALTED => {}
                end => return Ok(Err((name, end))),
            }
        }
        verdict(name, None);
        // Where interrupts are posted, only the host's own timer ends a run now and then; else each signal does, so that the count is one that can tell.
        let exits = world.guest.vcpu.info()?.in_kernel - before;
        line(format_args!("{name}: {exits} exits of the kernel's own for {TURNS} signals"));
        let posted = elsewhere && used.contains(VirtFeatures::POSTED_INTERRUPTS);
        if elsewhere && posted != (exits < u64::from(TURNS / 2)) {
            verdict(
                "exits-for-signals",
                Some(format_args!("{exits} exits for {TURNS} signals, posted: {posted}")),
            );
        } else if posted {
            verdict("posted-without-exits", None);
        }
    }
    Ok(Ok(()))
}
