//! Random system calls with random arguments, from two threads that share one world of capabilities.
//!
//! The world is one `Untyped`: everything the workers can reach is made of it, so that they can hurt each other and not this server. A watcher of higher priority counts,
//! ends workers that wait for ever, and rebuilds the world again and again.

use crate::report::{line, verdict};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tessera_probe::{arguments::attempt, random::Random};
use tessera_rt::abi::object::{ObjectKind, Rights};
use tessera_rt::abi::syscall::NOTIFIED;
use tessera_rt::abi::vcpu::VcpuState;
use tessera_rt::abi::{Error, PAGE_SIZE, layout};
use tessera_rt::{
    AddressSpace, CNode, Endpoint, GuestSpace, SchedContext, Thread, ThreadConfig, Untyped, Vcpu, manifest::slots as fixed, slots,
    start::find, start_info, sys, time, vm,
};

/// Threads that fuzz.
const WORKERS: usize = 2;
/// Calls of one worker in one world.
const ROUND: u64 = 20_000;
/// Pages of a world.
const WORLD: u64 = 1024;
/// The workers' table has two to this many slots.
const TABLE_BITS: u64 = 7;
/// Where the workers may map things.
const AREA: u64 = 0x5_0000_0000;

static CALLS: [AtomicU64; WORKERS] = [const { AtomicU64::new(0) }; WORKERS];
static DONE: [AtomicBool; WORKERS] = [const { AtomicBool::new(false) }; WORKERS];
static SEEDS: [AtomicU64; WORKERS] = [const { AtomicU64::new(0) }; WORKERS];
static BAD_STATUS: AtomicU64 = AtomicU64::new(0);
/// Where the vCPU's state page is mapped, for the workers to scribble on.
static STATE: AtomicU64 = AtomicU64::new(0);

/// Fuzzes until `count` calls were made.
pub fn run(seed: u64, count: u64) {
    line(format_args!("probe: fuzz seed {seed} count {count}"));
    let mut stacks = [0; WORKERS];
    for stack in &mut stacks {
        match Untyped::OWN
            .frame(4)
            .and_then(|frame| vm::map(frame, Rights::READ | Rights::WRITE, 0))
        {
            Ok(mapping) => *stack = mapping.address + mapping.length as u64,
            Err(error) => return verdict("fuzz", Some(format_args!("stack: {}", error.text()))),
        }
    }
    let world = match Untyped::OWN.make(ObjectKind::Untyped, WORLD) {
        Ok(slot) => Untyped::new(slot),
        Err(error) => return verdict("fuzz", Some(format_args!("world: {}", error.text()))),
    };
    let (mut total, mut round, mut stuck, mut next_line) = (0u64, 0u64, 0u64, 0u64);
    while total < count {
        round += 1;
        let names = match build(world, &stacks, seed.wrapping_mul(1_000_003).wrapping_add(round)) {
            Ok(names) => names,
            Err((what, error)) => return verdict("fuzz", Some(format_args!("seed {seed} round {round}: {what}: {}", error.text()))),
        };
        stuck += watch();
        for slot in names.threads {
            // A worker may have ended itself, or been ended by the other.
            let _ = Thread::new(slot).stop();
        }
        if let Err(error) = CNode::OWN.revoke(world.slot()) {
            return verdict("fuzz", Some(format_args!("seed {seed} round {round}: revoke: {}", error.text())));
        }
        for slot in names.all.into_iter().chain(names.threads).chain(names.contexts) {
            slots::free(slot);
        }
        total += CALLS.iter().map(|calls| calls.swap(0, Ordering::Relaxed)).sum::<u64>();
        let bad = BAD_STATUS.load(Ordering::Relaxed);
        if bad != 0 {
            return verdict(
                "fuzz",
                Some(format_args!(
                    "seed {seed} round {round}: status {bad:#x} is none that the kernel may answer"
                )),
            );
        }
        if total >= next_line {
            line(format_args!(
                "probe: fuzz {total} calls, {round} worlds, {stuck} workers stopped while waiting"
            ));
            next_line += 1_000_000;
        }
    }
    line(format_args!("probe: fuzz made {total} calls, seed {seed}"));
    verdict("fuzz", None);
}

struct Names {
    all: [u32; 3],
    threads: [u32; WORKERS],
    contexts: [u32; WORKERS],
}

