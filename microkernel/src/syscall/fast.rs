//! The paths that most messages take: a call that finds its receiver waiting on the same processor, and the reply that finds its
//! caller there. They run in shared mode, touch only this processor's threads, and decline whatever is not the plain case; then the
//! slow path does it all from the start.

use tessera_abi::object::{ObjectKind, Rights};
use tessera_abi::syscall::{MAX_MESSAGE, MessageInfo, REGISTER_BYTES};

use crate::arch::percpu::PerCpu;
use crate::kref::Ref;
use crate::object::endpoint::Endpoint;
use crate::object::reply::Reply;
use crate::object::sched_context::SchedContext;
use crate::object::slot::Slot;
use crate::object::thread::{State, Thread};
use crate::sched::dispatch::switch_fpu_between;

/// What a fault handler receives: all of it in registers.
pub const FAULT_MESSAGE: MessageInfo = MessageInfo::new(REGISTER_BYTES, 0);

/// Whom to resume and with what badge; in `rax` and `rdx`.
#[repr(C)]
pub struct Resume {
    thread: Option<Ref<Thread>>,
    badge: u64,
}

/// A slot of the thread's own capability table.
#[inline(always)]
pub fn own_slot(thread: &Thread, index: u64) -> Option<&Slot> {
    if index >= thread.cnode_slots.get() {
        return None;
    }
    let table = thread.table();
    // SAFETY: the table has `cnode_slots` slots from `cnode` on and lives while the thread holds its capability; it is nowhere only while it has none.
    unsafe {
        core::hint::assert_unchecked(!table.is_null());
        Some(&*table.add(index as usize))
    }
}

