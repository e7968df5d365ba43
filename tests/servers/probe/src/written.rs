//! What the processors record of a guest's accesses to its memory, also while it runs on another processor.

use crate::guest::Guest;
use crate::report::verdict;
use core::sync::atomic::{AtomicBool, Ordering};
use tessera_rt::abi::Error;
use tessera_rt::abi::object::Rights;
use tessera_rt::abi::vcpu::{ExitReason, VcpuState};
use tessera_rt::{CNode, Notification, RunOutcome, Vcpu, slots, thread, time};

/// Where the guest's code stands: page 1.
const CODE: usize = 0x1000;
/// `mov [0x3000], al; mov [0x5000], al; mov al, [0x6000]; hlt`
const TOUCH: [u8; 10] = [0xa2, 0, 0x30, 0xa2, 0, 0x50, 0xa0, 0, 0x60, 0xf4];
/// `1: mov [0x3000], al; jmp 1`
const KEEP_WRITING: [u8; 5] = [0xa2, 0, 0x30, 0xeb, 0xfb];
const WRITTEN: u8 = 1 << 3 | 1 << 5;
const TOUCHED: u8 = WRITTEN | 1 << 1 | 1 << 6;
/// The guest's pages.
const PAGES: u64 = 8;

/// Looks, 2 ms apart, until the guest must have written.
const PATIENCE: u32 = 5000;

static DONE: AtomicBool = AtomicBool::new(false);

/// Tries it.
pub fn run() {
    match tried() {
        Ok(None) => verdict("written", None),
        Ok(Some((what, pages))) => verdict("written", Some(format_args!("{what}: pages {pages:#b}"))),
        Err(error) => verdict("written", Some(format_args!("cannot be tried: {}", error.text()))),
    }
}

struct Runner {
    vcpu: Vcpu,
    state: *mut VcpuState,
}

// SAFETY: whoever has it is the only one to use the page.
unsafe impl Send for Runner {}

fn tried() -> Result<Option<(&'static str, u8)>, Error> {
    let guest = Guest::new()?;
    let taken = |accessed| guest.space.take_flags(0, PAGES, accessed).map(|bitmap| bitmap[0]);
    let mut wrong = None;
    let mut check = |what: &'static str, seen: u8, right: u8| {
        if seen == right {
            verdict(what, None);
        } else if wrong.is_none() {
            wrong = Some((what, seen));
        }
    };
    check("nothing-at-first", taken(false)?, 0);
    for (written, again) in [("pages-written", "only-once"), ("written-again", "only-once-again")] {
        guest.write(CODE, TOUCH);
        guest.start_at(CODE);
        let outcome = guest.vcpu.run(None)?;
        // SAFETY: the page belongs to this vCPU, which does not run.
        let reason = unsafe { (*guest.state).reason };
        if outcome != RunOutcome::Exit || reason != ExitReason::Halt as u32 {
            return Ok(Some(("the guest ended otherwise", reason as u8)));
        }
        check(written, taken(false)?, WRITTEN);
        check(again, taken(false)?, 0);
    }
    check("pages-touched", taken(true)?, TOUCHED);
    check("touched-only-once", taken(true)?, 0);
    for (address, pages) in [(1, 1), (0, 0), (0, 4097), (1 << 47, 1)] {
        if guest.space.take_flags(address, pages, false) != Err(Error::BadArgument) {
            return Ok(Some(("a bad range was taken", 0)));
        }
    }

    // A vCPU stays where it ran first, so this one is another.
    let guest = Guest::new()?;
    guest.write(CODE, KEEP_WRITING);
    guest.start_at(CODE);
    // Bochs, where it is not mended, keeps the host's interrupts back from a guest that was entered with interrupts masked.
    // SAFETY: the page belongs to this vCPU, which does not run.
    unsafe { (*guest.state).rflags |= 1 << 9 };
    let runner = Runner {
        vcpu: guest.vcpu,
        state: guest.state,
    };
    let options = thread::Options {
        priority: tessera_rt::start_info().priority,
        cpu: 1,
        ..thread::Options::default()
    };
    let handle = thread::spawn(&options, move |_| {
        let runner = runner;
        while let Ok(RunOutcome::Exit) = runner.vcpu.run(None) {
            // SAFETY: the page belongs to the vCPU, which does not run.
            if unsafe { (*runner.state).reason } == ExitReason::EntryFailed as u32 {
                break;
            }
        }
        DONE.store(true, Ordering::Release);
    })?;
    for _ in 0..50 {
        // On a busy emulator the other processor may stand still for a while.
        let mut seen = 0;
        for _ in 0..PATIENCE {
            time::sleep_until(time::after(time::milliseconds(2)));
            seen = guest.space.take_flags(0, PAGES, false)?[0];
            if seen != 0 {
                break;
            }
        }
        if seen != 1 << 3 {
            return Ok(Some(("while it runs elsewhere", seen)));
        }
    }
    verdict("while-it-runs-elsewhere", None);
    let slot = slots::take()?;
    CNode::OWN.copy(slot, CNode::OWN, handle.notification.slot(), Rights::SEND, 1)?;
    while !DONE.load(Ordering::Acquire) {
        Notification::new(slot).signal()?;
        time::sleep_until(time::after(time::milliseconds(1)));
    }
    guest.space.take_flags(0, PAGES, false)?;
    time::sleep_until(time::after(time::milliseconds(2)));
    if guest.space.take_flags(0, PAGES, false)?[0] != 0 {
        return Ok(Some(("after it was stopped", 0)));
    }
    Ok(wrong)
}
