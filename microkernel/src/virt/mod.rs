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

mod convert;
pub mod fpu;
mod host;
mod reset;
mod svm;
mod vmx;

pub use convert::IoExit;
pub use host::CpuState;

use crate::kref::Ref;
use crate::object::space::Space;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use tessera_abi::apic::ApicPage;
use tessera_abi::vcpu::{ExitReason, VcpuState, gpr};
use tessera_abi::virt::VirtFeatures;

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

/// Whether the fields at two offsets can be reached in one access.
const fn are_pair(first: usize, second: usize) -> bool {
    first.is_multiple_of(8) && second == first + 4
}

/// Reads two neighbouring `u32` fields at once; the first is the lower half.
macro_rules! get_pair {
    ($state:expr, $first:ident, $second:ident) => {{
        const { assert!($crate::virt::are_pair(core::mem::offset_of!(VcpuState, $first), core::mem::offset_of!(VcpuState, $second))) };
        // SAFETY: as for `get!`; the two lie side by side, aligned for one access.
        unsafe { (&raw const (*$state).$first).cast::<u64>().read_volatile() }
    }};
}

/// Writes two neighbouring `u32` fields at once.
macro_rules! put_pair {
    ($state:expr, $value:expr, $first:ident, $second:ident) => {{
        const { assert!($crate::virt::are_pair(core::mem::offset_of!(VcpuState, $first), core::mem::offset_of!(VcpuState, $second))) };
        let value: u64 = $value;
        // SAFETY: as for `get_pair!`.
        unsafe { (&raw mut (*$state).$first).cast::<u64>().write_volatile(value) }
    }};
}

/// Takes several fields of the shared page: `place = field;` for each.
macro_rules! take_all {
    ($state:expr, $($($place:ident).+ = $field:ident;)*) => { $($($place).+ = get!($state, $field);)* };
}

/// Stores several fields of the shared page: `field.path = value;` for each.
macro_rules! put_all {
    ($state:expr, { $($($field:ident $([$index:expr])?).+ = $value:expr;)* }) => { $(put!($state, $value, $($field $([$index])?).+);)* };
}

/// The switch between host and guest that both backends share: all general registers but RAX and RSP, between the processor and the shared page behind the area in RDI.
/// `$before` runs in the host, `$enter` with the guest's registers loaded but for RDI, and its end with the guest's registers and the area on top of the stack; `$after` has the
/// area in RDI again. The operands must bind RDI, and RAX if it is used.
macro_rules! world_switch {
    ([$($before:literal,)*] [$($enter:literal,)*] [$($after:literal,)*] $($operands:tt)*) => {
        core::arch::asm!(
            "push rbx",
            "push rbp",
            "push rdi",
            $($before,)*
            "mov rcx, [rdi + {rcx}]", "mov rdx, [rdi + {rdx}]", "mov rbx, [rdi + {rbx}]", "mov rbp, [rdi + {rbp}]", "mov rsi, [rdi + {rsi}]",
            "mov r8, [rdi + {r8}]", "mov r9, [rdi + {r9}]", "mov r10, [rdi + {r10}]", "mov r11, [rdi + {r11}]",
            "mov r12, [rdi + {r12}]", "mov r13, [rdi + {r13}]", "mov r14, [rdi + {r14}]", "mov r15, [rdi + {r15}]",
            $($enter,)*
            "mov [rdi + {rcx}], rcx", "mov [rdi + {rdx}], rdx", "mov [rdi + {rbx}], rbx", "mov [rdi + {rbp}], rbp", "mov [rdi + {rsi}], rsi",
            "mov [rdi + {r8}], r8", "mov [rdi + {r9}], r9", "mov [rdi + {r10}], r10", "mov [rdi + {r11}], r11",
            "mov [rdi + {r12}], r12", "mov [rdi + {r13}], r13", "mov [rdi + {r14}], r14", "mov [rdi + {r15}], r15",
            $($after,)*
            "pop rbp",
            "pop rbx",
            rcx = const $crate::virt::register_offset(1), rdx = const $crate::virt::register_offset(2), rbx = const $crate::virt::register_offset(3),
            rbp = const $crate::virt::register_offset(5), rsi = const $crate::virt::register_offset(6), rdi = const $crate::virt::register_offset(7),
            r8 = const $crate::virt::register_offset(8), r9 = const $crate::virt::register_offset(9), r10 = const $crate::virt::register_offset(10),
            r11 = const $crate::virt::register_offset(11), r12 = const $crate::virt::register_offset(12), r13 = const $crate::virt::register_offset(13),
            r14 = const $crate::virt::register_offset(14), r15 = const $crate::virt::register_offset(15),
            out("rsi") _, out("rcx") _, out("rdx") _, out("r8") _, out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("r13") _, out("r14") _,
            out("r15") _,
            $($operands)*
        )
    };
}

