//! Trace rings: one per processor, in memory that the kernel keeps and whoever holds the frame may read.

use core::sync::atomic::Ordering;

use tessera_abi::trace::{Event, Record, RingHeader};

use crate::arch::percpu::{self, PerCpu};
use crate::lock::SLOW_TRACE;

/// Pages of each ring.
pub const RING_PAGES: u64 = 8;

/// Prepares the ring of a processor in the zeroed memory at `address`.
pub fn install(cpu: &PerCpu, address: *mut u8) {
    let capacity = (RING_PAGES * 4096) / size_of::<Record>() as u64 - 1;
    // SAFETY: the boot code gives `RING_PAGES` zeroed pages that are nobody else's; the header is the size of a record.
    unsafe { address.cast::<RingHeader>().write(RingHeader { written: 0, capacity, cpu: cpu.index.get() as u64, reserved: 0 }) };
    cpu.trace_ring.set(address as u64);
}

/// Chooses which events are recorded from now on. Called in exclusive mode.
pub fn set_mask(mask: u64) {
    percpu::TRACE_MASK.store(mask, Ordering::Relaxed);
    for cpu in percpu::all() {
        let others = cpu.slow.get() & !SLOW_TRACE;
        cpu.slow.set(if mask == 0 { others } else { others | SLOW_TRACE });
    }
}

/// Records an event, if it is one of those chosen.
#[inline]
pub fn record(cpu: &PerCpu, event: Event, a: u64, b: u64) {
    if cpu.slow.get() & SLOW_TRACE != 0 {
        write(cpu, event, a, b);
    }
}

#[cold]
#[inline(never)]
fn write(cpu: &PerCpu, event: Event, a: u64, b: u64) {
    let ring = cpu.trace_ring.get();
    if ring == 0 || percpu::TRACE_MASK.load(Ordering::Relaxed) >> event as u64 & 1 == 0 {
        return;
    }
    let header = ring as *mut RingHeader;
    // SAFETY: `install` set the address of a ring that only this processor writes; readers have it read-only.
    unsafe {
        let written = (&raw const (*header).written).read_volatile();
        let capacity = (RING_PAGES * 4096) / size_of::<Record>() as u64 - 1;
        let record = header.cast::<Record>().add(1 + (written % capacity) as usize);
        record.write_volatile(Record { tsc: crate::arch::timer::now(), event: event as u64, a, b });
        // The record must stand before the count says so; x86 keeps stores in order, the compiler is told by the fence.
        core::sync::atomic::compiler_fence(Ordering::Release);
        (&raw mut (*header).written).write_volatile(written + 1);
    }
}
