//! Virtual processors: one interface over the hardware's ways to run a guest.
//!
//! The `Vcpu` object calls this module and nothing below it, so it does not know which backend runs:
//!
//! 1. once, on the boot processor: [`detect`]; then on every processor: [`enable_cpu`];
//! 2. per virtual processor: [`VcpuArea::init`], [`VcpuArea::reset_state`];
//! 3. again and again: [`run`], with [`fpu`] state loaded, interrupts off, and no lock held.
//!
//! The shared page ([`VcpuState`]) is hostile: its owner may write any field at any moment from another processor. Every
//! field is read once, through a volatile access, and checked before the processor sees it; nothing is read back from
//! the page and trusted. What only the kernel may know stands in [`VcpuArea`].
#![cfg_attr(
    not(target_os = "none"),
    allow(dead_code, unused_imports, unused_macros, reason = "the parts that touch the machine are built for the kernel's target alone")
)]

pub mod fpu;
pub mod svm;
pub mod vmx;

pub use svm::CpuState;

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use tessera_abi::vcpu::{ExitReason, VcpuState};

/// Reads a field of the shared page, once. `$state` is a `*mut VcpuState` that points at a live page.
macro_rules! get {
    ($state:expr, $($field:tt)+) => {
        // SAFETY: the caller of the enclosing unsafe function vouches for the page; the access is volatile because user
        // level may write there at any moment.
        unsafe { (&raw const (*$state).$($field)+).read_volatile() }
    };
}

/// Writes a field of the shared page.
macro_rules! put {
    ($state:expr, $value:expr, $($field:tt)+) => {{
        let value = $value;
        // SAFETY: as for `get!`.
        unsafe { (&raw mut (*$state).$($field)+).write_volatile(value) }
    }};
}

/// Reads two neighbouring `u32` fields at once; the first is the lower half.
macro_rules! get_pair {
    ($state:expr, $first:ident, $second:ident) => {{
        const {
            assert!(core::mem::offset_of!(VcpuState, $first) % 8 == 0);
            assert!(core::mem::offset_of!(VcpuState, $second) == core::mem::offset_of!(VcpuState, $first) + 4);
        }
        // SAFETY: as for `get!`; the two lie side by side, aligned for one access.
        unsafe { (&raw const (*$state).$first).cast::<u64>().read_volatile() }
    }};
}

/// Writes two neighbouring `u32` fields at once.
macro_rules! put_pair {
    ($state:expr, $value:expr, $first:ident, $second:ident) => {{
        const {
            assert!(core::mem::offset_of!(VcpuState, $first) % 8 == 0);
            assert!(core::mem::offset_of!(VcpuState, $second) == core::mem::offset_of!(VcpuState, $first) + 4);
        }
        let value: u64 = $value;
        // SAFETY: as for `get_pair!`.
        unsafe { (&raw mut (*$state).$first).cast::<u64>().write_volatile(value) }
    }};
}

pub(crate) use {get, get_pair, put, put_pair};

/// The ways to run a guest; numbered as `object::trace::MACHINE` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Backend {
    /// No guests on this machine.
    None = 0,
    /// Intel VT-x.
    Vmx = 1,
    /// AMD-V.
    Svm = 2,
}

impl Backend {
    /// Name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Vmx => "VT-x",
            Self::Svm => "AMD-V",
        }
    }
}

/// What detection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detection {
    /// The backend in use.
    pub backend: Backend,
    /// For the boot log: why this one.
    pub reason: &'static str,
    /// [`Features`] bits.
    pub features: u64,
}

