//! Starts and stops virtual machines and counts pages.

use crate::report::{line, verdict};
use tessera_proto::{Slots, collect, supervisor, vm_console, vm_manager};
use tessera_rt::{Connection, Endpoint, slots, start, start_info, time};

/// Starts and stops `vm` `count` times. All memory must be back each time, to the page.
pub fn run(vm: &str, count: u64) {
    let mut system = supervisor::Client(start::connect("supervisor"));
    let mut manager = vm_manager::Client(start::connect("vm_manager"));
    let mut free = || system.memory().map_or(0, |memory| memory.free);
    // The first round does not count: servers may take memory while they start.
    let mut before = 0;
    let mut during = 0;
    for round in 0..=count {
        if let Err(error) = manager.start(vm) {
            return verdict("lifecycle", Some(format_args!("round {round}: start: {error}")));
        }
        during = free();
        if let Err(error) = manager.stop(vm) {
            return verdict("lifecycle", Some(format_args!("round {round}: stop: {error}")));
        }
        let after = free();
        if round == 0 {
            before = after;
        }
        if after != before {
            return verdict(
                "lifecycle",
                Some(format_args!("round {round}: {before} pages were free before, {after} after")),
            );
        }
        if round % 100 == 0 && round > 0 {
            line(format_args!(
                "probe: lifecycle round {round}, {before} pages free, {} taken by the machine",
                before - during
            ));
        }
    }
    if before == 0 || during >= before {
        return verdict("lifecycle", Some(format_args!("{before} pages free before, {during} while it ran")));
    }
    let found = collect(64, |first| manager.list(first))
        .ok()
        .and_then(|all| all.into_iter().find(|v| v.name == vm));
    let ram = found.map_or(0, |v| v.memory / 4096);
    let beyond = (before - during).saturating_sub(ram) * 4;
    line(format_args!(
        "bench: memory.vm-overhead {beyond} KiB min {beyond} max {beyond} goal <=2048"
    ));
    verdict("lifecycle", None);
}

/// Prints when the kernel, init and the user land of `vm` were reached, in milliseconds since the TSC started.
pub fn boot_times(vm: &str) {
    let info = start_info();
    let print = |name: &str, tsc: u64| {
        let ms = time::from_ticks(tsc, 1000, info.tsc_hz);
        line(format_args!("bench: boot.{name} {ms} ms min {ms} max {ms} goal -"));
    };
    let mut system = supervisor::Client(start::connect("supervisor"));
    print("kernel", info.boot_tsc);
    match system.log(0).ok().and_then(|chunk| chunk.lines.first().map(|l| l.tsc)) {
        Some(tsc) => print("init", tsc),
        None => return verdict("boot-times", Some(format_args!("the log is empty"))),
    }
    let mut manager = vm_manager::Client(start::connect("vm_manager"));
    let Ok(slot) = slots::take() else {
        return verdict("boot-times", Some(format_args!("no slot")));
    };
    if let Err(error) = manager.connect(vm, vm_manager::VmService::Console, Slots(slot)) {
        return verdict("boot-times", Some(format_args!("connect: {error}")));
    }
    let mut console = vm_console::Client(Connection::new(Endpoint::new(slot)));
    let (mut cursor, mut matched) = (0, 0);
    let wanted = b"GUEST-UP";
    loop {
        match console.read(cursor) {
            Ok(chunk) => {
                for byte in &chunk.data {
                    matched = if *byte == wanted[matched] {
                        matched + 1
                    } else {
                        usize::from(*byte == wanted[0])
                    };
                    if matched == wanted.len() {
                        print("guest", time::now());
                        return verdict("boot-times", None);
                    }
                }
                if cursor == chunk.next {
                    time::sleep_until(time::after(time::milliseconds(1)));
                }
                cursor = chunk.next;
            }
            Err(error) => return verdict("boot-times", Some(format_args!("console: {error}"))),
        }
    }
}
