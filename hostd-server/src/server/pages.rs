//! The Host Client's files, from the image.
#![allow(unsafe_code)]

use tessera_hostd::files::Pack;
use tessera_rt::{Frame, abi::object::Rights, log, start, vm};

/// Name of the grant.
const GRANT: &str = "web-pack";

/// Maps and checks the pack. `None`: there is none, or it is damaged; the log says so.
pub fn open() -> Option<Pack> {
    let Some(grant) = start::find(GRANT) else {
        log::warn!("the image has no Host Client: grant `{GRANT} = {{ file = \"…\" }}`");
        return None;
    };
    let mapping = vm::map(Frame::new(grant.slot), Rights::READ, 0)
        .inspect_err(|error| log::error!("the Host Client cannot be mapped: {}", error.text()))
        .ok()?;
    let length = usize::try_from(grant.length).unwrap_or(usize::MAX).min(mapping.length);
    // SAFETY: mapped read-only for the life of the process; the image never changes.
    let bytes = unsafe { core::slice::from_raw_parts(mapping.as_ptr(), length) };
    Pack::open(bytes)
        .inspect_err(|error| log::error!("the Host Client's pack: {error:?}"))
        .ok()
}
