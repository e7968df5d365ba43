//! A fault handler's replies: where the faulting thread may go on, and where the kernel must not let it.

use crate::refuse::{Check, new_thread};
use core::arch::naked_asm;
use tessera_rt::abi::object::{ObjectKind, Rights, thread::ThreadState};
use tessera_rt::abi::syscall::MessageInfo;
use tessera_rt::abi::{fault::FaultKind, layout};
use tessera_rt::manifest::slots as fixed;
use tessera_rt::sys::Words;
use tessera_rt::{AddressSpace, CNode, Endpoint, Reply, Thread, ThreadConfig, Untyped, slots, start_info};

const INVALID_OPCODE: u64 = 6;
/// Length of `ud2`.
const LENGTH: u64 = 2;

/// Faults at every instruction.
#[unsafe(naked)]
extern "C" fn faulting(_: u64) -> ! {
    naked_asm!("ud2", "ud2", "ud2", "ud2")
}

/// A thread that faults at once and tells `handler` with `badge`.
fn start_faulting(handler: Endpoint, badge: u64, area: u64) -> Result<Thread, tessera_rt::abi::Error> {
    let (thread, context) = new_thread()?;
    let slot = slots::take()?;
    CNode::OWN.copy(slot, CNode::OWN, handler.slot(), Rights::SEND, badge)?;
    thread.configure(&ThreadConfig {
        cnode: CNode::OWN,
        space: AddressSpace::OWN,
        fault: Some(Endpoint::new(slot)),
        sched_context: context,
        // It has its turn when the handler waits, and so its fault takes the path within one processor.
        priority: start_info().priority,
        cpu: Thread::new(fixed::THREAD).info()?.cpu,
        flags: 0,
        utcb: area,
    })?;
    thread.start(faulting as extern "C" fn(u64) -> ! as usize as u64, layout::STACK_TOP, 0)?;
    Ok(thread)
}

/// Takes replies of every kind, by the path within one processor.
pub fn replies() -> Check {
    let handler = Endpoint::new(Untyped::OWN.make(ObjectKind::Endpoint, 0).map_err(|e| e.text())?);
    let first = start_faulting(handler, 1, layout::UTCB_BASE + 50 * layout::UTCB_STRIDE).map_err(|e| e.text())?;
    let mut words: Words = [0; 6];
    let outcome = handler.recv(Reply::FIRST, None, &mut words);
    let [what, address, rip, rsp, ..] = words;
    if (outcome.badge, outcome.info.bytes()) != (1, 48) || what != FaultKind::Exception as u64 | INVALID_OPCODE << 8 || address != 0 {
        return Err(alloc::format!("the fault's message is {outcome:?} {words:x?}"));
    }
    // Without words the thread goes on where it was, with them where they say.
    let mut stack = rsp;
    for (info, to, expected) in [
        (0, 0, rip),
        (8, rip + LENGTH, rip),
        (16, rip + LENGTH, rip + LENGTH),
        (48, rip, rip),
    ] {
        words[0] = to;
        words[1] = stack - 8;
        if info >= 16 {
            stack -= 8;
        }
        let outcome = handler.reply_recv(Reply::FIRST, MessageInfo::new(info, 0), None, &mut words);
        if (outcome.badge, words[2], words[3]) != (1, expected, stack) {
            return Err(alloc::format!(
                "after {info} bytes of reply the next fault is {outcome:?} {words:x?}"
            ));
        }
    }
    // Beyond user level it does not go on at all, and the handler hears of others.
    for (badge, to) in [(2, layout::USER_TOP), (3, 0xffff_ffff_8020_0000), (4, 1 << 63), (5, u64::MAX)] {
        let area = layout::UTCB_BASE + (50 + badge) * layout::UTCB_STRIDE;
        start_faulting(handler, badge, area).map_err(|e| e.text())?;
        words[0] = to;
        let outcome = handler.reply_recv(Reply::FIRST, MessageInfo::new(16, 0), None, &mut words);
        if outcome.badge != badge {
            return Err(alloc::format!(
                "after a reply that sends the thread to {to:#x} came {outcome:?} {words:x?}"
            ));
        }
        if badge == 2 {
            let state = first.info().map_err(|e| e.text())?.state;
            if state != ThreadState::Faulted as u8 {
                return Err(alloc::format!("a thread sent to {to:#x} is in state {state}"));
            }
        }
    }
    Ok(())
}
