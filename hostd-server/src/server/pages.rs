//! Files of the image: the Host Client, and the list of licences.
#![allow(unsafe_code)]

use tessera_hostd::files::Pack;
use tessera_rt::{Frame, abi::object::Rights, log, start, vm};

/// Names of the grants.
const GRANT: &str = "web-pack";
const NOTICES: &str = "notices";

/// Maps a file. `None`: there is none, or it cannot be mapped; the log says so.
fn map(name: &str) -> Option<&'static [u8]> {
    let Some(grant) = start::find(name) else {
        log::warn!("the image lacks a file: grant `{name} = {{ file = \"…\" }}`");
        return None;
    };
    let mapping = vm::map(Frame::new(grant.slot), Rights::READ, 0)
        .inspect_err(|error| log::error!("{name} cannot be mapped: {}", error.text()))
        .ok()?;
    let length = usize::try_from(grant.length).unwrap_or(usize::MAX).min(mapping.length);
    // SAFETY: mapped read-only for the life of the process; the image never changes.
    Some(unsafe { core::slice::from_raw_parts(mapping.as_ptr(), length) })
}

/// Maps and checks the pack. `None`: there is none, or it is damaged.
pub fn open() -> Option<Pack> {
    Pack::open(map(GRANT)?)
        .inspect_err(|error| log::error!("the Host Client's pack: {error:?}"))
        .ok()
}

/// What the image is made of. To be called once.
pub fn notices() -> &'static str {
    map(NOTICES).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default()
}
