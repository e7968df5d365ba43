//! From the boot code to init: everything that is left of the machine is made into capabilities, and the first thread starts.

use tessera_abi::boot::{BootInfo, INIT_CNODE_BITS, MAX_UNTYPED, UntypedInfo, slot};
use tessera_abi::bundle::{BundleHeader, MAGIC, MAX_SEGMENTS};
use tessera_abi::layout;
use tessera_abi::object::{ObjectKind, Rights, size, thread as thread_op};
use tessera_abi::{ABI_VERSION, PAGE_SIZE};

use crate::arch::boot::BootContext;
use crate::arch::memory::{copy_kernel_half, phys_to_virt};
use crate::arch::percpu::{self, PerCpu};
use crate::arch::{entry, log, smp};
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
const BOOT_INFO_PAGES: u64 = (size_of::<BootInfo>() as u64).div_ceil(PAGE);

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
pub fn bsp(context: &BootContext) -> ! {
    let allocate = |pages: u64| {
        let base = context.allocator.borrow_mut().allocate(pages);
        // SAFETY: the allocator gives out memory that is nobody else's, and the direct map covers it.
        unsafe { phys_to_virt(base).write_bytes(0, (pages * PAGE) as usize) };
        base
    };
    dispatch::calibrate();
    virt::fpu::detect();
    let detection = virt::detect();
    match detection.backend {
        virt::Backend::None => klog!("virtualisation: none, virtual machines cannot run: {}", detection.reason),
        backend => klog!("virtualisation: {} ({})", backend.name(), detection.reason),
    }
    for (index, page) in HOST_SAVE.iter().enumerate().take(context.cpu_count) {
        page.store(allocate(1), core::sync::atomic::Ordering::Release);
        if let Some(cpu) = percpu::get(index) {
            trace::install(cpu, phys_to_virt(allocate(trace::RING_PAGES)));
        }
    }
    let mut features = context.features;
    features.set(tessera_abi::boot::Features::SVM, detection.backend == virt::Backend::Svm);
    features.set(tessera_abi::boot::Features::VMX, detection.backend == virt::Backend::Vmx);
    trace::set_features(features.bits());
    let cpu = percpu::this();
    enable_virtualisation(0);
    prepare_cpu(cpu);
    lock::enter_shared(cpu);
    let thread = make_init(context, features.bits(), &allocate);
    klog!("starting init on processor 0 of {}", context.cpu_count);
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

/// The bundle's header, checked.
fn bundle_header(context: &BootContext) -> BundleHeader {
    let length = context.bundle.end - context.bundle.base;
    assert!(length >= PAGE, "the boot loader gave no bundle: the image is incomplete");
    // SAFETY: the bundle is at least a page of RAM that the boot code set aside; the header is plain numbers.
    let header = unsafe { phys_to_virt(context.bundle.base).cast::<BundleHeader>().read_unaligned() };
    assert!(header.magic == MAGIC, "the boot module is no Tessera bundle");
    assert!(
        header.abi_version == ABI_VERSION,
        "the bundle is for version {} of the kernel interface, this kernel has {ABI_VERSION}: build both anew",
        header.abi_version
    );
    let inside = |offset: u64, bytes: u64| offset.checked_add(bytes).is_some_and(|end| end <= length);
    assert!(
        header.length <= length && inside(header.manifest_offset, header.manifest_length) && header.segment_count as usize <= MAX_SEGMENTS,
        "the bundle is cut short: {length} bytes were loaded of {}",
        header.length
    );
    for segment in &header.segments[..header.segment_count as usize] {
        let aligned = (segment.address | segment.offset | segment.length) % PAGE == 0;
        assert!(
            aligned
                && inside(segment.offset, segment.length)
                && segment.address >= layout::USER_BOTTOM
                && segment.address < layout::USER_TOP,
            "the bundle's init has a bad segment at {:#x}",
            segment.address
        );
    }
    header
}

fn make_init(context: &BootContext, features: u64, allocate: &dyn Fn(u64) -> u64) -> Ref<Thread> {
    let header = bundle_header(context);

    // The objects of the first process, out of memory that the kernel keeps: they never end.
    let table_pages = ((size::SLOT as u64) << INIT_CNODE_BITS) / PAGE;
    let table = phys_to_virt(allocate(table_pages)).cast::<CNode>();
    let space_memory = allocate(Space::pages(INIT_POOL));
    let space = phys_to_virt(space_memory).cast::<Space>();
    let thread = phys_to_virt(allocate(2)).cast::<Thread>();
    let sched = phys_to_virt(allocate(1)).cast::<SchedContext>();
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

    let put = |index: u32, cap: Cap| {
        let slot = table.slot(u64::from(index)).ok();
        if slot.is_none_or(|s| s.insert(&cap, None).is_err()) {
            unreachable!("init's table is empty at boot and has room for slot {index}");
        }
        count(&cap, 1);
    };
    let memory = |kind, rights, flags, base, pages: u64| Cap { kind, rights, flags, extra: pages as u32, object: base, badge: 0, space: 0 };
    let read_only = |base, pages| memory(ObjectKind::Frame, Rights::READ, FLAG_DEVICE, base, pages);
    let plain = |kind, object, extra| Cap { kind, rights: Rights::all(), flags: 0, extra, object, badge: 0, space: 0 };

    put(slot::CNODE, Cap::object(ObjectKind::CNode, table.address(), 1 << INIT_CNODE_BITS));
    put(slot::ADDRESS_SPACE, Cap::object(ObjectKind::AddressSpace, space.address(), INIT_POOL as u32));
    put(slot::THREAD, Cap::object(ObjectKind::Thread, thread.address(), 0));
    put(slot::SCHED_CONTEXT, Cap::object(ObjectKind::SchedContext, sched.address(), 0));
    put(slot::IRQ_CONTROL, plain(ObjectKind::IrqControl, 0, 0));
    put(slot::IO_PORTS, plain(ObjectKind::IoPorts, 0, 0x1_0000));
    put(slot::TRACE, plain(ObjectKind::Trace, 0, 0));
    let bundle_pages = (context.bundle.end - context.bundle.base) / PAGE;
    let bundle_rights = Rights::READ | Rights::EXECUTE;
    put(slot::BUNDLE, memory(ObjectKind::Frame, bundle_rights, FLAG_DEVICE, context.bundle.base, bundle_pages));
    put(slot::KERNEL_LOG, read_only(context.log.base, (context.log.end - context.log.base) / PAGE));
    put(slot::PANIC_RECORD, read_only(context.panic_record, 1));
    for cpu in percpu::all() {
        let base = crate::arch::memory::virt_to_phys(cpu.trace_ring.get() as *const u8);
        put(slot::TRACE_RINGS + cpu.index.get() as u32, read_only(base, trace::RING_PAGES));
    }

    let map = |address: u64, physical: u64, pages: u64, rights: Rights| {
        let mapping = Mapping { address, physical, pages, rights, caching: Caching::Normal, small: true };
        if let Err(error) = page_tables::map(&*space, space.root.get(), &mapping) {
            panic!("cannot map init's memory at {address:#x}: {}", error.text());
        }
    };
    for segment in &header.segments[..header.segment_count as usize] {
        let rights = Rights::from_bits_truncate(segment.rights as u8) | Rights::READ;
        assert!(!rights.contains(Rights::WRITE | Rights::EXECUTE), "the bundle's init has a segment that is writable and executable");
        map(segment.address, context.bundle.base + segment.offset, segment.length / PAGE, rights);
    }
    let info_page = allocate(BOOT_INFO_PAGES);
    map(layout::START_INFO, info_page, BOOT_INFO_PAGES, Rights::READ);
    let buffer = layout::UTCB_BASE;
    map(buffer, crate::arch::memory::virt_to_phys(thread.utcb().cast::<u8>()), 1, Rights::READ | Rights::WRITE);
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
    thread.cnode.set(table.first());
    thread.cnode_slots.set(1 << INIT_CNODE_BITS);
    thread.cr3.set(space.root.get());
    thread.own_context.set(Some(sched));
    thread.context.set(Some(sched));
    sched.owner.set(Some(thread));
    sched.borrower.set(Some(thread));
    thread.set_priority(thread_op::MAX_PRIORITY);
    thread.reset_registers(header.entry, 0, layout::START_INFO);

    // What is left of memory; nothing is allocated after this.
    let mut info = BootInfo {
        abi_version: ABI_VERSION,
        cpu_count: context.cpu_count as u32,
        tsc_hz: context.tsc_hz,
        boot_tsc: context.boot_tsc,
        features,
        ram_bytes: context.ram_bytes,
        kernel_bytes: 0,
        rsdp: context.rsdp,
        bundle_length: bundle_pages * PAGE,
        manifest_offset: header.manifest_offset,
        manifest_length: header.manifest_length,
        wall_clock: context.wall_clock,
        trace_ring_pages: trace::RING_PAGES as u32,
        untyped_count: 0,
        command_line: [0; 256],
        untyped: [UntypedInfo::default(); MAX_UNTYPED],
    };
    let line = &context.command_line[..context.command_line.len().min(info.command_line.len() - 1)];
    info.command_line[..line.len()].copy_from_slice(line);
    let allocator = context.allocator.borrow();
    let free = allocator.free().as_slice().iter().map(|r| (*r, 0));
    let devices = context.device_regions.as_slice().iter().map(|r| (*r, FLAG_DEVICE));
    let mut free_bytes = 0;
    for (region, flags) in free.chain(devices) {
        let mut base = region.base.next_multiple_of(PAGE);
        let end = region.end & !(PAGE - 1);
        while base < end && (info.untyped_count as usize) < MAX_UNTYPED {
            let pages = ((end - base) / PAGE).min(u64::from(u32::MAX));
            let number = info.untyped_count;
            put(slot::UNTYPED + number, memory(ObjectKind::Untyped, Rights::all(), flags, base, pages));
            info.untyped[number as usize] = UntypedInfo { base, pages, device: u64::from(flags != 0) };
            info.untyped_count += 1;
            base += pages * PAGE;
            if flags == 0 {
                free_bytes += pages * PAGE;
            }
        }
    }
    info.kernel_bytes = context.ram_bytes.saturating_sub(free_bytes + bundle_pages * PAGE);
    // SAFETY: the pages were allocated for this and are mapped read-only in init only.
    unsafe { phys_to_virt(info_page).cast::<BootInfo>().write(info) };
    thread
}
