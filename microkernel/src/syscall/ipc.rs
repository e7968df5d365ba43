//! IPC in full: any processor, capabilities, deadlines, faults. Runs in exclusive mode where it reaches beyond the running processor.

use core::sync::atomic::Ordering;

use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, Rights};
use tessera_abi::syscall::{FLAG_DEADLINE, MAX_CAPS, MessageInfo, NOTIFIED};
use tessera_abi::trace::Event;
use tessera_abi::virt::VirtFeatures;

use super::fast::{FAULT_MESSAGE, copy_rest, own_slot};
use crate::arch::percpu::{self, PerCpu};
use crate::arch::{apic, timer, vector};
use crate::kref::Ref;
use crate::lock::{Exclusive, SLOW_TRACE};
use crate::object::endpoint::Endpoint;
use crate::object::notification::Notification;
use crate::object::reply::Reply;
use crate::object::thread::{State, Thread};
use crate::object::vcpu::Vcpu;
use crate::sched::dispatch;
use crate::trace;
use crate::virt;

/// An object behind a capability of the thread's own table, checked for kind and rights.
///
/// # Errors
/// `BadSlot`, `WrongKind`, `NoRight`.
#[inline]
pub fn object<T>(thread: &Thread, slot: u64, kind: ObjectKind, rights: Rights) -> Result<(Ref<T>, u64), Error> {
    let cap = own_slot(thread, slot).ok_or(Error::BadSlot)?.require(kind, rights)?;
    // SAFETY: a capability of a kind names a live object of that kind; callers pair kind and type.
    Ok((unsafe { Ref::new(cap.object() as *mut T) }, cap.badge()))
}

/// The deadline of the system call in `thread`'s registers.
fn deadline(thread: &Thread) -> Option<u64> {
    (thread.regs.rax.get() & FLAG_DEADLINE != 0).then(|| thread.regs.r8.get())
}

/// Takes a thread out of whatever it waits in. It is then in no queue and no timer list, and its state is the caller's to set.
pub fn detach(thread: Ref<Thread>) {
    let cpu = percpu::get(usize::from(thread.cpu.get()));
    match thread.state.get() {
        State::Ready => {
            if thread.queued.get()
                && let Some(cpu) = cpu
            {
                cpu.run_queue.remove(thread);
            }
        }
        State::Receiving => {
            if let Some(endpoint) = thread.endpoint.take() {
                endpoint.receivers[usize::from(thread.cpu.get())].remove(thread);
            }
        }
        State::Calling => {
            if let Some(endpoint) = thread.endpoint.take() {
                endpoint.callers.remove(thread);
            }
        }
        State::AwaitingReply => {
            if let Some(reply) = thread.held_by.take() {
                reply.caller.set(None);
            }
            thread.slow_reply.set(false);
            take_context_back(thread);
        }
        State::Waiting => {
            if let Some(notification) = thread.waits_for.take() {
                notification.set_waiter(None);
            }
        }
        State::Stopped | State::Faulted | State::Throttled => {}
    }
    if let Some(cpu) = cpu {
        cpu.run_queue.timers.remove(thread);
    }
}

/// Ends a thread's wait with an error; the caller wakes it. A thread that waited because of a fault stays where it is: nobody is left to handle it.
/// Returns whether it can run.
pub fn abort(_exclusive: &Exclusive, thread: Ref<Thread>, error: Error) -> bool {
    detach(thread);
    if thread.faulted.get() {
        thread.state.set(State::Faulted);
        return false;
    }
    thread.set_result(error as u64, 0, 0);
    true
}

/// Ends a lending: whoever worked on the thread's context goes on with its own.
pub fn take_context_back(thread: Ref<Thread>) {
    if let Some(context) = thread.own_context.get()
        && let Some(borrower) = context.borrower.get()
        && borrower != thread
    {
        borrower.context.set(borrower.own_context.get());
        context.borrower.set(Some(thread));
    }
}

/// Copies a message from one thread's registers and buffer to another's.
fn transfer(from: &Thread, to: &Thread, grant: bool) -> Result<MessageInfo, Error> {
    let info = if from.faulted.get() {
        for (source, target) in from.fault_words.iter().zip(&to.regs.words) {
            target.set(source.get());
        }
        return Ok(FAULT_MESSAGE);
    } else {
        MessageInfo(from.regs.rsi.get())
    };
    let caps = if info.caps() > 0 { transfer_caps(from, to, info.caps(), grant)? } else { 0 };
    for (source, target) in from.regs.words.iter().zip(&to.regs.words) {
        target.set(source.get());
    }
    copy_rest(from, to, info.bytes());
    Ok(MessageInfo::new(info.bytes(), caps))
}

