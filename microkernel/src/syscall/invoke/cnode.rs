//! Operations on capability tables.

use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, Rights, cnode as op};

use super::{Request, Results};
use crate::kref::Ref;
use crate::object::cnode::{self, CNode};
use crate::object::count;
use crate::object::destroy;
use crate::object::slot::Slot;

pub fn invoke(request: &Request<'_>) -> Result<Results, Error> {
    let table: Ref<CNode> = request.target();
    let [first, second, mask, badge, source_table, _] = request.words;
    request.rights_by_operation(&[op::DESCRIBE, op::NEXT_USED, op::INFO])?;
    match request.operation {
        op::COPY | op::MOVE => {
            let target = table.slot(first)?;
            let source = source(request, source_table, second)?;
            if request.operation == op::MOVE {
                source.move_to(target)?;
            } else {
                cnode::copy(source, target, Rights::from_bits_truncate(mask as u8), badge)?;
            }
            Ok([0; 6])
        }
        op::DELETE => {
            destroy::delete(request.exclusive, table.slot(first)?);
            // What the object held goes now or, portion by portion, when memory is needed.
            let _ = destroy::bury(request.exclusive);
            Ok([0; 6])
        }
        op::REVOKE => {
            destroy::revoke(request.exclusive, table.slot(first)?)?;
            Ok([0; 6])
        }
        op::DESCRIBE => {
            let slot = table.slot(first)?;
            let cap = slot.cap();
            let references = count(&cap, 0).unwrap_or(0);
            let identity = if cap.is_counted() { cap.object } else { cap.object | 1 << 63 };
            let shown = if matches!(cap.kind, ObjectKind::IoPorts) { cap.object } else { cap.badge };
            Ok([cap.kind as u64, u64::from(cap.rights.bits()), shown, identity, u64::from(cap.extra), u64::from(references)])
        }
        op::NEXT_USED => {
            let slots = u64::from(table.slots.get());
            let found = (first.max(1)..slots).find(|i| table.slot(*i).is_ok_and(|s| !s.is_empty()));
            Ok([found.unwrap_or(slots), 0, 0, 0, 0, 0])
        }
        op::INFO => Ok([u64::from(table.slots.get()), 0, 0, 0, 0, 0]),
        _ => Err(Error::UnknownOperation),
    }
}

fn source<'a>(request: &'a Request<'_>, table: u64, index: u64) -> Result<&'a Slot, Error> {
    let slot = request.destination(table, index)?;
    if slot.is_empty() { Err(Error::BadSlot) } else { Ok(slot) }
}
