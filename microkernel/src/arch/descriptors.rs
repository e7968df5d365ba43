//! Each processor's descriptor tables and stacks, and the steps that make a processor part of the system.

use core::cell::{Cell, UnsafeCell};
use core::sync::atomic::AtomicU32;

use tessera_abi::{MAX_CPUS, PAGE_SIZE};
use tessera_boot::descriptors;
use tessera_boot::paging::{PageSize, bits};
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::{lgdt, lidt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::SegmentSelector;
use x86_64::structures::tss::TaskStateSegment;

use super::boot::BootContext;
use super::memory::{self, BootAllocator, STACKS, Tables};
use super::percpu::PerCpu;
use super::{cpu, entry, panic};

/// Pages of the stack that system calls and interrupts use.
const KERNEL_STACK_PAGES: u64 = 4;
/// Pages of the stacks for double fault, NMI and machine check. They hold a panic's formatting, except the NMI's, which holds nothing.
const IST_PAGES: [u64; 3] = [2, 1, 2];
/// Distance of two processors' stacks: the pages above with an unmapped page below each stack, rounded up.
const STRIDE: u64 = 64 * 1024;

/// Vectors with stacks of their own, in the order of [`IST_PAGES`].
const IST_VECTORS: [(usize, unsafe extern "C" fn()); 3] =
    [(8, panic::double_fault_entry), (2, panic::nmi_entry), (18, panic::machine_check_entry)];

/// The architecture's part of a processor's data.
#[repr(C)]
pub struct ArchCpu {
    gdt: UnsafeCell<[u64; 8]>,
    tss: UnsafeCell<TaskStateSegment>,
    /// APIC identity, `u32::MAX` before it is known.
    pub apic_id: AtomicU32,
}

// SAFETY: the tables are written before their processor loads them, by the one processor that runs the boot, and only by hardware afterwards.
unsafe impl Sync for ArchCpu {}

impl Default for ArchCpu {
    /// Empty tables.
    fn default() -> Self {
        // Its map of ports lies past its limit: user level has none.
        let tss = UnsafeCell::new(TaskStateSegment::new());
        Self { gdt: UnsafeCell::new([0; 8]), tss, apic_id: AtomicU32::new(u32::MAX) }
    }
}

impl ArchCpu {
    /// Fills the tables in.
    ///
    /// # Safety
    /// No processor uses them yet.
    unsafe fn fill(&self, stack_top: u64, ist: [u64; 3]) {
        // SAFETY: nobody else has a reference, as the caller vouches.
        unsafe {
            (*self.tss.get()).privilege_stack_table = [VirtAddr::new(stack_top); 3];
            let [first, second, third] = ist.map(VirtAddr::new);
            let unused = VirtAddr::zero();
            (*self.tss.get()).interrupt_stack_table = [first, second, third, unused, unused, unused, unused];
            *self.gdt.get() = descriptors::table(self.tss(), size_of::<TaskStateSegment>() as u64 - 1);
        }
    }

    /// Address of the task state segment.
    pub fn tss(&self) -> u64 {
        self.tss.get() as u64
    }

    /// Loads the tables into the running processor.
    ///
    /// # Safety
    /// They are filled in, and belong to this processor. GS base is lost.
    unsafe fn load(&'static self) {
        let gdt = DescriptorTablePointer { limit: 8 * 8 - 1, base: VirtAddr::from_ptr(self.gdt.get()) };
        let idt = DescriptorTablePointer { limit: (256 * 16 - 1) as u16, base: VirtAddr::from_ptr(IDT.0.get()) };
        // SAFETY: both tables live forever; the selectors are those of `fill`. No local table is left from the boot loader.
        unsafe {
            lgdt(&gdt);
            CS::set_reg(SegmentSelector(cpu::KERNEL_CS));
            SS::set_reg(SegmentSelector(cpu::KERNEL_SS));
            DS::set_reg(SegmentSelector::NULL);
            ES::set_reg(SegmentSelector::NULL);
            FS::set_reg(SegmentSelector::NULL);
            GS::set_reg(SegmentSelector::NULL);
            core::arch::asm!("lldt {:x}", in(reg) 0, options(nostack, preserves_flags));
            load_tss(SegmentSelector(cpu::TSS));
            lidt(&idt);
        }
    }
}

#[repr(C, align(4096))]
struct Idt(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: written once by the first processor before any loads it.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 256]));

