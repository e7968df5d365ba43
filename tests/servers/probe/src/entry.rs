//! Entries into a guest that kernel or processor must refuse, each an ordinary exit after which the host goes on and the same vCPU runs again.

use crate::guest::Guest;
use crate::report::{line, verdict};
use tessera_rt::abi::Error;
use tessera_rt::abi::vcpu::{
    Dirty, EVENT_ERROR, EVENT_EXCEPTION, EVENT_SOFTWARE, EVENT_VALID, ExitReason, SEGMENT_UNUSABLE, VcpuState, segment,
};
use tessera_rt::{RunOutcome, Trace, grant};

/// Where the guest's `hlt` stands.
const CODE: usize = 0x1000;

/// Who has to refuse, and with which raw reason (`info[0]`).
#[derive(Clone, Copy, PartialEq)]
enum Refused {
    /// The kernel, on any machine; with this detail (`info[1]`).
    Kernel(u64),
    /// VT-x's checks of guest state; AMD-V has none of it.
    GuestState,
    /// The same, and AMD-V's checks with nested paging (APM volume 2, 15.25.4), but for emulators that look away.
    MemoryType,
    /// VT-x loads the MSR of this place in its list, counted from 1; AMD-V takes any value.
    MsrLoad(u64),
    /// VT-x's checks of controls, told as an instruction error; AMD-V refuses the event, but for emulators that look away.
    Control,
}

/// `info[1]` when the kernel does not know what AMD-V refused: that does not say.
const UNKNOWN: u64 = 0;

/// A name, who has to refuse, and what is wrong.
type Case = (&'static str, Refused, fn(&mut VcpuState));

const CASES: [Case; 17] = [
    ("cr0-paging-without-protection", Refused::Kernel(1), |s| s.cr0 = 1 << 31),
    ("cr0-not-write-through-with-cache", Refused::Kernel(1), |s| s.cr0 = 1 << 29),
    ("cr0-upper-half", Refused::Kernel(1), |s| s.cr0 |= 1 << 32),
    ("cr3-reserved", Refused::Kernel(2), |s| s.cr3 = 1 << 60),
    ("cr4-reserved", Refused::Kernel(3), |s| s.cr4 = 1 << 24),
    ("efer-reserved", Refused::Kernel(4), |s| s.efer = 1 << 20),
    ("efer-long-mode-without-pae", Refused::Kernel(4), |s| {
        (s.cr0, s.efer) = (1 << 31 | 1, 1 << 8)
    }),
    ("xcr0-without-x87", Refused::Kernel(5), |s| s.xcr0 = 2),
    ("dr6-upper-half", Refused::Kernel(6), |s| s.dr6 = 1 << 32),
    ("dr7-upper-half", Refused::Kernel(6), |s| s.dr7 = 1 << 32),
    ("event-reserved-type", Refused::Kernel(7), |s| s.inject = EVENT_VALID | 7 << 8),
    ("flags-reserved", Refused::GuestState, |s| s.rflags = 0),
    ("task-register-unusable", Refused::GuestState, |s| {
        s.segments[segment::TR].attributes = SEGMENT_UNUSABLE;
    }),
    ("pat-reserved-type", Refused::MemoryType, |s| s.pat = 2),
    ("virtual-8086-segments", Refused::GuestState, |s| {
        (s.rflags, s.cr0) = (2 | 1 << 17, 1);
    }),
    ("lstar-not-canonical", Refused::MsrLoad(2), |s| s.lstar = 1 << 63),
    ("event-with-wrong-error-code", Refused::Control, |s| {
        (s.cr0, s.inject) = (1, EVENT_VALID | EVENT_ERROR | EVENT_EXCEPTION | 6);
    }),
];

/// Tries them all.
pub fn run() {
    if let Err(error) = tried() {
        verdict("entry", Some(format_args!("cannot make a guest: {}", error.text())));
        return;
    }
    verdict("entry", None);
}

fn tried() -> Result<(), Error> {
    let guest = Guest::new()?;
    guest.write(CODE, [0xf4, 0xeb, 0xfd]); // 1: hlt; jmp 1
    let vmx = grant("trace").is_some_and(|slot| Trace::new(slot).machine().is_ok_and(|machine| machine.backend == 1));
    // SAFETY: the page belongs to this vCPU, which does not run.
    let good = unsafe { guest.state.read() };
    let (page, machine) = (guest.state, &guest);
    let again = move || {
        // SAFETY: as above.
        unsafe { page.write(good) };
        machine.start_at(CODE);
        // SAFETY: as above.
        unsafe { (*page).dirty = Dirty::all().bits() };
    };
    again();
    for (name, refused, spoil) in CASES {
        for _ in 0..2 {
            again();
            // SAFETY: as above.
            spoil(unsafe { &mut *page });
            let seen = outcome(&guest)?;
            let right = match refused {
                Refused::Kernel(detail) => seen == (ExitReason::EntryFailed as u32, u64::MAX, detail),
                Refused::GuestState | Refused::MemoryType if vmx => (seen.0, seen.1) == (ExitReason::EntryFailed as u32, 0x8000_0021),
                Refused::MsrLoad(index) if vmx => seen == (ExitReason::EntryFailed as u32, 0x8000_0022, index),
                Refused::Control if vmx => (seen.0, seen.1) == (ExitReason::EntryFailed as u32, 1 << 32 | 7),
                Refused::GuestState | Refused::MsrLoad(_) => seen.0 == ExitReason::Halt as u32,
                Refused::MemoryType => [
                    (ExitReason::EntryFailed as u32, u64::MAX, UNKNOWN),
                    (ExitReason::Halt as u32, seen.1, seen.2),
                ]
                .contains(&seen),
                // An emulator may deliver the event into nothing.
                Refused::Control => seen.0 != ExitReason::Unknown as u32,
            };
            if !right {
                verdict(name, Some(format_args!("exit {} information {:#x} {:#x}", seen.0, seen.1, seen.2)));
                return Ok(());
            }
        }
        again();
        let after = outcome(&guest)?;
        if after.0 != ExitReason::Halt as u32 {
            verdict(
                name,
                Some(format_args!(
                    "afterwards exit {} information {:#x} {:#x}",
                    after.0, after.1, after.2
                )),
            );
            return Ok(());
        }
        verdict(name, None);
    }
    // A software interrupt is delivered whatever length the VMM claims, or refused: it never takes the host along.
    for length in 0..16 {
        again();
        // SAFETY: as above.
        unsafe {
            (*page).inject = EVENT_VALID | EVENT_SOFTWARE | 0x20;
            (*page).instruction_length = length;
        }
        let seen = outcome(&guest)?;
        if seen.0 == ExitReason::None as u32 {
            line(format_args!("probe: entry FAILED software interrupt of length {length}"));
        }
    }
    Ok(())
}

/// Runs the guest once: exit, `info[0]`, `info[1]`.
fn outcome(guest: &Guest) -> Result<(u32, u64, u64), Error> {
    loop {
        match guest.vcpu.run(None)? {
            RunOutcome::Exit => {}
            _ => continue,
        }
        // SAFETY: the page is mapped, and the vCPU does not run.
        let state = unsafe { guest.state.read_volatile() };
        return Ok((state.reason, state.info[0], state.info[1]));
    }
}
