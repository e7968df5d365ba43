//! Operations on address spaces and guest spaces.

use tessera_abi::object::{ObjectKind, Rights, space as op};
use tessera_abi::syscall::REGISTER_BYTES;
use tessera_abi::virt::VirtFeatures;
use tessera_abi::{Error, PAGE_SIZE};

use super::{Request, Results};
use crate::kref::Ref;
use crate::object::cnode;
use crate::object::destroy;
use crate::object::page_tables;
use crate::object::space::Space;
use crate::virt;

pub fn invoke(request: &Request<'_>) -> Result<Results, Error> {
    let space: Ref<Space> = request.target();
    let is_guest = request.slot.kind() == ObjectKind::GuestSpace;
    let [kind, address, length, notification, ..] = request.words;
    request.rights_by_operation(&[op::INFO, op::LOOKUP])?;
    match request.operation {
        op::INFO => Ok([u64::from(space.pool.get()), u64::from(space.used.get()), space.identity.get() >> 32, 0, 0, 0]),
        op::LOOKUP => {
            if kind >= 1 << 47 {
                return Err(Error::BadArgument);
            }
            let (physical, rights, size) = page_tables::look_up(&*space, space.root.get(), kind).ok_or(Error::NotMapped)?;
            Ok([physical, u64::from(rights.bits()), size, 0, 0, 0])
        }
        op::DOORBELL if is_guest => {
            if kind > 1 || !matches!(length, 0 | 1 | 2 | 4 | 8) || kind == 0 && address > 0xffff {
                return Err(Error::BadArgument);
            }
            let source = request.own(notification)?.require(ObjectKind::Notification, Rights::SEND)?;
            if space.doorbell(kind as u32, address, 0).is_some() {
                return Err(Error::AlreadyMapped);
            }
            let mut pairs = space.doorbells.iter().zip(&space.doorbell_slots);
            let (doorbell, slot) = pairs.find(|(_, slot)| slot.is_empty()).ok_or(Error::NoMemory)?;
            cnode::copy(source, slot, Rights::SEND, 0)?;
            doorbell.kind.set(kind as u32);
            doorbell.address.set(address);
            doorbell.length.set(length as u32);
            space.doorbells_used.set(space.doorbells_used.get() + 1);
            Ok([0; 6])
        }
        op::DOORBELL_REMOVE if is_guest => {
            if kind > 1 {
                return Err(Error::BadArgument);
            }
            destroy::delete(request.exclusive, space.doorbell(kind as u32, address, 0).ok_or(Error::NotMapped)?);
            Ok([0; 6])
        }
        op::TAKE_FLAGS if is_guest => take_flags(request, &space),
        _ => Err(Error::UnknownOperation),
    }
}

fn take_flags(request: &Request<'_>, space: &Space) -> Result<Results, Error> {
    const PAGE: u64 = PAGE_SIZE as u64;
    let [address, pages, kind, ..] = request.words;
    if !virt::features()[1].contains(VirtFeatures::ACCESSED_DIRTY) {
        return Err(Error::Unsupported);
    }
    if address % PAGE != 0 || address >= 1 << 47 || !(1..=op::MAX_TAKEN).contains(&pages) || kind > 1 {
        return Err(Error::BadArgument);
    }
    let mut bitmap = [0_u8; op::MAX_TAKEN as usize / 8];
    let mut count = 0;
    page_tables::take_flags(space, space.root.get(), address..address + pages * PAGE, kind == 1, |page| {
        bitmap[(page / 8) as usize] |= 1 << (page % 8);
        count += 1;
    });
    if count != 0 {
        destroy::flush(request.exclusive, space);
    }
    // SAFETY: the message bytes belong to the thread and have room for this; user level may write them too, which harms nobody else.
    unsafe { request.thread.message().add(REGISTER_BYTES).copy_from_nonoverlapping(bitmap.as_ptr(), bitmap.len()) };
    Ok([count, 0, 0, 0, 0, 0])
}