fn transfer_caps(from: &Thread, to: &Thread, count: usize, grant: bool) -> Result<usize, Error> {
    if !grant {
        return Err(Error::NoRight);
    }
    // SAFETY: the buffers belong to live threads; user level may write them at any time, so each field is read once.
    let (first, room) = unsafe {
        let utcb = to.utcb();
        ((&raw const (*utcb).receive_slot).read_volatile(), (&raw const (*utcb).receive_count).read_volatile())
    };
    if (room as usize) < count || count > MAX_CAPS || first == 0 {
        return Err(Error::CapTransfer);
    }
    // Checked as a whole before the first one is handed over, so that a refused message leaves nothing behind.
    let mut pairs = [(core::ptr::null(), core::ptr::null()); MAX_CAPS];
    for (i, pair) in pairs.iter_mut().enumerate().take(count) {
        // SAFETY: as above; `i` is below `MAX_CAPS`.
        let source = unsafe { (&raw const (*from.utcb()).send_caps[i]).read_volatile() };
        let source = own_slot(from, u64::from(source)).filter(|s| crate::object::cnode::is_copyable(s)).ok_or(Error::CapTransfer)?;
        let target = own_slot(to, u64::from(first) + i as u64).filter(|s| s.is_empty()).ok_or(Error::CapTransfer)?;
        *pair = (core::ptr::from_ref(source), core::ptr::from_ref(target));
    }
    for &(source, target) in &pairs[..count] {
        // SAFETY: both were references a moment ago, and nothing was changed but earlier targets.
        let (source, target) = unsafe { (&*source, &*target) };
        crate::object::cnode::copy(source, target, Rights::all(), 0).map_err(|_| Error::CapTransfer)?;
    }
    Ok(count)
}

/// Gives the caller's message to a receiver that waits. Neither is in a queue afterwards; the receiver is not woken yet.
fn deliver(caller: Ref<Thread>, receiver: Ref<Thread>, reply: Ref<Reply>, endpoint: Ref<Endpoint>) -> Result<(), Error> {
    let info = transfer(&caller, &receiver, caller.call_rights.get().contains(Rights::GRANT))?;
    detach(receiver);
    detach_caller_queue(caller);
    receiver.set_result(0, caller.badge.get(), info.0);
    caller.state.set(State::AwaitingReply);
    caller.slow_reply.set(true);
    caller.held_by.set(Some(reply));
    reply.caller.set(Some(caller));
    if caller.cpu.get() == receiver.cpu.get() {
        let context = caller.context.get();
        receiver.context.set(context);
        if let Some(context) = context {
            context.borrower.set(Some(receiver));
        }
    }
    endpoint.calls.set(endpoint.calls.get() + 1);
    let cpu = percpu::this();
    trace::record(cpu, Event::Call, caller.address(), endpoint.address());
    Ok(())
}

/// A queued caller leaves the endpoint's queue but keeps its timer: the deadline covers the reply too.
fn detach_caller_queue(caller: Ref<Thread>) {
    if caller.state.get() == State::Calling
        && let Some(endpoint) = caller.endpoint.take()
    {
        endpoint.callers.remove(caller);
    }
}

/// Sends `thread`, the current one, to an endpoint: its call, or its fault.
fn send(exclusive: &Exclusive, thread: Ref<Thread>, endpoint: Ref<Endpoint>, until: Option<u64>) -> Result<(), Error> {
    let cpu = exclusive.cpu();
    if cpu.slow.get() & SLOW_TRACE != 0 {
        thread.called_at.set(timer::now());
    } else {
        thread.called_at.set(0);
    }
    if let Some(receiver) = endpoint.receiver(usize::from(thread.cpu.get()))
        && let Some(reply) = receiver.receive_reply.get()
    {
        deliver(thread, receiver, reply, endpoint)?;
        dispatch::wake(exclusive, receiver);
    } else {
        if until.is_some_and(|d| d <= timer::now()) {
            return Err(Error::TimedOut);
        }
        thread.state.set(State::Calling);
        thread.endpoint.set(Some(endpoint));
        endpoint.enqueue_caller(thread);
    }
    if let Some(until) = until {
        cpu.run_queue.timers.insert(thread, until);
    }
    dispatch::ask_reschedule(cpu);
    Ok(())
}

