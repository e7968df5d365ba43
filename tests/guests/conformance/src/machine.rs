//! The machine under the tests: descriptor tables, page tables, registers, the local APIC in memory.

use core::{
    arch::asm,
    cell::UnsafeCell,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

/// A value that assembly and hardware share with this program.
#[repr(transparent)]
pub struct Raw<T>(UnsafeCell<T>);
// SAFETY: each is used by one processor at a time, and what it shares with handlers or hardware is read and written whole.
unsafe impl<T> Sync for Raw<T> {}

impl<T> Raw<T> {
    /// Wraps a value.
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Its place.
    pub const fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// Some pages of memory.
#[repr(C, align(4096))]
pub struct Pages<const N: usize>(pub [[u8; 4096]; N]);

macro_rules! memory {
    ($($(#[$meta:meta])* $name:ident: $pages:literal;)*) => {
        $($(#[$meta])*
        // SAFETY: the symbol is used only by this program.
        #[unsafe(no_mangle)]
        pub static $name: Raw<Pages<$pages>> = Raw::new(Pages([[0; 4096]; $pages]));)*
    };
}

memory! {
    /// The first processor's stack.
    STACK: 16;
    /// The second processor's.
    STACK_2: 4;
    /// Ring 3's.
    USER_STACK: 4;
    /// For vectors with an interrupt stack of their own.
    IST_STACK: 2;
    /// From ring 3 to ring 0.
    RING0_STACK: 4;
    /// Page tables: root, pointers, four directories.
    TABLES: 6;
    /// A table of 4 KiB pages for the window, and its directory and pointers.
    WINDOW_TABLES: 3;
    /// Pages to play with.
    SCRATCH: 4;
}

/// Address of the Multiboot information.
// SAFETY: the symbol is used only by the assembly of this program.
#[unsafe(no_mangle)]
pub static MULTIBOOT: AtomicU64 = AtomicU64::new(0);

/// 32-bit code, ring 0.
pub const CODE32: u64 = 0x08;
/// 64-bit code, ring 0.
pub const CODE: u64 = 0x10;
/// Data, ring 0.
pub const DATA: u64 = 0x18;
/// 64-bit code, ring 3, with its privilege.
pub const USER_CODE: u64 = 0x2b;
/// The first processor's TSS, two entries.
pub const TSS: u64 = 0x40;
/// The second processor's.
pub const TSS_2: u64 = 0x50;
/// The descriptor table. Beside what has a name above: 0x20 32-bit code of ring 3, 0x30 data of ring 3, 0x60 data and 0x68 code that are not present, 0x70 code that
/// cannot be read, 0x78 16-bit code and 0x80 data as in real mode; from 0x88 on it is the tests'.
// SAFETY: the symbol is used only by this program.
#[unsafe(no_mangle)]
pub static GDT: Raw<[u64; 32]> = Raw::new([
    0,
    0x00cf_9b00_0000_ffff,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_fb00_0000_ffff,
    0x00af_fb00_0000_ffff,
    0x00cf_f300_0000_ffff,
    0,
    0,
    0,
    0,
    0,
    0x00cf_1300_0000_ffff,
    0x00af_1b00_0000_ffff,
    0x00cf_9900_0000_ffff,
    0x0000_9b00_0000_ffff,
    0x0000_9300_0000_ffff,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
]);
/// The interrupt descriptor table.
pub static IDT: Raw<[[u64; 2]; 256]> = Raw::new([[0; 2]; 256]);
static TASKS: [Raw<[u32; 26]>; 2] = [const { Raw::new([0; 26]) }; 2];

/// Operand of `lgdt` and `lidt`.
#[repr(C, packed)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Pointer {
    /// Last byte.
    pub limit: u16,
    /// Linear address.
    pub base: u64,
}

unsafe extern "C" {
    static vectors: [[u8; 16]; 256];
}

/// The gate of a vector: present, with this privilege, interrupt stack and type (14 interrupt, 15 trap).
pub fn gate(vector: usize, privilege: u64, stack: u64, kind: u64) -> [u64; 2] {
    // SAFETY: only the address is taken.
    let handler = unsafe { core::ptr::addr_of!(vectors[vector]) } as u64;
    let low = handler & 0xffff | CODE << 16 | stack << 32 | kind << 40 | privilege << 45 | 1 << 47 | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

/// Changes a vector's gate.
pub fn set_gate(vector: usize, gate: [u64; 2]) {
    // SAFETY: the table is this program's, and a gate that is being changed does not come meanwhile.
    unsafe { IDT.get().cast::<[u64; 2]>().add(vector).write_volatile(gate) };
}

/// Loads tables and task register, on each processor.
pub fn install() {
    let second = is_second_stack();
    if !second {
        for vector in 0..256 {
            let privilege = if matches!(vector, 3 | 4 | 0x80) { 3 } else { 0 };
            set_gate(vector, gate(vector, privilege, 0, 14));
        }
        set_gate(8, gate(8, 0, 1, 14));
    }
    let (task, selector) = (TASKS[usize::from(second)].get(), if second { TSS_2 } else { TSS });
    let end = |stack: u64, pages: u64| stack + pages * 4096;
    let (ring0, ist) = (end(RING0_STACK.get() as u64, 4), end(IST_STACK.get() as u64, 2));
    // SAFETY: not loaded yet.
    unsafe {
        (*task)[1] = ring0 as u32;
        (*task)[9] = ist as u32;
        (*task)[25] = 104 << 16;
        let base = task as u64;
        let entry = GDT.get().cast::<u64>().add(selector as usize / 8);
        entry.write(103 | (base & 0xff_ffff) << 16 | 0x89 << 40 | (base >> 24 & 0xff) << 56);
        entry.add(1).write(base >> 32);
    }
    load_idt();
    // SAFETY: the descriptor was just written; there is no local table.
    unsafe { asm!("ltr {0:x}", "lldt {1:x}", in(reg) selector, in(reg) 0) };
}

/// Loads the interrupt descriptor table.
pub fn load_idt() {
    let idt = Pointer {
        limit: 4095,
        base: IDT.get() as u64,
    };
    // SAFETY: static, and complete after `install`.
    unsafe { asm!("lidt [{}]", in(reg) &idt) };
}

fn is_second_stack() -> bool {
    let stack: u64;
    // SAFETY: only looks.
    unsafe { asm!("mov {}, rsp", out(reg) stack) };
    (STACK_2.get() as u64..STACK_2.get() as u64 + 0x4000).contains(&stack)
}

/// Whether this is the second processor.
pub fn is_second() -> bool {
    let task: u64;
    // SAFETY: only looks.
    unsafe { asm!("str {}", out(reg) task) };
    task == TSS_2
}

/// Where the window's 512 pages begin, in linear memory: at 512 GiB.
pub const WINDOW: u64 = 1 << 39;

/// A page of the window shows `entry` from now on.
pub fn map(page: u64, entry: u64) -> u64 {
    let tables = WINDOW_TABLES.get() as u64;
    let word = |address: u64| address as *mut u64;
    // SAFETY: the tables are this program's, and only the window is changed.
    unsafe {
        word(tables + 8 * page).write_volatile(entry);
        word(tables + 4096).write_volatile(tables | 7);
        word(tables + 8192).write_volatile((tables + 4096) | 7);
        word(TABLES.get() as u64 + 8).write_volatile((tables + 8192) | 7);
    }
    flush(WINDOW + page * 4096);
    WINDOW + page * 4096
}

/// The page-table entry of a page of the window.
pub fn entry(page: u64) -> u64 {
    // SAFETY: as in `map`.
    unsafe { ((WINDOW_TABLES.get() as u64 + 8 * page) as *const u64).read_volatile() }
}

/// Forgets the translation of a page.
pub fn flush(address: u64) {
    // SAFETY: changes nothing but what is cached.
    unsafe { asm!("invlpg [{}]", in(reg) address) };
}

/// Address of a scratch page.
pub fn scratch(page: u64) -> u64 {
    SCRATCH.get() as u64 + page * 4096
}

/// Writes to memory, in the program's order.
pub fn poke<T>(address: u64, value: T) {
    // SAFETY: the tests call it with addresses of memory or device registers that are theirs.
    unsafe { (address as *mut T).write_volatile(value) };
}

/// Reads from memory, in the program's order.
pub fn peek<T>(address: u64) -> T {
    // SAFETY: as in `poke`.
    unsafe { (address as *const T).read_volatile() }
}

macro_rules! registers {
    ($($read:ident $write:ident $name:literal;)*) => {
        $(
            #[doc = concat!("Reads ", $name, ".")]
            #[allow(dead_code)]
            pub fn $read() -> u64 {
                let value;
                // SAFETY: only looks.
                unsafe { asm!(concat!("mov {}, ", $name), out(reg) value) };
                value
            }
            #[doc = concat!("Writes ", $name, ".")]
            #[allow(dead_code)]
            pub fn $write(value: u64) {
                // SAFETY: the tests write what this program can go on with.
                unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value) };
            }
        )*
    };
}

registers! {
    cr0 set_cr0 "cr0";
    cr2 set_cr2 "cr2";
    cr3 set_cr3 "cr3";
    cr4 set_cr4 "cr4";
    cr8 set_cr8 "cr8";
    dr0 set_dr0 "dr0";
    dr1 set_dr1 "dr1";
    dr6 set_dr6 "dr6";
    dr7 set_dr7 "dr7";
}

/// Reads an MSR.
pub fn rdmsr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the number is known to exist.
    unsafe { asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high) };
    u64::from(high) << 32 | u64::from(low)
}

/// Writes an MSR.
pub fn wrmsr(number: u32, value: u64) {
    // SAFETY: the number is known to exist, and the value not to harm this program.
    unsafe { asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32) };
}

