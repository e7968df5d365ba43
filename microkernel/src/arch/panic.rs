//! The kernel's end: it says why on the serial port, leaves a record that survives a warm restart, and stops.

use core::arch::naked_asm;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use spin::Mutex;
use tessera_boot::panic_record::{self as record, MAX_TEXT, RECORD_BYTES};
use x86_64::registers::control::Cr2;

use super::memory::{self, BootAllocator};
use super::{apic, cpu, log, percpu, power, serial};

/// 1 from the first panic on. The NMI entry reads it by name.
#[unsafe(no_mangle)]
static KERNEL_PANICKING: AtomicU8 = AtomicU8::new(0);
static REBOOT: AtomicBool = AtomicBool::new(false);
static RECORD_PAGE: AtomicU64 = AtomicU64::new(0);

/// Locked by the processor that set `KERNEL_PANICKING`, and never again.
static TEXT: Mutex<[u8; MAX_TEXT]> = Mutex::new([0; MAX_TEXT]);

/// Text that is sent at once and kept for the record.
struct Report<'a> {
    bytes: &'a mut [u8; MAX_TEXT],
    length: usize,
}

impl Write for Report<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        serial::send(text.as_bytes());
        let count = text.len().min(MAX_TEXT - self.length);
        self.bytes[self.length..self.length + count].copy_from_slice(&text.as_bytes()[..count]);
        self.length += count;
        Ok(())
    }
}

/// Whether a panic ends with a restart instead of a halt.
pub fn set_reboot(reboot: bool) {
    REBOOT.store(reboot, Ordering::Relaxed);
}

/// Copies what the last panic left in `page` into a new page, as text that ends with a zero, and makes `page` the place for the next.
pub fn collect_record(allocator: &mut BootAllocator, page: Option<u64>) -> u64 {
    let copy = allocator.allocate(1);
    if let Some(page) = page {
        // SAFETY: the memory map kept the page out of all lists; it is RAM in the direct map, and only this module uses it.
        let old = unsafe { &mut *memory::phys_to_virt(page).cast::<[u8; RECORD_BYTES]>() };
        if let Some(text) = record::load(old) {
            memory::copy_to_page(copy, text.as_bytes());
            crate::klog!("panic: the last run of this machine ended in one; its record was kept");
        }
        old.fill(0);
        RECORD_PAGE.store(page, Ordering::Relaxed);
    }
    copy
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    finish(&|report| match info.location() {
        Some(location) => writeln!(report, "{}\n  at {location}", info.message()),
        None => writeln!(report, "{}", info.message()),
    })
}

