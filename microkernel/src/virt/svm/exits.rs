//! What an exit means, off the short way; and entries that are refused.

use super::convert;
use super::run::{TRAP_FLAG, set_nmi_blocked, set_priority_exit, set_window};
use super::vmcb::{Vmcb, clean, code, intercept};
use super::{ALWAYS_INTERCEPTED, state as registers};
use crate::virt::convert::{Invalid, interrupted_event, reflected_exception};
use crate::virt::host::{Host, pending, read_debug_registers};
use crate::virt::{Exit, get, put, put_pair};
use core::arch::asm;
use tessera_abi::vcpu::{Dirty, EVENT_NMI, EVENT_VALID, ExitReason, VcpuState, WINDOW_EXIT};

/// DR6.BS: the debug exception comes from a single step.
const DR6_STEP: u64 = 1 << 14;

/// The long way out of the guest; an answer ends it here.
///
/// # Safety
/// As [`super::run::run`].
#[cold]
#[inline(never)]
pub unsafe fn finish(vmcb: &mut Vmcb, host: &mut Host, state: *mut VcpuState) -> Option<Exit> {
    if host.pending & pending::DEBUG_LOADED != 0 {
        read_debug_registers(&mut host.debug);
        if vmcb.save.dr7 & crate::virt::reset::DR7_ARMED == 0 {
            vmcb.control.intercept_dr = u32::MAX;
            vmcb.control.clean &= !clean::INTERCEPTS;
            host.pending &= !pending::DEBUG_LOADED;
        }
    }
    let info = vmcb.control.exit_event;
    if info as u32 & EVENT_VALID != 0 {
        if let Some((event, error)) = interrupted_event(info, vmcb.control.exit_code as u32 == code::TASK_SWITCH) {
            if event & 7 << 8 == EVENT_NMI {
                // It did not arrive, so it blocks nothing yet.
                set_nmi_blocked(vmcb, host, false);
                put!(state, get!(state, interrupt_shadow) & 1, interrupt_shadow);
            }
            put!(state, error, vectoring_error);
            put!(state, event, vectoring);
        } else if host.pending & pending::SOFTWARE != 0 {
            vmcb.save.rip = vmcb.save.rip.wrapping_sub(u64::from(host.software_length));
            put!(state, vmcb.save.rip, rip);
        }
    }
    host.pending &= !pending::SOFTWARE;
    if host.pending & pending::STEP != 0 {
        // The trap flag is the kernel's. If the IRET was carried out, the flags are those it popped.
        put!(state, vmcb.save.rflags & !TRAP_FLAG, rflags);
        if vmcb.control.exit_code as u32 == code::DEBUG {
            vmcb.save.dr6 &= !DR6_STEP;
            vmcb.control.clean &= !clean::DEBUG;
            put!(state, vmcb.save.rflags, rflags);
            host.pending &= !pending::STEP;
            if host.nmi_blocked == 0 || vmcb.control.intercept_1 & intercept::IRET != 0 {
                // It was not IRET, but a write to CR8.
                put!(state, vmcb.save.rflags & !TRAP_FLAG, rflags);
                return Some(Exit::HostInterrupt);
            }
            set_nmi_blocked(vmcb, host, false);
            put!(state, get!(state, interrupt_shadow) & 1, interrupt_shadow);
            if host.nmi_window {
                put_pair!(state, ExitReason::NmiWindow as u64, reason, instruction_length);
                return Some(Exit::Guest(ExitReason::NmiWindow));
            }
            return Some(Exit::HostInterrupt);
        }
    }
    None
}

