//! How capabilities and objects end.
//!
//! Deleting an object's last capability takes the object out of everything at once, so nothing can reach it; the capabilities it holds itself
//! (a table's slots, a thread's) are deleted afterwards, in portions and without recursion, from a list of the dying. Memory is made into
//! something new only when that list is empty, so a half-dead object is never overwritten.

use core::cell::Cell;

use tessera_abi::Error;
use tessera_abi::object::ObjectKind;

use super::cnode::CNode;
use super::endpoint::Endpoint;
use super::irq::IRQS;
use super::notification::Notification;
use super::page_tables;
use super::reply::Reply;
use super::sched_context::SchedContext;
use super::slot::{Cap, FLAG_MAPPED, Slot};
use super::space::{SPACES, Space};
use super::thread::{State, Thread};
use super::vcpu::Vcpu;
use super::{Header, count};
use crate::arch::{memory, percpu};
use crate::interrupt;
use crate::kref::Ref;
use crate::lock::Exclusive;
use crate::sched::dispatch;
use crate::syscall::ipc;
use crate::virt::fpu;

/// Deletions between two looks at whether somebody waits for the processor.
const PORTION: u32 = 128;

struct Graveyard(Cell<Option<Ref<Header>>>);
// SAFETY: touched in exclusive mode only.
unsafe impl Sync for Graveyard {}
static GRAVEYARD: Graveyard = Graveyard(Cell::new(None));

/// Deletes the capability in a slot, and its object with the last.
pub fn delete(exclusive: &Exclusive, slot: &Slot) {
    if slot.is_empty() {
        return;
    }
    if slot.kind() == ObjectKind::Frame {
        unmap_frame(exclusive, slot);
    }
    let cap = slot.remove();
    if slot.is_embedded() {
        embedded_slot_emptied(exclusive, slot);
    }
    if count(&cap, -1) == Some(0) {
        end(exclusive, &cap);
    }
}

/// Deletes all descendants of a slot.
///
/// # Errors
/// `Again` if others should run first.
pub fn revoke(exclusive: &Exclusive, slot: &Slot) -> Result<(), Error> {
    let mut done = 0;
    while let Some(leaf) = slot.leaf() {
        if done == PORTION {
            return Err(Error::Again);
        }
        delete(exclusive, &leaf);
        done += 1;
    }
    bury(exclusive)
}

/// Deletes what the dying hold.
///
/// # Errors
/// `Again` if more is left than one portion.
pub fn bury(exclusive: &Exclusive) -> Result<(), Error> {
    let mut done = 0;
    while let Some(header) = GRAVEYARD.0.get() {
        GRAVEYARD.0.set(header.next.take());
        let finished = match header.kind {
            ObjectKind::CNode => bury_table(exclusive, header, &mut done),
            ObjectKind::Thread => {
                // SAFETY: the header of that kind starts a thread, whose memory is not given out before this list is empty.
                let thread: Ref<Thread> = unsafe { Ref::new(header.as_ptr().cast()) };
                let slots = &thread.slots;
                for slot in [&slots.cspace, &slots.vspace, &slots.fault, &slots.sched, &slots.notification] {
                    delete(exclusive, slot);
                }
                true
            }
            ObjectKind::GuestSpace => {
                // SAFETY: as above.
                let space: Ref<Space> = unsafe { Ref::new(header.as_ptr().cast()) };
                for slot in &space.doorbell_slots {
                    delete(exclusive, slot);
                }
                true
            }
            ObjectKind::Vcpu => {
                // SAFETY: as above.
                let vcpu: Ref<Vcpu> = unsafe { Ref::new(header.as_ptr().cast()) };
                delete(exclusive, &vcpu.space);
                true
            }
            _ => true,
        };
        done += 1;
        if !finished {
            header.next.set(GRAVEYARD.0.replace(Some(header)));
        }
        if done >= PORTION && GRAVEYARD.0.get().is_some() {
            return Err(Error::Again);
        }
    }
    Ok(())
}

fn bury_table(exclusive: &Exclusive, header: Ref<Header>, done: &mut u32) -> bool {
    // SAFETY: the header of that kind starts a capability table.
    let table: Ref<CNode> = unsafe { Ref::new(header.as_ptr().cast()) };
    while table.progress.get() + 1 < table.slots.get() {
        if *done >= PORTION {
            return false;
        }
        table.progress.set(table.progress.get() + 1);
        if let Ok(slot) = table.slot(u64::from(table.progress.get()))
            && !slot.is_empty()
        {
            delete(exclusive, slot);
            *done += 1;
        }
    }
    true
}

/// Takes a frame's mapping back.
pub fn unmap_frame(exclusive: &Exclusive, slot: &Slot) {
    let cap = slot.cap();
    if cap.flags & FLAG_MAPPED == 0 {
        return;
    }
    slot.set_mapping(None);
    unmap(exclusive, cap.space, cap.badge, u64::from(cap.extra));
}

