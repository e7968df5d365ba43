//! One entry into the guest and the exit that follows.
//!
//! The way of a cheap exit (`cpuid`, a plain port access, an MSR, `hlt`) and of the entry after it is kept short: what could need more work is collected
//! into one word, and a single branch leads to [`prepare`] or [`finish`].

use super::convert;
use super::exits::{entry_failed, entry_refused, finish, rare_exit};
use super::state as registers;
use super::vmcb::{Vmcb, clean, code, intercept, tlb, virtual_interrupt};
use crate::virt::convert::check_event;
use crate::virt::host::{Cpu, Host, pending, write_debug_registers};
use crate::virt::{CpuState, Exit, Nested, VcpuArea, apic, ends_interrupt, fpu, get, page, put, put_pair, take_event, world_switch};
use core::mem::offset_of;
use tessera_abi::vcpu::{Dirty, EVENT_NMI, EVENT_SOFTWARE, EVENT_VALID, ExitReason, VcpuState, WINDOW_DELIVER, WINDOW_EXIT, gpr};

/// RFLAGS.TF.
pub(super) const TRAP_FLAG: u64 = 1 << 8;
/// RFLAGS.IF.
const INTERRUPT_FLAG: u64 = 1 << 9;
/// A virtual interrupt that nothing but IF holds back.
const VIRTUAL_INTERRUPT: u32 = virtual_interrupt::PENDING | virtual_interrupt::PRIORITY | virtual_interrupt::IGNORE_TPR;
/// CPUID leaf of the extended state.
const XSAVE_LEAF: u32 = 0xd;

