//! Extended state: x87, SSE and, for guests, AVX.
//!
//! Threads own x87 and SSE and are switched with FXSAVE. A vCPU owns what its XCR0 may name ([`supported_xcr0`]) and is switched with XSAVE. XCR0 is part of what is
//! switched: while a vCPU's state is in the registers it is the guest's, else the host's. Who owns the registers is the scheduler's book-keeping.
//!
//! Every function that touches the registers clears CR0.TS first; [`set_ts`] makes user level fault instead of reaching a state that is not its own.

use core::sync::atomic::{AtomicU64, Ordering};

/// XCR0 while no guest's state is in the registers.
#[cfg(target_os = "none")]
const HOST_XCR0: u64 = tessera_boot::extended::X87 | tessera_boot::extended::SSE;

/// Bytes kept for a guest's extended state.
pub const EXTENDED_AREA: usize = 4096;
/// XCR0 bits that guests may have; 0 without XSAVE. Written once by [`detect`].
static SUPPORTED_XCR0: AtomicU64 = AtomicU64::new(0);
/// Bytes that they take. Written as `SUPPORTED_XCR0` is.
static EXTENDED_SIZE: AtomicU64 = AtomicU64::new(512);

/// XCR0 bits that guests may have; 0 on machines without XSAVE.
#[must_use]
#[inline]
pub fn supported_xcr0() -> u64 {
    // Relaxed: written before other processors start.
    SUPPORTED_XCR0.load(Ordering::Relaxed)
}

/// Bytes of extended state that guests may have.
#[must_use]
pub fn extended_size() -> u64 {
    EXTENDED_SIZE.load(Ordering::Relaxed)
}

/// A thread's state: the FXSAVE format.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub struct ThreadFpu([u8; 512]);

impl ThreadFpu {
    /// As a new thread has it: all exceptions masked, round to nearest (SDM volume 1, 8.1.5 and 10.2.3).
    pub const NEW: Self = {
        let mut bytes = [0; 512];
        write_defaults(&mut bytes);
        Self(bytes)
    };

    /// Makes it that of a new thread.
    pub fn reset(&mut self) {
        self.0.fill(0);
        write_defaults(&mut self.0);
    }
}

/// x87 control word 0x37f, MXCSR 0x1f80.
const fn write_defaults(bytes: &mut [u8]) {
    bytes[0] = 0x7f;
    bytes[1] = 0x03;
    bytes[24] = 0x80;
    bytes[25] = 0x1f;
}

/// A vCPU's state: the standard XSAVE format. Machines without XSAVE run no guests.
#[repr(C, align(64))]
pub struct ExtendedState {
    bytes: [u8; EXTENDED_AREA],
}

impl ExtendedState {
    /// As after reset. An XSAVE header of zeros puts every component into its initial state.
    pub fn reset(&mut self) {
        self.bytes.fill(0);
        write_defaults(&mut self.bytes);
    }
}

#[cfg(target_os = "none")]
pub use machine::{
    clear_ts, detect, discard_vcpu, init_cpu, load_clean, read_xcr0, restore_thread, restore_vcpu, save_thread, save_vcpu, set_ts,
    write_xcr0,
};

/// What touches the registers.
#[cfg(target_os = "none")]
mod machine {
    use super::{EXTENDED_SIZE, ExtendedState, HOST_XCR0, Ordering, SUPPORTED_XCR0, ThreadFpu, supported_xcr0};
    use crate::virt::VcpuArea;
    use core::arch::asm;
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    use tessera_boot::extended::choose;

    /// Finds out what guests may have. Called once, on the boot processor, before [`super::supported_xcr0`] is of use.
    pub fn detect() {
        let features = __cpuid(1).ecx;
        // CPUID leaf 1, ECX bit 26.
        if features & 1 << 26 == 0 {
            return;
        }
        let place = __cpuid_count(0xd, 2);
        let (supported, size) = choose(features, __cpuid_count(0xd, 0).eax, (place.eax, place.ebx));
        // Relaxed: other processors start later.
        SUPPORTED_XCR0.store(supported, Ordering::Relaxed);
        EXTENDED_SIZE.store(size, Ordering::Relaxed);
    }

    /// Puts this processor's registers and XCR0 into the state of a new thread. CR4.OSFXSR, and OSXSAVE where there is XSAVE, are set.
    pub fn init_cpu() {
        write_xcr0(HOST_XCR0);
        load_clean();
    }

