//! One entry into the guest and the exit that follows.
//!
//! The way of a cheap exit (`cpuid`, a plain port access, an MSR, `hlt`) and of the entry after it is kept short: what could need more work is collected
//! into one word, and a single branch leads to [`prepare`] or [`finish`].

use super::convert::{self, Interrupted, Invalid};
use super::vmcb::{Vmcb, clean, code, intercept, tlb, virtual_interrupt};
use super::{ALWAYS_INTERCEPTED, Cpu, CpuState, Host, machine, pending, state as registers};
use crate::virt::{AREA_SIZE, Exit, Nested, VcpuArea, fpu, get, get_pair, put, put_pair};
use core::arch::asm;
use core::mem::offset_of;
use tessera_abi::vcpu::{Dirty, EVENT_NMI, EVENT_SOFTWARE, EVENT_VALID, ExitReason, VcpuState, gpr};

/// RFLAGS.TF.
const TRAP_FLAG: u64 = 1 << 8;
/// DR6.BS: the debug exception comes from a single step.
const DR6_STEP: u64 = 1 << 14;

/// CPUID leaf of the extended state.
const XSAVE_LEAF: u32 = 0xd;

/// Byte offset of a general register in the shared page, from the area.
const fn offset(register: usize) -> usize {
    AREA_SIZE + offset_of!(VcpuState, gpr) + register * 8
}

/// The shared page: it follows the area.
#[inline(always)]
const fn page(area: *mut VcpuArea) -> *mut VcpuState {
    area.wrapping_add(1).cast()
}

/// See [`crate::virt::run`].
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn run(area: *mut VcpuArea, cpu: &CpuState, nested: Nested) -> Exit {
    let state = page(area);
    // SAFETY: this processor's own, and the caller's area; interrupts are off, and the references end before anything changes behind them.
    let (this, host) = unsafe { (&*cpu.0.get(), &(*area).host) };
    let host_save = this.host_save;
    let attention = get_pair!(state, dirty, inject)
        | get_pair!(state, request_window, request_nmi_window)
        | get_pair!(state, interrupt_shadow, vectoring)
        | host.pending
        | (host.token ^ this.token)
        | (host.generation ^ nested.generation);
    if attention != 0 {
        // SAFETY: the caller's promise.
        return unsafe { run_attentively(area, cpu, nested) };
    }
    // From here on everything is reached through the pointer that comes out of the switch: nothing else lives in a register across it.
    // SAFETY: the VMCB is complete and its nested page tables reach only the guest's memory, by the caller's promise.
    unsafe {
        take_registers(area);
        let area = world_switch(area, host_save);
        let control = &(*area).vmcb.control;
        if control.exit_event as u32 & EVENT_VALID == 0 && control.interrupt_state & 1 == 0 {
            // The same first step in each arm: one jump leads there.
            match control.exit_code as u32 {
                code::IO => {
                    store_registers(area);
                    return io(area);
                }
                code::CPUID => {
                    store_registers(area);
                    return cpuid(area);
                }
                code::MSR => {
                    store_registers(area);
                    return msr(area);
                }
                code::HLT => {
                    store_registers(area);
                    return plain(area, ExitReason::Halt);
                }
                code::VMMCALL => {
                    store_registers(area);
                    return plain(area, ExitReason::Hypercall);
                }
                code::INTR => {
                    store_registers(area);
                    return Exit::HostInterrupt;
                }
                _ => {}
            }
        }
        exit_rarely(area)
    }
}

/// Takes the registers that both the page and the VMCB hold, for the entry.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn take_registers(area: *mut VcpuArea) {
    let state = page(area);
    // SAFETY: the caller's promise.
    let save = unsafe { &mut (*area).vmcb.save };
    save.rip = get!(state, rip);
    save.rflags = get!(state, rflags);
    save.rsp = get!(state, gpr[gpr::RSP]);
    save.rax = get!(state, gpr[gpr::RAX]);
}

/// Stores what every exit stores.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn store_registers(area: *mut VcpuArea) {
    let state = page(area);
    // SAFETY: the caller's promise.
    let vmcb = unsafe { &(*area).vmcb };
    put!(state, vmcb.save.rip, rip);
    put!(state, vmcb.save.rflags, rflags);
    put!(state, vmcb.save.rsp, gpr[gpr::RSP]);
    put!(state, vmcb.save.rax, gpr[gpr::RAX]);
    put!(state, registers::cr8(&vmcb.control), cr8);
    put_pair!(state, 0, interrupt_shadow, vectoring);
}