bitflags::bitflags! {
    /// What the backend's hardware offers beyond the minimum. One numbering for all backends.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// Nested paging.
        const NESTED_PAGING = 1 << 0;
        /// The address of the next instruction is reported with an exit.
        const NEXT_RIP = 1 << 1;
        /// Unchanged guest state is cached between runs.
        const CLEAN_BITS = 1 << 2;
        /// One guest's translations can be flushed alone.
        const FLUSH_BY_ASID = 1 << 3;
        /// The bytes of a faulting instruction are reported.
        const DECODE_ASSISTS = 1 << 4;
        /// Spinning guests can be made to exit.
        const PAUSE_FILTER = 1 << 5;
        /// The pause filter has a threshold.
        const PAUSE_THRESHOLD = 1 << 6;
        /// Interrupts are delivered without exits.
        const VIRTUAL_APIC = 1 << 7;
        /// Guests may run their own guests' state switches without exits.
        const VIRTUAL_VMLOAD = 1 << 8;
        /// The global interrupt flag is virtualised.
        const VIRTUAL_GIF = 1 << 9;
        /// Non-maskable interrupts are virtualised.
        const VIRTUAL_NMI = 1 << 10;
        /// The TSC's rate can be scaled.
        const TSC_SCALING = 1 << 11;
        /// Extended state is managed with XSAVE.
        const XSAVE = 1 << 12;
    }
}

impl Features {
    /// Name of one bit, for the shell and the boot log.
    #[must_use]
    pub const fn name(bit: u32) -> Option<&'static str> {
        Some(match bit {
            0 => "nested-paging",
            1 => "next-rip",
            2 => "clean-bits",
            3 => "flush-by-asid",
            4 => "decode-assists",
            5 => "pause-filter",
            6 => "pause-threshold",
            7 => "virtual-apic",
            8 => "virtual-vmload",
            9 => "virtual-gif",
            10 => "virtual-nmi",
            11 => "tsc-scaling",
            12 => "xsave",
            _ => return None,
        })
    }
}

/// Where the guest's memory is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nested {
    /// Physical address of the nested page tables.
    pub root: u64,
    /// Changes, and never comes back, when the root does or when a mapping below it was taken away or restricted: what the processor remembers from before is flushed.
    /// Anything but all ones.
    pub generation: u64,
}

/// How [`run`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Nothing for the VMM. A host interrupt may be pending: the caller opens an interrupt window (`sti; nop; cli`), looks whether
    /// something more important wants the processor, and runs the guest again.
    HostInterrupt,
    /// The exit stands in the shared page.
    Guest(ExitReason),
}

/// Which [`Backend`], as a number. Written once by [`detect`] before other processors and threads exist.
static BACKEND: AtomicU8 = AtomicU8::new(0);
/// [`Features`]. Written as `BACKEND` is.
static FEATURES: AtomicU64 = AtomicU64::new(0);

/// Looks at the processor and chooses the backend. Called once, on the boot processor, before any other function here.
#[cfg(target_os = "none")]
pub fn detect() -> Detection {
    fpu::detect();
    let detection = match svm::detect() {
        Ok(features) => {
            let xsave = if fpu::supported_xcr0() == 0 { Features::empty() } else { Features::XSAVE };
            Detection { backend: Backend::Svm, reason: "AMD-V with nested paging", features: (features | xsave).bits() }
        }
        Err(reason) => match vmx::detect() {
            Some(reason) => Detection { backend: Backend::None, reason, features: 0 },
            None => Detection { backend: Backend::None, reason, features: 0 },
        },
    };
    // Relaxed: the processors that read this are started afterwards, which orders everything.
    BACKEND.store(detection.backend as u8, Ordering::Relaxed);
    FEATURES.store(detection.features, Ordering::Relaxed);
    detection
}

/// Makes this processor able to run guests. `state` is the one for it, `cpu` its index, `host_save_page` the physical address of a page that nobody else uses
/// from now on.
///
/// # Errors
/// A line for the boot log, when this processor differs from the boot processor.
#[cfg(target_os = "none")]
pub fn enable_cpu(state: &CpuState, cpu: usize, host_save_page: u64) -> Result<(), &'static str> {
    match backend() {
        Backend::Svm => svm::enable_cpu(state, cpu, host_save_page),
        Backend::Vmx | Backend::None => Ok(()),
    }
}