/// Copies what of a message does not travel in registers.
#[inline(always)]
pub fn copy_rest(from: &Thread, to: &Thread, bytes: usize) {
    if bytes > REGISTER_BYTES {
        let words = (bytes - REGISTER_BYTES).div_ceil(8);
        // SAFETY: both message areas are 3,584 bytes, the caller checked `bytes` against that, and two threads' buffers do not overlap. User level may
        // write them meanwhile; the bytes are opaque.
        unsafe {
            core::arch::asm!(
                "rep movsq",
                inout("rsi") from.message().add(REGISTER_BYTES) => _,
                inout("rdi") to.message().add(REGISTER_BYTES) => _,
                inout("rcx") words => _,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// The context of a thread that runs or called.
#[inline(always)]
fn running_context(thread: &Thread) -> Ref<SchedContext> {
    // SAFETY: only a thread with a context of its own can be started, and taking its context away stops it.
    unsafe { thread.context.get().unwrap_unchecked() }
}

#[cold]
#[inline(never)]
extern "C" fn decline(slot: u64, info: u64, second: u64, thread: Ref<Thread>) -> Resume {
    thread.regs.rdi.set(slot);
    thread.regs.rsi.set(info);
    thread.regs.rdx.set(second);
    Resume { thread: None, badge: 0 }
}

/// The only receiver that waits at `endpoint` on this processor without a deadline, and its Reply, if nothing more important is to run.
#[inline(always)]
fn take_receiver(cpu: &PerCpu, endpoint: Ref<Endpoint>) -> Option<(Ref<Thread>, Ref<Reply>)> {
    let queue = endpoint.receivers_at(cpu.receivers_offset.get());
    let receiver = queue.head()?;
    if !queue.is_only(receiver) || cpu.run_queue.has_above(&receiver) {
        return None;
    }
    let reply = receiver.fast_reply.get()?;
    queue.clear();
    Some((receiver, reply))
}

/// Makes `receiver` the current thread, `reply` holding `thread` for it.
#[inline(always)]
fn hand_over(cpu: &PerCpu, thread: Ref<Thread>, receiver: Ref<Thread>, endpoint: Ref<Endpoint>, reply: Ref<Reply>) {
    receiver.state.set(State::Ready);
    thread.state.set(State::AwaitingReply);
    thread.held_by.set(Some(reply));
    reply.caller.set(Some(thread));
    // The server works on its caller's time.
    let context = running_context(&thread);
    receiver.context.set(Some(context));
    context.borrower.set(Some(receiver));
    endpoint.calls.set(endpoint.calls.get() + 1);
    cpu.current.set(Some(receiver));
}

/// `Call` without a deadline.
pub extern "C" fn call(slot: u64, info: u64, _second: u64, thread: Ref<Thread>, _deadline: u64, cpu: &'static PerCpu) -> Resume {
    macro_rules! check {
        ($condition:expr) => {
            if !$condition {
                return decline(slot, info, 0, thread);
            }
        };
    }
    check!(cpu.slow.get() == 0);
    // Capabilities are counted in bits above the length, so this refuses them too.
    check!(info <= MAX_MESSAGE as u64);
    check!(slot < thread.cnode_slots.get());
    // SAFETY: as in `own_slot`.
    let cap = unsafe { &*thread.table().add(slot as usize) };
    check!(cap.is(ObjectKind::Endpoint, Rights::SEND));
    // SAFETY: an Endpoint capability names a live endpoint.
    let endpoint: Ref<Endpoint> = unsafe { Ref::new(cap.object() as *mut Endpoint) };
    let Some((receiver, reply)) = take_receiver(cpu, endpoint) else {
        return decline(slot, info, 0, thread);
    };
    // The reply may bring capabilities.
    thread.call_rights.set(cap.rights());
    hand_over(cpu, thread, receiver, endpoint, reply);
    copy_rest(&thread, &receiver, info as usize);
    switch_fpu_between(cpu, thread, receiver);
    Resume { thread: Some(receiver), badge: cap.badge() }
}

/// The end of `ReplyRecv`'s checks for a caller whom the kernel let call because of a fault; `thread` is then whom to resume, and in `badge`.
#[cold]
#[inline(never)]
extern "C" fn reply_to_fault(slot: u64, info: u64, second: u64, thread: Ref<Thread>, _deadline: u64, cpu: &'static PerCpu) -> Resume {
    reply_recv_to::<true>(slot, info, second, thread, cpu)
}

/// `ReplyRecv` without a deadline. For a caller that faulted, [`Resume::thread`] is `None` and [`Resume::badge`] the caller: it goes on with all its registers.
pub extern "C" fn reply_recv(slot: u64, info: u64, second: u64, thread: Ref<Thread>, _deadline: u64, cpu: &'static PerCpu) -> Resume {
    reply_recv_to::<false>(slot, info, second, thread, cpu)
}

#[inline(always)]
fn reply_recv_to<const FAULTED: bool>(slot: u64, info: u64, second: u64, thread: Ref<Thread>, cpu: &'static PerCpu) -> Resume {
    macro_rules! check {
        ($condition:expr) => {
            if !$condition {
                return decline(slot, info, second, thread);
            }
        };
    }
    check!(cpu.slow.get() == 0);
    check!(info <= if FAULTED { REGISTER_BYTES } else { MAX_MESSAGE } as u64);
    check!(slot < thread.cnode_slots.get() && second < thread.cnode_slots.get());
    // SAFETY: as in `own_slot`, for both.
    let (cap, reply_cap) = unsafe { (&*thread.table().add(slot as usize), &*thread.table().add(second as usize)) };
    check!(cap.is(ObjectKind::Endpoint, Rights::RECEIVE) && reply_cap.kind() == ObjectKind::Reply);
    // SAFETY: the capabilities name live objects of these kinds.
    let (endpoint, reply): (Ref<Endpoint>, Ref<Reply>) =
        unsafe { (Ref::new(cap.object() as *mut Endpoint), Ref::new(reply_cap.object() as *mut Reply)) };
    let Some(caller) = reply.caller.get() else {
        return decline(slot, info, second, thread);
    };
    if FAULTED {
        check!(caller.faulted.get() && usize::from(caller.cpu.get()) == cpu.index.get() && caller.called_at.get() == 0);
    } else if caller.slow_reply.get() {
        return reply_to_fault(slot, info, second, thread, 0, cpu);
    }
    check!(thread.receive_reply.get() == Some(reply));
    let queue = endpoint.receivers_at(cpu.receivers_offset.get());
    check!(queue.is_empty() && endpoint.callers.is_empty() && !cpu.run_queue.has_above(&caller));
    if let Some(notification) = thread.bound.get() {
        check!(!notification.is_set());
    }

    reply.caller.set(None);
    caller.state.set(State::Ready);
    thread.state.set(State::Receiving);
    thread.fast_reply.set(Some(reply));
    thread.endpoint.set(Some(endpoint));
    thread.context.set(thread.own_context.get());
    running_context(&caller).borrower.set(Some(caller));
    queue.begin(thread);
    cpu.current.set(Some(caller));
    if FAULTED {
        caller.faulted.set(false);
        caller.slow_reply.set(false);
        switch_fpu_between(cpu, thread, caller);
        return Resume { thread: None, badge: caller.address() };
    }
    copy_rest(&thread, &caller, info as usize);
    switch_fpu_between(cpu, thread, caller);
    Resume { thread: Some(caller), badge: 0 }
}

/// Tells the fault handler of `thread`, the current one, if it waits on this processor: the kernel's call in the thread's name. Returns whether it did.
#[inline(always)]
pub fn fault(cpu: &'static PerCpu, thread: Ref<Thread>, words: [u64; 6]) -> bool {
    let cap = &thread.slots.fault;
    if cpu.slow.get() != 0 || !cap.is(ObjectKind::Endpoint, Rights::SEND) {
        return false;
    }
    // SAFETY: an Endpoint capability names a live endpoint.
    let endpoint: Ref<Endpoint> = unsafe { Ref::new(cap.object() as *mut Endpoint) };
    let Some((handler, reply)) = take_receiver(cpu, endpoint) else { return false };
    // A reply brings no capabilities to a thread that made no call, and finds all of its registers stored.
    thread.call_rights.set(Rights::empty());
    thread.faulted.set(true);
    thread.slow_reply.set(true);
    thread.called_at.set(0);
    hand_over(cpu, thread, handler, endpoint, reply);
    let regs = &handler.regs;
    for (register, word) in regs.words.iter().zip(words) {
        register.set(word);
    }
    handler.set_result(0, cap.badge(), FAULT_MESSAGE.0);
    handler.by_syscall.set(true);
    switch_fpu_between(cpu, thread, handler);
    true
}
