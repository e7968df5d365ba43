//! Replies: the right to answer one call at a time. Destroying one answers its caller with `ServerDied`.

use core::cell::Cell;

use tessera_abi::object::{ObjectKind, size};

use super::Header;
use super::thread::Thread;
use crate::kref::Ref;

/// A reply object.
#[repr(C)]
pub struct Reply {
    /// Header.
    pub header: Header,
    /// The caller that waits for the answer.
    pub caller: Cell<Option<Ref<Thread>>>,
    /// The thread that will put the next caller here.
    pub receiver: Cell<Option<Ref<Thread>>>,
}

const _: () = assert!(size_of::<Reply>() <= size::REPLY);

impl Reply {
    /// One that holds nobody.
    pub const fn new() -> Self {
        Self { header: Header::new(ObjectKind::Reply), caller: Cell::new(None), receiver: Cell::new(None) }
    }
}
