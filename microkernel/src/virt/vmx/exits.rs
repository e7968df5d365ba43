//! What an exit means, off the short way; and entries that are refused.

use super::run::{BY_NMI, io, plain, set_primary, set_window, wrmsr};
use super::state as registers;
use super::vmcs::{field, read, reason, write};
use super::{ALWAYS_INTERCEPTED, convert};
use crate::virt::convert::{CR0_PG, interrupted_event, reflected_exception};
use crate::virt::host::{pending, read_debug_registers};
use crate::virt::reset::DR7_ARMED;
use crate::virt::{Exit, VcpuArea, get, page, put};
use core::arch::asm;
use tessera_abi::vcpu::{EVENT_ERROR, EVENT_EXCEPTION, EVENT_NMI, EVENT_VALID, ExitReason, WINDOW_EXIT};
use tessera_boot::vmx::{INTERRUPT_WINDOW, MOV_DR, NMI_WINDOW};

/// Bits of DR6 and of a debug exit's qualification that say what happened: B0 to B3, BD, BS, and RTM, which reads as 1.
const DEBUG_CAUSES: u64 = 0xe00f;
/// DR7.GD.
const DR7_GENERAL_DETECT: u64 = 1 << 13;
/// An exit's event, or the qualification of an EPT violation: IRET had unblocked NMIs.
const UNBLOCKED_BY_IRET: u64 = 1 << 12;
/// Raw reason of an entry that VMLAUNCH or VMRESUME refused: this, plus the instruction error.
const INSTRUCTION_FAILED: u64 = 1 << 32;

/// The long way out: any exit. RIP, RSP, RFLAGS and CR8 stand in the page.
///
/// # Safety
/// As [`super::run::run`].
#[inline(never)]
pub unsafe fn exit_attentively(area: *mut VcpuArea, exit_reason: u32) -> Exit {
    // SAFETY: the caller's promise.
    unsafe {
        if (*area).host.pending & pending::FAILED != 0 {
            return instruction_failed(&mut *area);
        }
        if exit_reason & reason::ENTRY_FAILED != 0 {
            return entry_failed(&mut *area, exit_reason.into(), read(field::QUALIFICATION));
        }
        finish(&mut *area, exit_reason);
        match exit_reason {
            reason::IO => io(area),
            reason::WRMSR => wrmsr(area),
            reason::EXTERNAL_INTERRUPT => host_interrupt(),
            _ => match rare_exit(&mut *area, exit_reason) {
                Exit::Guest(reason) => plain(area, reason),
                other => other,
            },
        }
    }
}

/// An interrupt of the host's. Where the exit has acknowledged it, it is handled here, and the vCPU may be gone; else it is pending still.
#[inline(never)]
pub fn host_interrupt() -> Exit {
    let event = read(field::EXIT_EVENT) as u32;
    if event & EVENT_VALID != 0 {
        crate::interrupt::in_kernel(event as u8);
    }
    Exit::HostInterrupt
}

/// Takes what the exit left of debug registers, shadows and an event whose delivery it interrupted.
///
/// # Safety
/// As [`super::run::run`].
unsafe fn finish(area: &mut VcpuArea, exit_reason: u32) {
    let state = page(area);
    if area.host.pending & pending::DEBUG_LOADED != 0 {
        read_debug_registers(&mut area.host.debug);
        // SAFETY: reading has no effect.
        unsafe { asm!("mov {}, dr6", out(reg) area.vmx.dr6, options(nomem, nostack, preserves_flags)) };
        if read(field::GUEST_DR7) & DR7_ARMED == 0 {
            set_primary(&mut area.vmx, MOV_DR, true);
            area.host.pending &= !pending::DEBUG_LOADED;
        }
    }
    let blocked = read(field::INTERRUPTIBILITY);
    // Whatever the page says of it at the next entry is taken, and nothing is taken while it says nothing.
    write(field::INTERRUPTIBILITY, 0);
    let mut nmi_blocked = blocked & BY_NMI != 0;
    let (mut event, mut error) = (0, 0);
    let vectoring = read(field::VECTORING);
    if vectoring as u32 & EVENT_VALID != 0 {
        let info = vectoring & 0xffff_ffff | read(field::VECTORING_ERROR) << 32;
        if let Some((again, code)) = interrupted_event(info, exit_reason == reason::TASK_SWITCH) {
            (event, error) = (again, code);
            // It did not arrive, so it blocks nothing yet.
            nmi_blocked &= again & 7 << 8 != EVENT_NMI;
        }
    } else {
        let unblocked = match exit_reason {
            reason::EPT_VIOLATION => read(field::QUALIFICATION),
            reason::EXCEPTION_OR_NMI => read(field::EXIT_EVENT),
            _ => 0,
        };
        nmi_blocked |= unblocked & UNBLOCKED_BY_IRET != 0;
    }
    area.host.nmi_blocked = u32::from(nmi_blocked) * 2;
    put!(state, u32::from(blocked & 3 != 0) | area.host.nmi_blocked, interrupt_shadow);
    put!(state, error, vectoring_error);
    put!(state, event, vectoring);
}

