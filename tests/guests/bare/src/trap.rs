//! Descriptor tables, page tables, and a way to survive what a test provokes.

use crate::println;
use core::{arch::asm, cell::UnsafeCell};

/// A value that assembly and hardware share with this single-threaded program.
#[repr(transparent)]
pub struct Raw<T>(UnsafeCell<T>);
// SAFETY: the guest runs on one processor, and interrupt handlers touch only the words that assembly declares.
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

/// Stack pointer to continue at after an exception; 0: an exception is unexpected.
// SAFETY: the symbol is used only by the assembly of this program.
#[unsafe(no_mangle)]
static RECOVER_STACK: Raw<u64> = Raw::new(0);
/// Where to write 0 to end an interrupt; 0: nowhere.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub static APIC_EOI: Raw<u64> = Raw::new(0);

unsafe extern "C" {
    fn attempt(function: extern "C" fn(u64), argument: u64) -> u64;
    static vectors: [[u8; 16]; 256];
}

/// Runs `function` and returns the vector of the exception that ended it, if one did.
pub fn survive(function: extern "C" fn(u64), argument: u64) -> Option<u8> {
    // SAFETY: on an exception the assembly restores stack and preserved registers; the functions own nothing that must be dropped.
    let result = unsafe { attempt(function, argument) };
    result.checked_sub(1).map(|v| v as u8)
}

// SAFETY: called only by the assembly of this program.
#[unsafe(no_mangle)]
extern "C" fn unexpected(frame: *const [u64; 5]) {
    // SAFETY: the assembly passes vector, error code, rip, cs and flags on its stack.
    let [vector, error, rip, _, flags] = unsafe { *frame };
    println!("BARE unexpected exception {vector} error {error:#x} at {rip:#x} flags {flags:#x}");
}

/// Null, null, 64-bit code (0x10), data (0x18): the selectors of the Linux boot protocol.
static GDT: Raw<[u64; 8]> = Raw::new([0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0, 0, 0]);
static IDT: Raw<[[u64; 2]; 256]> = Raw::new([[0; 2]; 256]);

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Page tables of its own: the low 4 GiB one to one, and one 2 MiB window at 512 GiB.
#[repr(C, align(4096))]
pub struct Tables([[u64; 512]; 8]);
/// See [`Tables`].
pub static TABLES: Raw<Tables> = Raw::new(Tables([[0; 512]; 8]));
/// Where the window stands.
pub const WINDOW: u64 = 512 << 30;

/// Loads GDT, IDT and page tables; maps the low 4 GiB.
pub fn install() {
    crate::serial::Com1::initialise();
    let idt = IDT.get();
    // SAFETY: single-threaded; the table is not loaded yet.
    for (vector, gate) in unsafe { &mut *idt }.iter_mut().enumerate() {
        // SAFETY: only the address is taken.
        let handler = unsafe { core::ptr::addr_of!(vectors[vector]) } as u64;
        let low = handler & 0xffff | 0x10 << 16 | 0x8e00 << 32 | (handler >> 16 & 0xffff) << 48;
        *gate = [low, handler >> 32];
    }
    let tables = TABLES.get() as u64;
    let table = |i: u64| (tables + i * 4096) as *mut [u64; 512];
    // SAFETY: the tables are this program's, and not loaded yet.
    unsafe {
        (*table(0))[0] = (tables + 4096) | 7;
        (*table(0))[1] = (tables + 6 * 4096) | 7;
        for i in 0..4 {
            (*table(1))[i] = (tables + (2 + i as u64) * 4096) | 7;
            for j in 0..512 {
                (*table(2 + i as u64))[j] = (((i as u64) << 30) + ((j as u64) << 21)) | 0x83;
            }
        }
        (*table(6))[0] = (tables + 7 * 4096) | 7;
    }
    let pointer = Pointer {
        limit: 4095,
        base: idt as u64,
    };
    let gdt = Pointer {
        limit: 63,
        base: GDT.get() as u64,
    };
    // SAFETY: the tables are static and complete, code and stack are mapped one to one in both page tables.
    unsafe {
        asm!(
            "lgdt [{gdt}]", "lidt [{idt}]", "mov cr3, {cr3}",
            "push 0x10", "lea {t}, [rip + 2f]", "push {t}", "retfq", "2:",
            "mov {t:e}, 0x18", "mov ds, {t:e}", "mov es, {t:e}", "mov ss, {t:e}",
            gdt = in(reg) &gdt, idt = in(reg) &pointer, cr3 = in(reg) tables, t = out(reg) _,
        );
    }
}

/// Points the window at the 2 MiB page that holds `physical` and returns where `physical` now stands.
pub fn window(physical: u64) -> u64 {
    let slot = (TABLES.get() as u64 + 7 * 4096) as *mut u64;
    // SAFETY: the slot belongs to the window only.
    unsafe {
        slot.write_volatile(physical & 0x000f_ffff_ffe0_0000 | 0x83);
        asm!("invlpg [{}]", in(reg) WINDOW, options(nostack));
    }
    WINDOW + (physical & 0x1f_ffff)
}

/// Bits of a physical address, as CPUID leaf 0x80000008 says.
pub fn physical_bits() -> u32 {
    core::arch::x86_64::__cpuid(0x8000_0008).eax & 0xff
}

/// A xorshift generator with a fixed start: tests repeat.
pub struct Random(u64);

impl Random {
    /// Starts it.
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
