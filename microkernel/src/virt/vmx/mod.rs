//! Intel VT-x (VMX), Intel SDM volume 3, chapters 25 to 30.
//!
//! EPT, unrestricted guests, virtual NMIs and the TPR shadow are required. Translations are tagged with VPIDs that every processor hands out by itself: a flush is a
//! new VPID, and only when they run out is the whole TLB flushed; what changed below is dropped with INVEPT by each vCPU that runs on it.
//!
//! A VMCS stays active on the processor that ran its vCPU first, for good: vCPUs do not move. Whoever needs it elsewhere, or ends the vCPU, makes that processor give it up first.
//!
//! DR0 to DR3 and DR6 are not in the VMCS. Accesses to debug registers exit at first; the guest's values are then loaded and stay with it until
//! the next exit, and for as long as DR7 arms a breakpoint they are loaded at every entry.

pub mod convert;
#[cfg(target_os = "none")]
pub mod exits;
#[cfg(target_os = "none")]
pub mod run;
#[cfg(target_os = "none")]
pub mod state;
#[cfg(test)]
mod tests;
pub mod vmcs;

/// Exceptions that always exit: #DB and #AC, whose delivery a guest can make endless, and #MC, which is the host's.
pub(crate) const ALWAYS_INTERCEPTED: u32 = 1 << 1 | 1 << 17 | 1 << 18;

/// An entry of the lists of MSRs that entries and exits switch (SDM volume 3, table 25-15).
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct MsrEntry {
    index: u64,
    value: u64,
}

/// MSRs that guests have for themselves beyond those in the VMCS, in the order of [`Own::msrs`].
pub const SWITCHED_MSRS: [u64; 5] = [0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0102];
/// The first of these are the host's too: STAR, LSTAR, CSTAR and SFMASK. KERNEL_GS_BASE is overwritten on the way to user level.
const HOST_MSRS: usize = 4;

/// What this backend remembers beyond `Host`, laid out to fill the area.
#[repr(C)]
pub struct Own {
    /// The guest's values, loaded at entries and stored at exits.
    msrs: [MsrEntry; SWITCHED_MSRS.len()],
    /// Why VMRESUME was refused.
    error: u64,
    /// The VMCS was never set up.
    fresh: u64,
    /// Guest's CR2.
    cr2: u64,
    /// Guest's DR6, while it is not in the register.
    dr6: u64,
    /// What stands in the VMCS of the host's.
    host_rsp: u64,
    host_cr0: u64,
    host_cr3: u64,
    /// Primary controls as they stand in the VMCS.
    primary: u64,
    /// Task priority below which the guest exits, as it stands in the VMCS.
    threshold: u64,
    /// Value of the preemption timer as it stands in the VMCS.
    timer: u32,
    /// It counts once in this many TSC ticks, as a power of two.
    timer_shift: u32,
    /// Operand of LGDT: exits leave the limit at 64 KiB (SDM volume 3, 28.5.2).
    gdt: [u16; 8],
    reserved: [u64; 467],
}

#[cfg(target_os = "none")]
pub(super) use machine::{detect, enable_cpu, give_up, init, io_exit, is_there, memory_exit, store_full};

/// What touches the machine.
#[cfg(target_os = "none")]
mod machine {
    use super::vmcs::{self, field, read, write};
    use super::{HOST_MSRS, MsrEntry, SWITCHED_MSRS, convert, state};
    use crate::arch::cpu::{self, rdmsr, wrmsr};
    use crate::arch::vector;
    use crate::virt::host::{Cpu, NO_VMCS, image_physical, pending};
    use crate::virt::{Backend, Bitmap, CpuState, Detection, IO_MAP, IoExit, VcpuArea, page};
    use core::arch::x86_64::__cpuid;
    use core::cell::UnsafeCell;
    use core::mem::offset_of;
    use spin::Once;
    use tessera_abi::apic::ApicPage;
    use tessera_abi::vcpu::VcpuState;
    use tessera_abi::virt::VirtFeatures;
    use tessera_boot::vmx::{Capabilities, Controls, X2APIC_MODE, fill_msr_map, pass_x2apic};
    use x86_64::instructions::tables::{sgdt, sidt};
    use x86_64::registers::control::{Cr4, Cr4Flags};