/// Exits off the short way.
///
/// # Safety
/// As [`super::run::run`].
unsafe fn rare_exit(area: &mut VcpuArea, exit_reason: u32) -> Exit {
    let state = page(area);
    let qualification = read(field::QUALIFICATION);
    let answer = match exit_reason {
        reason::CPUID => ExitReason::Cpuid,
        reason::RDMSR => ExitReason::ReadMsr,
        reason::HLT => ExitReason::Halt,
        reason::VMCALL => ExitReason::Hypercall,
        // Pending still, and taken when the caller opens its window; or the deadline, which the caller looks at; or what is held, at which the next entry does.
        reason::INIT..=reason::OTHER_SMI | reason::TIMER | reason::BELOW_THRESHOLD => return Exit::HostInterrupt,
        reason::INTERRUPT_WINDOW => {
            set_window(area, false, INTERRUPT_WINDOW, pending::WINDOW);
            if area.host.pending & pending::HELD != 0 && get!(state, request_window) & WINDOW_EXIT == 0 {
                return Exit::HostInterrupt;
            }
            ExitReason::InterruptWindow
        }
        reason::NMI_WINDOW => {
            set_window(area, false, NMI_WINDOW, pending::NMI_WINDOW);
            ExitReason::NmiWindow
        }
        reason::EPT_VIOLATION => {
            let linear = if qualification & 1 << 7 != 0 { read(field::GUEST_LINEAR) } else { 0 };
            put!(state, [read(field::GUEST_PHYSICAL), convert::memory_access(qualification), linear, 0], info);
            ExitReason::Memory
        }
        reason::MOV_DR => {
            area.host.pending |= pending::DEBUG_LOADED;
            return Exit::HostInterrupt;
        }
        // SAFETY: the caller's promise.
        reason::CONTROL_REGISTER => return unsafe { control_register(area, qualification) },
        // SAFETY: the caller's promise.
        reason::EXCEPTION_OR_NMI => match unsafe { exception(area, qualification) } {
            Some(reason) => reason,
            None => return Exit::HostInterrupt,
        },
        reason::TASK_SWITCH => {
            let vectoring = read(field::VECTORING) as u32;
            let has_error = vectoring & EVENT_VALID != 0 && vectoring & EVENT_ERROR != 0;
            let error = if has_error { read(field::VECTORING_ERROR) | 1 << 32 } else { 0 };
            put!(state, [qualification & 0xffff | (qualification >> 30 & 3) << 32, error, 0, 0], info);
            ExitReason::TaskSwitch
        }
        reason::VIRTUAL_EOI => {
            put!(state, qualification & 0xff, info[0]);
            ExitReason::EndOfInterrupt
        }
        reason::TRIPLE_FAULT => ExitReason::Shutdown,
        reason::XSETBV => ExitReason::XSetBv,
        reason::INVD | reason::WBINVD => ExitReason::CacheFlush,
        reason::MONITOR | reason::MWAIT => {
            put!(state, u64::from(exit_reason == reason::MWAIT), info[0]);
            ExitReason::Mwait
        }
        reason::RDPMC => ExitReason::ReadPmc,
        reason::PAUSE => return crate::virt::spins(state),
        reason::VMCLEAR..=reason::VMXON | reason::GETSEC | reason::INVEPT | reason::INVVPID => ExitReason::Virtualisation,
        other => {
            put!(state, [other.into(), qualification, read(field::GUEST_PHYSICAL), 0], info);
            ExitReason::Unknown
        }
    };
    if answer.is_full() {
        // SAFETY: the caller's promise.
        unsafe { registers::store_full(area, state) };
    }
    Exit::Guest(answer)
}

