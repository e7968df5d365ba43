//! Operations on threads.

use tessera_abi::layout::{USER_BOTTOM, USER_TOP};
use tessera_abi::object::{ObjectKind, Rights, thread as op};
use tessera_abi::{Error, PAGE_SIZE};

use super::{Request, Results};
use crate::arch::memory::virt_to_phys;
use crate::arch::percpu;
use crate::kref::Ref;
use crate::object::cnode::{self, CNode};
use crate::object::destroy;
use crate::object::notification::Notification;
use crate::object::page_tables::{self, Mapping};
use crate::object::sched_context::SchedContext;
use crate::object::slot::Slot;
use crate::object::space::Space;
use crate::object::thread::{State, Thread};
use crate::sched::dispatch;

pub fn invoke(request: &Request<'_>) -> Result<Results, Error> {
    let thread: Ref<Thread> = request.target();
    request.rights_by_operation(&[op::INFO, op::REGISTERS])?;
    match request.operation {
        op::CONFIGURE => configure(request, thread),
        op::START => start(request, thread),
        op::STOP => {
            destroy::stop_thread(request.exclusive, thread);
            Ok([0; 6])
        }
        op::SET_PRIORITY => set_priority(request, thread),
        op::BIND => bind(request, thread),
        op::INFO => {
            if let Some(cpu) = percpu::get(usize::from(thread.cpu.get()))
                && cpu.current.get() == Some(thread)
                && core::ptr::eq(cpu, request.exclusive.cpu())
            {
                dispatch::charge(cpu, crate::arch::timer::now());
            }
            Ok([
                thread.public_state() as u64,
                u64::from(thread.priority.get()) | u64::from(thread.cpu.get()) << 8 | u64::from(thread.flags.get()) << 16,
                thread.consumed.get(),
                thread.switches.get(),
                thread.regs.rip.get(),
                thread.regs.rsp.get(),
            ])
        }
        op::REGISTERS => registers(request, thread),
        _ => Err(Error::UnknownOperation),
    }
}

fn configure(request: &Request<'_>, thread: Ref<Thread>) -> Result<Results, Error> {
    let [table, space, fault, context, packed, buffer] = request.words;
    let (priority, cpu, flags) = (packed as u8, (packed >> 8) as u8, packed >> 16);
    if thread.state.get() != State::Stopped {
        return Err(Error::BadState);
    }
    if priority > op::MAX_PRIORITY || priority > request.thread.priority.get() || flags & !op::NO_FPU != 0 {
        return Err(Error::BadArgument);
    }
    if percpu::get(usize::from(cpu)).is_none() {
        return Err(Error::Unsupported);
    }
    if buffer % PAGE_SIZE as u64 != 0 || !(USER_BOTTOM..USER_TOP).contains(&buffer) {
        return Err(Error::BadArgument);
    }
    // A thread that lives in a table could otherwise be used to write to it: making one needs both rights.
    let table_object: Ref<CNode> = request.object(table, ObjectKind::CNode, Rights::WRITE)?;
    let space_object: Ref<Space> = request.object(space, ObjectKind::AddressSpace, Rights::WRITE)?;
    let context_object: Ref<SchedContext> = request.object(context, ObjectKind::SchedContext, Rights::WRITE)?;
    if fault != 0 {
        request.own(fault)?.require(ObjectKind::Endpoint, Rights::SEND)?;
    }
    if context_object.owner.get().is_some_and(|owner| owner != thread) {
        return Err(Error::BadState);
    }
    destroy::unmap_utcb(request.exclusive, thread);
    page_tables::map(&*space_object, space_object.root.get(), &Mapping::shared_page(buffer, virt_to_phys(thread.utcb())))?;

    let slots = &thread.slots;
    for slot in [&slots.cspace, &slots.vspace, &slots.fault, &slots.sched] {
        destroy::delete(request.exclusive, slot);
    }
    let take = |from: u64, to: &Slot| -> Result<(), Error> {
        if from == 0 { Ok(()) } else { cnode::copy(request.own(from)?, to, Rights::all(), 0) }
    };
    take(table, &slots.cspace)?;
    take(space, &slots.vspace)?;
    take(fault, &slots.fault)?;
    take(context, &slots.sched)?;

    thread.mapped_in.set(space_object.identity.get());
    thread.utcb_address.set(buffer);
    // SAFETY: the buffer is the page behind the thread; user level may write it too, which harms nobody else.
    unsafe { (&raw mut (*thread.utcb()).self_address).write_volatile(buffer) };
    thread.cnode.set(table_object.address());
    thread.cnode_slots.set(u64::from(table_object.slots.get()));
    thread.cr3.set(space_object.root.get());
    thread.own_context.set(Some(context_object));
    thread.context.set(Some(context_object));
    context_object.owner.set(Some(thread));
    context_object.borrower.set(Some(thread));
    thread.set_priority(priority);
    thread.cpu.set(cpu);
    thread.flags.set(flags as u8);
    Ok([0; 6])
}

