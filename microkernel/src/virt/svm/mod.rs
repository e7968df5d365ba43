//! AMD-V (SVM), AMD APM volume 2, chapter 15.
//!
//! Nested paging is required. Physical interrupts are governed by the host alone (V_INTR_MASKING); the guest's CR8 is the VMCB's virtual TPR. Translations are tagged with
//! ASIDs that every processor hands out by itself: a flush is a new ASID, and only when they run out is the whole TLB flushed.
//!
//! Debug registers 0 to 3 are not in the VMCB. Accesses to debug registers exit at first; the guest's values are then loaded and stay with it until
//! the next exit, and for as long as DR7 arms a breakpoint they are loaded at every entry.

pub mod convert;
#[cfg(target_os = "none")]
pub mod run;
pub mod state;
#[cfg(test)]
mod tests;
pub mod vmcb;

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};
use vmcb::{Save, Vmcb, clean, intercept, virtual_interrupt};

/// Exceptions that always exit: #DB and #AC, whose delivery a guest can make endless, and #MC, which is the host's.
pub(crate) const ALWAYS_INTERCEPTED: u32 = 1 << 1 | 1 << 17 | 1 << 18;

/// What the backend remembers about a vCPU between runs. Only the kernel can reach it.
#[repr(C)]
pub struct Host {
    /// Physical address of the VMCB.
    vmcb_physical: u64,
    /// Equal to the processor's token if this vCPU ran last on it and nowhere else since: then the VMCB's ASID and caches are good.
    token: u64,
    /// Generation of the processor that the VMCB's ASID belongs to.
    asid_generation: u64,
    /// [`super::Nested::generation`] of the last entry.
    generation: u64,
    /// [`pending`] bits: the next entry or exit takes the long way.
    pending: u64,
    /// 2 while NMIs are blocked, else 0: bit 1 of `interrupt_shadow`.
    nmi_blocked: u32,
    /// Exceptions that the VMM wants to see.
    exceptions: u32,
    /// Length of the instruction behind a software interrupt that is being injected.
    software_length: u32,
    /// The VMM waits until an NMI can be taken.
    nmi_window: bool,
    /// The processor reports the address of the next instruction.
    reports_next_rip: bool,
    /// Guest's XCR0.
    xcr0: u64,
    /// Guest's TSC_AUX.
    tsc_aux: u64,
    /// Guest's DR0 to DR3 while they are not in the registers.
    debug: [u64; 4],
}

impl Host {
    /// XCR0 of the guest.
    #[must_use]
    pub const fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// Remembers the XCR0 that the guest has.
    pub const fn set_xcr0(&mut self, value: u64) {
        self.xcr0 = value;
    }
}

/// Reasons for the long way.
pub(crate) mod pending {
    /// TLB_CONTROL must be cleared again.
    pub const FLUSHED: u64 = 1;
    /// DR0 to DR3 belong to the guest while it runs.
    pub const DEBUG_LOADED: u64 = 2;
    /// A virtual interrupt stands in the VMCB to find the interrupt window.
    pub const WINDOW: u64 = 4;
    /// One instruction is being stepped over: the IRET that ends an NMI handler.
    pub const STEP: u64 = 8;
    /// A software interrupt was injected with the last entry.
    pub const SOFTWARE: u64 = 16;
    /// NMIs are blocked, and IRET exits.
    pub const NMI: u64 = 32;
    /// Translations must be flushed with the next entry.
    pub const FLUSH: u64 = 64;
}

/// Inside of [`CpuState`].
struct Cpu {
    /// Where the host's own state goes while a guest runs.
    host_save: u64,
    /// See [`Host::token`]; unique among all processors.
    token: u64,
    /// Unique among all processors, changes when ASIDs start over.
    asid_generation: u64,
    /// Next ASID to hand out.
    next_asid: u32,
    /// First one that does not exist.
    asid_end: u32,
    /// What stands in TSC_AUX.
    tsc_aux: u64,
    /// There is a TSC_AUX.
    has_tsc_aux: bool,
    /// There is an indirect-branch prediction barrier.
    has_branch_barrier: bool,
}

