//! A server for tests. Its first argument says what it does:
//!
//! | argument | what |
//! |---|---|
//! | `relay` | prints the system's log on the serial port granted as `report` |
//! | `offend NAME` | does one thing that must end it |
//! | `refuse` | makes calls that the kernel must refuse, and checks that it does |
//! | `entry` | enters a guest in every way that must be refused |
//! | `deliver` | interrupts a guest in every way that the kernel has |
//! | `written` | asks which pages a guest wrote |
//! | `wx` | looks for pages that are writable and executable |
//! | `fuzz SEED COUNT` | random system calls |
//! | `echo` | serves the endpoint `echo` for `bench` |
//! | `bench` | measures |
//! | `lifecycle VM COUNT` | starts and stops a virtual machine and counts free pages |
//! | `boot-times VM` | prints when the kernel, init and the guest's user land were reached |
//! | `panic` | panics the kernel |
//! | `stray` | has an NVMe controller write into memory that was not lent for it |
//! | `disk NAME ROUNDS` | writes and reads a disk over and over, whatever happens to the storage server |
//! | `stream STORE ROUNDS` | writes and reads a file of a datastore through shared memory |
//! | `port ROUNDS` | asks a gateway for its address through a port of its own on the switch |
//!
//! Results are lines `probe: NAME ok|FAILED detail` and `bench: …`, on the port granted as `report` if there is one, else in the log.
#![cfg_attr(target_os = "tessera", no_std, no_main)]

#[cfg(not(target_os = "tessera"))]
fn main() {}

#[cfg(target_os = "tessera")]
extern crate alloc;

#[cfg(target_os = "tessera")]
mod bench;
#[cfg(target_os = "tessera")]
mod deliver;
#[cfg(target_os = "tessera")]
mod disk;
#[cfg(target_os = "tessera")]
mod entry;
#[cfg(target_os = "tessera")]
mod faults;
#[cfg(target_os = "tessera")]
mod fuzz;
#[cfg(target_os = "tessera")]
mod guest;
#[cfg(target_os = "tessera")]
mod lifecycle;
#[cfg(target_os = "tessera")]
mod offend;
#[cfg(target_os = "tessera")]
mod port;
#[cfg(target_os = "tessera")]
mod refuse;
#[cfg(target_os = "tessera")]
mod relay;
#[cfg(target_os = "tessera")]
mod report;
#[cfg(target_os = "tessera")]
mod reuse;
#[cfg(target_os = "tessera")]
mod stray;
#[cfg(target_os = "tessera")]
mod stream;
#[cfg(target_os = "tessera")]
mod system;
#[cfg(target_os = "tessera")]
mod written;

#[cfg(target_os = "tessera")]
tessera_rt::entry!(start);

#[cfg(target_os = "tessera")]
fn start() {
    use crate::report::line;
    let arguments = &tessera_rt::start_info().arguments;
    let word = |index: usize| arguments.get(index).map_or("", |word| word.as_str());
    let number = |index: usize, otherwise: u64| word(index).parse().unwrap_or(otherwise);
    tessera_rt::start::ready();
    match word(0) {
        "relay" => relay::run(),
        "offend" => offend::run(word(1)),
        "refuse" => refuse::run(),
        "entry" => entry::run(),
        "deliver" => deliver::run(),
        "written" => written::run(),
        "wx" => system::write_execute(),
        "panic" => system::panic_kernel(),
        "fuzz" => fuzz::run(number(1, 1), number(2, 1_000_000)),
        "echo" => bench::echo::run(),
        "bench" => bench::run(word(1)),
        "lifecycle" => lifecycle::run(word(1), number(2, 1000)),
        "stray" => stray::run(),
        "disk" => disk::run(word(1), number(2, 100)),
        "stream" => stream::run(word(1), number(2, 100)),
        "port" => port::run(number(1, 10)),
        "boot-times" => lifecycle::boot_times(word(1)),
        other => line(format_args!("probe: {other} FAILED no such role")),
    }
    // A server that has nothing to do any more stays, so that its end cannot be mistaken for a fault.
    loop {
        tessera_rt::time::sleep_until(u64::MAX);
    }
}