/// An exit that needs no more than its reason, and the instruction's length if the processor tells where the next one is.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn plain(area: *mut VcpuArea, reason: ExitReason) -> Exit {
    let state = page(area);
    // SAFETY: the caller's promise.
    let (vmcb, host) = unsafe { (&(*area).vmcb, &(*area).host) };
    put_pair!(state, reason as u64, reason, instruction_length);
    if host.reports_next_rip && vmcb.control.next_rip != 0 {
        put!(state, vmcb.control.next_rip.wrapping_sub(vmcb.save.rip) as u32 & 0xf, instruction_length);
    }
    Exit::Guest(reason)
}

/// Port access.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn io(area: *mut VcpuArea) -> Exit {
    let state = page(area);
    // SAFETY: the caller's promise.
    let (vmcb, host) = unsafe { (&(*area).vmcb, &(*area).host) };
    let io = convert::io_exit(vmcb.control.exit_info_1, vmcb.control.exit_info_2);
    put!(state, io.access, info[0]);
    put!(state, io.next_rip, info[1]);
    let length = io.next_rip.wrapping_sub(vmcb.save.rip) & 0xf;
    put_pair!(state, ExitReason::Io as u64 | length << 32, reason, instruction_length);
    if !io.is_plain() {
        // SAFETY: the caller's promise.
        unsafe { registers::store_full(vmcb, host, state) };
    }
    Exit::Guest(ExitReason::Io)
}

/// `cpuid`.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn cpuid(area: *mut VcpuArea) -> Exit {
    // SAFETY: the caller's promise.
    unsafe {
        if (*area).vmcb.save.rax as u32 == XSAVE_LEAF {
            note_xcr0(area);
        }
        plain(area, ExitReason::Cpuid)
    }
}

/// The answer to `cpuid` depends on XCR0, and some emulators let XSETBV pass unseen.
///
/// # Safety
/// As [`run`].
#[cold]
#[inline(never)]
unsafe fn note_xcr0(area: *mut VcpuArea) {
    let xcr0 = fpu::read_xcr0();
    // SAFETY: the caller's promise.
    unsafe { (*area).host.xcr0 = xcr0 };
    put!(page(area), xcr0, xcr0);
}

/// `rdmsr`, `wrmsr`.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn msr(area: *mut VcpuArea) -> Exit {
    // SAFETY: the caller's promise.
    unsafe {
        let reason = if (*area).vmcb.control.exit_info_1 & 1 == 0 { ExitReason::ReadMsr } else { ExitReason::WriteMsr };
        plain(area, reason)
    }
}

/// The long way through an entry and the exit after it: the page asks for something, or something is pending.
///
/// # Safety
/// As [`run`].
#[inline(never)]
unsafe fn run_attentively(area: *mut VcpuArea, cpu: &CpuState, nested: Nested) -> Exit {
    // SAFETY: as in `run`.
    unsafe {
        take_registers(area);
        let this = &mut *cpu.0.get();
        if let Err(exit) = prepare(&mut (*area).vmcb, &mut (*area).host, this, page(area), nested) {
            return exit;
        }
        let area = world_switch(area, this.host_save);
        (*area).vmcb.control.clean = clean::ALL;
        exit_attentively(area)
    }
}

/// The long way out after the short way in.
///
/// # Safety
/// As [`run`].
#[inline(never)]
unsafe fn exit_rarely(area: *mut VcpuArea) -> Exit {
    // SAFETY: the caller's promise.
    unsafe { exit_attentively(area) }
}