/// The short way: see [`crate::virt::run`]. Nothing asks for attention.
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn run(area: *mut VcpuArea, host_save: u64) -> Exit {
    // From here on everything is reached through the pointer that comes out of the switch: nothing else lives in a register across it.
    // SAFETY: the VMCB is complete and its nested page tables reach only the guest's memory, by the caller's promise.
    unsafe {
        take_registers(area);
        let area = world_switch(area, host_save);
        let control = &(*area).vmcb.control;
        if control.exit_event as u32 & EVENT_VALID == 0 && control.interrupt_state & 1 == 0 {
            // The same first step in each arm: one jump leads there.
            macro_rules! stored {
                ($answer:expr) => {{
                    store_registers(area);
                    return $answer;
                }};
            }
            match control.exit_code as u32 {
                code::IO => stored!(io(area)),
                code::CPUID => stored!(cpuid(area)),
                code::MSR => stored!(msr(area)),
                code::HLT => stored!(plain(area, ExitReason::Halt)),
                code::VMMCALL => stored!(plain(area, ExitReason::Hypercall)),
                code::INTR => stored!(Exit::HostInterrupt),
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
        let vmcb = &(*area).vmcb;
        if vmcb.control.exit_info_1 & 1 == 0 {
            return plain(area, ExitReason::ReadMsr);
        }
        let length = if (*area).host.reports_next_rip { vmcb.control.next_rip.wrapping_sub(vmcb.save.rip) & 0xf } else { 0 };
        if ends_interrupt(area, length) { Exit::HostInterrupt } else { plain(area, ExitReason::WriteMsr) }
    }
}

/// The long way through an entry and the exit after it: the page asks for something, or something is pending.
///
/// # Safety
/// As [`run`].
#[inline(never)]
pub unsafe fn run_attentively(area: *mut VcpuArea, cpu: &CpuState, nested: Nested) -> Exit {
    // SAFETY: as in `run`.
    unsafe {
        take_registers(area);
        let this = &mut *cpu.get();
        if let Err(exit) = prepare(&mut (*area).vmcb, &mut (*area).host, this, page(area), nested) {
            return exit;
        }
        let area = world_switch(area, this.host_page);
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
        withdraw(vmcb, state);
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
                other => other,
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
        world_switch!(
            [
                "push rax",
                "clgi",
                "sti",
                "vmsave rax",
                "mov rax, [rdi + {vmcb_physical}]",
                "vmload rax",
            ]
            [
                "mov rdi, [rdi + {rdi}]",
                // RAX is the VMCB's address here and, restored by the exit, below.
                "vmrun rax",
                "vmsave rax",
                "xchg rdi, [rsp + 8]",
            ]
            [
                "pop rax",
                "pop qword ptr [rdi + {rdi}]",
                "vmload rax",
                "cli",
                "stgi",
            ]
            vmcb_physical = const offset_of!(VcpuArea, host) + offset_of!(Host, control_physical),
            inout("rax") host_save => _,
            inout("rdi") area => after,
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
        vmcb.control.nested_cr3 = nested.space.root.get();
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
        this.bind(host);
        vmcb.control.clean = 0;
    }
    if host.pending & pending::FLUSH != 0 {
        host.pending &= !pending::FLUSH;
        let (asid, flush_all) = this.new_tag(host);
        vmcb.control.asid = asid;
        vmcb.control.clean &= !clean::ASID;
        if flush_all {
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
    let (event, error) = take_event(state);
    vmcb.control.inject = 0;
    if event & EVENT_VALID != 0 {
        match check_event(event, error) {
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
    }

    host.nmi_window = get!(state, request_nmi_window) != 0;
    if host.nmi_window && host.nmi_blocked == 0 && event & EVENT_VALID == 0 {
        put!(state, ExitReason::NmiWindow as u32, reason);
        return Err(Exit::Guest(ExitReason::NmiWindow));
    }

    if event & EVENT_VALID != 0 && host.pending & pending::STEP != 0 {
        // The handler comes first, and must not be stepped: what exited will exit again.
        host.pending &= !pending::STEP;
        vmcb.control.intercept_1 |= if host.nmi_blocked != 0 { intercept::IRET } else { 0 };
        vmcb.control.clean &= !clean::INTERCEPTS;
    }
    let wanted = get!(state, request_window);
    let (mut window, mut held_by_task) = (wanted & WINDOW_EXIT != 0, false);
    if wanted & WINDOW_DELIVER != 0 || host.pending & (pending::REQUESTS | pending::HELD) != 0 {
        put!(state, wanted & WINDOW_EXIT, request_window);
        host.pending &= !(pending::REQUESTS | pending::HELD);
        // SAFETY: the caller's promise.
        let apic = unsafe { apic(state) };
        if let Some(vector) = apic.request() {
            held_by_task = u64::from(vector >> 4) <= registers::cr8(&vmcb.control);
            let free = (event & EVENT_VALID == 0) & (host.pending & pending::STEP == 0) & (vmcb.control.interrupt_state & 1 == 0);
            if !held_by_task && free && vmcb.save.rflags & INTERRUPT_FLAG != 0 {
                apic.accept(vector);
                vmcb.control.inject = u64::from(EVENT_VALID | u32::from(vector));
            } else {
                host.pending |= pending::HELD;
                window |= !held_by_task;
            }
        }
    }
    // A write to CR8 is stepped over with no virtual interrupt in sight.
    set_window(vmcb, window && host.pending & pending::STEP == 0);
    if !window {
        deliver_virtually(vmcb);
    }
    host.pending = host.pending & !pending::WINDOW | if window { pending::WINDOW } else { 0 };
    set_priority_exit(vmcb, (held_by_task | window) && host.pending & pending::STEP == 0);
    Ok(())
}

/// Hands an interrupt that the guest takes at once to the processor as a virtual one (APM volume 2, 15.21.4) instead of injecting it: QEMU 7.2 delivers an injected interrupt a second time, whatever IF
/// says, when something else asks its loop for attention before the next exit.
fn deliver_virtually(vmcb: &mut Vmcb) {
    let control = &mut vmcb.control;
    let inject = control.inject as u32;
    if inject & !0xff == EVENT_VALID && vmcb.save.rflags & INTERRUPT_FLAG != 0 && control.interrupt_state & 1 == 0 {
        control.inject = 0;
        control.virtual_vector = inject & 0xff;
        control.virtual_interrupt |= VIRTUAL_INTERRUPT;
        control.clean &= !clean::TPR;
    }
}

/// Takes back a virtual interrupt that something of the host's came before; the next entry has it again. One whose delivery was interrupted is the exit's event.
#[inline(always)]
fn withdraw(vmcb: &mut Vmcb, state: *mut VcpuState) {
    let control = &mut vmcb.control;
    if control.virtual_interrupt & virtual_interrupt::PENDING != 0 && control.intercept_1 & intercept::VINTR == 0 {
        control.virtual_interrupt &= !VIRTUAL_INTERRUPT;
        control.clean &= !clean::TPR;
        if control.exit_event as u32 & EVENT_VALID == 0 {
            put!(state, EVENT_VALID | control.virtual_vector, inject);
        }
    }
}

/// Asks the processor for an exit when the guest could take an interrupt: a virtual one that never arrives.
pub(super) fn set_window(vmcb: &mut Vmcb, wanted: bool) {
    let (bits, exit) = if wanted { (VIRTUAL_INTERRUPT, intercept::VINTR) } else { (0, 0) };
    let control = &mut vmcb.control;
    // Whatever the processor made of the request meanwhile.
    if control.virtual_interrupt & VIRTUAL_INTERRUPT != bits || control.intercept_1 & intercept::VINTR != exit {
        control.virtual_interrupt = control.virtual_interrupt & !VIRTUAL_INTERRUPT | bits;
        control.intercept_1 = control.intercept_1 & !intercept::VINTR | exit;
        control.virtual_vector = 0;
        control.clean &= !(clean::TPR | clean::INTERCEPTS);
    }
}

/// Asks for an exit when the guest writes CR8. A virtual interrupt with a priority would spare the other writes, but QEMU 7.2 ends itself when CR8 is written while a virtual interrupt could come, be it
/// only to open a window.
pub(super) fn set_priority_exit(vmcb: &mut Vmcb, wanted: bool) {
    let bits = if wanted { intercept::WRITE_CR8 } else { 0 };
    if vmcb.control.intercept_cr != bits {
        vmcb.control.intercept_cr = bits;
        vmcb.control.clean &= !clean::INTERCEPTS;
    }
}

/// Records whether NMIs are blocked. While they are, IRET exits, because it may be what unblocks them.
pub(super) fn set_nmi_blocked(vmcb: &mut Vmcb, host: &mut Host, blocked: bool) {
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