fn start(request: &Request<'_>, thread: Ref<Thread>) -> Result<Results, Error> {
    let [rip, rsp, argument, ..] = request.words;
    if thread.state.get() != State::Stopped
        || thread.own_context.get().is_none()
        || thread.cnode_slots.get() == 0
        || thread.slots.vspace.is_empty()
    {
        return Err(Error::BadState);
    }
    if !(USER_BOTTOM..USER_TOP).contains(&rip) || rsp > USER_TOP {
        return Err(Error::BadArgument);
    }
    destroy::forget_fpu(thread);
    thread.reset_registers(rip, rsp, argument);
    dispatch::wake(request.exclusive, thread);
    Ok([0; 6])
}

fn set_priority(request: &Request<'_>, thread: Ref<Thread>) -> Result<Results, Error> {
    let priority = u8::try_from(request.words[0]).map_err(|_| Error::BadArgument)?;
    if priority > op::MAX_PRIORITY || priority > request.thread.priority.get() {
        return Err(Error::BadArgument);
    }
    let Some(cpu) = percpu::get(usize::from(thread.cpu.get())) else { return Err(Error::BadState) };
    let queued = thread.queued.get();
    if queued {
        cpu.run_queue.remove(thread);
    }
    thread.set_priority(priority);
    if queued {
        cpu.run_queue.insert(thread);
    }
    if matches!(thread.state.get(), State::Ready) {
        request.exclusive.reschedule(cpu);
    }
    Ok([0; 6])
}

fn bind(request: &Request<'_>, thread: Ref<Thread>) -> Result<Results, Error> {
    let slot = &thread.slots.notification;
    let wanted = request.words[0];
    if wanted != 0 {
        let notification: Ref<Notification> = request.object(wanted, ObjectKind::Notification, Rights::RECEIVE)?;
        if notification.bound.get().is_some_and(|bound| bound != thread) {
            return Err(Error::BadState);
        }
        destroy::delete(request.exclusive, slot);
        cnode::copy(request.own(wanted)?, slot, Rights::all(), 0)?;
        notification.bound.set(Some(thread));
        thread.bound.set(Some(notification));
    } else {
        destroy::delete(request.exclusive, slot);
    }
    Ok([0; 6])
}

fn registers(request: &Request<'_>, thread: Ref<Thread>) -> Result<Results, Error> {
    let running = percpu::all().any(|cpu| cpu.current.get() == Some(thread));
    if running {
        return Err(Error::BadState);
    }
    let r = &thread.regs;
    Ok(match request.words[0] {
        0 => [r.rax.get(), r.words[0].get(), r.rcx.get(), r.rdx.get(), r.rsi.get(), r.rdi.get()],
        1 => [r.words[1].get(), r.r8.get(), r.r9.get(), r.r10.get(), r.r11.get(), r.words[2].get()],
        2 => [r.words[3].get(), r.words[4].get(), r.words[5].get(), r.rflags.get(), 0, 0],
        _ => return Err(Error::BadArgument),
    })
}