/// Reads the time stamp counter.
pub fn rdtsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: only looks.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high) };
    u64::from(high) << 32 | u64::from(low)
}

/// `cpuid`: eax, ebx, ecx, edx.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let answer = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

/// Stops this processor until an interrupt, with interrupts as they are.
pub fn halt() {
    // SAFETY: only waits.
    unsafe { asm!("hlt") };
}

/// Lets interrupts in for the time of a few instructions.
pub fn open() {
    // SAFETY: handlers are installed.
    unsafe { asm!("sti", "nop", "nop", "cli") };
}

/// The local APIC's registers.
pub const APIC: u64 = 0xfee0_0000;

/// Reads a register of the local APIC.
pub fn apic(offset: u64) -> u32 {
    peek(APIC + offset)
}

/// Writes a register of the local APIC.
pub fn set_apic(offset: u64, value: u32) {
    poke(APIC + offset, value);
}

/// Ends the interrupt in service.
pub fn end_of_interrupt() {
    set_apic(0xb0, 0);
}

/// Sends an interrupt command, and waits until it is delivered.
pub fn send(destination: u32, command: u32) {
    set_apic(0x310, destination << 24);
    set_apic(0x300, command);
    while apic(0x300) & 1 << 12 != 0 {
        core::hint::spin_loop();
    }
}

/// Waits for a condition, a second or two at most. False: it did not come.
pub fn wait(condition: impl FnMut() -> bool) -> bool {
    wait_for(4_000_000_000, condition)
}

/// As [`wait`], for so many cycles of the time stamp counter.
pub fn wait_for(cycles: u64, mut condition: impl FnMut() -> bool) -> bool {
    let start = rdtsc();
    while !condition() {
        if rdtsc().wrapping_sub(start) > cycles {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// Processors, as the second one's start showed.
pub fn processors() -> u64 {
    1 + SECOND_IS_UP.load(SeqCst).min(1)
}

/// How often the second processor came up.
pub static SECOND_IS_UP: AtomicU64 = AtomicU64::new(0);