/// The long way out: any exit.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn exit_attentively(area: *mut VcpuArea) -> Exit {
    let state = page(area);
    // SAFETY: the caller's promise; the references end where the next function takes the area.
    unsafe {
        let (vmcb, host) = (&mut (*area).vmcb, &mut (*area).host);
        let exit_code = vmcb.control.exit_code as u32;
        if exit_code == code::INVALID {
            return entry_refused(vmcb, host, state);
        }
        store_registers(area);
        let (vmcb, host) = (&mut (*area).vmcb, &mut (*area).host);
        // Whatever the page says of it at the next entry is taken, and nothing is taken while it says nothing.
        let shadow = vmcb.control.interrupt_state as u32 & 1;
        vmcb.control.interrupt_state = 0;
        (&raw mut (*state).interrupt_shadow).write_volatile(shadow | host.nmi_blocked);
        if vmcb.control.exit_event as u32 & EVENT_VALID != 0 || host.pending != 0 {
            if let Some(exit) = finish(vmcb, host, state) {
                return exit;
            }
        }
        match exit_code {
            code::IO => io(area),
            code::CPUID => cpuid(area),
            code::MSR => msr(area),
            code::HLT => plain(area, ExitReason::Halt),
            _ => match rare_exit(vmcb, host, state, exit_code) {
                Exit::Guest(reason) => plain(area, reason),
                Exit::HostInterrupt => Exit::HostInterrupt,
            },
        }
    }
}

/// Swaps host and guest. All of the guest's general registers but RAX and RSP stand in the page; those two, and everything else, in the VMCB.
///
/// # Safety
/// The area holds a valid VMCB, and `host_save` is the physical address of this processor's save page.
#[inline(always)]
unsafe fn world_switch(area: *mut VcpuArea, host_save: u64) -> *mut VcpuArea {
    let after;
    // SAFETY: with GIF clear nothing interrupts the switch. VMSAVE and VMLOAD put FS, GS, TR, LDTR and the system-call MSRs aside and back, VMRUN and #VMEXIT the rest
    // but the general registers, which are stored below. IF is set while the guest runs, so that physical interrupts end the run (V_INTR_MASKING), and clear again
    // before GIF is set, so that they wait for the caller's window. No Rust code runs before the host's GS base is back.
    unsafe {
        asm!(
            "push rbx",
            "push rbp",
            "push rdi",
            "push rax",
            "clgi",
            "sti",
            "vmsave rax",
            "mov rax, [rdi + {vmcb_physical}]",
            "vmload rax",
            "mov rcx, [rdi + {rcx}]",
            "mov rdx, [rdi + {rdx}]",
            "mov rbx, [rdi + {rbx}]",
            "mov rbp, [rdi + {rbp}]",
            "mov rsi, [rdi + {rsi}]",
            "mov r8, [rdi + {r8}]",
            "mov r9, [rdi + {r9}]",
            "mov r10, [rdi + {r10}]",
            "mov r11, [rdi + {r11}]",
            "mov r12, [rdi + {r12}]",
            "mov r13, [rdi + {r13}]",
            "mov r14, [rdi + {r14}]",
            "mov r15, [rdi + {r15}]",
            "mov rdi, [rdi + {rdi}]",
            // RAX is the VMCB's address here and, restored by the exit, below.
            "vmrun rax",
            "vmsave rax",
            "xchg rdi, [rsp + 8]",
            "mov [rdi + {rcx}], rcx",
            "mov [rdi + {rdx}], rdx",
            "mov [rdi + {rbx}], rbx",
            "mov [rdi + {rbp}], rbp",
            "mov [rdi + {rsi}], rsi",
            "mov [rdi + {r8}], r8",
            "mov [rdi + {r9}], r9",
            "mov [rdi + {r10}], r10",
            "mov [rdi + {r11}], r11",
            "mov [rdi + {r12}], r12",
            "mov [rdi + {r13}], r13",
            "mov [rdi + {r14}], r14",
            "mov [rdi + {r15}], r15",
            "pop rax",
            "pop qword ptr [rdi + {rdi}]",
            "vmload rax",
            "cli",
            "stgi",
            "pop rbp",
            "pop rbx",
            rcx = const offset(gpr::RCX),
            rdx = const offset(gpr::RDX),
            rbx = const offset(gpr::RBX),
            rbp = const offset(gpr::RBP),
            rsi = const offset(gpr::RSI),
            rdi = const offset(gpr::RDI),
            r8 = const offset(8),
            r9 = const offset(9),
            r10 = const offset(10),
            r11 = const offset(11),
            r12 = const offset(12),
            r13 = const offset(13),
            r14 = const offset(14),
            r15 = const offset(15),
            vmcb_physical = const offset_of!(VcpuArea, host) + offset_of!(Host, vmcb_physical),
            inout("rax") host_save => _,
            out("rsi") _,
            inout("rdi") area => after,
            out("rcx") _,
            out("rdx") _,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
            out("r12") _,
            out("r13") _,
            out("r14") _,
            out("r15") _,
        );
    }
    after
}

