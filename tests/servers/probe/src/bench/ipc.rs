//! System calls, calls between processes, signals, faults.

use super::{Bench, echo};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use tessera_probe::statistics::{SAMPLES, Summary};
use tessera_rt::abi::object::{ObjectKind, Rights};
use tessera_rt::abi::syscall::MessageInfo;
use tessera_rt::abi::{Error, layout};
use tessera_rt::{
    AddressSpace, CNode, Endpoint, Notification, SchedContext, Thread, ThreadConfig, Untyped, require, slots, start_info, sys, vm,
};

/// Runs the group.
pub fn run(bench: &Bench) -> Result<(), Error> {
    bench.one("ipc.null", 50, sys::null);
    let server = Endpoint::new(require("echo"));
    for words in [0, 1, 2, 4, 6] {
        calls(bench, server, words, 250);
    }
    calls(bench, server, 8, 300);
    calls(bench, server, 64, 450);
    signals(bench, server)?;
    faults(bench, server)
}

fn calls(bench: &Bench, server: Endpoint, words: usize, goal: u64) {
    let info = MessageInfo::new(words * 8, 0);
    let name = match words {
        64 => alloc::string::String::from("ipc.call-reply-512-bytes"),
        _ => alloc::format!("ipc.call-reply-{words}-words"),
    };
    let mut message = [0; 6];
    bench.one(&name, goal, || {
        let _ = core::hint::black_box(server.call(info, None, &mut message));
    });
}

fn control(server: Endpoint, what: u64, count: u64, caps: &[u32]) -> Result<(), Error> {
    let utcb = sys::utcb();
    for (index, slot) in caps.iter().enumerate() {
        // SAFETY: this thread's message buffer; no message is being made, and there are two slots at most.
        unsafe { (&raw mut (*utcb).send_caps[index]).write(*slot) };
    }
    server
        .call(MessageInfo::new(echo::CONTROL, caps.len()), None, &mut [0, what, count, 0, 0, 0])
        .map(|_| ())
}

/// A Notification, and a capability that signals bit 0 of it.
fn notification() -> Result<(Notification, Notification), Error> {
    let notification = Untyped::OWN.notification()?;
    let slot = slots::take()?;
    CNode::OWN.copy(slot, CNode::OWN, notification.slot(), Rights::SEND, 1)?;
    Ok((notification, Notification::new(slot)))
}

/// From before the signal to after the higher-priority thread's wait, in another process.
fn signals(bench: &Bench, server: Endpoint) -> Result<(), Error> {
    const WARM: usize = 16;
    let (notification, signaller) = notification()?;
    let frame = Untyped::OWN.frame(1)?;
    let page = vm::map(frame, Rights::READ | Rights::WRITE, 0)?;
    control(server, echo::SIGNAL, (SAMPLES + WARM) as u64, &[notification.slot(), frame.slot()])?;
    let mut samples = [0; SAMPLES];
    for round in 0..SAMPLES + WARM {
        let start = sys::tsc();
        signaller.signal()?;
        // SAFETY: the page is mapped; the other side writes it.
        let woken = unsafe { page.as_ptr().cast::<u64>().read_volatile() };
        samples[round % SAMPLES] = woken.wrapping_sub(start);
    }
    bench.print("ipc.signal-switch", 350, Summary::of(&mut samples, bench.timer));
    Ok(())
}

static SAMPLE: [AtomicU64; SAMPLES] = [const { AtomicU64::new(0) }; SAMPLES];
static FINISHED: AtomicU64 = AtomicU64::new(0);

/// Faults without end until all samples are there, then tells.
extern "C" fn faulting(notification: u64) -> ! {
    for sample in SAMPLE.iter().take(16).chain(&SAMPLE) {
        let start = sys::tsc();
        // SAFETY: the handler lets the thread go on behind the instruction, registers unchanged.
        unsafe { asm!("ud2") };
        sample.store(sys::tsc().wrapping_sub(start), Ordering::Relaxed);
    }
    FINISHED.store(1, Ordering::Release);
    let _ = sys::signal(notification as u32);
    loop {
        let _ = sys::wait(0, Some(u64::MAX));
    }
}

/// From before an undefined instruction to after it, handled in another process.
fn faults(bench: &Bench, server: Endpoint) -> Result<(), Error> {
    let thread = Thread::new(Untyped::OWN.make(ObjectKind::Thread, 0)?);
    let context = SchedContext::new(Untyped::OWN.make(ObjectKind::SchedContext, 0)?);
    let (notification, signaller) = notification()?;
    let stack = vm::map(Untyped::OWN.frame(4)?, Rights::READ | Rights::WRITE, 0)?;
    control(server, echo::FAULT, 0, &[])?;
    thread.configure(&ThreadConfig {
        cnode: CNode::OWN,
        space: AddressSpace::OWN,
        fault: Some(server),
        sched_context: context,
        priority: start_info().priority,
        cpu: 0,
        flags: 0,
        utcb: layout::UTCB_BASE + 40 * layout::UTCB_STRIDE,
    })?;
    let entry = faulting as extern "C" fn(u64) -> ! as usize as u64;
    thread.start(entry, stack.address + stack.length as u64 - 8, signaller.slot().into())?;
    while FINISHED.load(Ordering::Acquire) == 0 {
        notification.wait(None)?;
    }
    thread.stop()?;
    control(server, echo::ECHO, 0, &[])?;
    let mut samples = core::array::from_fn::<u64, SAMPLES, _>(|index| SAMPLE[index].load(Ordering::Relaxed));
    bench.print("ipc.fault-handler", 450, Summary::of(&mut samples, bench.timer));
    Ok(())
}