/// Declares constants that an architecture's manual names.
macro_rules! constants {
    ($type:ty: $($name:ident = $value:expr;)*) => { $(#[allow(missing_docs, reason = "the name is the manual's")] pub const $name: $type = $value;)* };
}

pub(crate) use {constants, get, put, put_all, put_pair, take_all, world_switch};

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

/// What detection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detection {
    /// The backend in use.
    pub backend: Backend,
    /// For the boot log: why this one.
    pub reason: &'static str,
    /// What the hardware offers beyond the minimum.
    pub found: VirtFeatures,
    /// What of it is used.
    pub used: VirtFeatures,
}

/// Where the guest's memory is mapped.
#[derive(Clone, Copy)]
pub struct Nested {
    /// The space, with the nested page tables.
    pub space: Ref<Space>,
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
    /// The same, and the guest spins: it goes on behind its PAUSE, but its equals come first.
    Spinning,
    /// The exit stands in the shared page.
    Guest(ExitReason),
}

/// Which [`Backend`], as a number. Written once by [`detect`] before other processors and threads exist.
static BACKEND: AtomicU8 = AtomicU8::new(0);
/// [`VirtFeatures`] found, and those in use. Written as `BACKEND` is.
static FEATURES: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// A permission map that the processor reads.
#[repr(C, align(4096))]
struct Bitmap<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: written by `detect` alone, before anything else looks at it.
unsafe impl<const N: usize> Sync for Bitmap<N> {}

/// Ports: all exit. Both backends read it the same way, but for its length.
static IO_MAP: Bitmap<0x3000> = Bitmap(UnsafeCell::new([0; 0x3000]));

/// Looks at the processor and chooses the backend. Called once, on the boot processor, before any other function here.
#[cfg(target_os = "none")]
pub fn detect() -> Detection {
    let none = |reason| Detection { backend: Backend::None, reason, found: VirtFeatures::empty(), used: VirtFeatures::empty() };
    let found = if vmx::is_there() { vmx::detect() } else { svm::detect() };
    let mut detection = found.and_then(|found| if fpu::supported_xcr0() == 0 { Err("no XSAVE") } else { Ok(found) }).unwrap_or_else(none);
    if detection.backend != Backend::None {
        detection.found |= VirtFeatures::XSAVE;
        detection.used |= VirtFeatures::XSAVE;
    }
    // SAFETY: called once, on the boot processor, before any guest exists: nobody else looks at the map.
    unsafe { (*IO_MAP.0.get()).fill(0xff) };
    // Relaxed: the processors that read this are started afterwards, which orders everything.
    BACKEND.store(detection.backend as u8, Ordering::Relaxed);
    FEATURES[0].store(detection.found.bits(), Ordering::Relaxed);
    FEATURES[1].store(detection.used.bits(), Ordering::Relaxed);
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
        Backend::Vmx => vmx::enable_cpu(state, cpu, host_save_page),
        Backend::None => Ok(()),
    }
}

/// The backend in use.
#[must_use]
#[inline(always)]
pub fn backend() -> Backend {
    match BACKEND.load(Ordering::Relaxed) {
        2 => Backend::Svm,
        1 => Backend::Vmx,
        _ => Backend::None,
    }
}

/// Features of the backend: found, and in use.
#[must_use]
pub fn features() -> [VirtFeatures; 2] {
    FEATURES.each_ref().map(|features| VirtFeatures::from_bits_truncate(features.load(Ordering::Relaxed)))
}

/// Whether a deadline ends a run by itself, without a timer of the host's.
#[inline]
pub fn keeps_deadlines() -> bool {
    features()[1].contains(VirtFeatures::DEADLINE_TIMER)
}

/// A virtual processor's memory that only the kernel and the hardware touch; all zeros before [`VcpuArea::init`]. The shared pages follow it.
#[repr(C, align(4096))]
pub struct VcpuArea {
    /// What the hardware reads and writes at each entry and exit: a VMCB, or the memory of a VMCS.
    vmcb: svm::vmcb::Vmcb,
    /// The guest's extended state while it is not in the registers.
    extended: fpu::ExtendedState,
    /// What the backend remembers between runs.
    host: host::Host,
    /// What VT-x remembers beyond that.
    vmx: vmx::Own,
}

