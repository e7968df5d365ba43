//! What the kernel keeps for itself about each vCPU and each processor, for both backends.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

/// What a backend remembers about a vCPU between runs. Only the kernel can reach it.
#[repr(C)]
#[derive(Default)]
pub struct Host {
    /// Physical address of the VMCB or VMCS.
    pub(super) control_physical: u64,
    /// Equal to the processor's token if this vCPU ran last on it and nowhere else since: then its tag and what the processor caches of it are good.
    pub(super) token: u64,
    /// Generation of the processor that the vCPU's tag belongs to.
    pub(super) tag_generation: u64,
    /// [`super::Nested::generation`] of the last entry.
    pub(super) generation: u64,
    /// [`pending`] bits: the next entry or exit takes the long way.
    pub(super) pending: u64,
    /// 2 while NMIs are blocked, else 0: bit 1 of `interrupt_shadow`.
    pub(super) nmi_blocked: u32,
    /// Exceptions that the VMM wants to see.
    pub(super) exceptions: u32,
    /// Length of the instruction behind a software interrupt that is being injected.
    pub(super) software_length: u32,
    /// The VMM waits until an NMI can be taken.
    pub(super) nmi_window: bool,
    /// The processor reports the address of the next instruction.
    pub(super) reports_next_rip: bool,
    /// Guest's XCR0.
    pub(super) xcr0: u64,
    /// Guest's TSC_AUX.
    pub(super) tsc_aux: u64,
    /// Guest's DR0 to DR3 while they are not in the registers.
    pub(super) debug: [u64; 4],
}

impl Host {
    /// Forgets what a former guest did; keeps what belongs to the place.
    pub(super) fn reset(&mut self) {
        let Self { control_physical, reports_next_rip, pending, .. } = *self;
        // The nested tables' root is set again with the next entry.
        *self =
            Self { control_physical, reports_next_rip, pending: pending & pending::VMX, generation: u64::MAX, xcr0: 1, ..Self::default() };
    }
}

/// Reasons for the long way.
pub(crate) mod pending {
    /// TLB_CONTROL must be cleared again.
    pub const FLUSHED: u64 = 1;
    /// DR0 to DR3 belong to the guest while it runs.
    pub const DEBUG_LOADED: u64 = 2;
    /// The processor was asked for an exit at the interrupt window.
    pub const WINDOW: u64 = 4;
    /// One instruction is being stepped over: the IRET that ends an NMI handler, or a write to CR8 that may let an interrupt through.
    pub const STEP: u64 = 8;
    /// A software interrupt was injected with the last entry.
    pub const SOFTWARE: u64 = 16;
    /// NMIs are blocked, and IRET exits.
    pub const NMI: u64 = 32;
    /// Translations must be flushed with the next entry.
    pub const FLUSH: u64 = 64;
    /// The processor was asked for an exit at the NMI window.
    pub const NMI_WINDOW: u64 = 128;
    /// The APIC page has requests that this entry delivers or waits with.
    pub const REQUESTS: u64 = 256;
    /// The processor was asked for an exit when the guest can take what is requested: the next entry looks again.
    pub const HELD: u64 = 512;
    /// VT-x: the last entry was refused before it touched anything.
    pub const FAILED: u64 = 1024;
    /// The sign bit: always set where VT-x runs the vCPU. So AMD-V's short way, which tests for reasons anyhow, needs no test of its own.
    pub const VMX: u64 = 1 << 63;
}

/// Inside of [`CpuState`].
#[derive(Default)]
pub(super) struct Cpu {
    /// Page for the processor's own use: AMD-V's host save area, VT-x's VMXON region.
    pub host_page: u64,
    /// See [`Host::token`]; unique among all processors.
    pub token: u64,
    /// Unique among all processors, changes when tags start over.
    pub tag_generation: u64,
    /// Next tag (ASID, VPID) to hand out.
    pub next_tag: u32,
    /// First one that does not exist.
    pub tag_end: u32,
    /// What stands in TSC_AUX.
    pub tsc_aux: u64,
    /// There is a TSC_AUX.
    pub has_tsc_aux: bool,
    /// There is an indirect-branch prediction barrier.
    pub has_branch_barrier: bool,
    /// Physical address of the current VMCS, or [`NO_VMCS`].
    pub current_vmcs: u64,
}