/// The backend in use.
#[must_use]
pub fn backend() -> Backend {
    match BACKEND.load(Ordering::Relaxed) {
        2 => Backend::Svm,
        1 => Backend::Vmx,
        _ => Backend::None,
    }
}

/// [`Features`] of the backend in use.
#[must_use]
pub fn backend_features() -> u64 {
    FEATURES.load(Ordering::Relaxed)
}

/// A virtual processor's memory that only the kernel and the hardware touch; all zeros before [`VcpuArea::init`].
#[repr(C, align(4096))]
pub struct VcpuArea {
    /// What the hardware reads and writes at each entry and exit.
    vmcb: svm::vmcb::Vmcb,
    /// The guest's extended state while it is not in the registers.
    extended: fpu::ExtendedState,
    /// What the backend remembers between runs.
    host: svm::Host,
}

/// Bytes of a [`VcpuArea`].
pub const AREA_SIZE: usize = 16384;
const _: () = assert!(size_of::<VcpuArea>() == AREA_SIZE);

#[cfg(target_os = "none")]
impl VcpuArea {
    /// Prepares the area. `physical` is its own physical address.
    ///
    /// # Errors
    /// [`tessera_abi::Error::Unsupported`] if this machine runs no guests.
    pub fn init(&mut self, physical: u64) -> Result<(), tessera_abi::Error> {
        if backend() != Backend::Svm {
            return Err(tessera_abi::Error::Unsupported);
        }
        self.extended.reset();
        svm::init(&mut self.vmcb, &mut self.host, physical);
        Ok(())
    }

    /// Puts the state that a processor has after reset into the shared page, all groups dirty, and forgets what the guest did before.
    ///
    /// # Safety
    /// `state` points at the vCPU's shared page.
    pub unsafe fn reset_state(&mut self, state: *mut VcpuState) {
        self.extended.reset();
        svm::reset(&mut self.vmcb, &mut self.host);
        // SAFETY: the caller's promise.
        unsafe { svm::state::store_reset(state, fpu::supported_xcr0(), fpu::extended_size()) };
    }

    /// Stores the whole guest state into the shared page: `vcpu::SYNC`, and full exits.
    ///
    /// # Safety
    /// `state` points at the vCPU's shared page, and the vCPU is not running.
    pub unsafe fn store_full(&self, state: *mut VcpuState) {
        // SAFETY: the caller's promise.
        unsafe { svm::state::store_full(&self.vmcb, &self.host, state) };
    }

    /// The port access behind an [`ExitReason::Io`] exit, from the kernel's own copy: the shared page may have changed since.
    #[must_use]
    #[inline]
    pub fn io_exit(&self) -> svm::convert::IoExit {
        svm::convert::io_exit(self.vmcb.control.exit_info_1, self.vmcb.control.exit_info_2)
    }

    /// Guest-physical address and access (`ACCESS_*`) behind an [`ExitReason::Memory`] exit, from the kernel's own copy.
    #[must_use]
    #[inline]
    pub fn memory_exit(&self) -> (u64, u64) {
        (self.vmcb.control.exit_info_2, svm::convert::memory_access(self.vmcb.control.exit_info_1))
    }
}

/// Runs the guest until something happens that the hardware cannot or may not do by itself.
///
/// On [`Exit::Guest`] the shared page holds what `abi::vcpu` promises for that exit, and the groups named in `dirty` were taken.
///
/// # Safety
/// `area` was initialised where it stands and the vCPU's shared page follows it; interrupts are off; `cpu` belongs to this processor, on which [`enable_cpu`] succeeded; this vCPU's
/// extended state is in the registers; `nested` maps only memory that the guest owns.
#[cfg(target_os = "none")]
#[inline(always)]
pub unsafe fn run(area: *mut VcpuArea, cpu: &CpuState, nested: Nested) -> Exit {
    // SAFETY: the caller's promise.
    unsafe { svm::run::run(area, cpu, nested) }
}
