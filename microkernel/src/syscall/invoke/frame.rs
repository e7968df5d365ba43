//! Mapping memory.

use tessera_abi::layout::{USER_BOTTOM, USER_TOP};
use tessera_abi::object::{ObjectKind, Rights, frame as op};
use tessera_abi::{Error, PAGE_SIZE};

use super::{Request, Results};
use crate::kref::Ref;
use crate::object::destroy;
use crate::object::page_tables::{self, Caching, Mapping};
use crate::object::slot::{Cap, FLAG_MAPPED};
use crate::object::space::Space;

const PAGE: u64 = PAGE_SIZE as u64;
/// One past the last guest-physical address that can be mapped: what four levels reach.
const GUEST_TOP: u64 = 1 << 47;

pub fn invoke(request: &Request<'_>) -> Result<Results, Error> {
    match request.operation {
        op::MAP => map(request),
        op::UNMAP => {
            if request.slot.cap().flags & FLAG_MAPPED == 0 {
                return Err(Error::NotMapped);
            }
            destroy::unmap_frame(request.exclusive, request.slot);
            Ok([0; 6])
        }
        op::SLICE => slice(request),
        op::INFO => {
            let cap = request.slot.cap();
            Ok([cap.object, u64::from(cap.extra), cap.badge, 0, 0, 0])
        }
        _ => Err(Error::UnknownOperation),
    }
}

fn map(request: &Request<'_>) -> Result<Results, Error> {
    let [space_slot, address, flags, ..] = request.words;
    let cap = request.slot.cap();
    if cap.flags & FLAG_MAPPED != 0 {
        return Err(Error::AlreadyMapped);
    }
    let kind = request.own(space_slot)?.kind();
    if !matches!(kind, ObjectKind::AddressSpace | ObjectKind::GuestSpace) {
        return Err(if kind == ObjectKind::Null { Error::BadSlot } else { Error::WrongKind });
    }
    let space: Ref<Space> = request.object(space_slot, kind, Rights::WRITE)?;
    let rights = Rights::from_bits_truncate((flags & 7) as u8);
    let caching = Caching::from_flags(flags & (op::UNCACHED | op::WRITE_COMBINING)).ok_or(Error::BadArgument)?;
    if flags & !(7 | op::UNCACHED | op::WRITE_COMBINING | op::SMALL_PAGES) != 0 || !rights.contains(Rights::READ) {
        return Err(Error::BadArgument);
    }
    request.rights(rights)?;
    let length = u64::from(cap.extra) * PAGE;
    let (bottom, top) = if kind == ObjectKind::AddressSpace { (USER_BOTTOM, USER_TOP) } else { (0, GUEST_TOP) };
    if address % PAGE != 0 || address < bottom || address >= top || length > top - address {
        return Err(Error::BadArgument);
    }
    if kind == ObjectKind::AddressSpace && rights.contains(Rights::WRITE | Rights::EXECUTE) {
        return Err(Error::WriteExecute);
    }
    let small = flags & op::SMALL_PAGES != 0;
    let mapping = Mapping { address, physical: cap.object, pages: u64::from(cap.extra), rights, caching, small };
    page_tables::map(&*space, space.root.get(), &mapping)?;
    request.slot.set_mapping(Some((space.identity.get(), address)));
    Ok([0; 6])
}

fn slice(request: &Request<'_>) -> Result<Results, Error> {
    let [first, pages, table, index, rights, _] = request.words;
    let cap = request.slot.cap();
    if pages == 0 || first.checked_add(pages).is_none_or(|end| end > u64::from(cap.extra)) {
        return Err(Error::BadArgument);
    }
    let part = Cap {
        rights: cap.rights & Rights::from_bits_truncate(rights as u8),
        flags: cap.flags & !FLAG_MAPPED,
        extra: pages as u32,
        object: cap.object + first * PAGE,
        badge: 0,
        space: 0,
        ..cap
    };
    request.destination(table, index)?.insert(&part, Some(request.slot))?;
    Ok([0; 6])
}