/// Takes pages at `address` out of the space with this identity, if it still lives.
fn unmap(exclusive: &Exclusive, space: u64, address: u64, pages: u64) {
    if let Some(space) = SPACES.find(space) {
        page_tables::unmap(&*space, space.root.get(), address, pages);
        flush(exclusive, &space);
    }
}

/// Makes sure that no processor uses translations of `space` that were taken away.
pub fn flush(exclusive: &Exclusive, space: &Space) {
    space.generation.set(space.generation.get() + 1);
    for cpu in percpu::all() {
        let in_guest = cpu.running_vcpu.get().is_some_and(|v| v.space.object() == core::ptr::from_ref(space) as u64);
        if in_guest || cpu.active_cr3.get() == space.root.get() {
            exclusive.stop(cpu);
        }
    }
}

/// A slot inside an object lost its capability, by revocation from elsewhere or by the object's own end.
fn embedded_slot_emptied(exclusive: &Exclusive, slot: &Slot) {
    if let Some(irq) = IRQS.owner(slot) {
        interrupt::mask(irq);
        return;
    }
    // Objects with slots of their own start the page that the slot is in.
    let page = (core::ptr::from_ref(slot) as u64 & !4095) as *mut Header;
    // SAFETY: embedded slots stand in the interrupt table, which was excluded, or in the first page of an object, which starts with its header.
    let header: Ref<Header> = unsafe { Ref::new(page) };
    match header.kind {
        ObjectKind::Thread => {
            // SAFETY: as above, by its kind.
            let thread: Ref<Thread> = unsafe { Ref::new(page.cast()) };
            thread_slot_emptied(exclusive, thread, slot);
        }
        ObjectKind::GuestSpace => {
            // SAFETY: as above, by its kind.
            let space: Ref<Space> = unsafe { Ref::new(page.cast()) };
            space.doorbells_used.set(space.doorbell_slots.iter().filter(|s| !s.is_empty()).count() as u32);
        }
        ObjectKind::Vcpu => {
            // SAFETY: as above, by its kind.
            let vcpu: Ref<Vcpu> = unsafe { Ref::new(page.cast()) };
            take_from_processor(exclusive, vcpu);
            vcpu.configured.set(false);
        }
        _ => {}
    }
}

fn thread_slot_emptied(exclusive: &Exclusive, thread: Ref<Thread>, slot: &Slot) {
    let slots = &thread.slots;
    if core::ptr::eq(slot, &slots.notification) {
        if let Some(notification) = thread.bound.take() {
            notification.bound.set(None);
        }
    } else if core::ptr::eq(slot, &slots.cspace) {
        stop_thread(exclusive, thread);
        thread.cnode_slots.set(0);
        thread.cnode.set(0);
    } else if core::ptr::eq(slot, &slots.vspace) {
        stop_thread(exclusive, thread);
        thread.cr3.set(memory::kernel_pml4_phys());
    } else if core::ptr::eq(slot, &slots.sched) {
        stop_thread(exclusive, thread);
        release_context(thread);
    }
}

fn release_context(thread: Ref<Thread>) {
    ipc::take_context_back(thread);
    if let Some(context) = thread.own_context.take() {
        context.owner.set(None);
        context.borrower.set(None);
    }
    thread.context.set(None);
}

/// Stops a thread wherever it is. It holds nothing of a processor afterwards.
pub fn stop_thread(exclusive: &Exclusive, thread: Ref<Thread>) {
    ipc::detach(thread);
    ipc::take_context_back(thread);
    thread.context.set(thread.own_context.get());
    thread.faulted.set(false);
    thread.state.set(State::Stopped);
    if let Some(cpu) = percpu::get(usize::from(thread.cpu.get()))
        && cpu.current.get() == Some(thread)
    {
        exclusive.stop(cpu);
        cpu.current.set(None);
        cpu.running_vcpu.set(None);
        cpu.vcpu_deadline.set(u64::MAX);
        thread.in_guest.store(core::ptr::null_mut(), core::sync::atomic::Ordering::SeqCst);
        exclusive.reschedule(cpu);
    }
}

fn take_from_processor(exclusive: &Exclusive, vcpu: Ref<Vcpu>) {
    exclusive.give_up(&vcpu);
    for cpu in percpu::all() {
        if cpu.running_vcpu.get() == Some(vcpu) {
            exclusive.stop(cpu);
            cpu.running_vcpu.set(None);
            if let Some(thread) = cpu.current.get() {
                // Nobody posts to it any more.
                thread.in_guest.store(core::ptr::null_mut(), core::sync::atomic::Ordering::SeqCst);
            }
        }
        if cpu.fpu_vcpu.get() == Some(vcpu) {
            // Its state dies with it; what is left in the registers is overwritten before any other thread can look.
            if core::ptr::eq(cpu, exclusive.cpu()) {
                cpu.fpu_vcpu.set(None);
                fpu::discard_vcpu();
            } else {
                exclusive.stop(cpu);
                cpu.fpu_vcpu.set(None);
                cpu.discard_vcpu.set(true);
            }
        }
    }
}

