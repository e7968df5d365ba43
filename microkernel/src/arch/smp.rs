//! Starting the other processors.
//!
//! Each begins in real mode at the trampoline, a page below 1 MiB, with the early page tables; there it turns long mode on and jumps to the kernel, which gives it its own stack and
//! the final tables. They are started one at a time, because the trampoline's parameters are for one.

use core::arch::{global_asm, naked_asm};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tessera_abi::MAX_CPUS;
use tessera_boot::acpi::Machine;
use tessera_boot::memory_map::MemoryMap;

use super::memory::{self, BootAllocator};
use super::percpu::PerCpu;
use super::{apic, cpu, descriptors, timer};
use crate::klog;

global_asm!(
    r#"
    .section .rodata.trampoline, "a"
    .code16
    .global ap_trampoline_start
ap_trampoline_start:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    // The page's physical address, to reach what lies in it.
    movzwl %ax, %ebx
    shll $4, %ebx
    leal (.Lap_gdt - ap_trampoline_start)(%ebx), %eax
    movl %eax, .Lap_gdt_pointer - ap_trampoline_start + 2
    leal (.Lap_long_mode - ap_trampoline_start)(%ebx), %eax
    movl %eax, .Lap_far_pointer - ap_trampoline_start
    lgdtl .Lap_gdt_pointer - ap_trampoline_start
    movl $0x20, %eax
    movl %eax, %cr4
    movl ap_trampoline_cr3 - ap_trampoline_start, %eax
    movl %eax, %cr3
    // Long mode, and no-execute, which the final tables use.
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl $0x80000011, %eax
    movl %eax, %cr0
    ljmpl *(.Lap_far_pointer - ap_trampoline_start)

    .code64
.Lap_long_mode:
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movq ap_trampoline_root(%rip), %rdi
    movq ap_trampoline_stack(%rip), %rsi
    movq ap_trampoline_data(%rip), %rdx
    jmpq *ap_trampoline_entry(%rip)

    .balign 8
.Lap_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
.Lap_gdt_pointer:
    .short 15
    .long 0
.Lap_far_pointer:
    .long 0
    .short 0x08
    .balign 8
ap_trampoline_cr3: .quad 0
ap_trampoline_root: .quad 0
ap_trampoline_stack: .quad 0
ap_trampoline_data: .quad 0
ap_trampoline_entry: .quad 0
    .global ap_trampoline_end
ap_trampoline_end:
    .text
"#,
    options(att_syntax)
);

unsafe extern "C" {
    static ap_trampoline_start: u8;
    static ap_trampoline_end: u8;
}

/// What the trampoline needs to know; its last bytes.
#[repr(C)]
struct Parameters {
    cr3: u64,
    root: u64,
    stack: u64,
    data: u64,
    entry: u64,
}

/// Time for a processor to arrive, generous for emulators on busy hosts.
const PATIENCE_MS: u64 = 2000;

/// Rounds in which a processor's TSC is compared with the first one's.
const TSC_ROUNDS: u32 = 16;

/// The processor that came up last and answers for its TSC; the last that may go on; the last that is ready.
static ARRIVED: AtomicUsize = AtomicUsize::new(0);
static ADMITTED: AtomicUsize = AtomicUsize::new(0);
static READY: AtomicUsize = AtomicUsize::new(0);
/// The processor that is asked for its TSC, or 0, and its answer.
static ASKED: AtomicUsize = AtomicUsize::new(0);
static ANSWER: AtomicU64 = AtomicU64::new(0);
static GO: AtomicUsize = AtomicUsize::new(0);

/// First instructions at the kernel's own address, still on the early tables.
#[unsafe(naked)]
unsafe extern "C" fn ap_entry() -> ! {
    naked_asm!("mov cr3, rdi", "mov rsp, rsi", "xor ebp, ebp", "mov rdi, rdx", "call {}", "ud2", sym ap_start)
}

extern "C" fn ap_start(data: &'static PerCpu) -> ! {
    let index = data.index.get();
    ARRIVED.store(index, Ordering::Release);
    while ADMITTED.load(Ordering::Acquire) != index {
        if ASKED.load(Ordering::Acquire) == index {
            ANSWER.store(timer::now(), Ordering::Relaxed);
            // Release: the answer is there when the question is gone.
            ASKED.store(0, Ordering::Release);
        }
    }
    cpu::enable();
    descriptors::start_cpu(index, data);
    apic::init_cpu();
    timer::init_cpu();
    // Release: the first processor sees all of the above when it sees the number.
    READY.store(index, Ordering::Release);
    while GO.load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
    crate::start_ap(index)
}

