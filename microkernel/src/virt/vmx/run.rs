//! One entry into the guest and the exit that follows.
//!
//! The way of a cheap exit (`cpuid`, a plain port access, an MSR, `hlt`) and of the entry after it is kept short: what could need more work is collected
//! into one word, and a single branch leads to [`prepare`] or `exits`.

use super::exits::{entry_failed, exit_attentively, host_interrupt};
use super::machine::{bind, set_apic_mode};
use super::state as registers;
use super::vmcs::{self, field, host_cr0, host_cr3, read, read_to, reason, write, write_from};
use super::{Own, convert};
use crate::virt::convert::check_event;
use crate::virt::host::{Cpu, Host, pending, write_debug_registers};
use crate::virt::{
    CpuState, Exit, Nested, VcpuArea, apic, ends_interrupt, fpu, get, page, put, put_pair, register_offset, take_event, world_switch,
};
use core::arch::asm;
use core::cell::Cell;
use core::mem::offset_of;
use core::sync::atomic::Ordering;
use tessera_abi::apic::{ApicPage, VectorSet};
use tessera_abi::vcpu::{
    Dirty, EVENT_EXCEPTION, EVENT_NMI, EVENT_SOFTWARE, EVENT_VALID, ExitReason, VcpuState, WINDOW_DELIVER, WINDOW_EXIT, gpr,
};
use tessera_abi::virt::VirtFeatures;
use tessera_boot::vmx::{INTERRUPT_WINDOW, MOV_DR, NMI_WINDOW};

/// RFLAGS.TF.
const TRAP_FLAG: u64 = 1 << 8;
/// RFLAGS.IF.
const INTERRUPT_FLAG: u64 = 1 << 9;
/// Pending debug exceptions: a single step.
const PENDING_STEP: u64 = 1 << 14;
/// Interruptibility: blocking by STI and by MOV SS, of which the processor takes the one that fits the interrupt flag; blocking by NMI.
const BY_STI: u64 = 1;
/// See [`BY_STI`].
const BY_MOV_SS: u64 = 2;
/// See [`BY_STI`].
pub(super) const BY_NMI: u64 = 1 << 3;

/// Instruction error: VMRESUME with a VMCS that is not launched (SDM volume 3, 31.4).
const NOT_LAUNCHED: u32 = 5;

/// Where the page has what the VMCS has too.
const RIP: usize = offset_of!(VcpuState, rip);
/// See [`RIP`].
const RFLAGS: usize = offset_of!(VcpuState, rflags);
/// See [`RIP`].
const RSP: usize = offset_of!(VcpuState, gpr) + gpr::RSP * 8;

/// Byte offset of something this backend remembers, from the area.
macro_rules! own {
    ($field:ident) => {
        offset_of!(VcpuArea, vmx) + offset_of!(Own, $field)
    };
}