/// `Call`.
///
/// # Errors
/// What the status register then holds.
pub fn call(exclusive: &Exclusive, thread: Ref<Thread>) -> Result<(), Error> {
    let info = MessageInfo(thread.regs.rsi.get());
    if !info.is_valid() {
        return Err(Error::BadArgument);
    }
    let slot = thread.regs.rdi.get();
    let cap = own_slot(&thread, slot).ok_or(Error::BadSlot)?;
    let (endpoint, badge) = object::<Endpoint>(&thread, slot, ObjectKind::Endpoint, Rights::SEND)?;
    thread.badge.set(badge);
    thread.call_rights.set(cap.rights());
    if info.caps() > 0 && !thread.call_rights.get().contains(Rights::GRANT) {
        return Err(Error::NoRight);
    }
    send(exclusive, thread, endpoint, deadline(&thread))
}

/// Tells the fault handler of `thread`, the current one, in `words`; stops it if there is none.
pub fn fault(exclusive: &Exclusive, thread: Ref<Thread>, words: [u64; 6]) {
    for (cell, word) in thread.fault_words.iter().zip(words) {
        cell.set(word);
    }
    thread.faulted.set(true);
    let slot = &thread.slots.fault;
    if slot.is(ObjectKind::Endpoint, Rights::SEND) {
        thread.badge.set(slot.badge());
        thread.call_rights.set(Rights::empty());
        // SAFETY: the capability names a live endpoint.
        let endpoint = unsafe { Ref::new(slot.object() as *mut Endpoint) };
        if send(exclusive, thread, endpoint, None).is_ok() {
            return;
        }
    }
    let [what, address, rip, rsp, ..] = words;
    let name = tessera_abi::fault::vector_name((what >> 8) as u8);
    if crate::start::is_init(thread) {
        panic!("init cannot go on: {name} at {rip:#x}, address {address:#x}, error {:#x}, stack {rsp:#x}", what >> 32);
    }
    crate::klog!("a thread without a fault handler stopped: {name} at {rip:#x}, address {address:#x}, stack {rsp:#x}");
    thread.state.set(State::Faulted);
    dispatch::ask_reschedule(exclusive.cpu());
}

/// The current thread, which faulted, was to go on beyond user level: it stays where it is. Returns whom to resume.
pub extern "C" fn stop_faulted() -> Ref<Thread> {
    let cpu = percpu::this();
    if let Some(thread) = cpu.current.get() {
        thread.faulted.set(true);
        thread.state.set(State::Faulted);
        dispatch::ask_reschedule(cpu);
    }
    dispatch::next_thread(cpu)
}

/// Answers the caller that `reply` holds with the message of `thread`. Nobody there is no error: the caller may have given up.
fn answer(exclusive: &Exclusive, thread: Ref<Thread>, reply: Ref<Reply>, endpoint: Option<Ref<Endpoint>>) {
    let Some(caller) = reply.caller.take() else { return };
    caller.held_by.set(None);
    caller.slow_reply.set(false);
    take_context_back(caller);
    if let Some(cpu) = percpu::get(usize::from(caller.cpu.get())) {
        cpu.run_queue.timers.remove(caller);
    }
    let called_at = caller.called_at.replace(0);
    if let Some(endpoint) = endpoint
        && called_at != 0
    {
        endpoint.latency.set(endpoint.latency.get().wrapping_add(timer::now().wrapping_sub(called_at)));
        endpoint.measured.set(endpoint.measured.get() + 1);
    }
    let info = MessageInfo(thread.regs.rsi.get());
    if caller.faulted.replace(false) {
        // The handler lets it go on, perhaps elsewhere.
        if info.bytes() >= 16 {
            let (rip, rsp) = (thread.regs.words[0].get(), thread.regs.words[1].get());
            if rip >= tessera_abi::layout::USER_TOP {
                caller.faulted.set(true);
                caller.state.set(State::Faulted);
                return;
            }
            caller.regs.rip.set(rip);
            caller.regs.rsp.set(rsp);
        }
        dispatch::wake(exclusive, caller);
        return;
    }
    let info = match transfer(&thread, &caller, caller.call_rights.get().contains(Rights::GRANT)) {
        Ok(info) => info,
        Err(_) => {
            copy_rest(&thread, &caller, info.bytes());
            for (source, target) in thread.regs.words.iter().zip(&caller.regs.words) {
                target.set(source.get());
            }
            MessageInfo::new(info.bytes(), 0)
        }
    };
    caller.set_result(0, 0, info.0);
    trace::record(exclusive.cpu(), Event::Reply, thread.address(), caller.address());
    dispatch::wake(exclusive, caller);
}