/// Bytes of a [`VcpuArea`].
pub const AREA_SIZE: usize = 12288;
const _: () = assert!(size_of::<VcpuArea>() == AREA_SIZE);

/// The shared page: it follows the area.
#[inline(always)]
const fn page(area: *mut VcpuArea) -> *mut VcpuState {
    area.wrapping_add(1).cast()
}

/// The APIC's registers: they follow the shared page, and are as hostile.
///
/// # Safety
/// `state` is the first shared page of a live vCPU.
#[inline(always)]
unsafe fn apic<'a>(state: *mut VcpuState) -> &'a ApicPage {
    // SAFETY: the caller's promise; all of the page is atomic.
    unsafe { &*state.wrapping_add(1).cast() }
}

/// Takes the event that the next entry delivers, and its error code: the VMM's, else one whose delivery was interrupted by an exit that was the kernel's own.
#[inline(never)]
fn take_event(state: *mut VcpuState) -> (u32, u32) {
    let event = get!(state, inject);
    let theirs = event & tessera_abi::vcpu::EVENT_VALID != 0;
    let taken = if theirs { (event, get!(state, inject_error)) } else { (get!(state, vectoring), get!(state, vectoring_error)) };
    put!(state, 0, inject);
    put!(state, 0, vectoring);
    taken
}

/// Requests the interrupts that a signal's bits are routed to; the next entry delivers them. Returns the bits that are the VMM's.
///
/// # Safety
/// The area belongs to a live vCPU, which is not running.
pub unsafe fn route(area: *mut VcpuArea, bits: u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let rest = apic(page(area)).route(bits);
        if rest != bits {
            (*area).host.pending |= host::pending::REQUESTS;
        }
        rest
    }
}

/// Flags with which the VMM does what is due at the end of an instruction.
#[cfg(target_os = "none")]
const STEPPED: u64 = 1 << 8 | 1 << 16;

/// After a PAUSE that exited: the guest goes on behind it. The last byte of any form of it is a NOP, so two bytes are never too many, and too few only exit again.
#[cfg(target_os = "none")]
fn spins(state: *mut VcpuState) -> Exit {
    if get!(state, rflags) & STEPPED != 0 {
        return Exit::Guest(ExitReason::Pause);
    }
    put!(state, get!(state, rip).wrapping_add(2), rip);
    put!(state, get!(state, interrupt_shadow) & !1, interrupt_shadow);
    Exit::Spinning
}

/// After a WRMSR that exited: if it ends an interrupt (MSR 0x80b) and the VMM need not hear of it, that is done, and the guest goes on behind the
/// instruction, whose length is `length` or 0 if unknown.
///
/// # Safety
/// As [`run`].
#[cfg(target_os = "none")]
unsafe fn ends_interrupt(area: *mut VcpuArea, length: u64) -> bool {
    const END_OF_INTERRUPT: u32 = 0x80b;
    let state = page(area);
    if get!(state, gpr[gpr::RCX]) as u32 != END_OF_INTERRUPT || length == 0 {
        return false;
    }
    // SAFETY: the caller's promise.
    let apic = unsafe { apic(state) };
    let plain = (get!(state, gpr[gpr::RAX]) | get!(state, gpr[gpr::RDX])) as u32 == 0 && get!(state, rflags) & STEPPED == 0;
    if !plain || apic.x2apic.load(Ordering::Relaxed) == 0 || apic.end_unknown.load(Ordering::Relaxed) != 0 {
        return false;
    }
    let Some(vector) = apic.in_service.highest().filter(|&vector| !apic.trigger_mode.contains(vector)) else { return false };
    apic.in_service.remove(vector);
    put!(state, get!(state, rip).wrapping_add(length), rip);
    put!(state, get!(state, interrupt_shadow) & !1, interrupt_shadow);
    // SAFETY: the caller's promise.
    unsafe { (*area).host.pending |= host::pending::REQUESTS };
    true
}

/// Byte offset of a general register in the shared page, from the area.
const fn register_offset(register: usize) -> usize {
    AREA_SIZE + offset_of!(VcpuState, gpr) + register * 8
}

#[cfg(target_os = "none")]
impl VcpuArea {
    /// Prepares the area. `physical` is its own physical address.
    ///
    /// # Errors
    /// [`tessera_abi::Error::Unsupported`] if this machine runs no guests.
    pub fn init(&mut self, physical: u64) -> Result<(), tessera_abi::Error> {
        self.extended.reset();
        match backend() {
            Backend::Svm => svm::init(&mut self.vmcb, &mut self.host, physical),
            Backend::Vmx => vmx::init(self, physical),
            Backend::None => return Err(tessera_abi::Error::Unsupported),
        }
        Ok(())
    }