/// Exits off the short way.
///
/// # Safety
/// As [`super::run::run`].
#[cold]
#[inline(never)]
pub unsafe fn rare_exit(vmcb: &mut Vmcb, host: &mut Host, state: *mut VcpuState, exit_code: u32) -> Exit {
    let (info_1, info_2) = (vmcb.control.exit_info_1, vmcb.control.exit_info_2);
    let reason = match exit_code {
        // All of these are pending still, and taken when the caller opens its window.
        code::INTR | code::NMI | code::SMI | code::INIT => return Exit::HostInterrupt,
        code::VINTR => {
            set_window(vmcb, false);
            host.pending &= !pending::WINDOW;
            if host.pending & pending::HELD != 0 && get!(state, request_window) & WINDOW_EXIT == 0 {
                return Exit::HostInterrupt;
            }
            ExitReason::InterruptWindow
        }
        code::NESTED_FAULT => {
            let count = vmcb.control.instruction_count.min(15);
            put!(state, [info_2, convert::memory_access(info_1), 0, count.into()], info);
            if count != 0 {
                let mut bytes = [0; 16];
                bytes[..15].copy_from_slice(&vmcb.control.instruction);
                put!(state, bytes, instruction);
            }
            ExitReason::Memory
        }
        code::READ_DR0..=code::WRITE_DR15 => {
            host.pending |= pending::DEBUG_LOADED;
            return Exit::HostInterrupt;
        }
        code::IRET => {
            // NMIs are blocked until the IRET is done, so it is stepped over.
            vmcb.control.intercept_1 &= !intercept::IRET;
            vmcb.control.clean &= !clean::INTERCEPTS;
            host.pending |= pending::STEP;
            return Exit::HostInterrupt;
        }
        code::WRITE_CR8 => {
            // What is held may be let through when the instruction is done, so it is stepped over.
            set_priority_exit(vmcb, false);
            host.pending |= pending::STEP;
            return Exit::HostInterrupt;
        }
        code::MACHINE_CHECK => {
            // SAFETY: the kernel's own handler takes it from here, as if it had happened outside the guest.
            unsafe { asm!("int 18") };
            return Exit::HostInterrupt;
        }
        code::EXCEPTION_0..=code::EXCEPTION_31 => {
            let vector = exit_code - code::EXCEPTION_0;
            if ALWAYS_INTERCEPTED & !host.exceptions & 1 << vector != 0 {
                // Not the VMM's wish: the guest gets it with the next entry, after the host had its chance to interrupt.
                let event = reflected_exception(vector);
                put!(state, info_1 as u32, inject_error);
                put!(state, event, inject);
                return Exit::HostInterrupt;
            }
            put!(state, [vector.into(), info_1, info_2, 0], info);
            ExitReason::Exception
        }
        code::TASK_SWITCH => {
            let during_delivery = vmcb.control.exit_event as u32 & EVENT_VALID != 0;
            let (source, error) = convert::task_switch(info_1, info_2, during_delivery);
            put!(state, [source, error, 0, 0], info);
            ExitReason::TaskSwitch
        }
        code::SHUTDOWN => ExitReason::Shutdown,
        code::VMMCALL => ExitReason::Hypercall,
        code::XSETBV => ExitReason::XSetBv,
        code::INVD | code::WBINVD => ExitReason::CacheFlush,
        code::MONITOR | code::MWAIT | code::MWAIT_ARMED => {
            put!(state, u64::from(exit_code != code::MONITOR), info[0]);
            ExitReason::Mwait
        }
        code::RDPMC => ExitReason::ReadPmc,
        code::PAUSE => return crate::virt::spins(state),
        code::INVLPGA | code::VMRUN | code::VMLOAD..=code::SKINIT | code::RDPRU => ExitReason::Virtualisation,
        other => {
            put!(state, [other.into(), info_1, info_2, 0], info);
            ExitReason::Unknown
        }
    };
    if reason.is_full() {
        // SAFETY: the caller's promise.
        unsafe { registers::store_full(vmcb, host, state) };
    }
    Exit::Guest(reason)
}

/// This module refuses the guest state, or the event. Nothing of the guest ran, and the VMCB holds what it held.
///
/// # Safety
/// As [`super::run::run`].
#[cold]
pub unsafe fn entry_failed(vmcb: &mut Vmcb, host: &mut Host, state: *mut VcpuState, invalid: Invalid) -> Exit {
    vmcb.control.inject = 0;
    host.pending &= !pending::SOFTWARE;
    put!(state, [u64::MAX, invalid as u64, 0, 0], info);
    // SAFETY: the caller's promise.
    unsafe { registers::store_full(vmcb, host, state) };
    put!(state, ExitReason::EntryFailed as u32, reason);
    Exit::Guest(ExitReason::EntryFailed)
}

/// The processor refuses the guest state. Some then write the host's registers into the VMCB, so it is wiped and nothing of it reaches the page; the page
/// keeps what its owner wrote, with all groups dirty.
///
/// # Safety
/// As [`super::run::run`].
#[cold]
#[inline(never)]
pub unsafe fn entry_refused(vmcb: &mut Vmcb, host: &mut Host, state: *mut VcpuState) -> Exit {
    // The debug registers may hold the guest's; nobody else's are lost.
    super::wipe(vmcb, host);
    put!(state, Dirty::all().bits(), dirty);
    put!(state, [u64::MAX, Invalid::Unknown as u64, 0, 0], info);
    put!(state, ExitReason::EntryFailed as u32, reason);
    Exit::Guest(ExitReason::EntryFailed)
}
