//! The message interfaces of all servers. Each stands in a file of its own and is declared once with `interface!`; from the declaration come the client,
//! the server's dispatch, the names in traces and the reference page `docs/messages.md`.
//!
//! A request is two bytes, interface and operation number, and then the arguments in postcard; a reply is a postcard `Result<T, Failure>`. Postcard stays behind this
//! folder: servers see types only.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod call;
pub mod capture;
pub mod datastore;
mod declare;
mod failure;
pub mod guest_disk;
pub mod guest_net;
pub mod guest_queues;
pub mod host_port;
pub mod hostd;
pub mod init;
pub mod iommu;
pub mod network;
mod page;
pub mod reference;
pub mod storage;
pub mod supervisor;
pub mod switch;
pub mod vm_console;
pub mod vm_control;
pub mod vm_manager;
pub mod vm_media;
pub mod vm_memory;
pub mod vm_screen;
pub mod wire;

pub use call::{Call, CallError, Delivery, Slots, Transport};
pub use declare::{Argument, Interface, Operation, refuse};
pub use failure::{Failure, FailureKind};
pub use page::{Page, collect};

#[doc(hidden)]
pub use declare::{Attempt, answer, arguments, invoke, operation_of, unknown_operation};

/// Every interface of the system.
pub const INTERFACES: &[&Interface] = &[
    &init::INTERFACE,
    &supervisor::INTERFACE,
    &vm_manager::INTERFACE,
    &vm_control::INTERFACE,
    &vm_console::INTERFACE,
    &storage::INTERFACE,
    &vm_memory::INTERFACE,
    &guest_disk::INTERFACE,
    &datastore::INTERFACE,
    &network::INTERFACE,
    &guest_net::INTERFACE,
    &switch::INTERFACE,
    &capture::INTERFACE,
    &host_port::INTERFACE,
    &iommu::INTERFACE,
    &vm_screen::INTERFACE,
    &vm_media::INTERFACE,
    &hostd::INTERFACE,
];

/// Most bytes of a request or reply.
pub const MAX_MESSAGE: usize = tessera_abi::syscall::MAX_MESSAGE;

/// The interface that a request is meant for, so that one endpoint can serve several; `None` for an empty message.
#[must_use]
pub fn interface_of(request: &[u8]) -> Option<u8> {
    request.first().copied()
}

/// Interface and operation of a request, by name, for traces.
#[must_use]
pub fn name_of(request: &[u8]) -> Option<(&'static str, &'static str)> {
    let [interface, operation, ..] = request else { return None };
    let interface = INTERFACES.iter().find(|known| known.number == *interface)?;
    let operation = interface.operations.iter().find(|known| known.number == *operation)?;
    Some((interface.name, operation.name))
}