    /// Puts the state that a processor has after reset into the shared page, all groups dirty.
    ///
    /// # Safety
    /// `state` points at the vCPU's first shared page, which is zeroed.
    pub unsafe fn reset_state(&mut self, state: *mut VcpuState) {
        // SAFETY: the caller's promise.
        unsafe { reset::store_reset(state, fpu::supported_xcr0(), fpu::extended_size()) };
        put!(state, features()[1].contains(VirtFeatures::VIRTUAL_APIC).into(), processor_delivers);
    }

    /// Physical address of the VMCS, if the hardware keeps state of a vCPU outside memory while the processor that ran it has not given it up ([`give_up`]).
    pub fn vmcs(&self) -> Option<u64> {
        (backend() == Backend::Vmx).then_some(self.host.control_physical)
    }

    /// The port access behind an [`ExitReason::Io`] exit, from the kernel's own copy: the shared page may have changed since.
    #[must_use]
    #[inline]
    pub fn io_exit(&self) -> IoExit {
        match backend() {
            Backend::Vmx => vmx::io_exit(),
            _ => svm::convert::io_exit(self.vmcb.control.exit_info_1, self.vmcb.control.exit_info_2),
        }
    }

    /// Guest-physical address and access (`ACCESS_*`) behind an [`ExitReason::Memory`] exit, from the kernel's own copy.
    #[must_use]
    #[inline]
    pub fn memory_exit(&self) -> (u64, u64) {
        match backend() {
            Backend::Vmx => vmx::memory_exit(),
            _ => (self.vmcb.control.exit_info_2, svm::convert::memory_access(self.vmcb.control.exit_info_1)),
        }
    }
}

/// Stores the whole guest state into the shared page: `vcpu::SYNC`.
///
/// # Safety
/// As [`run`], and the vCPU is not running; if another processor ran it, that has given it up.
#[cfg(target_os = "none")]
pub unsafe fn store_full(area: *mut VcpuArea, cpu: &CpuState) {
    // SAFETY: the caller's promise.
    unsafe {
        match backend() {
            Backend::Vmx => vmx::store_full(area, cpu),
            _ => svm::state::store_full(&(*area).vmcb, &(*area).host, page(area)),
        }
    }
}

/// Gives up the vCPU that another processor asked for, if one did: nothing of it stays in this processor.
#[cfg(target_os = "none")]
pub fn give_up(cpu: &CpuState) {
    if let Some(vmcs) = cpu.take_give_up() {
        vmx::give_up(cpu, vmcs);
    }
}

/// Runs the guest until something happens that the hardware cannot or may not do by itself. `deadline` (TSC) ends the run too where [`keeps_deadlines`]; others
/// leave that to the host's timer.
///
/// On [`Exit::Guest`] the shared page holds what `abi::vcpu` promises for that exit, and the groups named in `dirty` were taken.
///
/// # Safety
/// `area` was initialised where it stands and the vCPU's shared page follows it; interrupts are off; `cpu` belongs to this processor, on which [`enable_cpu`] succeeded; this vCPU's
/// extended state is in the registers; `nested` maps only memory that the guest owns.
#[cfg(target_os = "none")]
#[inline(always)]
pub unsafe fn run(area: *mut VcpuArea, cpu: &CpuState, nested: Nested, deadline: &core::cell::Cell<u64>) -> Exit {
    // SAFETY: the caller's promise.
    unsafe {
        let asked = asked(area, cpu, nested);
        if asked | (*area).host.pending == 0 {
            svm::run::run(area, (*cpu.get()).host_page)
        } else if (*area).host.pending & host::pending::VMX == 0 {
            svm::run::run_attentively(area, cpu, nested)
        } else {
            vmx::run::run(area, cpu, nested, deadline, asked)
        }
    }
}

/// What of the page and of the backend's memory asks for attention at the next entry; 0: nothing.
///
/// # Safety
/// As [`run`].
#[cfg(target_os = "none")]
#[inline(always)]
unsafe fn asked(area: *mut VcpuArea, cpu: &CpuState, nested: Nested) -> u64 {
    let state = page(area);
    // SAFETY: this processor's own, and the caller's area; interrupts are off, and the references end here.
    let (this, host) = unsafe { (&*cpu.get(), &(*area).host) };
    get_pair!(state, dirty, inject)
        | get_pair!(state, request_window, request_nmi_window)
        | get_pair!(state, interrupt_shadow, vectoring)
        | (host.token ^ this.token)
        | (host.generation ^ nested.generation)
}