#[cold]
fn finish(describe: &dyn Fn(&mut Report<'_>) -> fmt::Result) -> ! {
    // Acquire and release: whoever finds 0 owns `TEXT`. A second panic, on this processor or another, just stops.
    if KERNEL_PANICKING.swap(1, Ordering::AcqRel) != 0 {
        cpu::halt_loop();
    }
    apic::stop_others();
    let mut text = TEXT.lock();
    let mut report = Report { bytes: &mut text, length: 0 };
    // A report never fails; what does not fit is still sent.
    serial::send(b"\n");
    let _ = write!(report, "kernel panic on processor {}: ", apic::cpu_index());
    let _ = describe(&mut report);
    let _ = describe_thread(&mut report);
    let _ = writeln!(report, "TSC {}", super::timer::now());
    // The record also keeps the last of the log; it was on the serial port already or belongs to whoever reads the log there.
    let mut length = report.length;
    let mut keep = |byte: u8| {
        if length < MAX_TEXT {
            report.bytes[length] = byte;
            length += 1;
        }
    };
    b"last of the log:\n".iter().copied().for_each(&mut keep);
    log::for_each_recent(MAX_TEXT.saturating_sub(report.length + 32), keep);
    let page = RECORD_PAGE.load(Ordering::Relaxed);
    if page != 0 {
        // SAFETY: the page is this module's; see `collect_record`.
        let page = unsafe { &mut *memory::phys_to_virt(page).cast::<[u8; RECORD_BYTES]>() };
        record::store(page, &report.bytes[..length]);
    }
    if REBOOT.load(Ordering::Relaxed) {
        serial::send(b"restarting\n");
        power::reset();
    }
    serial::send(b"halted\n");
    cpu::halt_loop()
}

/// The registers that the running thread last came into the kernel with. Finds them without GS, which a panic may have caught with the user's value.
fn describe_thread(report: &mut Report<'_>) -> fmt::Result {
    let Some(thread) = percpu::get(apic::cpu_index()).and_then(|cpu| cpu.current.get()) else {
        return writeln!(report, "no thread was running");
    };
    let regs = &thread.regs;
    writeln!(report, "thread {:#x}, when it last entered the kernel:", thread.address())?;
    writeln!(report, "  rip {:#018x} rsp {:#018x} rflags {:#x}", regs.rip.get(), regs.rsp.get(), regs.rflags.get())?;
    for (name, value) in [("rax", &regs.rax), ("rdi", &regs.rdi), ("rsi", &regs.rsi), ("rdx", &regs.rdx), ("r8", &regs.r8)] {
        write!(report, "  {name} {:#x}", value.get())?;
    }
    write!(report, "\n  words")?;
    for word in &regs.words {
        write!(report, " {:#x}", word.get())?;
    }
    writeln!(report)
}

/// What an NMI means to code that gets one by another way than [`nmi_entry`], as after a guest's exit: stop if another processor panics.
pub fn on_nmi() {
    if KERNEL_PANICKING.load(Ordering::Acquire) != 0 {
        cpu::halt_loop();
    }
}

/// Registers as the entries below push them.
#[repr(C)]
struct Frame {
    /// r15 to r8, rbp, rdi, rsi, rdx, rcx, rbx, rax.
    general: [u64; 15],
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

extern "C" fn fatal(frame: &Frame) -> ! {
    finish(&|report| {
        let name = tessera_abi::fault::vector_name(frame.vector as u8);
        writeln!(report, "{name}, error {:#x}", frame.error)?;
        writeln!(report, "  rip {:#018x} cs {:#x} rflags {:#x}", frame.rip, frame.cs, frame.rflags)?;
        writeln!(report, "  rsp {:#018x} ss {:#x} cr2 {:#018x}", frame.rsp, frame.ss, Cr2::read_raw())?;
        let names = ["r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rbp", "rdi", "rsi", "rdx", "rcx", "rbx", "rax"];
        for (i, (name, value)) in names.iter().zip(frame.general).enumerate() {
            write!(report, "  {name:3} {value:#018x}{}", if i % 3 == 2 { "\n" } else { "" })?;
        }
        Ok(())
    })
}

/// NMI: stops this processor when another panics, else does nothing. It may come at any instruction and trusts nothing but its own stack.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn nmi_entry() {
    naked_asm!("cmp byte ptr [rip + KERNEL_PANICKING], 0", "jne 2f", "iretq", "2:", "cli", "hlt", "jmp 2b")
}

/// Double fault; the processor pushes an error code.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn double_fault_entry() {
    naked_asm!("push 8", "jmp {}", sym fatal_entry)
}

/// Machine check.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn machine_check_entry() {
    naked_asm!("push 0", "push 18", "jmp {}", sym fatal_entry)
}

#[unsafe(naked)]
unsafe extern "C" fn fatal_entry() {
    naked_asm!(
        "push rax", "push rbx", "push rcx", "push rdx", "push rsi", "push rdi", "push rbp", "push r8",
        "push r9", "push r10", "push r11", "push r12", "push r13", "push r14", "push r15",
        "cld", "mov rdi, rsp", "and rsp, -16", "call {}", "ud2",
        sym fatal
    )
}