/// `Reply`.
///
/// # Errors
/// What the status register then holds.
pub fn reply(exclusive: &Exclusive, thread: Ref<Thread>) -> Result<(), Error> {
    if !MessageInfo(thread.regs.rsi.get()).is_valid() {
        return Err(Error::BadArgument);
    }
    let (reply, _) = object::<Reply>(&thread, thread.regs.rdi.get(), ObjectKind::Reply, Rights::empty())?;
    if reply.caller.get().is_none() {
        return Err(Error::BadState);
    }
    answer(exclusive, thread, reply, None);
    thread.set_status(0);
    Ok(())
}

/// Makes `reply` and `thread` each other's, and nobody else's: no end may leave a pointer behind.
fn take_reply(thread: Ref<Thread>, reply: Ref<Reply>) {
    if let Some(old) = thread.receive_reply.replace(Some(reply))
        && old != reply
        && old.receiver.get() == Some(thread)
    {
        old.receiver.set(None);
    }
    if let Some(other) = reply.receiver.replace(Some(thread))
        && other != thread
    {
        other.receive_reply.set(None);
        other.fast_reply.set(None);
    }
}

/// `Recv`, and the second half of `ReplyRecv`.
///
/// # Errors
/// What the status register then holds.
pub fn receive(exclusive: &Exclusive, thread: Ref<Thread>, with_reply: bool) -> Result<(), Error> {
    let (endpoint, _) = object::<Endpoint>(&thread, thread.regs.rdi.get(), ObjectKind::Endpoint, Rights::RECEIVE)?;
    let (reply, _) = object::<Reply>(&thread, thread.regs.rdx.get(), ObjectKind::Reply, Rights::empty())?;
    if with_reply {
        if !MessageInfo(thread.regs.rsi.get()).is_valid() {
            return Err(Error::BadArgument);
        }
        answer(exclusive, thread, reply, Some(endpoint));
    }
    // A Reply serves one receiver and one caller at a time.
    if reply.caller.get().is_some()
        || reply.receiver.get().is_some_and(|r| r != thread && r.receive_reply.get() == Some(reply) && r.state.get() == State::Receiving)
    {
        return Err(Error::BadState);
    }
    if thread.context.get() != thread.own_context.get() {
        dispatch::charge(exclusive.cpu(), timer::now());
        thread.context.set(thread.own_context.get());
    }
    take_reply(thread, reply);
    if let Some(notification) = thread.bound.get() {
        let bits = notification.take();
        if bits != 0 {
            thread.set_result(NOTIFIED, bits, 0);
            return Ok(());
        }
    }
    while let Some(caller) = endpoint.callers.head() {
        match deliver(caller, thread, reply, endpoint) {
            Ok(()) => {
                // `deliver` treats the receiver as one that waited; this one is running.
                thread.state.set(State::Ready);
                return Ok(());
            }
            Err(error) => {
                // The caller's fault: it is told, the next one is tried.
                if abort(exclusive, caller, error) {
                    dispatch::wake(exclusive, caller);
                }
            }
        }
    }
    let until = deadline(&thread);
    if let Some(until) = until {
        if until <= timer::now() {
            return Err(if until == 0 { Error::WouldBlock } else { Error::TimedOut });
        }
        exclusive.cpu().run_queue.timers.insert(thread, until);
    }
    thread.fast_reply.set(if until.is_none() { Some(reply) } else { None });
    thread.state.set(State::Receiving);
    thread.endpoint.set(Some(endpoint));
    endpoint.receivers[usize::from(thread.cpu.get())].push(thread);
    dispatch::ask_reschedule(exclusive.cpu());
    Ok(())
}

/// As [`signal`], for interrupts and doorbells.
#[inline(never)]
pub fn signal_for(cpu: &'static PerCpu, notification: Ref<Notification>, bits: u64) {
    signal(cpu, notification, bits);
}

/// Signals a notification, from shared mode.
#[inline(always)]
pub fn signal(cpu: &'static PerCpu, notification: Ref<Notification>, bits: u64) {
    notification.set(bits);
    trace::record(cpu, Event::Signal, notification.address(), bits);
    let waiter = notification.waiter();
    let thread = waiter.or(notification.bound.get());
    let Some(thread) = thread else { return };
    if usize::from(thread.cpu.get()) == cpu.index.get() {
        if notify(&notification, thread) {
            dispatch::wake_local(cpu, thread);
        }
    } else if post(notification, thread, bits) {
        // The guest has it.
    } else if !thread.in_guest.load(Ordering::SeqCst).is_null() {
        // It looks at its notification when the interrupt has brought it out of the guest.
        apic::send_ipi(usize::from(thread.cpu.get()), vector::RESCHEDULE);
    } else {
        // Between the modes another processor may destroy the notification; then it takes it out of this place.
        cpu.signalling.set(Some(notification));
        let exclusive = Exclusive::enter(cpu);
        if let Some(notification) = cpu.signalling.take() {
            signal_remote(&exclusive, notification);
        }
    }
}