    static NEW_THREAD: ThreadFpu = ThreadFpu::NEW;

    /// Makes the next use of extended state at user level fault (#NM).
    #[inline]
    pub fn set_ts() {
        // SAFETY: the kernel uses no extended state.
        unsafe {
            asm!("mov {0}, cr0", "or {0}, 8", "mov cr0, {0}", out(reg) _, options(nomem, nostack));
        }
    }

    /// Lets user level use extended state.
    #[inline]
    pub fn clear_ts() {
        // SAFETY: changes nothing for the kernel.
        unsafe { asm!("clts", options(nomem, nostack, preserves_flags)) };
    }

    /// Stores a thread's state.
    ///
    /// # Safety
    /// `area` is writable, and the thread's state is in the registers.
    #[inline]
    pub unsafe fn save_thread(area: *mut ThreadFpu) {
        // SAFETY: the caller's promise; the type aligns it.
        unsafe { asm!("clts", "fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)) };
    }

    /// Loads a thread's state.
    ///
    /// # Safety
    /// `area` holds what [`save_thread`] stored or [`ThreadFpu::NEW`]; the state in the registers is saved or unwanted.
    #[inline]
    pub unsafe fn restore_thread(area: *const ThreadFpu) {
        // SAFETY: the caller's promise: reserved bits of MXCSR are clear.
        unsafe { asm!("clts", "fxrstor64 [{}]", in(reg) area, options(nostack, preserves_flags, readonly)) };
    }

    /// Stores a vCPU's state and puts the host's XCR0 back.
    ///
    /// # Safety
    /// The vCPU's state is in the registers.
    pub unsafe fn save_vcpu(area: &mut VcpuArea) {
        let target: *mut ExtendedState = &raw mut area.extended;
        let supported = supported_xcr0();
        // QEMU 7.2 lets a guest's XSETBV pass although it is intercepted, so what the guest has is read, not remembered.
        area.host.xcr0 = read_xcr0();
        // The guest may have switched components off that still hold something, so all are stored.
        write_xcr0(supported);
        // SAFETY: the area is large enough for all supported components and aligned by its type.
        unsafe {
            asm!("clts", "xsave64 [{}]", in(reg) target, in("eax") supported as u32, in("edx") (supported >> 32) as u32,
                options(nostack, preserves_flags));
        }
        write_xcr0(HOST_XCR0);
    }

    /// Loads a vCPU's state and its XCR0.
    ///
    /// # Safety
    /// The state in the registers is saved or unwanted.
    pub unsafe fn restore_vcpu(area: &VcpuArea) {
        let source: *const ExtendedState = &raw const area.extended;
        let supported = supported_xcr0();
        write_xcr0(supported);
        // SAFETY: the area holds what XSAVE stored under the same XCR0, or the initial state; only the kernel writes it.
        unsafe {
            asm!("clts", "xrstor64 [{}]", in(reg) source, in("eax") supported as u32, in("edx") (supported >> 32) as u32,
                options(nostack, preserves_flags, readonly));
        }
        write_xcr0(area.host.xcr0);
    }

    /// Puts the state of a new thread into the registers, so that they hold nobody's secrets.
    pub fn load_clean() {
        // SAFETY: the image is that of a new thread; the caller saved what was in the registers.
        unsafe { restore_thread(&raw const NEW_THREAD) };
    }

    /// A vCPU whose state is in the registers ceases to exist: puts the host's XCR0 back.
    pub fn discard_vcpu() {
        write_xcr0(HOST_XCR0);
    }

    /// XCR0 as the guest whose state is in the registers has it: within what guests may have.
    pub fn read_xcr0() -> u64 {
        let supported = supported_xcr0();
        let (low, high): (u32, u32);
        // SAFETY: CR4.OSXSAVE is set on such machines.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
        (u64::from(high) << 32 | u64::from(low)) & supported | 1
    }

    /// Writes XCR0, where there is one. The value is valid: `convert::xcr0_is_valid`.
    #[inline]
    pub fn write_xcr0(value: u64) {
        if supported_xcr0() != 0 {
            // SAFETY: CR4.OSXSAVE is set on such machines, and the value is one that XSETBV takes.
            unsafe {
                asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags));
            }
        }
    }
}