/// No VMCS is current (SDM volume 3, 25.1).
pub(super) const NO_VMCS: u64 = u64::MAX;

/// Bits of tokens and generations above this are the processor's index plus one.
#[cfg(target_os = "none")]
const CPU_SHIFT: u32 = 48;

/// What is kept per processor, to stand among the processor's own data. Only its processor uses it, with interrupts off.
pub struct CpuState {
    cpu: UnsafeCell<Cpu>,
    /// Physical address of the VMCS that this processor has to give up when it answers at the kernel's door, or [`NO_VMCS`].
    give_up: AtomicU64,
}

impl Default for CpuState {
    /// For a processor that cannot run guests yet.
    fn default() -> Self {
        Self { cpu: UnsafeCell::new(Cpu { current_vmcs: NO_VMCS, ..Cpu::default() }), give_up: AtomicU64::new(NO_VMCS) }
    }
}

impl CpuState {
    /// Whether this processor can run guests: [`super::enable_cpu`] succeeded on it.
    pub fn is_enabled(&self) -> bool {
        // SAFETY: only this processor changes it, which is the one that asks.
        unsafe { (*self.cpu.get()).token != 0 }
    }

    /// The contents. Whoever uses the pointer is this processor, with interrupts off.
    pub(super) const fn get(&self) -> *mut Cpu {
        self.cpu.get()
    }

    /// Asks this processor to give up a VMCS when it next answers at the kernel's door.
    pub fn ask_to_give_up(&self, vmcs: u64) {
        // Relaxed: as in `take_give_up`.
        self.give_up.store(vmcs, Ordering::Relaxed);
    }

    /// Which VMCS another processor asked this one to give up, once.
    #[inline]
    pub(super) fn take_give_up(&self) -> Option<u64> {
        // Relaxed: request and answer are ordered by the door (`lock::answer`).
        let vmcs = self.give_up.load(Ordering::Relaxed);
        (vmcs != NO_VMCS).then(|| {
            self.give_up.store(NO_VMCS, Ordering::Relaxed);
            vmcs
        })
    }
}

impl Cpu {
    /// A tag that no translation has, for a vCPU. Answers whether the whole TLB must be flushed because they ran out.
    pub fn new_tag(&mut self, host: &mut Host) -> (u32, bool) {
        let start_over = self.next_tag >= self.tag_end;
        if start_over {
            self.tag_generation += 1;
            self.next_tag = 1;
        }
        let tag = self.next_tag;
        self.next_tag += 1;
        host.tag_generation = self.tag_generation;
        (tag, start_over)
    }
}

#[cfg(target_os = "none")]
pub(super) use machine::{image_physical, read_debug_registers, write_debug_registers};

/// What touches the machine.
#[cfg(target_os = "none")]
mod machine {
    use super::{CPU_SHIFT, Cpu, Host, pending};
    use core::arch::asm;
    use core::arch::x86_64::{__cpuid, __cpuid_count};
    use x86_64::registers::model_specific::Msr;

    const TSC_AUX: u32 = 0xc000_0103;

    /// Physical address of something in the kernel image.
    pub fn image_physical<T>(item: *const T) -> u64 {
        crate::arch::memory::kernel_virt_to_phys(item as u64)
    }

