//! Register values at the ways a vCPU can start: at the entry point of each kind of kernel, and by a start-up message in real mode.

use super::wake::Vector;
use super::{Start, boot_sector, layout};
use tessera_abi::vcpu::{Dirty, SEGMENT_UNUSABLE, Segment, Table, VcpuState, gpr, segment};

/// CR0: protection.
pub const CR0_PE: u64 = 1;
/// CR0: extension type, always one.
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_CD: u64 = 1 << 30;
const CR0_NW: u64 = 1 << 29;
/// CR0: paging.
pub const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// Power-on value of the PAT (SDM volume 3, table 12-12).
pub const PAT: u64 = 0x0007_0406_0007_0406;
const DR6: u64 = 0xffff_0ff0;
const DR7: u64 = 0x400;

const fn flat(selector: u16, attributes: u32) -> Segment {
    Segment {
        selector,
        reserved: 0,
        attributes,
        limit: 0xffff_ffff,
        reserved2: 0,
        base: 0,
    }
}

const fn real(selector: u16, attributes: u32) -> Segment {
    Segment {
        selector,
        reserved: 0,
        attributes,
        limit: 0xffff,
        reserved2: 0,
        base: (selector as u64) << 4,
    }
}

/// Everything as after power-on or INIT, starting at page `start_page` in real mode (SDM volume 3, table 10-1).
pub fn start_in_real_mode(state: &mut VcpuState, start_page: u8) {
    clear(state);
    state.cr0 = CR0_ET | CR0_CD | CR0_NW;
    let data = real(0, 0x93);
    state.segments = [data; 8];
    state.segments[segment::CS] = real(u16::from(start_page) << 8, 0x9b);
    state.segments[segment::LDTR] = real(0, 0x82);
    state.segments[segment::TR] = real(0, 0x8b);
    state.gdtr = Table { base: 0, limit: 0xffff };
    state.idtr = Table { base: 0, limit: 0xffff };
}

/// At the first instruction of what [`super::load`] loaded.
pub fn start(state: &mut VcpuState, start: Start) {
    match start {
        Start::Linux { entry } => start_at_kernel(state, entry),
        Start::Multiboot { entry, information } => start_at_multiboot(state, entry, information),
        Start::BootSector => start_at_boot_sector(state),
        Start::Firmware => start_at_firmware(state),
        Start::Wake(vector) => start_at_waking_vector(state, vector),
    }
}

/// At the entry point of a Multiboot kernel (Multiboot 0.6.96, 3.2): protected mode with flat segments, without paging. What the specification leaves
/// undefined is zero: the stack pointer and the descriptor tables.
fn start_at_multiboot(state: &mut VcpuState, entry: u32, information: u32) {
    /// What tells the kernel that its loader knows Multiboot.
    const LOADED: u64 = 0x2bad_b002;
    start_in_protected_mode(state, entry);
    state.gpr[gpr::RAX] = LOADED;
    state.gpr[gpr::RBX] = information.into();
}

/// In protected mode with flat segments, without paging.
fn start_in_protected_mode(state: &mut VcpuState, entry: u32) {
    clear(state);
    state.rip = entry.into();
    state.cr0 = CR0_PE | CR0_ET;
    state.segments = [flat(0x18, 0xc093); 8];
    state.segments[segment::CS] = flat(0x10, 0xc09b);
    set_tables(state, Table { base: 0, limit: 0 });
}

/// Where an operating system goes on that slept (ACPI 6.5, table 5.12 and 16.3.2), with caches on, as firmware leaves them.
fn start_at_waking_vector(state: &mut VcpuState, vector: Vector) {
    match vector {
        Vector::Real { segment, offset } => {
            start_in_real_mode(state, 0);
            state.cr0 = CR0_ET;
            state.rip = offset.into();
            state.segments[segment::CS] = real(segment, 0x9b);
        }
        Vector::Protected { entry } => start_in_protected_mode(state, entry),
    }
}

/// At a boot sector (BIOS Boot Specification 1.01, 6.5), with the stack below it and caches on, as firmware leaves them.
fn start_at_boot_sector(state: &mut VcpuState) {
    start_in_real_mode(state, 0);
    state.cr0 = CR0_ET;
    state.rip = boot_sector::ADDRESS;
    state.gpr[gpr::RSP] = boot_sector::ADDRESS;
    state.gpr[gpr::RDX] = boot_sector::DRIVE.into();
    // One vector in real mode has four bytes.
    state.idtr = Table { base: 0, limit: 0x3ff };
}

/// At the first instruction of firmware, as after power-on (SDM volume 3, 10.1.4), with caches on.
fn start_at_firmware(state: &mut VcpuState) {
    start_in_real_mode(state, 0);
    state.cr0 = CR0_ET;
    state.rip = 0xfff0;
    let code = &mut state.segments[segment::CS];
    (code.selector, code.base) = (0xf000, 0xffff_0000);
}

/// At the 64-bit entry point of a Linux kernel.
pub fn start_at_kernel(state: &mut VcpuState, entry: u64) {
    clear(state);
    state.rip = entry;
    state.gpr[gpr::RSI] = layout::BOOT_PARAMS;
    state.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
    state.cr3 = layout::PAGE_TABLES;
    state.cr4 = CR4_PAE;
    state.efer = EFER_LME | EFER_LMA;
    let data = flat(0x18, 0xc093);
    state.segments = [data; 8];
    state.segments[segment::CS] = flat(0x10, 0xa09b);
    let gdtr = Table {
        base: layout::GDT,
        limit: 4 * 8 - 1,
    };
    set_tables(state, gdtr);
}

