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

#[cfg(target_os = "none")]
pub mod exits;

use super::Bitmap;
use super::host::Host;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, Ordering};
use tessera_abi::virt::VirtFeatures;
use vmcb::{Save, Vmcb, intercept, virtual_interrupt};

/// Exceptions that always exit: #DB and #AC, whose delivery a guest can make endless, and #MC, which is the host's.
pub(crate) const ALWAYS_INTERCEPTED: u32 = 1 << 1 | 1 << 17 | 1 << 18;

/// Number of ASIDs. Written once by `detect`, before other processors start.
static ASIDS: AtomicU32 = AtomicU32::new(0);

/// MSRs: all exit but [`tessera_boot::svm::PASSED_MSRS`].
static MSR_MAP: Bitmap<0x2000> = Bitmap(UnsafeCell::new([0; 0x2000]));

/// PAUSEs in a row before a guest exits, and the cycles within which they count as a row.
const PAUSE_COUNT: u16 = 3000;
/// See [`PAUSE_COUNT`].
const PAUSE_THRESHOLD: u16 = 128;

/// Sets up a zeroed VMCB.
#[cfg(target_os = "none")]
pub(super) fn init(vmcb: &mut Vmcb, host: &mut Host, physical: u64) {
    host.reports_next_rip = crate::virt::features()[0].contains(VirtFeatures::NEXT_RIP);
    host.control_physical = physical + core::mem::offset_of!(super::VcpuArea, vmcb) as u64;
    vmcb.control.iopm = super::host::image_physical(super::IO_MAP.0.get());
    vmcb.control.msrpm = super::host::image_physical(MSR_MAP.0.get());
    vmcb.control.nested_control = 1;
    reset(vmcb, host);
}

/// Forgets what a former guest did; keeps the addresses.
pub(super) fn reset(vmcb: &mut Vmcb, host: &mut Host) {
    let control = &mut vmcb.control;
    control.intercept_1 = intercept::FIRST;
    control.intercept_2 = intercept::SECOND;
    control.intercept_cr = 0;
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
    host.reset();
}

/// As [`reset`], and leaves nothing of the registers in the VMCB.
pub(super) fn wipe(vmcb: &mut Vmcb, host: &mut Host) {
    vmcb.save = Save::ZERO;
    // XCR0 is in the processor, not in the VMCB.
    let xcr0 = host.xcr0;
    reset(vmcb, host);
    host.xcr0 = xcr0;
}

#[cfg(target_os = "none")]
pub(super) use machine::{detect, enable_cpu};

/// What touches the machine.
#[cfg(target_os = "none")]
mod machine {
    use super::{ASIDS, MSR_MAP, Ordering};
    use crate::arch::cpu;
    use crate::virt::{Backend, CpuState, Detection};
    use tessera_boot::svm::{features, fill_msr_map, is_there};
    use x86_64::registers::model_specific::Msr;

    /// Bit 4: SVM is switched off and cannot be switched on.
    const VM_CR: u32 = 0xc001_0114;
    const VM_HSAVE_PA: u32 = 0xc001_0117;
    const EFER: u32 = 0xc000_0080;

    /// Whether this machine has AMD-V as this backend needs it.
    ///
    /// # Errors
    /// A line for the boot log.
    pub fn detect() -> Result<Detection, &'static str> {
        if !is_there(cpu::leaf) {
            return Err("the processor has neither AMD-V nor VT-x");
        }
        // SAFETY: VM_CR exists where SVM does.
        if unsafe { Msr::new(VM_CR).read() } & 1 << 4 != 0 {
            return Err("AMD-V is switched off in the firmware");
        }
        let (found, used, asids) = features(cpu::leaf)?;
        // Relaxed: other processors start later, which orders everything.
        ASIDS.store(asids, Ordering::Relaxed);
        // SAFETY: called once, on the boot processor, before any guest exists: nobody else looks at the maps.
        unsafe {
            fill_msr_map(&mut *MSR_MAP.0.get());
        }
        Ok(Detection { backend: Backend::Svm, reason: "AMD-V (nested paging)", found, used })
    }

    /// Switches SVM on.
    ///
    /// # Errors
    /// The processor lacks it, unlike the boot processor.
    pub fn enable_cpu(state: &CpuState, cpu: usize, host_save_page: u64) -> Result<(), &'static str> {
        // SAFETY: VM_CR is read only where SVM exists.
        if !is_there(cpu::leaf) || unsafe { Msr::new(VM_CR).read() } & 1 << 4 != 0 {
            return Err("this processor has no AMD-V, unlike the boot processor");
        }
        // Relaxed: written before this processor started.
        // SAFETY: this processor's own, before it runs guests.
        unsafe { (*state.get()).start(cpu, host_save_page, ASIDS.load(Ordering::Relaxed)) };
        // SAFETY: SVM exists; the page is the caller's gift; the kernel does not use TSC_AUX.
        unsafe {
            let mut efer = Msr::new(EFER);
            let value = efer.read();
            efer.write(value | super::convert::EFER_SVME);
            Msr::new(VM_HSAVE_PA).write(host_save_page);
        }
        Ok(())
    }
}