    impl Cpu {
        /// Starts the book-keeping of processor `index`, with tags from 1 up to below `tag_end`.
        pub fn start(&mut self, index: usize, host_page: u64, tag_end: u32) {
            self.host_page = host_page;
            self.token = (index as u64 + 1) << CPU_SHIFT;
            self.tag_generation = self.token;
            self.tag_end = tag_end;
            // The first vCPU starts generation 1 with a flush, whatever an earlier system left in the TLB.
            self.next_tag = tag_end;
            // RDTSCP, and with it TSC_AUX.
            self.has_tsc_aux = __cpuid(0x8000_0001).edx & 1 << 27 != 0;
            let amd = __cpuid(0x8000_0000).eax >= 0x8000_0008 && __cpuid(0x8000_0008).ebx & 1 << 12 != 0;
            let intel = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & 1 << 26 != 0;
            self.has_branch_barrier = amd || intel;
            // No guest has this value: the first one writes its own.
            self.tsc_aux = u64::MAX;
        }

        /// Makes `host` the vCPU that ran last on this processor. Its tag stays good if it comes back to the processor where it got it, before tags started over there.
        pub fn bind(&mut self, host: &mut Host) {
            const PRED_CMD: u32 = 0x49;
            if self.has_branch_barrier {
                // Keeps one guest's branch history from steering another's speculation.
                // SAFETY: the MSR exists.
                unsafe { Msr::new(PRED_CMD).write(1) };
            }
            // The guest's RDTSCP and RDPID see its own value. The kernel itself does not use it.
            if self.has_tsc_aux && self.tsc_aux != host.tsc_aux {
                self.tsc_aux = host.tsc_aux;
                // SAFETY: the MSR exists, and `load` cleared the value's reserved bits.
                unsafe { Msr::new(TSC_AUX).write(host.tsc_aux) };
            }
            // What a vCPU did to translations elsewhere, this processor did not see: only generations of this processor's own count, and `run` elsewhere replaces the generation.
            if host.tag_generation != self.tag_generation {
                host.pending |= pending::FLUSH;
            }
            self.token += 1;
            host.token = self.token;
        }
    }

    /// Loads the guest's DR0 to DR3. The host arms none of them, so whatever they hold is harmless here.
    pub fn write_debug_registers(values: &[u64; 4]) {
        // SAFETY: DR7 arms nothing while the host runs.
        unsafe {
            asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", in(reg) values[0], in(reg) values[1], in(reg) values[2], in(reg) values[3],
                options(nomem, nostack, preserves_flags));
        }
    }

    /// Takes the guest's DR0 to DR3.
    pub fn read_debug_registers(values: &mut [u64; 4]) {
        // SAFETY: reading has no effect.
        unsafe {
            asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", out(reg) values[0], out(reg) values[1], out(reg) values[2], out(reg) values[3],
                options(nomem, nostack, preserves_flags));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CpuState, Host};
    extern crate std;

    #[test]
    fn tags_are_unique_within_a_generation() {
        let state = CpuState::default();
        // SAFETY: nobody else has the state.
        let cpu = unsafe { &mut *state.get() };
        (cpu.tag_generation, cpu.next_tag, cpu.tag_end) = (1 << 48, 4, 4);
        let mut seen = std::vec::Vec::new();
        for turn in 0..9 {
            let mut host = Host::default();
            let (tag, flush) = cpu.new_tag(&mut host);
            assert_eq!(flush, turn % 3 == 0, "the first of three tags flushes");
            assert!((1..4).contains(&tag));
            assert!(!seen.contains(&(host.tag_generation, tag)));
            seen.push((host.tag_generation, tag));
        }
    }

    #[test]
    fn a_processor_runs_guests_only_after_it_was_enabled() {
        let state = CpuState::default();
        assert!(!state.is_enabled());
        // SAFETY: nobody else has the state.
        unsafe { (*state.get()).token = 1 << 48 };
        assert!(state.is_enabled());
    }

    #[test]
    fn what_another_processor_asked_for_is_given_up_once() {
        let state = CpuState::default();
        assert_eq!(state.take_give_up(), None);
        state.ask_to_give_up(0x1000);
        assert_eq!((state.take_give_up(), state.take_give_up()), (Some(0x1000), None));
    }
}