/// What the backend keeps per processor, to stand among the processor's own data. Only its processor uses it, with interrupts off.
pub struct CpuState(UnsafeCell<Cpu>);

impl CpuState {
    /// For a processor that cannot run guests yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(Cpu {
            host_save: 0,
            token: 0,
            asid_generation: 0,
            next_asid: 0,
            asid_end: 0,
            tsc_aux: 0,
            has_tsc_aux: false,
            has_branch_barrier: false,
        }))
    }
}

impl Default for CpuState {
    fn default() -> Self {
        Self::new()
    }
}

/// Bits of tokens and generations above this are the processor's index plus one.
const CPU_SHIFT: u32 = 48;

/// Number of ASIDs. Written once by `detect`, before other processors start.
static ASIDS: AtomicU32 = AtomicU32::new(0);

/// A permission map that the processor reads.
#[repr(C, align(4096))]
struct Bitmap<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: written by `detect` alone, before anything else looks at it.
unsafe impl<const N: usize> Sync for Bitmap<N> {}

/// Ports: all exit.
static IO_MAP: Bitmap<0x3000> = Bitmap(UnsafeCell::new([0; 0x3000]));
/// MSRs: all exit but [`PASSED_MSRS`].
static MSR_MAP: Bitmap<0x2000> = Bitmap(UnsafeCell::new([0; 0x2000]));

/// MSRs that VMLOAD and VMSAVE switch, so that guests can have them: SYSENTER_CS, _ESP, _EIP; STAR, LSTAR, CSTAR, SFMASK; FS_BASE, GS_BASE, KERNEL_GS_BASE.
const PASSED_MSRS: [u32; 10] =
    [0x174, 0x175, 0x176, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102];

/// Byte and lower bit of an MSR in the permission map: two bits each, read and write (APM volume 2, 15.11). `None` for MSRs outside the map, which always exit.
const fn msr_position(msr: u32) -> Option<(usize, u32)> {
    let (base, index) = match msr {
        0..=0x1fff => (0, msr),
        0xc000_0000..=0xc000_1fff => (0x800, msr - 0xc000_0000),
        0xc001_0000..=0xc001_1fff => (0x1000, msr - 0xc001_0000),
        _ => return None,
    };
    Some((base + index as usize / 4, index % 4 * 2))
}

/// Fills the MSR permission map.
fn fill_msr_map(map: &mut [u8; 0x2000]) {
    map.fill(0xff);
    for msr in PASSED_MSRS {
        if let Some((byte, bit)) = msr_position(msr) {
            map[byte] &= !(3 << bit);
        }
    }
}

/// First and second word of what exits.
fn intercepts() -> (u32, u32) {
    use intercept as i;
    let first = i::INTR
        | i::NMI
        | i::INIT
        | i::RDPMC
        | i::CPUID
        | i::INVD
        | i::HLT
        | i::INVLPGA
        | i::IO
        | i::MSR
        | i::TASK_SWITCH
        | i::FERR_FREEZE
        | i::SHUTDOWN;
    let pause = if crate::virt::backend_features() & crate::virt::Features::PAUSE_FILTER.bits() == 0 { 0 } else { i::PAUSE };
    let second = i::VMRUN
        | i::VMMCALL
        | i::VMLOAD
        | i::VMSAVE
        | i::STGI
        | i::CLGI
        | i::SKINIT
        | i::WBINVD
        | i::MONITOR
        | i::MWAIT
        | i::XSETBV
        | i::RDPRU;
    (first | pause, second)
}

/// PAUSEs in a row before a guest exits, and the cycles within which they count as a row.
const PAUSE_COUNT: u16 = 3000;
/// See [`PAUSE_COUNT`].
const PAUSE_THRESHOLD: u16 = 128;

/// Sets up a zeroed VMCB.
#[cfg(target_os = "none")]
pub(super) fn init(vmcb: &mut Vmcb, host: &mut Host, physical: u64) {
    host.reports_next_rip = crate::virt::backend_features() & crate::virt::Features::NEXT_RIP.bits() != 0;
    host.vmcb_physical = physical + core::mem::offset_of!(super::VcpuArea, vmcb) as u64;
    vmcb.control.iopm = machine::image_physical(IO_MAP.0.get() as usize);
    vmcb.control.msrpm = machine::image_physical(MSR_MAP.0.get() as usize);
    vmcb.control.nested_control = 1;
    reset(vmcb, host);
}