/// Starts all other processors that the firmware names, up to [`MAX_CPUS`] altogether. They wait until [`release`]. How many run, with the first.
pub(super) fn start_all(machine: &Machine, map: &MemoryMap, allocator: &mut BootAllocator) -> usize {
    let own = apic::id();
    let mut count = 1;
    let mut others = machine.processors.iter().copied().filter(|&id| id != own).peekable();
    if others.peek().is_none() {
        return count;
    }
    let Some(page) = map.trampoline_page() else {
        klog!("cpu: no page below 1 MiB to start the others at");
        return count;
    };
    let start = &raw const ap_trampoline_start;
    let length = (&raw const ap_trampoline_end) as usize - start as usize;
    let place = memory::phys_to_virt(page);
    // SAFETY: the page is RAM below 1 MiB that the allocator never has; the trampoline is shorter than a page.
    unsafe { place.copy_from_nonoverlapping(start, length) };
    // SAFETY: the parameters are the trampoline's last bytes.
    let parameters = unsafe { place.add(length - size_of::<Parameters>()).cast::<Parameters>() };
    // Data and stacks of the next number. They serve the next processor if one does not start.
    let mut next = None;
    for id in others {
        if count == MAX_CPUS {
            break;
        }
        let data = *next.get_or_insert_with(|| descriptors::allocate(count, allocator));
        data.index.set(count);
        let values = Parameters {
            cr3: memory::boot_pml4_phys(),
            root: memory::kernel_pml4_phys(),
            stack: data.kernel_stack.get(),
            data: core::ptr::from_ref(data) as u64,
            entry: ap_entry as *const () as u64,
        };
        // SAFETY: see above. No other processor reads them now: each one before has arrived, or was reset.
        unsafe { parameters.write_unaligned(values) };
        let problem = if !start_one(id, page, count) {
            "does not start"
        } else if tsc_difference(count) > timer::tsc_hz() / 1_000_000 {
            // Deadlines and accounts are TSC values that processors hand to each other.
            "is left alone, because its TSC differs from the first one's"
        } else {
            ADMITTED.store(count, Ordering::Release);
            while READY.load(Ordering::Acquire) != count {
                core::hint::spin_loop();
            }
            count += 1;
            next = None;
            continue;
        };
        // Reset, it waits for a start that never comes, and cannot arrive late with another's stack.
        apic::send_init(id);
        klog!("cpu: the processor with APIC identity {id} {problem}");
    }
    if machine.processors_dropped != 0 {
        klog!("cpu: {} more processors are left alone", machine.processors_dropped);
    }
    // SAFETY: as above; code that nothing runs any more is better not left lying around.
    unsafe { place.write_bytes(0, length) };
    count
}

fn start_one(id: u32, page: u64, index: usize) -> bool {
    apic::send_init(id);
    timer::busy_wait_us(10_000);
    for _ in 0..2 {
        apic::send_startup(id, page);
        timer::busy_wait_us(200);
        if ARRIVED.load(Ordering::Acquire) == index {
            return true;
        }
    }
    let deadline = timer::now() + timer::tsc_hz() / 1000 * PATIENCE_MS;
    while ARRIVED.load(Ordering::Acquire) != index {
        if timer::now() > deadline {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// Ticks by which the TSC of a processor that has arrived certainly differs from this one's.
fn tsc_difference(index: usize) -> u64 {
    let mut difference = 0;
    for _ in 0..TSC_ROUNDS {
        let before = timer::now();
        ASKED.store(index, Ordering::Release);
        while ASKED.load(Ordering::Acquire) != 0 {
            core::hint::spin_loop();
        }
        let (answer, after) = (ANSWER.load(Ordering::Relaxed), timer::now());
        difference = difference.max(before.saturating_sub(answer)).max(answer.saturating_sub(after));
    }
    difference
}

/// Lets the started processors go on into `start_ap`.
pub fn release() {
    // Release: they see everything that was prepared before.
    GO.store(1, Ordering::Release);
}