/// Makes the objects and starts the workers.
fn build(world: Untyped, stacks: &[u64; WORKERS], seed: u64) -> Result<Names, (&'static str, Error)> {
    let named = |what: &'static str| move |error: Error| (what, error);
    let table = CNode::new(world.make(ObjectKind::CNode, TABLE_BITS).map_err(named("table"))?);
    let into_table =
        |kind: ObjectKind, size: u64, to: u32, count: u32| world.retype(kind, size, table, to, count).map_err(named(kind.name()));
    into_table(ObjectKind::Untyped, 64, 1, 1)?;
    into_table(ObjectKind::Frame, 1, 2, 2)?;
    into_table(ObjectKind::Frame, 8, 4, 1)?;
    into_table(ObjectKind::Endpoint, 0, 5, 2)?;
    into_table(ObjectKind::Notification, 0, 7, 3)?;
    into_table(ObjectKind::Reply, 0, 10, 2)?;
    into_table(ObjectKind::CNode, 4, 12, 1)?;
    into_table(ObjectKind::AddressSpace, 8, 13, 1)?;
    into_table(ObjectKind::GuestSpace, 8, 14, 1)?;
    into_table(ObjectKind::Thread, 0, 15, 1)?;
    into_table(ObjectKind::SchedContext, 0, 16, 1)?;
    let copy = |from: u32, to: u32| table.copy(to, CNode::OWN, from, Rights::all(), 0);
    copy(table.slot(), 17).map_err(named("copy of the table"))?;
    copy(fixed::ADDRESS_SPACE, 18).map_err(named("copy of the address space"))?;
    for (index, name) in ["debug-port", "irq-statistics"].into_iter().enumerate() {
        if let Some(grant) = find(name) {
            copy(grant.slot, 20 + index as u32).map_err(named("copy of a grant"))?;
        }
    }
    // A vCPU that is ready to run, its state page under the workers' hands. Without virtualisation there is none.
    let guest = world.make(ObjectKind::GuestSpace, 8).map_err(named("guest space"))?;
    let vcpu = world.make(ObjectKind::Vcpu, 0).map_err(named("vcpu"))?;
    let state = AREA - (1 << 30);
    if Vcpu::new(vcpu)
        .configure(GuestSpace::new(guest), AddressSpace::OWN, state, 0)
        .is_ok()
    {
        STATE.store(state, Ordering::Relaxed);
        copy(vcpu, 19).map_err(named("copy of the vCPU"))?;
    } else {
        STATE.store(0, Ordering::Relaxed);
    }
    let mut names = Names {
        all: [table.slot(), guest, vcpu],
        threads: [0; WORKERS],
        contexts: [0; WORKERS],
    };
    for (worker, stack) in stacks.iter().enumerate() {
        let thread = Thread::new(world.make(ObjectKind::Thread, 0).map_err(named("thread"))?);
        let context = SchedContext::new(world.make(ObjectKind::SchedContext, 0).map_err(named("context"))?);
        names.threads[worker] = thread.slot();
        names.contexts[worker] = context.slot();
        DONE[worker].store(false, Ordering::Relaxed);
        SEEDS[worker].store(seed ^ (worker as u64) << 56, Ordering::Relaxed);
        thread
            .configure(&ThreadConfig {
                cnode: table,
                space: AddressSpace::OWN,
                fault: Some(Endpoint::new(fixed::FAULT)),
                sched_context: context,
                priority: start_info().priority.saturating_sub(2),
                cpu: worker as u32 % start_info().cpus,
                flags: 0,
                utcb: layout::UTCB_BASE + (32 + worker as u64) * layout::UTCB_STRIDE,
            })
            .map_err(named("configure"))?;
        thread
            .start(work as extern "C" fn(usize) -> ! as usize as u64, stack - 8, worker as u64)
            .map_err(named("start"))?;
    }
    Ok(names)
}

/// Waits until both workers are through, or make no more progress. Returns how many had to be given up.
fn watch() -> u64 {
    let mut last = [0; WORKERS];
    let mut idle = [0u32; WORKERS];
    loop {
        time::sleep_until(time::after(time::milliseconds(1)));
        let mut given_up = 0;
        let mut ended = 0;
        for worker in 0..WORKERS {
            let calls = CALLS[worker].load(Ordering::Relaxed);
            idle[worker] = if calls == last[worker] { idle[worker] + 1 } else { 0 };
            last[worker] = calls;
            if DONE[worker].load(Ordering::Acquire) {
                ended += 1;
            } else if idle[worker] > 20 {
                ended += 1;
                given_up += 1;
            }
        }
        if ended == WORKERS {
            return given_up;
        }
    }
}

/// A worker. It owns nothing on its stack that would have to be dropped: the watcher stops it anywhere.
extern "C" fn work(worker: usize) -> ! {
    let mut random = Random::new(SEEDS[worker].load(Ordering::Relaxed));
    for _ in 0..ROUND {
        scribble(&mut random);
        let call = attempt(&mut random, 1 << TABLE_BITS, AREA, sys::tsc());
        let mut words = call.words;
        let outcome = sys::raw(call.rax, call.rdi, call.rsi, call.rdx, call.r8, &mut words);
        if outcome.status != 0 && outcome.status != NOTIFIED && Error::from_status(outcome.status).is_none() {
            BAD_STATUS.store(outcome.status, Ordering::Relaxed);
        }
        CALLS[worker].fetch_add(1, Ordering::Relaxed);
    }
    DONE[worker].store(true, Ordering::Release);
    loop {
        sys::yield_now();
    }
}

/// Random bytes where the kernel reads: the head of the message buffer, the vCPU's state.
fn scribble(random: &mut Random) {
    let utcb = sys::utcb().cast::<u8>();
    if random.below(4) == 0 {
        // The first word is this thread's own pointer to the page (`fs:0`), which the runtime needs.
        for offset in 16..40 {
            // SAFETY: inside the page, which stays mapped as long as the thread lives; integers only.
            unsafe {
                utcb.add(offset)
                    .write_volatile(if random.below(2) == 0 { random.below(128) as u8 } else { 0 })
            };
        }
    }
    let state = STATE.load(Ordering::Relaxed);
    if state != 0 && random.below(16) == 0 {
        let offset = random.below(size_of::<VcpuState>().min(PAGE_SIZE) as u64);
        // SAFETY: the watcher keeps the vCPU, and with it the page, as long as a worker runs.
        unsafe { (state as *mut u8).add(offset as usize).write_volatile(random.next() as u8) };
    }
}