/// Forgets what a former guest did; keeps the addresses.
pub(super) fn reset(vmcb: &mut Vmcb, host: &mut Host) {
    let control = &mut vmcb.control;
    (control.intercept_1, control.intercept_2) = intercepts();
    control.intercept_dr = u32::MAX;
    control.intercept_exceptions = ALWAYS_INTERCEPTED;
    control.pause_count = PAUSE_COUNT;
    control.pause_threshold = PAUSE_THRESHOLD;
    control.virtual_interrupt = virtual_interrupt::MASKING;
    control.interrupt_state = 0;
    control.inject = 0;
    control.tsc_offset = 0;
    control.clean = 0;
    vmcb.save.efer = convert::EFER_SVME;
    host.token = 0;
    host.asid_generation = 0;
    // The nested tables' root is set again with the next entry.
    host.generation = u64::MAX;
    host.pending = 0;
    host.nmi_blocked = 0;
    host.exceptions = 0;
    host.nmi_window = false;
    host.xcr0 = 1;
    host.tsc_aux = 0;
    host.debug = [0; 4];
}

/// As [`reset`], and leaves nothing of the registers in the VMCB.
pub(super) fn wipe(vmcb: &mut Vmcb, host: &mut Host) {
    vmcb.save = Save::ZERO;
    // XCR0 is in the processor, not in the VMCB.
    let xcr0 = host.xcr0;
    reset(vmcb, host);
    host.xcr0 = xcr0;
}

/// Gives the vCPU an ASID that no translation is tagged with. Answers whether the whole TLB must be flushed because they ran out.
fn new_asid(cpu: &mut Cpu, vmcb: &mut Vmcb, host: &mut Host) -> bool {
    let start_over = cpu.next_asid >= cpu.asid_end;
    if start_over {
        cpu.asid_generation += 1;
        cpu.next_asid = 1;
    }
    vmcb.control.asid = cpu.next_asid;
    vmcb.control.clean &= !clean::ASID;
    cpu.next_asid += 1;
    host.asid_generation = cpu.asid_generation;
    start_over
}

#[cfg(target_os = "none")]
pub(super) use machine::{detect, enable_cpu};

/// What touches the machine.
#[cfg(target_os = "none")]
mod machine {
    use super::{ASIDS, CPU_SHIFT, Cpu, CpuState, IO_MAP, MSR_MAP, Ordering, fill_msr_map};
    use crate::virt::Features;
    use core::arch::x86_64::__cpuid;
    use x86_64::registers::model_specific::Msr;

    /// Bit 4: SVM is switched off and cannot be switched on.
    const VM_CR: u32 = 0xc001_0114;
    const VM_HSAVE_PA: u32 = 0xc001_0117;
    const EFER: u32 = 0xc000_0080;
    const TSC_AUX: u32 = 0xc000_0103;

    /// Physical address of something in the kernel image, which is linked at a fixed distance from where it is loaded.
    pub fn image_physical(address: usize) -> u64 {
        /// Where the kernel is linked; physical address 0 would be here (kernel.ld).
        const LINK_BASE: u64 = 0xffff_ffff_8000_0000;
        address as u64 - LINK_BASE
    }

    fn has_svm() -> bool {
        __cpuid(0x8000_0000).eax >= 0x8000_000a && __cpuid(0x8000_0001).ecx & 1 << 2 != 0
    }

    /// What this processor offers.
    fn features() -> Features {
        let edx = __cpuid(0x8000_000a).edx;
        let mut features = Features::empty();
        for (bit, feature) in [
            (0, Features::NESTED_PAGING),
            (3, Features::NEXT_RIP),
            (4, Features::TSC_SCALING),
            (5, Features::CLEAN_BITS),
            (6, Features::FLUSH_BY_ASID),
            (7, Features::DECODE_ASSISTS),
            (10, Features::PAUSE_FILTER),
            (12, Features::PAUSE_THRESHOLD),
            (13, Features::VIRTUAL_APIC),
            (15, Features::VIRTUAL_VMLOAD),
            (16, Features::VIRTUAL_GIF),
            (25, Features::VIRTUAL_NMI),
        ] {
            features.set(feature, edx & 1 << bit != 0);
        }
        features
    }

