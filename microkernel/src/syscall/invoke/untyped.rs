//! Making objects out of memory.

use tessera_abi::object::{ObjectKind, Rights, size, untyped as op};
use tessera_abi::{Error, PAGE_SIZE};

use super::{Request, Results};
use crate::arch::memory::{copy_kernel_half, phys_to_virt, virt_to_phys};
use crate::kref::Ref;
use crate::object::cnode::CNode;
use crate::object::destroy;
use crate::object::endpoint::Endpoint;
use crate::object::notification::Notification;
use crate::object::reply::Reply;
use crate::object::sched_context::SchedContext;
use crate::object::slot::{Cap, FLAG_DEVICE, Slot};
use crate::object::space::{MAX_POOL, SPACES, Space};
use crate::object::thread::Thread;
use crate::object::vcpu::Vcpu;
use crate::object::{Header, count};
use crate::virt;

const PAGE: u64 = PAGE_SIZE as u64;
/// What may be done with memory that can be mapped.
const FRAME_RIGHTS: Rights = Rights::READ.union(Rights::WRITE).union(Rights::EXECUTE);
/// Objects that one call makes at most.
const MAX_COUNT: u64 = 64;
/// Bytes that one call zeroes before it lets others run.
const MAX_ZEROED: u64 = 2 << 20;
/// The same where nobody waits for the memory.
const MAX_ZEROED_AHEAD: u64 = 64 << 10;

pub fn invoke(request: &Request<'_>) -> Result<Results, Error> {
    match request.operation {
        op::RETYPE => retype(request),
        op::FRAME_AT => frame_at(request),
        op::INFO => {
            let unused = renew(request.slot);
            let cap = request.slot.cap();
            let zeroed = request.slot.zeroed_until().saturating_sub(unused);
            Ok([cap.object, u64::from(cap.extra), unused - cap.object, u64::from(cap.flags & FLAG_DEVICE != 0), zeroed, 0])
        }
        op::ZERO_AHEAD => zero_ahead(request),
        _ => Err(Error::UnknownOperation),
    }
}

/// First address of which nothing is made. Memory whose objects are all gone is unused again, and no longer zero.
fn renew(slot: &Slot) -> u64 {
    if slot.child().is_none() && slot.badge() != 0 {
        slot.set_badge(0);
        slot.set_zeroed_until(0);
    }
    slot.object() + slot.badge()
}

/// As [`renew`], when nothing that is dying uses the memory any more.
fn unused(request: &Request<'_>) -> Result<u64, Error> {
    destroy::bury(request.exclusive)?;
    // Burying may have emptied the invoked slot or the table.
    if request.slot.kind() != ObjectKind::Untyped {
        return Err(Error::BadSlot);
    }
    Ok(renew(request.slot))
}

/// Size and alignment in bytes of an object.
fn layout(kind: ObjectKind, argument: u64) -> Result<(u64, u64), Error> {
    let fixed = |bytes: usize| if argument == 0 { Ok((bytes as u64, (bytes as u64).next_power_of_two())) } else { Err(Error::BadArgument) };
    let within = |most: u64| if (1..=most).contains(&argument) { Ok(argument) } else { Err(Error::BadArgument) };
    match kind {
        // Large memory is aligned for large pages.
        ObjectKind::Untyped | ObjectKind::Frame => Ok((within(u32::MAX.into())? * PAGE, if argument >= 512 { 512 * PAGE } else { PAGE })),
        ObjectKind::CNode => Ok(((size::SLOT as u64) << within(size::CNODE_MAX_BITS.into())?, size::SLOT as u64)),
        ObjectKind::AddressSpace | ObjectKind::GuestSpace => Ok((Space::pages(within(MAX_POOL as u64)?) * PAGE, PAGE)),
        ObjectKind::Thread => fixed(size::THREAD),
        ObjectKind::SchedContext => fixed(size::SCHED_CONTEXT),
        ObjectKind::Endpoint => fixed(size::ENDPOINT),
        ObjectKind::Reply => fixed(size::REPLY),
        ObjectKind::Notification => fixed(size::NOTIFICATION),
        ObjectKind::Vcpu if virt::backend() == virt::Backend::None => Err(Error::Unsupported),
        ObjectKind::Vcpu => fixed(size::VCPU).map(|(bytes, _)| (bytes, PAGE)),
        _ => Err(Error::BadArgument),
    }
}

fn retype(request: &Request<'_>) -> Result<Results, Error> {
    let [kind, argument, table, first, wanted, _] = request.words;
    let kind = u8::try_from(kind).ok().and_then(ObjectKind::from_u8).ok_or(Error::BadArgument)?;
    if wanted == 0 || wanted > MAX_COUNT {
        return Err(Error::BadArgument);
    }
    let (bytes, alignment) = layout(kind, argument)?;
    let cap = request.slot.cap();
    let device = cap.flags & FLAG_DEVICE != 0;
    if device && !matches!(kind, ObjectKind::Untyped | ObjectKind::Frame) {
        return Err(Error::BadArgument);
    }
    for i in 0..wanted {
        if !request.destination(table, first.saturating_add(i))?.is_empty() {
            return Err(Error::SlotOccupied);
        }
    }
    let unused = unused(request)?;
    let start = unused.next_multiple_of(alignment);
    let total = bytes.next_multiple_of(alignment.min(PAGE)).max(bytes);
    let stride = bytes.next_multiple_of(alignment);
    let end = stride.checked_mul(wanted - 1).and_then(|s| s.checked_add(start + total)).ok_or(Error::NoMemory)?;
    if end > cap.object + u64::from(cap.extra) * PAGE {
        return Err(Error::NoMemory);
    }
    let zeroes = kind != ObjectKind::Untyped && !device;
    if zeroes && end - start > MAX_ZEROED && wanted > 1 {
        return Err(Error::BadArgument);
    }
    if zeroes {
        zero(request.slot, unused, end, MAX_ZEROED)?;
    }
    // First, for where an object cannot be made, those before it are there, and its own memory is no longer zero.
    request.slot.set_badge(end - cap.object);
    for i in 0..wanted {
        let destination = request.destination(table, first + i)?;
        make(request.slot, destination, kind, argument, start + i * stride, device)?;
    }
    Ok([start, 0, 0, 0, 0, 0])
}