/// An exception that the VMM asked for, one that goes to the guest after the host had its chance to interrupt (`None`), or something of the host's.
///
/// # Safety
/// As [`super::run::run`].
unsafe fn exception(area: &mut VcpuArea, qualification: u64) -> Option<ExitReason> {
    const MACHINE_CHECK: u32 = 18;
    const DEBUG: u32 = 1;
    const BY_INT1: u32 = 5 << 8;
    let state = page(area);
    let event = read(field::EXIT_EVENT) as u32;
    let (kind, vector) = (event & 7 << 8, event & 0xff);
    if kind == EVENT_NMI {
        // SAFETY: the kernel's own handler takes it from here, as if it had happened outside the guest; its IRET ends the blocking.
        unsafe { asm!("int 2") };
        return None;
    }
    if vector == MACHINE_CHECK {
        // SAFETY: as above.
        unsafe { asm!("int 18") };
        return None;
    }
    if kind == BY_INT1 {
        // A trap: it is behind the instruction, which the exit stands at.
        put!(state, get!(state, rip).wrapping_add(read(field::EXIT_LENGTH)), rip);
    } else if vector == DEBUG {
        area.vmx.dr6 = area.vmx.dr6 & !0xf | qualification & DEBUG_CAUSES;
    }
    let error = if event & EVENT_ERROR != 0 { read(field::EXIT_ERROR) } else { 0 };
    if ALWAYS_INTERCEPTED & !area.host.exceptions & 1 << vector != 0 {
        if vector == DEBUG {
            write(field::GUEST_DR7, read(field::GUEST_DR7) & !DR7_GENERAL_DETECT);
        }
        put!(state, error as u32, inject_error);
        put!(state, reflected_exception(vector), inject);
        return None;
    }
    put!(state, [vector.into(), error, qualification, 0], info);
    Some(ExitReason::Exception)
}

/// MOV to CR0 or CR4 that touches bits the host owns. A bit of CR0 that the guest may have is given to what it sees, and the instruction runs again: then it changes
/// nothing of the host's, and the processor does the rest of it. Anything else faults, as it would without VMX.
///
/// # Safety
/// As [`super::run::run`].
unsafe fn control_register(area: &mut VcpuArea, qualification: u64) -> Exit {
    const GENERAL_PROTECTION: u32 = 13;
    let state = page(area);
    let value = get!(state, gpr[(qualification >> 8 & 0xf) as usize]);
    // CR0, written by MOV; in 32-bit code the register's upper half does not count.
    let long_mode = read(field::GUEST_EFER) & 1 << 10 != 0 && read(field::GUEST_ATTRIBUTES + 2) & 1 << 13 != 0;
    let value = if long_mode { value } else { value & 0xffff_ffff };
    if qualification & 0x3f == 0 && !convert::cr0_write_faults(value) {
        let shadow = read(field::CR0_SHADOW);
        write(field::CR0_SHADOW, shadow & !convert::CR0_MASK | value & convert::CR0_MASK);
        return Exit::HostInterrupt;
    }
    put!(state, 0, inject_error);
    let real_mode = read(field::GUEST_CR0) & (CR0_PG | 1) == 0;
    let error_code = if real_mode { 0 } else { EVENT_ERROR };
    put!(state, EVENT_VALID | EVENT_EXCEPTION | error_code | GENERAL_PROTECTION, inject);
    Exit::HostInterrupt
}

/// The kernel or the processor refuses the guest state, or the event. Nothing of the guest ran; the VMCS holds what it was given, and the page shows it.
///
/// # Safety
/// As [`super::run::run`].
#[cold]
pub unsafe fn entry_failed(area: &mut VcpuArea, raw: u64, detail: u64) -> Exit {
    const MACHINE_CHECK_AT_ENTRY: u64 = 41;
    let state = page(area);
    write(field::ENTRY_EVENT, 0);
    if raw & 0xffff == MACHINE_CHECK_AT_ENTRY && raw != u64::MAX {
        // SAFETY: as in `exception`.
        unsafe { asm!("int 18") };
    }
    put!(state, [raw, detail, 0, 0], info);
    // SAFETY: the caller's promise.
    unsafe { registers::store_full(area, state) };
    put!(state, ExitReason::EntryFailed as u32, reason);
    put!(state, 0, instruction_length);
    Exit::Guest(ExitReason::EntryFailed)
}

/// VMLAUNCH or VMRESUME refused: a control or a part of the host state, or no VMCS is current.
///
/// # Safety
/// As [`super::run::run`].
#[cold]
unsafe fn instruction_failed(area: &mut VcpuArea) -> Exit {
    area.host.pending &= !pending::FAILED;
    // SAFETY: the caller's promise.
    unsafe { entry_failed(area, INSTRUCTION_FAILED | read(field::INSTRUCTION_ERROR), 0) }
}