fn fill_idt() {
    // SAFETY: only the first processor runs, and it has not loaded the table.
    let gates = unsafe { &mut *IDT.0.get() };
    for (vector, gate) in gates.iter_mut().enumerate() {
        // Breakpoint and overflow may be raised by user level's own instructions.
        let ring = if vector == 3 || vector == 4 { 3 } else { 0 };
        *gate = descriptors::gate(entry::VECTOR_STUBS[vector] as usize as u64, cpu::KERNEL_CS, 0, ring);
    }
    for (stack, (vector, handler)) in (1..).zip(IST_VECTORS) {
        gates[vector] = descriptors::gate(handler as usize as u64, cpu::KERNEL_CS, stack, 0);
    }
}

/// Maps a first page of the stacks' part of the address space, so that its table exists before anyone copies the root.
pub(super) fn reserve_stacks(tables: &mut Tables<'_>) {
    let page = tables.0.allocate(1);
    // Past the stacks of the last processor.
    memory::map(tables, STACKS + MAX_CPUS as u64 * STRIDE, page, PageSize::Small, bits::NO_EXECUTE);
}

/// Maps a stack of `pages` pages above an unmapped one; `next` is where, and moves past it. The stack's top.
#[inline(never)]
fn map_stack(allocator: &mut BootAllocator, next: &mut u64, pages: u64) -> u64 {
    const PAGE: u64 = PAGE_SIZE as u64;
    *next += PAGE;
    for _ in 0..pages {
        let page = allocator.allocate(1);
        memory::map(&mut Tables(allocator), *next, page, PageSize::Small, bits::NO_EXECUTE | bits::WRITE);
        *next += PAGE;
    }
    *next
}

/// Makes processor `index`'s data and stacks.
pub(super) fn allocate(index: usize, allocator: &mut BootAllocator) -> &'static PerCpu {
    if index == 0 {
        fill_idt();
    }
    let mut next = STACKS + index as u64 * STRIDE;
    let stack_top = map_stack(allocator, &mut next, KERNEL_STACK_PAGES);
    let ist = IST_PAGES.map(|pages| map_stack(allocator, &mut next, pages));
    debug_assert!(next <= STACKS + (index as u64 + 1) * STRIDE);
    let place = memory::phys_to_virt(allocator.allocate(size_of::<PerCpu>().div_ceil(PAGE_SIZE) as u64)).cast::<PerCpu>();
    // SAFETY: the memory is large enough, page-aligned, unused, and never given back; nobody else knows it yet.
    unsafe {
        place.write(PerCpu { vcpu_deadline: Cell::new(u64::MAX), ..PerCpu::default() });
        let data = &*place;
        data.kernel_stack.set(stack_top);
        data.arch.fill(stack_top, ist);
        data
    }
}

/// Makes the running processor number `index`: tables, data, system calls. Its control registers are set already.
pub(super) fn start_cpu(index: usize, data: &'static PerCpu) {
    // SAFETY: `allocate` filled the tables in for this processor.
    unsafe { data.arch.load() };
    data.active_cr3.set(memory::kernel_pml4_phys());
    data.install(index);
    cpu::enable_syscall(entry::syscall_entry);
}

/// Leaves the early stack for the first processor's own and goes on in the rest of the kernel.
pub(super) fn on_kernel_stack(context: &mut BootContext) -> ! {
    extern "C" fn enter(context: &'static mut BootContext) -> ! {
        crate::start_bsp(context)
    }
    let top = super::percpu::this().kernel_stack.get();
    // SAFETY: the stack is mapped and unused; the early stack, where the context lies, is never used again and so stays as it is.
    unsafe {
        core::arch::asm!("mov rsp, {top}", "xor ebp, ebp", "call {enter}", "ud2", top = in(reg) top, enter = sym enter, in("rdi") context, options(noreturn))
    }
}