/// No local descriptor table and no interrupt descriptors; a task register, since the processor insists on one.
fn set_tables(state: &mut VcpuState, gdtr: Table) {
    state.segments[segment::LDTR] = Segment {
        attributes: SEGMENT_UNUSABLE | 0x82,
        ..Segment::default()
    };
    state.segments[segment::TR] = Segment {
        attributes: 0x8b,
        limit: 0x67,
        ..Segment::default()
    };
    state.gdtr = gdtr;
    state.idtr = Table { base: 0, limit: 0 };
}

/// What both have in common. The constants that the kernel put there stay, and so does the TSC offset.
fn clear(state: &mut VcpuState) {
    state.gpr = [0; 16];
    state.rip = 0;
    state.rflags = 2;
    state.interrupt_shadow = 0;
    state.vectoring = 0;
    state.vectoring_error = 0;
    state.inject = 0;
    state.inject_error = 0;
    state.request_window = 0;
    state.request_nmi_window = 0;
    state.cr2 = 0;
    state.cr3 = 0;
    state.cr4 = 0;
    state.cr8 = 0;
    state.efer = 0;
    state.xcr0 = 1;
    state.dr = [0; 4];
    state.dr6 = DR6;
    state.dr7 = DR7;
    state.star = 0;
    state.lstar = 0;
    state.cstar = 0;
    state.sfmask = 0;
    state.kernel_gs_base = 0;
    state.sysenter_cs = 0;
    state.sysenter_esp = 0;
    state.sysenter_eip = 0;
    state.pat = PAT;
    state.tsc_aux = 0;
    state.exception_bitmap = 0;
    state.dirty = Dirty::all().bits();
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A state page as the kernel would hand it over.
    pub(crate) fn blank() -> std::boxed::Box<VcpuState> {
        // SAFETY: every field is an integer or an array or struct of integers, for which zero is a value.
        #[allow(unsafe_code)]
        let mut state: std::boxed::Box<VcpuState> = unsafe { std::boxed::Box::new_zeroed().assume_init() };
        state.supported_xcr0 = 7;
        state.xsave_size = 832;
        state
    }

    #[test]
    fn real_mode_starts_where_the_message_says() {
        let mut state = blank();
        start_in_real_mode(&mut state, 0x9a);
        let cs = state.segments[segment::CS];
        assert_eq!((cs.selector, cs.base, state.rip), (0x9a00, 0x9_a000, 0));
        assert_eq!(state.cr0 & CR0_PE, 0);
        assert_eq!(state.supported_xcr0, 7, "the kernel's constants stay");
    }

    #[test]
    fn multiboot_starts_in_protected_mode_without_paging() {
        let mut state = blank();
        start(
            &mut state,
            Start::Multiboot {
                entry: 0x10_0000,
                information: 0x9_f000,
            },
        );
        assert_eq!(
            (state.rip, state.gpr[gpr::RAX], state.gpr[gpr::RBX]),
            (0x10_0000, 0x2bad_b002, 0x9_f000)
        );
        assert_eq!((state.cr0 & (CR0_PE | CR0_PG), state.efer, state.rflags), (CR0_PE, 0, 2));
        for segment in &state.segments[..6] {
            assert_eq!((segment.base, segment.limit, segment.attributes >> 14 & 1), (0, 0xffff_ffff, 1));
        }
        assert_eq!(state.segments[segment::CS].attributes & 0xff, 0x9b);
    }

    #[test]
    fn boot_sector_starts_at_7c00() {
        let mut state = blank();
        start(&mut state, Start::BootSector);
        let cs = state.segments[segment::CS];
        assert_eq!((cs.selector, cs.base, state.rip), (0, 0, 0x7c00));
        assert_eq!(state.gpr[gpr::RDX], 0x80);
        assert_eq!((state.cr0 & CR0_PE, state.rflags), (0, 2));
    }

    #[test]
    fn firmware_starts_below_4_gib() {
        let mut state = blank();
        start(&mut state, Start::Firmware);
        let cs = state.segments[segment::CS];
        assert_eq!((cs.selector, cs.base + state.rip, state.cr0 & CR0_PE), (0xf000, 0xffff_fff0, 0));
    }

    #[test]
    fn wakes_where_the_system_said() {
        let mut state = blank();
        start(
            &mut state,
            Start::Wake(Vector::Real {
                segment: 0x9a00,
                offset: 5,
            }),
        );
        let cs = state.segments[segment::CS];
        assert_eq!((cs.selector, cs.base, state.rip, state.cr0), (0x9a00, 0x9_a000, 5, CR0_ET));
        start(&mut state, Start::Wake(Vector::Protected { entry: 0x12_3456 }));
        assert_eq!((state.rip, state.cr0 & (CR0_PE | CR0_PG), state.rflags), (0x12_3456, CR0_PE, 2));
    }

    #[test]
    fn kernel_starts_in_long_mode() {
        let mut state = blank();
        start_at_kernel(&mut state, 0x100_0200);
        assert_eq!(state.gpr[gpr::RSI], layout::BOOT_PARAMS);
        assert_ne!(state.efer & EFER_LMA, 0);
        assert_eq!(state.rflags, 2, "interrupts are off");
    }
}