/// The long way into the guest. An error is an exit without an entry.
///
/// # Safety
/// As [`run`].
#[inline(always)]
unsafe fn prepare(vmcb: &mut Vmcb, host: &mut Host, this: &mut Cpu, state: *mut VcpuState, nested: Nested) -> Result<(), Exit> {
    if host.generation != nested.generation {
        // Remembered until it is done: this entry may fail before.
        host.pending |= pending::FLUSH;
        host.generation = nested.generation;
        vmcb.control.nested_cr3 = nested.root;
        vmcb.control.clean &= !clean::NESTED;
    }
    if host.pending & pending::FLUSHED != 0 {
        vmcb.control.tlb_control = tlb::KEEP;
        host.pending &= !pending::FLUSHED;
    }
    let dirty = Dirty::from_bits_truncate(get!(state, dirty));
    if !dirty.is_empty() {
        put!(state, 0, dirty);
        // SAFETY: the caller's promise.
        let loaded = match unsafe { registers::load(vmcb, host, state, dirty, fpu::supported_xcr0()) } {
            Ok(loaded) => loaded,
            // SAFETY: the caller's promise.
            Err(invalid) => return Err(unsafe { entry_failed(vmcb, host, state, invalid) }),
        };
        if loaded.flush {
            host.pending |= pending::FLUSH;
        }
        if let Some(xcr0) = loaded.xcr0 {
            // This vCPU's extended state is in the registers, and its XCR0 with it.
            fpu::write_xcr0(xcr0);
        }
    }
    if host.token != this.token {
        bind(vmcb, host, this);
    }
    if host.pending & pending::FLUSH != 0 {
        host.pending &= !pending::FLUSH;
        if super::new_asid(this, vmcb, host) {
            vmcb.control.tlb_control = tlb::FLUSH_ALL;
            host.pending |= pending::FLUSHED;
        }
    }

    let shadow = get!(state, interrupt_shadow) & 3;
    vmcb.control.interrupt_state = u64::from(shadow & 1);
    set_nmi_blocked(vmcb, host, shadow & 2 != 0);

    // SAFETY: the caller's promise.
    unsafe { prepare_events(vmcb, host, state) }?;

    if host.pending & pending::STEP != 0 {
        vmcb.save.rflags |= TRAP_FLAG;
    }
    if host.pending & pending::DEBUG_LOADED != 0 {
        vmcb.control.intercept_dr = 0;
        vmcb.control.clean &= !clean::INTERCEPTS;
        write_debug_registers(&host.debug);
    }
    Ok(())
}

/// Event to inject, interrupt window, NMI window.
///
/// # Safety
/// As [`run`].
unsafe fn prepare_events(vmcb: &mut Vmcb, host: &mut Host, state: *mut VcpuState) -> Result<(), Exit> {
    let event = get!(state, inject);
    vmcb.control.inject = 0;
    if event & EVENT_VALID != 0 {
        put!(state, 0, inject);
        match convert::event_to_vmcb(event, get!(state, inject_error)) {
            Ok(inject) => vmcb.control.inject = inject,
            // SAFETY: the caller's promise.
            Err(invalid) => return Err(unsafe { entry_failed(vmcb, host, state, invalid) }),
        }
        match event & 7 << 8 {
            EVENT_NMI => set_nmi_blocked(vmcb, host, true),
            EVENT_SOFTWARE => {
                // The frame must point behind the instruction; should the delivery be interrupted, `finish` takes it back.
                host.software_length = get!(state, instruction_length) & 0xf;
                host.pending |= pending::SOFTWARE;
                vmcb.save.rip = vmcb.save.rip.wrapping_add(u64::from(host.software_length));
                if host.reports_next_rip {
                    vmcb.control.next_rip = vmcb.save.rip;
                }
            }
            _ => {}
        }
    } else if event != 0 {
        put!(state, 0, inject);
    }

    host.nmi_window = get!(state, request_nmi_window) != 0;
    if host.nmi_window && host.nmi_blocked == 0 && event & EVENT_VALID == 0 {
        put!(state, ExitReason::NmiWindow as u32, reason);
        return Err(Exit::Guest(ExitReason::NmiWindow));
    }

    let wanted = get!(state, request_window) != 0;
    if wanted != (host.pending & pending::WINDOW != 0) {
        set_window(vmcb, host, wanted);
    }
    Ok(())
}

