//! From the boot code to init: everything that is left of the machine is made into capabilities, and the first thread starts.

use tessera_abi::PAGE_SIZE;
use tessera_abi::boot::{Features, INIT_CNODE_BITS, slot};
use tessera_abi::bundle::BundleHeader;
use tessera_abi::layout;
use tessera_abi::object::{ObjectKind, Rights, size, thread as thread_op};
use tessera_boot::{bundle as bundle_header, regions};

use crate::arch::boot::{BOOT_INFO_PAGES, BootContext};
use crate::arch::memory::{copy_kernel_half, phys_to_virt, virt_to_phys};
use crate::arch::percpu::{self, PerCpu};
use crate::arch::{cpu, entry, log, smp};
use crate::klog;
use crate::kref::Ref;
use crate::lock;
use crate::object::cnode::CNode;
use crate::object::count;
use crate::object::page_tables::{self, Caching, Mapping};
use crate::object::sched_context::SchedContext;
use crate::object::slot::{Cap, FLAG_DEVICE};
use crate::object::space::{SPACES, Space};
use crate::object::thread::Thread;
use crate::sched::dispatch;
use crate::trace;
use crate::virt;

const PAGE: u64 = PAGE_SIZE as u64;
/// Page tables that init's address space can have; the bundle alone may need one per 2 MiB.
const INIT_POOL: u64 = 1024;

/// Address of init's thread.
static INIT: core::sync::atomic::AtomicU64 = core::sync::atomic::AtomicU64::new(0);

/// Whether this is init's first thread, without which nothing can go on.
pub fn is_init(thread: Ref<Thread>) -> bool {
    // Relaxed: written once, before the thread runs.
    INIT.load(core::sync::atomic::Ordering::Relaxed) == thread.address()
}

/// What a processor needs beside what the boot code gave it.
fn prepare_cpu(cpu: &'static PerCpu) {
    virt::fpu::init_cpu();
    cpu.active_cr3.set(crate::arch::memory::kernel_pml4_phys());
    cpu.run_queue.charged_at.set(crate::arch::timer::now());
}

/// The boot processor, with every other one waiting to be let go.
pub fn bsp(context: &mut BootContext) -> ! {
    let cpu_count = context.info.cpu_count as usize;
    dispatch::calibrate();
    virt::fpu::detect();
    let detection = virt::detect();
    let consequence = if detection.backend == virt::Backend::None { "; virtual machines cannot run" } else { "" };
    klog!("virtualisation: {}{consequence}", detection.reason);
    for (index, page) in HOST_SAVE.iter().enumerate().take(cpu_count) {
        page.store(context.allocator.allocate(1), core::sync::atomic::Ordering::Release);
        if let Some(cpu) = percpu::get(index) {
            trace::install(cpu, phys_to_virt(context.allocator.allocate(trace::RING_PAGES)));
        }
    }
    cpu::add_features(match detection.backend {
        virt::Backend::Svm => Features::SVM,
        virt::Backend::Vmx => Features::VMX,
        virt::Backend::None => Features::empty(),
    });
    let cpu = percpu::this();
    enable_virtualisation(0);
    prepare_cpu(cpu);
    lock::enter_shared(cpu);
    let thread = make_init(context);
    klog!("starting init on processor 0 of {cpu_count}");
    log::release_console();
    dispatch::wake_local(cpu, thread);
    smp::release();
    entry::start()
}

static HOST_SAVE: [core::sync::atomic::AtomicU64; tessera_abi::MAX_CPUS] =
    [const { core::sync::atomic::AtomicU64::new(0) }; tessera_abi::MAX_CPUS];

fn enable_virtualisation(index: usize) {
    if let Err(reason) = virt::enable_cpu(&percpu::this().virt, index, HOST_SAVE[index].load(core::sync::atomic::Ordering::Acquire)) {
        klog!("processor {index}: virtualisation: {reason}");
    }
}

/// Any other processor.
pub fn ap(index: usize) -> ! {
    let cpu = percpu::this();
    enable_virtualisation(index);
    prepare_cpu(cpu);
    lock::enter_shared(cpu);
    entry::start()
}

#[inline(never)]
fn put(table: Ref<CNode>, index: u32, cap: &Cap) {
    let slot = table.slot(u64::from(index)).ok();
    if slot.is_none_or(|s| s.insert(cap, None).is_err()) {
        unreachable!("init's table is empty at boot and has room for slot {index}");
    }
    count(cap, 1);
}