/// See [`crate::virt::run`], its only caller, so that exits have one place to come to; `asked` is not 0 if something asks for attention.
///
/// # Safety
/// As there.
#[inline(always)]
pub unsafe fn run(area: *mut VcpuArea, cpu: &CpuState, nested: Nested, deadline: &Cell<u64>, asked: u64) -> Exit {
    let state = page(area);
    // SAFETY: the caller's area; interrupts are off, and the references end before anything changes behind them.
    let (host, own) = unsafe { (&(*area).host, &(*area).vmx) };
    // SAFETY: the caller's page.
    let posted = unsafe { apic(state) }.is_posted();
    let attention = asked | u64::from(posted) | host.pending << 1 | (host_cr0() ^ own.host_cr0) | (host_cr3() ^ own.host_cr3);
    let area = if attention != 0 {
        // SAFETY: the caller's promise.
        match unsafe { prepare(area, &mut *cpu.get(), nested) } {
            Ok(area) => area,
            Err(exit) => return exit,
        }
    } else {
        area
    };
    // SAFETY: as above.
    let (state, own) = (page(area), unsafe { &mut (*area).vmx });
    let deadline = deadline.get();
    if deadline != u64::MAX || own.timer != u32::MAX {
        set_timer(own, deadline);
    }
    // SAFETY: the page is live; each field is read once.
    unsafe {
        write_from::<RIP>(field::GUEST_RIP, state);
        write_from::<RFLAGS>(field::GUEST_RFLAGS, state);
        write_from::<RSP>(field::GUEST_RSP, state);
    }
    // SAFETY: the VMCS is current and complete, and its nested page tables reach only the guest's memory, by the caller's promise. From here on everything is
    // reached through the pointer that comes out of the switch: nothing else lives in a register across it.
    let area = unsafe { world_switch(area) };
    let state = page(area);
    // SAFETY: the page is live.
    unsafe {
        read_to::<RIP>(field::GUEST_RIP, state);
        read_to::<RFLAGS>(field::GUEST_RFLAGS, state);
        read_to::<RSP>(field::GUEST_RSP, state);
    }
    // SAFETY: as above.
    let (cr8, pending) = unsafe { (registers::cr8(state), (*area).host.pending) };
    put!(state, cr8, cr8);
    let exit_reason = read(field::REASON) as u32;
    if read(field::INTERRUPTIBILITY) | pending << 1 == 0 {
        put_pair!(state, 0, interrupt_shadow, vectoring);
        // Instructions that exit are never part of an event's delivery.
        // SAFETY: the caller's promise.
        unsafe {
            match exit_reason {
                reason::IO => return io(area),
                reason::CPUID => return plain(area, ExitReason::Cpuid),
                reason::RDMSR => return plain(area, ExitReason::ReadMsr),
                reason::WRMSR => return wrmsr(area),
                reason::HLT => return plain(area, ExitReason::Halt),
                reason::VMCALL => return plain(area, ExitReason::Hypercall),
                reason::EXTERNAL_INTERRUPT if read(field::VECTORING) as u32 & EVENT_VALID == 0 => return host_interrupt(),
                _ => {}
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { exit_attentively(area, exit_reason) }
}

/// An exit that needs no more than its reason and the instruction's length.
///
/// # Safety
/// As [`run`].
#[inline(always)]
pub unsafe fn plain(area: *mut VcpuArea, reason: ExitReason) -> Exit {
    let state = page(area);
    put_pair!(state, reason as u64 | read(field::EXIT_LENGTH) << 32, reason, instruction_length);
    Exit::Guest(reason)
}

/// `wrmsr`.
///
/// # Safety
/// As [`run`].
#[inline(always)]
pub unsafe fn wrmsr(area: *mut VcpuArea) -> Exit {
    // SAFETY: the caller's promise.
    unsafe { if ends_interrupt(area, read(field::EXIT_LENGTH)) { Exit::HostInterrupt } else { plain(area, ExitReason::WriteMsr) } }
}

/// Port access.
///
/// # Safety
/// As [`run`].
#[inline(always)]
pub unsafe fn io(area: *mut VcpuArea) -> Exit {
    let state = page(area);
    let length = read(field::EXIT_LENGTH);
    let io = convert::io_exit(read(field::QUALIFICATION), get!(state, rip).wrapping_add(length));
    put!(state, io.access, info[0]);
    put!(state, io.next_rip, info[1]);
    put_pair!(state, ExitReason::Io as u64 | length << 32, reason, instruction_length);
    if !io.is_plain() {
        // SAFETY: the caller's promise.
        unsafe { registers::store_full(&*area, state) };
    }
    Exit::Guest(ExitReason::Io)
}

/// Lets the preemption timer end the run at the deadline, or long after when there is none. A deadline further away than it counts ends the run early.
#[inline(always)]
fn set_timer(own: &mut Own, deadline: u64) {
    // SAFETY: reading the TSC has no effect.
    let now = unsafe { core::arch::x86_64::_rdtsc() };
    let value = (deadline.saturating_sub(now) >> own.timer_shift).min(u32::MAX.into());
    if u64::from(own.timer) != value {
        own.timer = value as u32;
        write(field::TIMER, value);
    }
}

/// The long way into the guest, which answers with the area, so that who asks need not keep it. An error is an exit without an entry.
///
/// # Safety
/// As [`run`].
#[inline(never)]
unsafe fn prepare(place: *mut VcpuArea, this: &mut Cpu, nested: Nested) -> Result<*mut VcpuArea, Exit> {
    let state = page(place);
    // SAFETY: the caller's promise.
    let area = unsafe { &mut *place };
    if area.host.token != this.token {
        // SAFETY: the caller's promise.
        unsafe { bind(area, this) };
    }
    let (cr0, cr3) = (host_cr0(), host_cr3());
    if area.vmx.host_cr0 != cr0 || area.vmx.host_cr3 != cr3 {
        (area.vmx.host_cr0, area.vmx.host_cr3) = (cr0, cr3);
        write(field::HOST_CR0, cr0);
        write(field::HOST_CR3, cr3);
    }
    if area.host.generation != nested.generation {
        area.host.generation = nested.generation;
        let pointer = nested.space.root.get() | super::machine::controls().ept_flags;
        write(field::EPT_POINTER, pointer);
        vmcs::invalidate_ept(pointer);
    }
    let dirty = Dirty::from_bits_truncate(get!(state, dirty));
    if !dirty.is_empty() {
        put!(state, 0, dirty);
        // SAFETY: the caller's promise.
        match unsafe { registers::load(area, state, dirty, fpu::supported_xcr0(), nested) } {
            Ok(loaded) => {
                if loaded.flush {
                    area.host.pending |= pending::FLUSH;
                }
                if let Some(xcr0) = loaded.xcr0 {
                    // This vCPU's extended state is in the registers, and its XCR0 with it.
                    fpu::write_xcr0(xcr0);
                }
            }
            // SAFETY: the caller's promise.
            Err(invalid) => return Err(unsafe { entry_failed(area, u64::MAX, invalid as u64) }),
        }
        if area.host.token != this.token {
            this.bind(&mut area.host);
        }
    }
    if area.host.pending & pending::FLUSH != 0 {
        area.host.pending &= !pending::FLUSH;
        let (vpid, flush_all) = this.new_tag(&mut area.host);
        if this.tag_end > 2 {
            write(field::VPID, vpid.into());
            if flush_all {
                vmcs::invalidate_vpids();
            }
        }
    }

    let shadow = get!(state, interrupt_shadow) & 3;
    area.host.nmi_blocked = shadow & 2;
    let rflags = get!(state, rflags);
    let by = if rflags & INTERRUPT_FLAG != 0 { BY_STI } else { BY_MOV_SS };
    let mut blocked = (u64::from(shadow & 1) * by) | (u64::from(shadow >> 1) * BY_NMI);
    // SAFETY: the caller's promise.
    unsafe { prepare_events(area, &mut blocked) }?;
    write(field::INTERRUPTIBILITY, blocked);
    if blocked & (BY_STI | BY_MOV_SS) != 0 {
        // A step that was due is due still (SDM volume 3, 27.3.1.5).
        write(field::PENDING_DEBUG, if rflags & TRAP_FLAG != 0 { PENDING_STEP } else { 0 });
    }
    if area.host.pending & pending::DEBUG_LOADED != 0 {
        set_primary(&mut area.vmx, MOV_DR, false);
        write_debug_registers(&area.host.debug);
        // SAFETY: the host arms no breakpoint, so nothing looks at DR6 before the exit.
        unsafe { asm!("mov dr6, {}", in(reg) area.vmx.dr6, options(nomem, nostack, preserves_flags)) };
    }
    Ok(place)
}

/// Event to inject, interrupt window, NMI window.
///
/// # Safety
/// As [`run`].
unsafe fn prepare_events(area: &mut VcpuArea, blocked: &mut u64) -> Result<(), Exit> {
    let state = page(area);
    let (event, error) = take_event(state);
    write(field::ENTRY_EVENT, 0);
    if event & EVENT_VALID != 0 {
        match check_event(event, error) {
            Ok(inject) => {
                let protected = read(field::GUEST_CR0) & 1 != 0;
                // In real mode no exception has an error code (SDM volume 3, 27.2.1.3).
                let mask = if protected { u64::MAX } else { !(1 << 11) };
                write(field::ENTRY_EVENT, inject & 0xffff_ffff & mask);
                write(field::ENTRY_ERROR, inject >> 32);
            }
            // SAFETY: the caller's promise.
            Err(invalid) => return Err(unsafe { entry_failed(area, u64::MAX, invalid as u64) }),
        }
        match event & 7 << 8 {
            // It blocks further ones once it is delivered; before, it must not be blocked itself.
            EVENT_NMI => *blocked = 0,
            EVENT_SOFTWARE => write(field::ENTRY_LENGTH, (get!(state, instruction_length) & 0xf).into()),
            EVENT_EXCEPTION => {}
            // An interrupt is injected when it can be taken.
            _ => *blocked &= BY_NMI,
        }
    }
    let wanted = get!(state, request_window);
    let (mut window, mut threshold) = (wanted & WINDOW_EXIT != 0, 0);
    // SAFETY: the caller's promise.
    let apic = unsafe { apic(state) };
    if apic.take_posted() || wanted & WINDOW_DELIVER != 0 || area.host.pending & (pending::REQUESTS | pending::HELD) != 0 {
        put!(state, wanted & WINDOW_EXIT, request_window);
        area.host.pending &= !(pending::REQUESTS | pending::HELD);
        if super::machine::controls().used.contains(VirtFeatures::VIRTUAL_APIC) {
            hand_over(apic);
        } else if let Some(vector) = apic.request() {
            let priority = u64::from(vector >> 4);
            // SAFETY: the caller's promise.
            let held_by_task = priority <= unsafe { registers::cr8(state) };
            if !held_by_task
                && event & EVENT_VALID == 0
                && get!(state, rflags) & INTERRUPT_FLAG != 0
                && *blocked & (BY_STI | BY_MOV_SS) == 0
            {
                apic.accept(vector);
                write(field::ENTRY_EVENT, u64::from(EVENT_VALID | u32::from(vector)));
            } else {
                area.host.pending |= pending::HELD;
                (window, threshold) = if held_by_task { (window, priority) } else { (true, 0) };
            }
        }
    }
    if threshold != area.vmx.threshold {
        area.vmx.threshold = threshold;
        write(field::TPR_THRESHOLD, threshold);
    }
    set_window(area, window, INTERRUPT_WINDOW, pending::WINDOW);
    set_window(area, get!(state, request_nmi_window) != 0, NMI_WINDOW, pending::NMI_WINDOW);
    Ok(())
}

/// Tells the processor what is requested and in service, which ends the VMM must see, and whether the guest reaches its APIC by MSRs. It delivers by itself then, and keeps the page.
fn hand_over(apic: &ApicPage) {
    let highest = |set: &VectorSet| u64::from(set.highest().unwrap_or(0));
    write(field::INTERRUPT_STATUS, highest(&apic.requests) | highest(&apic.in_service) << 8);
    for word in 0..4 {
        let register = |index| u64::from(apic.trigger_mode.register(index).get());
        write(field::EOI_EXITS + word as u64 * 2, register(word * 2) | register(word * 2 + 1) << 32);
    }
    set_apic_mode(apic.x2apic.load(Ordering::Relaxed) != 0);
}

/// Asks for an exit at a window, or no longer.
pub(super) fn set_window(area: &mut VcpuArea, wanted: bool, control: u32, reason: u64) {
    set_primary(&mut area.vmx, control, wanted);
    area.host.pending = area.host.pending & !reason | if wanted { reason } else { 0 };
}

/// Switches a primary control on or off.
pub(super) fn set_primary(own: &mut Own, control: u32, on: bool) {
    let value = if on { own.primary | u64::from(control) } else { own.primary & !u64::from(control) };
    if value != own.primary {
        own.primary = value;
        write(field::PRIMARY, value);
    }
}

/// Swaps host and guest. All of the guest's general registers but RSP stand in the page; that, and everything else, in the VMCS, but for CR2. An entry that fails
/// before it begins comes back with [`pending::FAILED`] set.
///
/// # Safety
/// The area's VMCS is current and set up.
#[inline(always)]
unsafe fn world_switch(area: *mut VcpuArea) -> *mut VcpuArea {
    let after;
    // SAFETY: an exit brings back the stack, the place to go on, segments, control registers and the system-call MSRs from the VMCS and the list behind it; general
    // registers are stored below, and the descriptor table's limit is set again before anything loads a segment. Interrupts stay off in the host.
    unsafe {
        world_switch!(
            [
                // A new VMCS has neither.
                "cmp rsp, [rdi + {host_rsp}]",
                "je 2f",
                "mov [rdi + {host_rsp}], rsp",
                "mov eax, {HOST_RSP}",
                "vmwrite rax, rsp",
                "lea rcx, [rip + 5f]",
                "mov eax, {HOST_RIP}",
                "vmwrite rax, rcx",
                "2:",
                "mov rax, [rdi + {cr2}]",
                "mov cr2, rax",
            ]
            [
                "mov rax, [rdi + {rax}]",
                "mov rdi, [rdi + {rdi}]",
                "vmresume",
                // Refused: the ordinary reason is that the VMCS was not launched since it was cleared.
                "xchg rdi, [rsp]",
                "mov eax, {INSTRUCTION_ERROR}",
                "vmread [rdi + {error}], rax",
                "cmp dword ptr [rdi + {error}], {NOT_LAUNCHED}",
                "mov rax, [rdi + {rax}]",
                "xchg rdi, [rsp]",
                "jne 4f",
                "vmlaunch",
                "4:",
                "xchg rdi, [rsp]",
                "or qword ptr [rdi + {pending}], {FAILED}",
                "jmp 6f",
                "5:",
                "xchg rdi, [rsp]",
                "6:",
                "mov [rdi + {rax}], rax",
            ]
            [
                "mov rax, cr2",
                "mov [rdi + {cr2}], rax",
                "lgdt [rdi + {gdt}]",
                "pop qword ptr [rdi + {rdi}]",
            ]
            error = const own!(error),
            pending = const offset_of!(VcpuArea, host) + offset_of!(Host, pending),
            FAILED = const pending::FAILED,
            INSTRUCTION_ERROR = const field::INSTRUCTION_ERROR,
            NOT_LAUNCHED = const NOT_LAUNCHED,
            host_rsp = const own!(host_rsp),
            cr2 = const own!(cr2),
            gdt = const own!(gdt),
            HOST_RSP = const field::HOST_RSP,
            HOST_RIP = const field::HOST_RIP,
            rax = const register_offset(gpr::RAX),
            out("rax") _,
            inout("rdi") area => after,
        );
    }
    after
}