    /// Whether this machine has AMD-V as this backend needs it.
    ///
    /// # Errors
    /// A line for the boot log.
    pub fn detect() -> Result<Features, &'static str> {
        if !has_svm() {
            return Err("the processor has neither AMD-V nor VT-x");
        }
        // SAFETY: VM_CR exists where SVM does.
        if unsafe { Msr::new(VM_CR).read() } & 1 << 4 != 0 {
            return Err("AMD-V is switched off in the firmware");
        }
        let features = features();
        if !features.contains(Features::NESTED_PAGING) {
            return Err("AMD-V without nested paging is not supported");
        }
        let asids = __cpuid(0x8000_000a).ebx;
        if asids < 2 {
            return Err("AMD-V offers no address-space identifiers");
        }
        // Relaxed: other processors start later, which orders everything.
        ASIDS.store(asids, Ordering::Relaxed);
        // SAFETY: called once, on the boot processor, before any guest exists: nobody else looks at the maps.
        unsafe {
            (*IO_MAP.0.get()).fill(0xff);
            fill_msr_map(&mut *MSR_MAP.0.get());
        }
        Ok(features)
    }

    /// Switches SVM on.
    ///
    /// # Errors
    /// The processor lacks it, unlike the boot processor.
    pub fn enable_cpu(state: &CpuState, cpu: usize, host_save_page: u64) -> Result<(), &'static str> {
        // SAFETY: VM_CR is read only where SVM exists.
        if !has_svm() || unsafe { Msr::new(VM_CR).read() } & 1 << 4 != 0 {
            return Err("this processor has no AMD-V, unlike the boot processor");
        }
        // SAFETY: this processor's own, before it runs guests.
        let this = unsafe { &mut *state.0.get() };
        this.host_save = host_save_page;
        this.token = (cpu as u64 + 1) << CPU_SHIFT;
        this.asid_generation = this.token;
        this.asid_end = ASIDS.load(Ordering::Relaxed);
        // The first vCPU starts generation 1 with a flush, whatever an earlier system left in the TLB.
        this.next_asid = this.asid_end;
        // SAFETY: SVM exists; the page is the caller's gift; the kernel does not use TSC_AUX.
        unsafe {
            let mut efer = Msr::new(EFER);
            let value = efer.read();
            efer.write(value | super::convert::EFER_SVME);
            Msr::new(VM_HSAVE_PA).write(host_save_page);
        }
        // RDTSCP, and with it TSC_AUX.
        this.has_tsc_aux = __cpuid(0x8000_0001).edx & 1 << 27 != 0;
        this.has_branch_barrier = __cpuid(0x8000_0000).eax >= 0x8000_0008 && __cpuid(0x8000_0008).ebx & 1 << 12 != 0;
        // No guest has this value: the first one writes its own.
        this.tsc_aux = u64::MAX;
        Ok(())
    }

    /// Lets the guest's RDTSCP and RDPID see its own TSC_AUX. The kernel itself does not use it.
    pub fn write_tsc_aux(cpu: &mut Cpu, value: u64) {
        if cpu.has_tsc_aux && cpu.tsc_aux != value {
            cpu.tsc_aux = value;
            // SAFETY: the MSR exists, and `load` cleared the value's reserved bits.
            unsafe { Msr::new(TSC_AUX).write(value) };
        }
    }

    /// Keeps one guest's branch history from steering another's speculation (CPUID 8000_0008, EBX bit 12).
    pub fn branch_barrier(cpu: &Cpu) {
        const PRED_CMD: u32 = 0x49;
        if cpu.has_branch_barrier {
            // SAFETY: the MSR exists.
            unsafe { Msr::new(PRED_CMD).write(1) };
        }
    }
}