/// Makes this the vCPU that ran last on this processor. Its ASID stays good if it comes back to the processor where it got it, before ASIDs started over there.
fn bind(vmcb: &mut Vmcb, host: &mut Host, this: &mut Cpu) {
    machine::branch_barrier(this);
    machine::write_tsc_aux(this, host.tsc_aux);
    // What a vCPU did to translations elsewhere, this processor did not see: only generations of this processor's own count, and `run` elsewhere replaces the generation.
    if host.asid_generation != this.asid_generation {
        host.pending |= pending::FLUSH;
    }
    vmcb.control.clean = 0;
    this.token += 1;
    host.token = this.token;
}

/// Asks the processor for an exit when the guest could take an interrupt: a virtual one that never arrives.
fn set_window(vmcb: &mut Vmcb, host: &mut Host, wanted: bool) {
    const BITS: u32 = virtual_interrupt::PENDING | virtual_interrupt::PRIORITY | virtual_interrupt::IGNORE_TPR;
    if wanted {
        vmcb.control.virtual_interrupt |= BITS;
        vmcb.control.intercept_1 |= intercept::VINTR;
        host.pending |= pending::WINDOW;
    } else {
        vmcb.control.virtual_interrupt &= !BITS;
        vmcb.control.intercept_1 &= !intercept::VINTR;
        host.pending &= !pending::WINDOW;
    }
    vmcb.control.virtual_vector = 0;
    vmcb.control.clean &= !(clean::TPR | clean::INTERCEPTS);
}

/// Records whether NMIs are blocked. While they are, IRET exits, because it may be what unblocks them.
fn set_nmi_blocked(vmcb: &mut Vmcb, host: &mut Host, blocked: bool) {
    if blocked == (host.nmi_blocked != 0) {
        return;
    }
    host.nmi_blocked = u32::from(blocked) * 2;
    if blocked {
        vmcb.control.intercept_1 |= intercept::IRET;
        host.pending |= pending::NMI;
    } else {
        vmcb.control.intercept_1 &= !intercept::IRET;
        host.pending &= !(pending::NMI | pending::STEP);
    }
    vmcb.control.clean &= !clean::INTERCEPTS;
}