/// Hands a signal that is routed to the processor that runs the thread's guest, without an exit. In vain where it must be told by an interrupt.
#[inline(never)]
fn post(notification: Ref<Notification>, thread: Ref<Thread>, bits: u64) -> bool {
    let vcpu = thread.in_guest.load(Ordering::SeqCst);
    // SAFETY: a vCPU ends in exclusive mode, after its thread has left the guest; this is shared mode.
    let Some(page) = unsafe { vcpu.as_ref() }.map(Vcpu::apic) else { return false };
    let Some(number) = page.postable(bits).filter(|_| virt::features()[1].contains(VirtFeatures::POSTED_INTERRUPTS)) else { return false };
    // From here on they are a request or a signal, never both; whoever took them in between has seen to them.
    if notification.withdraw(bits) {
        page.post(number);
        if thread.in_guest.load(Ordering::SeqCst).is_null() && page.withdraw(number) {
            notification.set(bits);
            return false;
        }
        apic::send_ipi(usize::from(thread.cpu.get()), vector::POSTED);
    }
    true
}

/// Wakes whoever waits for bits of `notification`, on whatever processor.
fn signal_remote(exclusive: &Exclusive, notification: Ref<Notification>) {
    if let Some(thread) = notification.waiter().or(notification.bound.get()) {
        if notify(&notification, thread) {
            dispatch::wake(exclusive, thread);
        } else if !thread.in_guest.load(Ordering::SeqCst).is_null() {
            apic::send_ipi(usize::from(thread.cpu.get()), vector::RESCHEDULE);
        }
    }
}

/// Gives the bits to `thread` if it waits for them. Returns whether it must be woken.
#[inline(always)]
fn notify(notification: &Notification, thread: Ref<Thread>) -> bool {
    let status = match thread.state.get() {
        State::Waiting if thread.waits_for.get() == Some(Ref::from(notification)) => 0,
        State::Receiving if thread.bound.get() == Some(Ref::from(notification)) => NOTIFIED,
        _ => return false,
    };
    let bits = notification.take();
    if bits == 0 {
        return false;
    }
    if status == 0 && !thread.timed.get() {
        thread.waits_for.set(None);
        notification.set_waiter(None);
    } else {
        detach(thread);
    }
    thread.set_result(status, bits, 0);
    true
}

/// `Wait` and `Poll`, in shared mode.
///
/// # Errors
/// What the status register then holds.
pub fn wait(cpu: &'static PerCpu, thread: Ref<Thread>, block: bool) -> Result<(), Error> {
    let until = deadline(&thread);
    let slot = thread.regs.rdi.get();
    if slot == 0 {
        let until = until.ok_or(Error::BadArgument)?;
        if until <= timer::now() {
            return Err(Error::TimedOut);
        }
        thread.waits_for.set(None);
        cpu.run_queue.timers.insert(thread, until);
        thread.state.set(State::Waiting);
        dispatch::ask_reschedule(cpu);
        return Ok(());
    }
    let (notification, _) = object::<Notification>(&thread, slot, ObjectKind::Notification, Rights::RECEIVE)?;
    let mut bits = notification.take();
    if bits == 0 && block {
        if notification.waiter().is_some() {
            return Err(Error::BadState);
        }
        if let Some(until) = until.filter(|u| *u <= timer::now()) {
            return Err(if until == 0 { Error::WouldBlock } else { Error::TimedOut });
        }
        notification.set_waiter(Some(thread));
        if notification.is_set() {
            // Bits came between the two looks; whoever set them may have seen the waiter, and will find it gone.
            notification.set_waiter(None);
            bits = notification.take();
        } else {
            thread.waits_for.set(Some(notification));
            thread.state.set(State::Waiting);
            if let Some(until) = until {
                cpu.run_queue.timers.insert(thread, until);
            }
            dispatch::ask_reschedule(cpu);
            return Ok(());
        }
    }
    if bits == 0 {
        return Err(Error::WouldBlock);
    }
    thread.set_result(0, bits, 0);
    Ok(())
}