    const FEATURE_CONTROL: u32 = 0x3a;
    /// The setting is final; VMX is allowed.
    const LOCKED: u64 = 1;
    const ALLOWED: u64 = 1 << 2;

    static CONTROLS: Once<Controls> = Once::new();
    /// MSRs: all exit but those that the VMCS or [`SWITCHED_MSRS`] hold. A bit each: reads of low and high numbers, writes of low and high. The second is for guests in
    /// x2APIC mode on a processor that keeps registers of the APIC.
    static MSR_MAPS: [Bitmap<0x1000>; 2] = [const { Bitmap(UnsafeCell::new([0; 0x1000])) }; 2];
    /// The host's values, the same on each processor.
    static HOST_VALUES: Once<[MsrEntry; HOST_MSRS]> = Once::new();

    /// SYSENTER_CS, _ESP, _EIP, FS_BASE, GS_BASE.
    const IN_VMCS: [u64; 5] = [0x174, 0x175, 0x176, 0xc000_0100, 0xc000_0101];

    /// Whether the processor has VT-x (CPUID leaf 1, ECX bit 5).
    pub fn is_there() -> bool {
        __cpuid(1).ecx & 1 << 5 != 0
    }

    /// Allows VMX, where the firmware left that open.
    fn allow() -> Result<(), &'static str> {
        // SAFETY: the MSR exists where VMX does; locking it changes nothing that the kernel relies on.
        unsafe {
            if rdmsr(FEATURE_CONTROL) & LOCKED == 0 {
                wrmsr(FEATURE_CONTROL, LOCKED | ALLOWED);
            }
            if rdmsr(FEATURE_CONTROL) & ALLOWED == 0 { Err("VT-x is disabled by firmware") } else { Ok(()) }
        }
    }

    /// The controls that follow from what this processor's VT-x can do.
    #[inline(never)]
    fn controls_here() -> Result<Controls, &'static str> {
        allow()?;
        // SAFETY: `read` asks only for MSRs whose presence others told.
        Capabilities::read(|msr| unsafe { rdmsr(msr) }).controls()
    }

    /// Whether this machine has VT-x as this backend needs it.
    ///
    /// # Errors
    /// A line for the boot log.
    pub fn detect() -> Result<Detection, &'static str> {
        let controls = controls_here()?;
        // SAFETY: called once, on the boot processor, before any guest exists: nobody else looks at the maps.
        let maps = unsafe { MSR_MAPS.each_ref().map(|map| &mut *map.0.get()) };
        for map in maps {
            fill_msr_map(map, SWITCHED_MSRS.into_iter().chain(IN_VMCS));
        }
        // SAFETY: as above, and the references end with the loop.
        pass_x2apic(unsafe { &mut *MSR_MAPS[1].0.get() });
        let Controls { found, used, .. } = controls;
        CONTROLS.call_once(|| controls);
        HOST_VALUES.call_once(|| {
            core::array::from_fn(|i| {
                // SAFETY: system calls are set up, so the MSRs exist.
                let value = unsafe { rdmsr(SWITCHED_MSRS[i] as u32) };
                MsrEntry { index: SWITCHED_MSRS[i], value }
            })
        });
        Ok(Detection { backend: Backend::Vmx, reason: "VT-x (EPT and unrestricted guest)", found, used })
    }

    /// The controls; zero where VT-x is not used.
    pub fn controls() -> Controls {
        CONTROLS.get().copied().unwrap_or_default()
    }

    /// Switches VMX on. `vmxon_page` becomes the processor's.
    ///
    /// # Errors
    /// The processor lacks what the boot processor has.
    pub fn enable_cpu(state: &CpuState, cpu: usize, vmxon_page: u64) -> Result<(), &'static str> {
        if !is_there() {
            return Err("this processor has no VT-x, unlike the boot processor");
        }
        if controls_here()? != controls() {
            return Err("this processor's VT-x differs from the boot processor's");
        }
        let tags = if controls().used.contains(VirtFeatures::TAGGED_TLB) { 1 << 16 } else { 2 };
        // SAFETY: the state is this processor's own, before it runs guests; the page is the caller's gift; CR4.VMXE only allows VMXON.
        unsafe {
            Cr4::update(|flags| flags.insert(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS));
            set_revision(crate::arch::memory::phys_to_virt(vmxon_page).cast());
            if !vmcs::on(vmxon_page) {
                return Err("VMXON failed");
            }
            (*state.get()).start(cpu, vmxon_page, tags);
        }
        Ok(())
    }

    /// Writes the revision identifier that VMXON regions and VMCSs begin with.
    ///
    /// # Safety
    /// `page` is unused by the processor.
    unsafe fn set_revision(page: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe { page.write_volatile(controls().revision) }
    }

    /// Sets up a zeroed area.
    pub fn init(area: &mut VcpuArea, physical: u64) {
        area.host.control_physical = physical + offset_of!(VcpuArea, vmcb) as u64;
        area.host.pending = pending::VMX;
        area.host.reset();
        area.vmx.fresh = 1;
        for (entry, index) in area.vmx.msrs.iter_mut().zip(SWITCHED_MSRS) {
            entry.index = index;
        }
        // SAFETY: the VMCS was never loaded.
        unsafe { set_revision((&raw mut area.vmcb).cast()) };
    }

    /// Makes the area's VMCS current and the vCPU the one that ran last here.
    ///
    /// # Safety
    /// As `run`.
    pub unsafe fn bind(area: &mut VcpuArea, this: &mut Cpu) {
        this.bind(&mut area.host);
        let physical = area.host.control_physical;
        // SAFETY: the VMCS is active here or nowhere.
        unsafe {
            if area.vmx.fresh != 0 {
                vmcs::clear(physical);
            }
            if this.current_vmcs != physical && vmcs::load(physical) {
                this.current_vmcs = physical;
            }
        }
        if area.vmx.fresh != 0 {
            area.vmx.fresh = 0;
            set_up(area);
        }
    }

    /// Writes what stays the same for all of a VMCS's life, host state of this processor included.
    fn set_up(area: &mut VcpuArea) {
        let controls = controls();
        let own = area.host.control_physical - offset_of!(VcpuArea, vmcb) as u64;
        let msrs = own + (offset_of!(VcpuArea, vmx) + offset_of!(super::Own, msrs)) as u64;
        let (gdt, idt) = (sgdt(), sidt());
        area.vmx.primary = controls.primary.into();
        area.vmx.timer = u32::MAX;
        area.vmx.timer_shift = controls.timer_shift;
        area.vmx.gdt[..5].copy_from_slice(&core::array::from_fn::<u16, 5, _>(|i| match i {
            0 => gdt.limit,
            _ => (gdt.base.as_u64() >> (16 * (i - 1))) as u16,
        }));
        let apic = own + (size_of::<VcpuArea>() + size_of::<VcpuState>()) as u64;
        let io_map = image_physical(IO_MAP.0.get());
        let cr4 = Cr4::read_raw();
        // SAFETY: the MSRs exist on each processor with long mode.
        let (efer, gs) = unsafe { (rdmsr(0xc000_0080), rdmsr(0xc000_0101)) };
        for (field, value) in [
            (field::PIN, controls.pin.into()),
            (field::PRIMARY, area.vmx.primary),
            (field::EXIT, controls.exit.into()),
            (field::ENTRY, controls.entry.into()),
            (field::EXCEPTIONS, super::ALWAYS_INTERCEPTED.into()),
            (field::IO_BITMAP_A, io_map),
            (field::IO_BITMAP_B, io_map + 4096),
            (field::EXIT_MSR_STORE, msrs),
            (field::EXIT_MSR_STORE_COUNT, SWITCHED_MSRS.len() as u64),
            (field::ENTRY_MSR_LOAD, msrs),
            (field::ENTRY_MSR_LOAD_COUNT, SWITCHED_MSRS.len() as u64),
            (field::EXIT_MSR_LOAD, HOST_VALUES.get().map_or(0, |values| image_physical(values.as_ptr()))),
            (field::EXIT_MSR_LOAD_COUNT, HOST_MSRS as u64),
            (field::VIRTUAL_APIC, apic),
            (field::POSTED_VECTOR, vector::POSTED.into()),
            (field::POSTED_DESCRIPTOR, apic + offset_of!(ApicPage, posted) as u64),
            (field::INTERRUPT_STATUS, 0),
            (field::LINK_POINTER, u64::MAX),
            (field::TIMER, area.vmx.timer.into()),
            (field::PAUSE_GAP, 128),
            (field::PAUSE_WINDOW, 4096),
            (field::CR0_MASK, convert::CR0_MASK),
            (field::CR4_MASK, !convert::cr4_guest_bits(controls.cr4_allowed)),
            (field::HOST_CS, cpu::KERNEL_CS.into()),
            (field::HOST_SS, cpu::KERNEL_SS.into()),
            (field::HOST_TR, cpu::TSS.into()),
            (field::HOST_PAT, cpu::PAT),
            (field::HOST_EFER, efer),
            (field::HOST_CR4, cr4),
            (field::HOST_GS_BASE, gs),
            (field::HOST_TR_BASE, crate::arch::percpu::this().arch.tss()),
            (field::HOST_GDTR_BASE, gdt.base.as_u64()),
            (field::HOST_IDTR_BASE, idt.base.as_u64()),
        ] {
            write(field, value);
        }
        set_apic_mode(false);
    }

    /// Whether the guest's accesses to the MSRs of an x2APIC are the processor's, where that keeps registers of the APIC.
    pub fn set_apic_mode(x2apic: bool) {
        write(field::SECONDARY, u64::from(controls().secondary | if x2apic { X2APIC_MODE } else { 0 }));
        write(field::MSR_BITMAP, image_physical(MSR_MAPS[usize::from(x2apic)].0.get()));
    }

    /// Writes a VMCS back to memory. Its vCPU, wherever it runs next, and the one whose VMCS was current here, find out by their tokens.
    pub fn give_up(state: &CpuState, vmcs: u64) {
        // SAFETY: this processor's own, with interrupts off.
        let this = unsafe { &mut *state.get() };
        // SAFETY: the VMCS belongs to a live vCPU.
        unsafe { vmcs::clear(vmcs) };
        if this.current_vmcs == vmcs {
            this.current_vmcs = NO_VMCS;
        }
        this.token += 1;
        // The area begins with its VMCS: what it remembers of this processor is void.
        let area = crate::arch::memory::phys_to_virt(vmcs - offset_of!(VcpuArea, vmcb) as u64).cast::<VcpuArea>();
        // SAFETY: the vCPU is not running, and whoever asked owns the kernel and waits.
        unsafe { (*area).host.token = 0 };
    }

    /// As `virt::store_full`.
    ///
    /// # Safety
    /// As there.
    pub unsafe fn store_full(area: *mut VcpuArea, state: &CpuState) {
        // SAFETY: the caller's promise; this processor's own.
        unsafe {
            let this = &mut *state.get();
            let physical = (*area).host.control_physical;
            let elsewhere = this.current_vmcs != physical;
            if elsewhere && vmcs::load(physical) {
                this.current_vmcs = physical;
            }
            state::store_full(&*area, page(area));
            if elsewhere {
                give_up(state, physical);
            }
        }
    }

    /// The port access behind the last exit.
    #[inline]
    pub fn io_exit() -> IoExit {
        convert::io_exit(read(field::QUALIFICATION), read(field::GUEST_RIP).wrapping_add(read(field::EXIT_LENGTH)))
    }

    /// The access to memory behind the last exit.
    pub fn memory_exit() -> (u64, u64) {
        (read(field::GUEST_PHYSICAL), convert::memory_access(read(field::QUALIFICATION)))
    }
}
