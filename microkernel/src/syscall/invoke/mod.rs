//! Operations on objects: one file per kind. All run in exclusive mode: arguments are checked first, and then everything is done or nothing.

mod cnode;
mod frame;
mod irq;
mod ports;
mod sched_context;
mod space;
mod thread;
mod trace;
mod untyped;
mod vcpu;

use tessera_abi::Error;
use tessera_abi::object::{ObjectKind, Rights, endpoint};

use super::fast::own_slot;
use crate::kref::Ref;
use crate::lock::Exclusive;
use crate::object::cnode::CNode;
use crate::object::endpoint::Endpoint;
use crate::object::slot::Slot;
use crate::object::thread::Thread;

/// Results in the message words.
pub type Results = [u64; 6];

/// What an operation gets: who asks, what it is asked of, and the message words.
pub struct Request<'a> {
    /// Proof of exclusive mode.
    pub exclusive: &'a Exclusive,
    /// The calling thread.
    pub thread: Ref<Thread>,
    /// The invoked capability.
    pub slot: &'a Slot,
    /// Operation.
    pub operation: u64,
    /// Arguments.
    pub words: [u64; 6],
}

impl Request<'_> {
    /// Checks the rights of the invoked capability.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn rights(&self, rights: Rights) -> Result<(), Error> {
        if self.slot.rights().contains(rights) { Ok(()) } else { Err(Error::NoRight) }
    }

    /// Checks for `READ` if the operation is one of `reading`, else for `WRITE`.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn rights_by_operation(&self, reading: &[u64]) -> Result<(), Error> {
        self.rights(if reading.contains(&self.operation) { Rights::READ } else { Rights::WRITE })
    }

    /// A slot of the caller's own table.
    ///
    /// # Errors
    /// `BadSlot`.
    pub fn own(&self, index: u64) -> Result<&Slot, Error> {
        own_slot(&self.thread, index).ok_or(Error::BadSlot)
    }

    /// The object behind a slot of the caller's own table. `T` belongs to `kind`.
    ///
    /// # Errors
    /// `BadSlot`, `WrongKind`, `NoRight`.
    pub fn object<T>(&self, index: u64, kind: ObjectKind, rights: Rights) -> Result<Ref<T>, Error> {
        Ok(super::ipc::object(&self.thread, index, kind, rights)?.0)
    }

    /// The invoked object. `T` belongs to the kind that was dispatched on.
    pub fn target<T>(&self) -> Ref<T> {
        // SAFETY: the capability's kind was matched, and it names a live object of that kind.
        unsafe { Ref::new(self.slot.object() as *mut T) }
    }

    /// A slot in the table that slot `table` names, or in the caller's own if that is 0, for putting a capability into.
    ///
    /// # Errors
    /// `BadSlot`, `WrongKind`, `NoRight`.
    pub fn destination(&self, table: u64, index: u64) -> Result<&Slot, Error> {
        if table == 0 {
            return if index == 0 { Err(Error::BadSlot) } else { self.own(index) };
        }
        let table: Ref<CNode> = self.object(table, ObjectKind::CNode, Rights::WRITE)?;
        let slot: *const Slot = table.slot(index)?;
        // SAFETY: the table lives while its capability does, which is longer than this operation looks at the slot.
        Ok(unsafe { &*slot })
    }
}

/// `Invoke`.
///
/// # Errors
/// What the status register then holds.
pub fn invoke(exclusive: &Exclusive, thread: Ref<Thread>) -> Result<(), Error> {
    // Whoever needs memory pays for what is still to be buried; others go on meanwhile.
    let words = core::array::from_fn(|i| thread.regs.words[i].get());
    let slot = own_slot(&thread, thread.regs.rdi.get()).ok_or(Error::BadSlot)?;
    let request = Request { exclusive, thread, slot, operation: thread.regs.rdx.get(), words };
    let results = match slot.kind() {
        ObjectKind::Null => Err(Error::BadSlot),
        ObjectKind::Untyped => untyped::invoke(&request),
        ObjectKind::Frame => frame::invoke(&request),
        ObjectKind::CNode => cnode::invoke(&request),
        ObjectKind::AddressSpace | ObjectKind::GuestSpace => space::invoke(&request),
        ObjectKind::Thread => thread::invoke(&request),
        ObjectKind::SchedContext => sched_context::invoke(&request),
        ObjectKind::Endpoint => endpoint_info(&request),
        ObjectKind::IrqControl => irq::invoke_control(&request),
        ObjectKind::Irq => irq::invoke(&request),
        ObjectKind::IoPorts => ports::invoke(&request),
        ObjectKind::Vcpu => vcpu::invoke(&request),
        ObjectKind::Trace => trace::invoke(&request),
        ObjectKind::Reply | ObjectKind::Notification | ObjectKind::IoSpace => Err(Error::UnknownOperation),
    }?;
    // The operation may have ended the caller itself.
    if exclusive.cpu().current.get() == Some(thread) {
        for (cell, word) in thread.regs.words.iter().zip(results) {
            cell.set(word);
        }
        thread.set_result(0, 0, 0);
    }
    Ok(())
}

fn endpoint_info(request: &Request<'_>) -> Result<Results, Error> {
    if request.operation != endpoint::INFO {
        return Err(Error::UnknownOperation);
    }
    request.rights(Rights::READ)?;
    let target: Ref<Endpoint> = request.target();
    let receivers: usize = target.receivers.iter().map(|q| q.iter().count()).sum();
    Ok([target.calls.get(), target.callers.iter().count() as u64, receivers as u64, target.latency.get(), target.measured.get(), 0])
}
