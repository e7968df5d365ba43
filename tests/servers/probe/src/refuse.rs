//! System calls that the kernel must refuse: forged slots, bad lengths, bad addresses, missing rights.

use crate::report::verdict;
use tessera_rt::abi::object::{ObjectKind, Rights, thread};
use tessera_rt::abi::syscall::{FLAG_DEADLINE, MAX_CAPS, MAX_MESSAGE, Syscall};
use tessera_rt::abi::{Error, layout};
use tessera_rt::manifest::slots as fixed;
use tessera_rt::sys::{self, Words};
use tessera_rt::{
    AddressSpace, CNode, Endpoint, IoPorts, Reply, SchedContext, Thread, ThreadConfig, Untyped, slots, start::find, start_info,
};

/// What a check answers: nothing, or what it saw.
pub type Check = Result<(), alloc::string::String>;
/// A check with its name.
type Named = (&'static str, fn() -> Check);

macro_rules! refused {
    ($what:expr, $result:expr) => {
        if let Ok(value) = $result {
            let _ = &value;
            return Err(alloc::format!("{} was allowed", $what));
        }
    };
}

macro_rules! answers {
    ($what:expr, $result:expr, $error:pat) => {
        match $result {
            Err($error) => {}
            other => return Err(alloc::format!("{} answered {:?}", $what, other.map(|_| "success"))),
        }
    };
}

/// Runs all checks.
pub fn run() {
    let checks: &[Named] = &[
        ("forged-slots", forged_slots),
        ("unknown-system-calls", unknown_system_calls),
        ("bad-message-lengths", bad_message_lengths),
        ("unknown-operations", unknown_operations),
        ("missing-rights", missing_rights),
        ("badges-stay", badges_stay),
        ("bad-mappings", bad_mappings),
        ("bad-retypes", bad_retypes),
        ("bad-slices", bad_slices),
        ("foreign-ports", foreign_ports),
        ("bad-threads", bad_threads),
        ("fault-replies", crate::faults::replies),
        ("bad-receive-slots", bad_receive_slots),
        ("bad-schedules", bad_schedules),
        ("reply-without-caller", reply_without_caller),
        ("old-contents", crate::reuse::old_contents),
        ("untyped-is-finite", untyped_is_finite),
    ];
    for (name, check) in checks {
        match check() {
            Ok(()) => verdict(name, None),
            Err(text) => verdict(name, Some(format_args!("{text}"))),
        }
    }
    verdict("refuse", None);
}

fn raw(rax: u64, rdi: u64, rsi: u64, rdx: u64) -> Result<(), Error> {
    let mut words: Words = [0; 6];
    // A deadline in the past: what should be refused must not wait instead.
    sys::raw(rax | FLAG_DEADLINE, rdi, rsi, rdx, 1, &mut words).check().map(|_| ())
}

/// Every slot that was not given: the empty ones, the ones behind the table, numbers that only look like slots when cut to 32 bits.
fn forged_slots() -> Check {
    let size = u64::from(start_info().slots);
    let used = |slot: u64| CNode::OWN.describe(slot as u32).is_ok();
    let empty = (1..size).filter(|&slot| !used(slot));
    let outside = [
        size,
        size + 1,
        0xffff,
        1 << 20,
        u64::from(u32::MAX),
        1 << 32,
        (1 << 32) + 5,
        1 << 63,
        u64::MAX,
    ];
    for slot in empty.chain(outside) {
        for call in [
            Syscall::Call,
            Syscall::ReplyRecv,
            Syscall::Recv,
            Syscall::Reply,
            Syscall::Signal,
            Syscall::Wait,
            Syscall::Poll,
            Syscall::VcpuRun,
        ] {
            refused!(alloc::format!("{call:?} on slot {slot:#x}"), raw(call as u64, slot, 0, slot));
        }
        for operation in 0..10 {
            refused!(
                alloc::format!("operation {operation} on slot {slot:#x}"),
                raw(Syscall::Invoke as u64, slot, 0, operation)
            );
        }
    }
    Ok(())
}

fn unknown_system_calls() -> Check {
    for number in 11..256 {
        answers!(
            alloc::format!("system call {number}"),
            raw(number, 5, 0, 0),
            Error::UnknownOperation
        );
    }
    for flags in [2u64, 4, 0x80, 1 << 40, 1 << 55] {
        let mut words = [0; 6];
        let outcome = sys::raw(Syscall::Poll as u64 | flags << 8, fixed::NOTIFICATION.into(), 0, 0, 0, &mut words);
        if outcome.check().is_ok() {
            return Err(alloc::format!("flags {flags:#x} were ignored"));
        }
    }
    Ok(())
}

fn bad_message_lengths() -> Check {
    let infos = [
        MAX_MESSAGE as u64 + 1,
        0xffff,
        (MAX_CAPS as u64 + 1) << 16,
        0xff << 16,
        1 << 24,
        1 << 32,
        1 << 63,
        u64::MAX,
    ];
    for info in infos {
        refused!(
            alloc::format!("Call with message information {info:#x}"),
            raw(Syscall::Call as u64, fixed::INIT.into(), info, 0)
        );
        refused!(
            alloc::format!("Reply with message information {info:#x}"),
            raw(Syscall::Reply as u64, fixed::REPLY.into(), info, 0)
        );
    }
    Ok(())
}

fn unknown_operations() -> Check {
    let named = [
        (fixed::CNODE, 7),
        (fixed::ADDRESS_SPACE, 4),
        (fixed::THREAD, 7),
        (fixed::UNTYPED, 3),
        (fixed::INIT, 1),
        (fixed::SCHED_CONTEXT, 2),
        (fixed::REPLY, 0),
        (fixed::NOTIFICATION, 0),
    ];
    for (slot, first) in named {
        for operation in (first..first + 20).chain([255, 1 << 32, 1 << 63, u64::MAX]) {
            refused!(
                alloc::format!("operation {operation} on slot {slot}"),
                raw(Syscall::Invoke as u64, slot.into(), 0, operation)
            );
        }
    }
    // Operations of GuestSpaces on an AddressSpace.
    for operation in [1, 2] {
        refused!(
            "a doorbell in an address space",
            raw(Syscall::Invoke as u64, fixed::ADDRESS_SPACE.into(), 0, operation)
        );
    }
    // System calls on objects of other kinds.
    for slot in [
        fixed::CNODE,
        fixed::ADDRESS_SPACE,
        fixed::THREAD,
        fixed::UNTYPED,
        fixed::SCHED_CONTEXT,
        fixed::REPLY,
        fixed::NOTIFICATION,
    ] {
        refused!("Call on what is no endpoint", raw(Syscall::Call as u64, slot.into(), 0, 0));
        refused!("VcpuRun on what is no vCPU", raw(Syscall::VcpuRun as u64, slot.into(), 0, 0));
    }
    for slot in [
        fixed::CNODE,
        fixed::ADDRESS_SPACE,
        fixed::THREAD,
        fixed::UNTYPED,
        fixed::SCHED_CONTEXT,
        fixed::REPLY,
        fixed::INIT,
    ] {
        refused!("Signal on what is no notification", raw(Syscall::Signal as u64, slot.into(), 0, 0));
        refused!("Wait on what is no notification", raw(Syscall::Wait as u64, slot.into(), 0, 0));
    }
    Ok(())
}

fn missing_rights() -> Check {
    // The right to call init is not the right to receive its messages.
    let mut words = [0; 6];
    let outcome = Endpoint::new(fixed::INIT).recv(Reply::FIRST, Some(1), &mut words).check();
    answers!("Recv on init's endpoint", outcome, Error::NoRight);
    // A copy has no right that its source lacks.
    let slot = slots::take().map_err(|e| e.text())?;
    let full = Rights::all();
    CNode::OWN.copy(slot, CNode::OWN, fixed::INIT, full, 0).map_err(|e| e.text())?;
    let (copy, source) = (CNode::OWN.describe(slot), CNode::OWN.describe(fixed::INIT));
    slots::free(slot);
    let (copy, source) = (copy.map_err(|e| e.text())?, source.map_err(|e| e.text())?);
    if !source.rights.contains(copy.rights) {
        return Err(alloc::format!("a copy has {:?}, its source {:?}", copy.rights, source.rights));
    }
    // A read-only notification cannot be signalled, one without rights cannot be waited for.
    let slot = slots::take().map_err(|e| e.text())?;
    CNode::OWN
        .copy(slot, CNode::OWN, fixed::NOTIFICATION, Rights::READ, 0)
        .map_err(|e| e.text())?;
    let signal = sys::signal(slot);
    let wait = sys::wait(slot, Some(1));
    slots::free(slot);
    answers!("Signal without the right", signal, Error::NoRight);
    answers!("Wait without the right", wait, Error::NoRight);
    // A frame without the write right is not mapped writable.
    let writable = Untyped::OWN.frame(1).map_err(|e| e.text())?;
    let slot = slots::take().map_err(|e| e.text())?;
    let slice = writable.slice(0, 1, CNode::OWN, slot, Rights::READ).map_err(|e| e.text())?;
    let mapped = slice.map(AddressSpace::OWN, AREA, Rights::READ | Rights::WRITE, 0);
    slots::free(slot);
    slots::free(writable.slot());
    refused!("mapping a read-only frame writable", mapped);
    Ok(())
}

fn badges_stay() -> Check {
    let slot = slots::take().map_err(|e| e.text())?;
    let copied = CNode::OWN.copy(slot, CNode::OWN, fixed::INIT, Rights::all(), 0x1234);
    slots::free(slot);
    refused!("a new badge on init's badged endpoint", copied);
    Ok(())
}

/// An address range that nothing else uses.
const AREA: u64 = 0x6_0000_0000;

fn bad_mappings() -> Check {
    let memory = Untyped::OWN.frame(1).map_err(|e| e.text())?;
    let read_write = Rights::READ | Rights::WRITE;
    let addresses = [
        0,
        0x1000,
        layout::USER_BOTTOM - 0x1000,
        layout::USER_TOP,
        layout::USER_TOP + 0x1000,
        0x8000_0000_0000,
        0xffff_8000_0000_0000,
        0xffff_ffff_8020_0000,
        u64::MAX - 4095,
        AREA + 1,
        AREA + 0x800,
    ];
    for address in addresses {
        refused!(
            alloc::format!("mapping at {address:#x}"),
            memory.map(AddressSpace::OWN, address, read_write, 0)
        );
    }
    refused!(
        "mapping over the stack",
        memory.map(AddressSpace::OWN, layout::STACK_TOP - 0x1000, read_write, 0)
    );
    refused!(
        "mapping W+X",
        memory.map(AddressSpace::OWN, AREA, Rights::WRITE | Rights::EXECUTE, 0)
    );
    answers!(
        "mapping R+W+X",
        memory.map(AddressSpace::OWN, AREA, read_write | Rights::EXECUTE, 0),
        Error::WriteExecute
    );
    for flags in [1 << 11, 1 << 32, 1 << 63] {
        refused!(
            alloc::format!("mapping with flags {flags:#x}"),
            memory.map(AddressSpace::OWN, AREA, read_write, flags)
        );
    }
    // The kernel's tables are not to be had through a wrong kind of space.
    for slot in [fixed::CNODE, fixed::THREAD, fixed::UNTYPED, 0, u32::MAX] {
        refused!(
            "mapping into what is no space",
            memory.map(AddressSpace::new(slot), AREA, read_write, 0)
        );
    }
    memory.map(AddressSpace::OWN, AREA, read_write, 0).map_err(|e| e.text())?;
    answers!(
        "mapping twice",
        memory.map(AddressSpace::OWN, AREA + 0x1000, read_write, 0),
        Error::AlreadyMapped
    );
    memory.unmap().map_err(|e| e.text())?;
    answers!("unmapping twice", memory.unmap(), Error::NotMapped);
    slots::free(memory.slot());
    Ok(())
}

fn bad_retypes() -> Check {
    let slot = slots::take().map_err(|e| e.text())?;
    let try_out = |kind: u64, size: u64, table: u64, to: u64, count: u64| {
        let mut words = [kind, size, table, to, count, 0];
        sys::invoke(fixed::UNTYPED, tessera_rt::abi::object::untyped::RETYPE, &mut words)
    };
    let to = u64::from(slot);
    for kind in [0, 6, 12, 13, 14, 16, 17, 255, 256, 1 << 32, u64::MAX] {
        refused!(alloc::format!("making kind {kind}"), try_out(kind, 1, 0, to, 1));
    }
    for size in [0, 1 << 20, 1 << 40, 1 << 52, 1 << 63, u64::MAX] {
        for kind in [
            ObjectKind::Untyped,
            ObjectKind::Frame,
            ObjectKind::CNode,
            ObjectKind::AddressSpace,
            ObjectKind::GuestSpace,
        ] {
            refused!(
                alloc::format!("{} of size {size:#x}", kind.name()),
                try_out(kind as u64, size, 0, to, 1)
            );
        }
    }
    for count in [0, 65, 1 << 32, u64::MAX] {
        refused!(
            alloc::format!("{count} notifications"),
            try_out(ObjectKind::Notification as u64, 0, 0, to, count)
        );
    }
    let end = u64::from(start_info().slots);
    for bad in [0, 1, end, end - 1 + (1 << 32), u64::MAX] {
        refused!(
            alloc::format!("making into slot {bad:#x}"),
            try_out(ObjectKind::Notification as u64, 0, 0, bad, 1)
        );
    }
    refused!("making past the table", try_out(ObjectKind::Notification as u64, 0, 0, end - 1, 2));
    refused!(
        "making into what is no table",
        try_out(ObjectKind::Notification as u64, 0, fixed::THREAD.into(), to, 1)
    );
    slots::free(slot);
    Ok(())
}

fn bad_slices() -> Check {
    let memory = Untyped::OWN.frame(4).map_err(|e| e.text())?;
    let slot = slots::take().map_err(|e| e.text())?;
    for (first, pages) in [
        (0, 0),
        (0, 5),
        (4, 1),
        (3, 2),
        (1 << 52, 1),
        (1, u64::MAX),
        (u64::MAX, 1),
        (u64::MAX, 2),
        (1 << 63, 1 << 63),
    ] {
        refused!(
            alloc::format!("slice {first:#x} + {pages:#x} of 4 pages"),
            memory.slice(first, pages, CNode::OWN, slot, Rights::READ)
        );
    }
    slots::free(slot);
    slots::free(memory.slot());
    Ok(())
}

fn foreign_ports() -> Check {
    let Some(granted) = find("report") else {
        return Err("no port was granted to compare with".into());
    };
    let ports = IoPorts::new(granted.slot);
    for port in [0x3f8, 0x2f7, 0x300, 0xcf9, 0, 0xffff] {
        refused!(alloc::format!("reading port {port:#x}"), ports.read_u8(port));
        refused!(alloc::format!("writing port {port:#x}"), ports.write_u8(port, 0));
    }
    refused!("a read over the end of the range", ports.read_u32(0x2fe));
    for width in [0, 3, 5, 8, 1 << 32, u64::MAX] {
        refused!(
            alloc::format!("width {width}"),
            sys::invoke(granted.slot, 0, &mut [0x2f8, width, 0, 0, 0, 0])
        );
    }
    refused!("port 0x102f8", sys::invoke(granted.slot, 0, &mut [0x1_02f8, 1, 0, 0, 0, 0]));
    let slot = slots::take().map_err(|e| e.text())?;
    for (first, count) in [(0x2f8, 9), (0x2f7, 2), (0, 0x10000), (0x2f8, 0), (0x2ff, 2)] {
        refused!(
            alloc::format!("ports {first:#x} + {count}"),
            ports.slice(first, count, CNode::OWN, slot, Rights::all())
        );
    }
    slots::free(slot);
    Ok(())
}

/// A thread and a scheduling context, neither configured.
pub fn new_thread() -> Result<(Thread, SchedContext), Error> {
    let thread = Thread::new(Untyped::OWN.make(ObjectKind::Thread, 0)?);
    let context = SchedContext::new(Untyped::OWN.make(ObjectKind::SchedContext, 0)?);
    Ok((thread, context))
}

fn bad_threads() -> Check {
    let (thread, context) = new_thread().map_err(|e| e.text())?;
    refused!(
        "starting an unconfigured thread",
        thread.start(layout::PROGRAM_BASE, layout::STACK_TOP, 0)
    );
    let good = ThreadConfig {
        cnode: CNode::OWN,
        space: AddressSpace::OWN,
        fault: None,
        sched_context: context,
        priority: start_info().priority,
        cpu: 0,
        flags: 0,
        utcb: AREA,
    };
    for utcb in [
        0,
        0x1000,
        layout::USER_TOP,
        0xffff_8000_0000_0000,
        0xffff_ffff_8020_0000,
        AREA + 8,
        layout::STACK_TOP - 0x1000,
        u64::MAX,
    ] {
        refused!(
            alloc::format!("a message buffer at {utcb:#x}"),
            thread.configure(&ThreadConfig { utcb, ..good })
        );
    }
    refused!(
        "a priority above its own",
        thread.configure(&ThreadConfig {
            priority: start_info().priority + 1,
            ..good
        })
    );
    refused!("priority 64", thread.configure(&ThreadConfig { priority: 64, ..good }));
    refused!("priority 255", thread.configure(&ThreadConfig { priority: 255, ..good }));
    refused!("no such processor", thread.configure(&ThreadConfig { cpu: 200, ..good }));
    refused!("unknown flags", thread.configure(&ThreadConfig { flags: 0x8000, ..good }));
    for slot in [0, fixed::THREAD, fixed::UNTYPED, u32::MAX] {
        refused!(
            "a capability table of the wrong kind",
            thread.configure(&ThreadConfig {
                cnode: CNode::new(slot),
                ..good
            })
        );
        refused!(
            "an address space of the wrong kind",
            thread.configure(&ThreadConfig {
                space: AddressSpace::new(slot),
                ..good
            })
        );
        refused!(
            "a context of the wrong kind",
            thread.configure(&ThreadConfig {
                sched_context: SchedContext::new(slot),
                ..good
            })
        );
    }
    thread.configure(&good).map_err(|e| e.text())?;
    refused!("raising the priority", thread.set_priority(start_info().priority + 1));
    refused!(
        "configuring a running thread",
        Thread::FIRST.configure(&ThreadConfig {
            utcb: AREA + 0x1000,
            ..good
        })
    );
    // Threads that begin at bad addresses fault, whatever the way back to user level is; nobody handles it, so they stay faulted.
    for (rip, rsp) in [
        (0, 0),
        (0x8000_0000_0000, 0),
        (1 << 63, 1 << 63),
        (0xffff_ffff_8020_0000, 0),
        (u64::MAX, u64::MAX),
        (layout::USER_TOP, 8),
        (layout::USER_TOP - 1, 8),
        (layout::START_INFO, 1),
    ] {
        if thread.start(rip, rsp, 0).is_err() {
            continue;
        }
        let faulted = (0..1000).any(|_| {
            sys::wait(0, Some(tessera_rt::time::after(tessera_rt::time::microseconds(200)))).ok();
            thread.info().is_ok_and(|info| info.state == thread::ThreadState::Faulted as u8)
        });
        if !faulted {
            return Err(alloc::format!("a thread started at {rip:#x} did not fault: {:?}", thread.info()));
        }
        thread.stop().map_err(|e| e.text())?;
    }
    slots::free(thread.slot());
    slots::free(context.slot());
    Ok(())
}

/// A receiver that offers slots which it does not have gets no capability there.
fn bad_receive_slots() -> Check {
    let utcb = sys::utcb();
    for (first, count) in [
        (fixed::CNODE, 1),
        (u32::MAX, 4),
        (start_info().slots, 1),
        (start_info().slots - 1, 4),
        (0, 4),
        (5, u32::MAX),
    ] {
        // SAFETY: the message buffer is this thread's, and no message is being made.
        unsafe {
            (&raw mut (*utcb).receive_slot).write(first);
            (&raw mut (*utcb).receive_count).write(count);
        }
        // An empty message to init: answered with an error message, and not with capabilities.
        let _ = raw(Syscall::Call as u64, fixed::INIT.into(), 0, 0);
        if CNode::OWN.describe(fixed::CNODE).map(|d| d.kind) != Ok(ObjectKind::CNode) {
            return Err("the capability table was overwritten".into());
        }
    }
    // SAFETY: as above.
    unsafe { (&raw mut (*utcb).receive_count).write(0) };
    Ok(())
}

fn bad_schedules() -> Check {
    let context = SchedContext::new(Untyped::OWN.make(ObjectKind::SchedContext, 0).map_err(|e| e.text())?);
    for (budget, period, weight) in [
        (0, 0, 0),
        (0, 0, 10_001),
        (0, 0, u64::MAX),
        (2000, 1000, 100),
        (1, 0, 100),
        (u64::MAX, u64::MAX, 100),
        (1 << 62, 1 << 63, 100),
    ] {
        refused!(
            alloc::format!("budget {budget} period {period} weight {weight}"),
            context.configure(budget, period, weight)
        );
    }
    context.configure(500, 1000, 100).map_err(|e| e.text())?;
    slots::free(context.slot());
    Ok(())
}

fn reply_without_caller() -> Check {
    let reply = Untyped::OWN.reply().map_err(|e| e.text())?;
    refused!(
        "a reply to nobody",
        reply.send(tessera_rt::abi::syscall::MessageInfo::new(0, 0), &mut [0; 6])
    );
    slots::free(reply.slot());
    Ok(())
}

/// Memory ends: taking all of it gives NoMemory, and giving it back makes it usable again.
fn untyped_is_finite() -> Check {
    let before = Untyped::OWN.info().map_err(|e| e.text())?;
    let mut taken = alloc::vec::Vec::new();
    let last = loop {
        match Untyped::OWN.frame(8) {
            Ok(frame) => taken.push(frame),
            Err(error) => break error,
        }
        if taken.len() as u64 * 8 > before.pages {
            return Err("more memory came out than was there".into());
        }
    };
    for frame in &taken {
        slots::free(frame.slot());
    }
    if last != Error::NoMemory {
        return Err(alloc::format!("the end of memory answered {last:?}"));
    }
    Ok(())
}