/// Zeroes what is unused up to `end`, one portion a call, without gaps: how far it is zero from the first unused byte on stands in the memory capability.
fn zero(slot: &Slot, unused: u64, end: u64, portion: u64) -> Result<(), Error> {
    let done = slot.zeroed_until().max(unused);
    let until = end.min(done + portion).max(done);
    // SAFETY: the range lies in unused memory of this capability, in the direct map.
    unsafe { core::ptr::write_bytes(phys_to_virt(done), 0, (until - done) as usize) };
    slot.set_zeroed_until(until);
    if until >= end { Ok(()) } else { Err(Error::Again) }
}

// Inlined, it has everything around it twice: 1 KiB of text.
#[inline(never)]
fn zero_ahead(request: &Request<'_>) -> Result<Results, Error> {
    let cap = request.slot.cap();
    let pages = if cap.flags & FLAG_DEVICE != 0 { 0 } else { u64::from(cap.extra) };
    zero(request.slot, unused(request)?, cap.object + pages * PAGE, MAX_ZEROED_AHEAD).map(|()| [0; 6])
}

fn make(source: &Slot, destination: &Slot, kind: ObjectKind, argument: u64, physical: u64, device: bool) -> Result<(), Error> {
    let pointer = phys_to_virt(physical);
    let flags = if device { FLAG_DEVICE } else { 0 };
    if matches!(kind, ObjectKind::Untyped | ObjectKind::Frame) {
        let rights = if kind == ObjectKind::Frame { FRAME_RIGHTS } else { Rights::all() };
        // A part of zeroed memory is zeroed as far.
        let space = if kind == ObjectKind::Frame { 0 } else { source.zeroed_until().min(physical + argument * PAGE) };
        let cap = Cap { kind, rights, flags, extra: argument as u32, object: physical, space, ..Cap::NULL };
        return destination.insert(&cap, Some(source));
    }
    let mut extra = 0;
    // SAFETY: the memory is unused, zeroed, large enough and aligned for the object (`layout`); each object is written whole before anyone knows of it.
    unsafe {
        match kind {
            ObjectKind::CNode => {
                extra = 1 << argument;
                pointer.cast::<CNode>().write(CNode::new(extra));
            }
            ObjectKind::AddressSpace | ObjectKind::GuestSpace => {
                extra = argument as u32;
                pointer.cast::<Space>().write(Space::new(kind, physical + PAGE, extra));
                let space: Ref<Space> = Ref::new(pointer.cast());
                SPACES.enter(space)?;
                for slot in &space.doorbell_slots {
                    slot.embed();
                }
                if kind == ObjectKind::AddressSpace {
                    copy_kernel_half(pointer.add(PAGE_SIZE).cast());
                }
            }
            ObjectKind::Thread => {
                pointer.cast::<Thread>().write(Thread::new());
                (*pointer.cast::<Thread>()).embed_slots();
            }
            ObjectKind::SchedContext => pointer.cast::<SchedContext>().write(SchedContext::new()),
            ObjectKind::Endpoint => pointer.cast::<Endpoint>().write(Endpoint::new()),
            ObjectKind::Reply => pointer.cast::<Reply>().write(Reply::new()),
            ObjectKind::Notification => pointer.cast::<Notification>().write(Notification::new()),
            ObjectKind::Vcpu => {
                pointer.cast::<Vcpu>().write(Vcpu::new());
                let vcpu: Ref<Vcpu> = Ref::new(pointer.cast());
                vcpu.space.embed();
                (*vcpu.area()).init(virt_to_phys(vcpu.area()))?;
                (*vcpu.area()).reset_state(vcpu.state());
            }
            _ => return Err(Error::BadArgument),
        }
    }
    let cap = Cap::object(kind, pointer as u64, extra);
    destination.insert(&cap, Some(source))?;
    count(&cap, 1);
    Ok(())
}

fn frame_at(request: &Request<'_>) -> Result<Results, Error> {
    let [offset, pages, table, index, ..] = request.words;
    let cap = request.slot.cap();
    if cap.flags & FLAG_DEVICE == 0
        || offset % PAGE != 0
        || pages == 0
        || pages > u64::from(cap.extra)
        || offset / PAGE > u64::from(cap.extra) - pages
    {
        return Err(Error::BadArgument);
    }
    let (flags, extra, object) = (FLAG_DEVICE, pages as u32, cap.object + offset);
    let frame = Cap { kind: ObjectKind::Frame, rights: FRAME_RIGHTS, flags, extra, object, ..Cap::NULL };
    request.destination(table, index)?.insert(&frame, Some(request.slot))?;
    Ok([frame.object, 0, 0, 0, 0, 0])
}

const _: () = assert!(size_of::<Header>() <= size::NOTIFICATION);