/// The long way out of the guest; an answer ends it here.
///
/// # Safety
/// As [`run`].
#[cold]
#[inline(never)]
unsafe fn finish(vmcb: &mut Vmcb, host: &mut Host, state: *mut VcpuState) -> Option<Exit> {
    if host.pending & pending::DEBUG_LOADED != 0 {
        read_debug_registers(&mut host.debug);
        if vmcb.save.dr7 & registers::DR7_ARMED == 0 {
            vmcb.control.intercept_dr = u32::MAX;
            vmcb.control.clean &= !clean::INTERCEPTS;
            host.pending &= !pending::DEBUG_LOADED;
        }
    }
    let info = vmcb.control.exit_event;
    if info as u32 & EVENT_VALID != 0 {
        match convert::interrupted_event(info) {
            Interrupted::Repeat => {
                if host.pending & pending::SOFTWARE != 0 {
                    vmcb.save.rip = vmcb.save.rip.wrapping_sub(u64::from(host.software_length));
                    put!(state, vmcb.save.rip, rip);
                }
            }
            Interrupted::Reinject(event, error) => {
                if event & 7 << 8 == EVENT_NMI {
                    // It did not arrive, so it blocks nothing yet.
                    set_nmi_blocked(vmcb, host, false);
                    put!(state, get!(state, interrupt_shadow) & 1, interrupt_shadow);
                }
                put!(state, error, vectoring_error);
                put!(state, event, vectoring);
            }
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
/// As [`run`].
#[cold]
#[inline(never)]
unsafe fn rare_exit(vmcb: &mut Vmcb, host: &mut Host, state: *mut VcpuState, exit_code: u32) -> Exit {
    let (info_1, info_2) = (vmcb.control.exit_info_1, vmcb.control.exit_info_2);
    let reason = match exit_code {
        // All of these are pending still, and taken when the caller opens its window.
        code::INTR | code::NMI | code::SMI | code::INIT => return Exit::HostInterrupt,
        code::VINTR => {
            set_window(vmcb, host, false);
            ExitReason::InterruptWindow
        }
        code::NESTED_FAULT => {
            put!(state, info_2, info[0]);
            put!(state, convert::memory_access(info_1), info[1]);
            put!(state, 0, info[2]);
            let count = vmcb.control.instruction_count.min(15);
            put!(state, u64::from(count), info[3]);
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
        code::MACHINE_CHECK => {
            // SAFETY: the kernel's own handler takes it from here, as if it had happened outside the guest.
            unsafe { asm!("int 18") };
            return Exit::HostInterrupt;
        }
        code::EXCEPTION_0..=code::EXCEPTION_31 => {
            let vector = exit_code - code::EXCEPTION_0;
            if ALWAYS_INTERCEPTED & !host.exceptions & 1 << vector != 0 {
                // Not the VMM's wish: the guest gets it with the next entry, after the host had its chance to interrupt.
                let event = convert::reflected_exception(vector);
                put!(state, info_1 as u32, inject_error);
                put!(state, event, inject);
                return Exit::HostInterrupt;
            }
            put!(state, u64::from(vector), info[0]);
            put!(state, info_1, info[1]);
            put!(state, info_2, info[2]);
            ExitReason::Exception
        }
        code::TASK_SWITCH => {
            let during_delivery = vmcb.control.exit_event as u32 & EVENT_VALID != 0;
            let (source, error) = convert::task_switch(info_1, info_2, during_delivery);
            put!(state, source, info[0]);
            put!(state, error, info[1]);
            ExitReason::TaskSwitch
        }
        code::SHUTDOWN => ExitReason::Shutdown,
        code::VMMCALL => ExitReason::Hypercall,
        code::XSETBV => ExitReason::XSetBv,
        code::INVD | code::WBINVD => ExitReason::CacheFlush,
        code::MONITOR => {
            put!(state, 0, info[0]);
            ExitReason::Mwait
        }
        code::MWAIT | code::MWAIT_ARMED => {
            put!(state, 1, info[0]);
            ExitReason::Mwait
        }
        code::RDPMC => ExitReason::ReadPmc,
        code::PAUSE => ExitReason::Pause,
        code::INVLPGA | code::VMRUN | code::VMLOAD..=code::SKINIT | code::RDPRU => ExitReason::Virtualisation,
        other => {
            put!(state, u64::from(other), info[0]);
            put!(state, info_1, info[1]);
            put!(state, info_2, info[2]);
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
/// As [`run`].
#[cold]
unsafe fn entry_failed(vmcb: &mut Vmcb, host: &mut Host, state: *mut VcpuState, invalid: Invalid) -> Exit {
    vmcb.control.inject = 0;
    host.pending &= !pending::SOFTWARE;
    put!(state, u64::MAX, info[0]);
    put!(state, invalid as u64, info[1]);
    // SAFETY: the caller's promise.
    unsafe { registers::store_full(vmcb, host, state) };
    put!(state, ExitReason::EntryFailed as u32, reason);
    Exit::Guest(ExitReason::EntryFailed)
}

/// The processor refuses the guest state. Some then write the host's registers into the VMCB, so it is wiped and nothing of it reaches the page; the page
/// keeps what its owner wrote, with all groups dirty.
///
/// # Safety
/// As [`run`].
#[cold]
#[inline(never)]
unsafe fn entry_refused(vmcb: &mut Vmcb, host: &mut Host, state: *mut VcpuState) -> Exit {
    // The debug registers may hold the guest's; nobody else's are lost.
    super::wipe(vmcb, host);
    put!(state, Dirty::all().bits(), dirty);
    put!(state, u64::MAX, info[0]);
    put!(state, Invalid::Unknown as u64, info[1]);
    put!(state, ExitReason::EntryFailed as u32, reason);
    Exit::Guest(ExitReason::EntryFailed)
}

/// Loads the guest's DR0 to DR3. The host arms none of them, so whatever they hold is harmless here.
fn write_debug_registers(values: &[u64; 4]) {
    // SAFETY: DR7 arms nothing while the host runs.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}", in(reg) values[0], in(reg) values[1], in(reg) values[2], in(reg) values[3],
            options(nomem, nostack, preserves_flags));
    }
}

/// Takes the guest's DR0 to DR3.
fn read_debug_registers(values: &mut [u64; 4]) {
    // SAFETY: reading has no effect.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3", out(reg) values[0], out(reg) values[1], out(reg) values[2], out(reg) values[3],
            options(nomem, nostack, preserves_flags));
    }
}
