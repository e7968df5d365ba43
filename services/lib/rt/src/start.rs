//! Start and end of a server, and what it was granted.

use crate::{Connection, Endpoint};
use alloc::string::String;
use spin::Once;
use tessera_manifest::{StartGrant, StartInfo, slots};
use tessera_proto::init;

static INFO: Once<StartInfo> = Once::new();

/// What init told this server.
///
/// # Panics
/// In a program that has none: init itself before [`set_start_info`], and host tests.
#[must_use]
pub fn start_info() -> &'static StartInfo {
    INFO.get().expect("start information is set before main runs")
}

/// For init and for host tests, which have no start page.
pub fn set_start_info(info: StartInfo) {
    INFO.call_once(|| info);
}

/// The grant of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static StartGrant> {
    start_info().grants.iter().find(|grant| grant.name == name)
}

/// The slot of the grant of that name.
#[must_use]
pub fn grant(name: &str) -> Option<u32> {
    find(name).map(|grant| grant.slot)
}

/// The slot of a grant that the server cannot do without: if the manifest does not give it, the server ends and says so.
#[must_use]
pub fn require(name: &str) -> u32 {
    grant(name).unwrap_or_else(|| {
        let mut reason = String::from("the manifest does not grant ");
        reason.push_str(name);
        exit(1, &reason)
    })
}

/// A client connection to the endpoint granted under that name.
#[must_use]
pub fn connect(name: &str) -> Connection {
    Connection::new(Endpoint::new(require(name)))
}

/// Tells init that this server serves.
pub fn ready() {
    // Without init there is nobody who could be told.
    let _ = init::Client(Connection::new(Endpoint::new(slots::INIT))).ready();
}

/// Ends the server. A code other than 0 is a failure; the reason is logged.
pub fn exit(code: i32, reason: &str) -> ! {
    let reason = &reason[..reason.floor_char_boundary(init::MAX_LINE)];
    let _ = init::Client(Connection::new(Endpoint::new(slots::INIT))).exit(code, reason);
    // init ends all threads and does not answer. Should it not, then stop at least this one.
    crate::thread::stop_current()
}

/// What happens before `main`: heap, start information, slots, logging.
#[cfg(target_os = "tessera")]
#[doc(hidden)]
pub fn begin() {
    use tessera_abi::{PAGE_SIZE, layout};
    let page = layout::START_INFO as *const u8;
    // SAFETY: init maps the start information there, read-only, before it starts the program, and never takes it away. Its first eight bytes are the length.
    let length = unsafe { page.cast::<u64>().read() } as usize;
    assert!(length < 16 * PAGE_SIZE, "start information of {length} bytes");
    // SAFETY: as above; init maps as many pages as the length needs.
    let bytes = unsafe { core::slice::from_raw_parts(page.add(8), length) };
    let heap = StartInfo::heap_of(bytes).unwrap_or(0);
    // SAFETY: init maps `heap` bytes there for this use, and nothing has used them yet.
    unsafe { crate::heap::claim(layout::HEAP_BASE as *mut u8, heap as usize) };
    let info = StartInfo::decode(bytes).expect("start information of this version");
    crate::slots::init(info.first_free_slot, info.slots);
    let level = info
        .arguments
        .iter()
        .find_map(|word| word.strip_prefix("log="))
        .and_then(|level| level.parse().ok());
    set_start_info(info);
    crate::logger::install(level.unwrap_or(log::LevelFilter::Info));
}