/// Takes an object, to which no capability is left, out of everything.
fn end(exclusive: &Exclusive, cap: &Cap) {
    if cap.kind == ObjectKind::Irq {
        if let Some(irq) = IRQS.get(cap.object) {
            interrupt::mask(irq);
            delete(exclusive, &irq.notification);
        }
        return;
    }
    // SAFETY: the capability counted an object that starts with its header; its memory stays until the list of the dying is empty.
    let header: Ref<Header> = unsafe { Ref::new(cap.object as *mut Header) };
    // SAFETY: in each arm the kind says what the object is.
    unsafe {
        match cap.kind {
            ObjectKind::Thread => end_thread(exclusive, Ref::new(cap.object as *mut Thread)),
            ObjectKind::Endpoint => end_endpoint(exclusive, Ref::new(cap.object as *mut Endpoint)),
            ObjectKind::Notification => end_notification(exclusive, Ref::new(cap.object as *mut Notification)),
            ObjectKind::Reply => end_reply(exclusive, Ref::new(cap.object as *mut Reply)),
            ObjectKind::SchedContext => end_context(Ref::new(cap.object as *mut SchedContext)),
            ObjectKind::AddressSpace | ObjectKind::GuestSpace => end_space(exclusive, Ref::new(cap.object as *mut Space)),
            ObjectKind::Vcpu => end_vcpu(exclusive, Ref::new(cap.object as *mut Vcpu)),
            _ => {}
        }
    }
    header.next.set(GRAVEYARD.0.replace(Some(header)));
}

fn end_thread(exclusive: &Exclusive, thread: Ref<Thread>) {
    stop_thread(exclusive, thread);
    if let Some(reply) = thread.receive_reply.take()
        && reply.receiver.get() == Some(thread)
    {
        reply.receiver.set(None);
    }
    release_context(thread);
    forget_fpu(thread);
    for cpu in percpu::all() {
        if let Some(vcpu) = cpu.fpu_vcpu.get()
            && vcpu.thread.get() == Some(thread)
        {
            vcpu.thread.set(None);
        }
    }
    unmap_utcb(exclusive, thread);
}

/// The thread begins anew or ends: what a processor still holds of its extended state is worthless.
pub fn forget_fpu(thread: Ref<Thread>) {
    for cpu in percpu::all().filter(|cpu| cpu.fpu_thread.get() == Some(thread)) {
        cpu.fpu_thread.set(None);
    }
}

/// Takes a thread's message buffer out of the space it is mapped in.
pub fn unmap_utcb(exclusive: &Exclusive, thread: Ref<Thread>) {
    unmap(exclusive, thread.mapped_in.replace(0), thread.utcb_address.get(), 1);
}

/// Ends what a thread waits for with an error.
fn abort(exclusive: &Exclusive, thread: Ref<Thread>, error: Error) {
    if ipc::abort(exclusive, thread, error) {
        dispatch::wake(exclusive, thread);
    }
}

fn end_endpoint(exclusive: &Exclusive, endpoint: Ref<Endpoint>) {
    let waiting = || endpoint.callers.head().or_else(|| endpoint.receivers.iter().find_map(|q| q.head()));
    while let Some(thread) = waiting() {
        abort(exclusive, thread, Error::Deleted);
    }
}

fn end_notification(exclusive: &Exclusive, notification: Ref<Notification>) {
    if let Some(thread) = notification.waiter() {
        abort(exclusive, thread, Error::Deleted);
    }
    notification.set_waiter(None);
    if let Some(thread) = notification.bound.take() {
        thread.bound.set(None);
    }
    for cpu in percpu::all() {
        if cpu.signalling.get() == Some(notification) {
            cpu.signalling.set(None);
        }
    }
}

fn end_reply(exclusive: &Exclusive, reply: Ref<Reply>) {
    if let Some(caller) = reply.caller.get() {
        abort(exclusive, caller, Error::ServerDied);
    }
    if let Some(receiver) = reply.receiver.take()
        && receiver.receive_reply.get() == Some(reply)
    {
        receiver.receive_reply.set(None);
        receiver.fast_reply.set(None);
        if receiver.state.get() == State::Receiving {
            abort(exclusive, receiver, Error::Deleted);
        }
    }
}

fn end_context(context: Ref<SchedContext>) {
    // The owner's slot holds a capability, so an owner is gone by now; a borrower may be left.
    if let Some(borrower) = context.borrower.take()
        && borrower.context.get() == Some(context)
    {
        borrower.context.set(borrower.own_context.get());
    }
}

fn end_space(exclusive: &Exclusive, space: Ref<Space>) {
    SPACES.leave(&space);
    flush(exclusive, &space);
}

fn end_vcpu(exclusive: &Exclusive, vcpu: Ref<Vcpu>) {
    take_from_processor(exclusive, vcpu);
    unmap(exclusive, vcpu.mapped_in.get(), vcpu.mapped_at.get(), Vcpu::SHARED_PAGES);
}