fn make_init(context: &mut BootContext) -> Ref<Thread> {
    let BootContext { info, bundle, allocator, device_regions, panic_record } = context;
    // SAFETY: the bundle is at least a page of RAM that the boot code set aside; the header is plain numbers.
    let header = unsafe { phys_to_virt(bundle.base).cast::<BundleHeader>().read_unaligned() };
    let segments = bundle_header::segments(&header, bundle.length()).unwrap_or_else(|error| panic!("{}", error.text()));

    // The objects of the first process, out of memory that the kernel keeps: they never end.
    let table_pages = ((size::SLOT as u64) << INIT_CNODE_BITS) / PAGE;
    let table = phys_to_virt(allocator.allocate(table_pages)).cast::<CNode>();
    let space_memory = allocator.allocate(Space::pages(INIT_POOL));
    let space = phys_to_virt(space_memory).cast::<Space>();
    let thread = phys_to_virt(allocator.allocate(2)).cast::<Thread>();
    let sched = phys_to_virt(allocator.allocate(1)).cast::<SchedContext>();
    // SAFETY: fresh zeroed pages, large and aligned enough for each object.
    let (table, space, thread, sched) = unsafe {
        table.write(CNode::new(1 << INIT_CNODE_BITS));
        space.write(Space::new(ObjectKind::AddressSpace, space_memory + PAGE, INIT_POOL as u32));
        copy_kernel_half(phys_to_virt(space_memory + PAGE).cast());
        thread.write(Thread::new());
        sched.write(SchedContext::new());
        (Ref::new(table), Ref::new(space), Ref::new(thread), Ref::new(sched))
    };
    thread.embed_slots();
    INIT.store(thread.address(), core::sync::atomic::Ordering::Relaxed);
    if SPACES.enter(space).is_err() {
        unreachable!("the table of spaces is empty at boot");
    }

    let memory = |kind, rights, flags, base, pages: u64| Cap { kind, rights, flags, extra: pages as u32, object: base, badge: 0, space: 0 };
    let read_only = |base, pages| memory(ObjectKind::Frame, Rights::READ, FLAG_DEVICE, base, pages);
    let log = log::region();
    for (index, cap) in [
        (slot::CNODE, Cap::object(ObjectKind::CNode, table.address(), 1 << INIT_CNODE_BITS)),
        (slot::ADDRESS_SPACE, Cap::object(ObjectKind::AddressSpace, space.address(), INIT_POOL as u32)),
        (slot::THREAD, Cap::object(ObjectKind::Thread, thread.address(), 0)),
        (slot::SCHED_CONTEXT, Cap::object(ObjectKind::SchedContext, sched.address(), 0)),
        (slot::IRQ_CONTROL, Cap::object(ObjectKind::IrqControl, 0, 0)),
        (slot::IO_PORTS, Cap::object(ObjectKind::IoPorts, 0, 0x1_0000)),
        (slot::TRACE, Cap::object(ObjectKind::Trace, 0, 0)),
        (slot::BUNDLE, memory(ObjectKind::Frame, Rights::READ | Rights::EXECUTE, FLAG_DEVICE, bundle.base, bundle.pages())),
        (slot::KERNEL_LOG, read_only(log.base, log.pages())),
        (slot::PANIC_RECORD, read_only(*panic_record, 1)),
    ] {
        put(table, index, &cap);
    }
    for cpu in percpu::all() {
        let base = virt_to_phys(cpu.trace_ring.get() as *const u8);
        put(table, slot::TRACE_RINGS + cpu.index.get() as u32, &read_only(base, trace::RING_PAGES));
    }

    let map = |address: u64, physical: u64, pages: u64, rights: Rights| {
        let mapping = Mapping { address, physical, pages, rights, caching: Caching::Normal, small: true };
        if let Err(error) = page_tables::map(&*space, space.root.get(), &mapping) {
            panic!("cannot map init's memory at {address:#x}: {}", error.text());
        }
    };
    for segment in segments {
        map(segment.address, bundle.base + segment.offset, segment.length / PAGE, bundle_header::rights(segment));
    }
    map(layout::START_INFO, virt_to_phys(&raw const **info), BOOT_INFO_PAGES, Rights::READ);
    let buffer = layout::UTCB_BASE;
    map(buffer, virt_to_phys(thread.utcb().cast::<u8>()), 1, Rights::READ | Rights::WRITE);
    // SAFETY: the page behind the thread is its message buffer.
    unsafe { (*thread.utcb()).self_address = buffer };

    // The thread's own capabilities.
    let slots = &thread.slots;
    for (index, target) in [(slot::CNODE, &slots.cspace), (slot::ADDRESS_SPACE, &slots.vspace), (slot::SCHED_CONTEXT, &slots.sched)] {
        let source = table.slot(u64::from(index));
        if source.and_then(|s| crate::object::cnode::copy(s, target, Rights::all(), 0)).is_err() {
            unreachable!("a new thread's slots are empty");
        }
    }
    thread.mapped_in.set(space.identity.get());
    thread.utcb_address.set(buffer);
    thread.cnode.set(table.address());
    thread.cnode_slots.set(1 << INIT_CNODE_BITS);
    thread.cr3.set(space.root.get());
    thread.own_context.set(Some(sched));
    thread.context.set(Some(sched));
    sched.owner.set(Some(thread));
    sched.borrower.set(Some(thread));
    thread.set_priority(thread_op::MAX_PRIORITY);
    thread.reset_registers(header.entry, 0, layout::START_INFO);

    // What is left of memory; nothing is allocated after this.
    info.features = cpu::features().bits();
    info.bundle_length = bundle.length();
    info.manifest_offset = header.manifest_offset;
    info.manifest_length = header.manifest_length;
    info.trace_ring_pages = trace::RING_PAGES as u32;
    let mut free_bytes = 0;
    for (number, memory_of) in (0..).zip(regions::untyped(allocator.free(), device_regions)) {
        let (flags, free) = if memory_of.device != 0 { (FLAG_DEVICE, 0) } else { (0, memory_of.pages * PAGE) };
        put(table, slot::UNTYPED + number, &memory(ObjectKind::Untyped, Rights::all(), flags, memory_of.base, memory_of.pages));
        info.untyped[number as usize] = memory_of;
        info.untyped_count = number + 1;
        free_bytes += free;
    }
    info.kernel_bytes = info.ram_bytes.saturating_sub(free_bytes + info.bundle_length);
    thread
}
