//! From the boot loader to `start_bsp`.
//!
//! A Multiboot2 loader enters `_start` in 32-bit protected mode without paging, on BIOS and UEFI machines alike. The assembly below maps the first 4 GiB three times (at
//! 0, at the direct map, and the first GiB at the kernel's link address), turns long mode on and jumps up. [`bsp_entry`] then does everything in order: what
//! the loader said, the final page tables, the firmware's tables, this processor, the timers, the other processors.

use core::arch::global_asm;

use tessera_abi::boot::{BootInfo, Features};
use tessera_boot::acpi;
use tessera_boot::clock;
use tessera_boot::memory_map::MemoryMap;
use tessera_boot::multiboot2::{self, BootInformation};
use tessera_boot::regions::{Region, RegionSet};

use super::{apic, cpu, descriptors, ioapic, memory, panic, power, serial, smp, timer};
use crate::klog;
use memory::{BootAllocator, DirectMap};

global_asm!(
    r#"
    .section .boot.header, "a"
    .balign 8
multiboot2_header:
    .long 0xe85250d6, 0
    .long multiboot2_header_end - multiboot2_header
    .long 0x100000000 - (0xe85250d6 + (multiboot2_header_end - multiboot2_header))
    // Modules start on pages.
    .balign 8
    .short 6, 0
    .long 8
    .balign 8
    .short 0, 0
    .long 8
multiboot2_header_end:

    .section .boot.text, "ax"
    .code32
    .global _start
_start:
    cli
    cld
    mov esp, offset boot_stack_top
    // Kept in registers that nothing below touches.
    mov ebp, eax
    mov esi, ebx

    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb .Lboot_refuse
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc .Lboot_refuse

    // 4 GiB in 2 MiB pages, at 0 and at the direct map; the kernel's window shows the first GiB of them.
    mov eax, offset boot_pd
    or eax, 3
    mov edi, offset boot_pdpt
    mov ecx, 4
.Lboot_table:
    mov [edi], eax
    add eax, 0x1000
    add edi, 8
    loop .Lboot_table
    mov eax, 0x83
    mov edi, offset boot_pd
    mov ecx, 2048
.Lboot_page:
    mov [edi], eax
    add eax, 0x200000
    add edi, 8
    loop .Lboot_page
    mov eax, offset boot_pd
    or eax, 3
    mov edi, offset boot_pdpt_high
    mov [edi + 510 * 8], eax
    mov edi, offset boot_pml4
    mov eax, offset boot_pdpt
    or eax, 3
    mov [edi], eax
    mov [edi + 256 * 8], eax
    mov eax, offset boot_pdpt_high
    or eax, 3
    mov [edi + 511 * 8], eax

    mov cr3, edi
    mov eax, cr4
    or eax, 0x20
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000001
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    // The far return loads CS with the 64-bit segment.
    push 0x08
    lea eax, [.Lboot_long_mode]
    push eax
    retf

    // No long mode: say so on the serial port, as nothing else is set up.
.Lboot_refuse:
    mov esi, offset boot_no_long_mode
.Lboot_character:
    lodsb
    test al, al
    jz .Lboot_stop
    mov dx, 0x3f8
    out dx, al
    jmp .Lboot_character
.Lboot_stop:
    hlt
    jmp .Lboot_stop

    .code64
.Lboot_long_mode:
    xor eax, eax
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    movabs rsp, offset early_stack_top
    mov edi, ebp
    mov esi, esi
    xor ebp, ebp
    movabs rax, offset bsp_entry
    call rax
    ud2

boot_no_long_mode:
    .asciz "tessera: this processor has no 64-bit mode; the system needs one that has\r\n"

    .balign 8
    .global boot_gdt
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdt_pointer:
    .short 23
    .long boot_gdt

    .section .boot.bss, "aw", @nobits
    .balign 4096
    .global boot_pml4
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pdpt_high: .skip 4096
boot_pd: .skip 16384
    .skip 256
boot_stack_top:

    .section .bss.early_stack, "aw", @nobits
    .balign 16
    .skip 49152
early_stack_top:
    .text
"#
);

/// Pages that hold a `BootInfo`.
pub const BOOT_INFO_PAGES: u64 = size_of::<BootInfo>().div_ceil(tessera_abi::PAGE_SIZE) as u64;

/// What the boot found out, for the rest of the kernel to start from.
pub struct BootContext {
    /// What init will read; the rest of the kernel fills in what is not known yet.
    pub info: &'static mut BootInfo,
    /// Physical addresses that are not RAM: device registers and the firmware's tables, whole pages.
    pub device_regions: RegionSet,
    /// The boot bundle; whole pages, in RAM, in no other list.
    pub bundle: Region,
    /// Physical address of a page with what the last panic left: text that ends with a zero.
    pub panic_record: u64,
    /// Gives memory that the kernel keeps; what it has left in the end is free RAM.
    pub allocator: BootAllocator,
}

/// Stops with one line that says why the system cannot start here.
fn refuse(reason: &str) -> ! {
    klog!("tessera: cannot start: {reason}");
    cpu::halt_loop()
}

/// Entry from the assembly above, on the early stack and the early page tables.
#[unsafe(no_mangle)]
extern "C" fn bsp_entry(magic: u32, info: u32) -> ! {
    let boot_tsc = timer::now();
    serial::init();
    klog!("Tessera {} microkernel", env!("CARGO_PKG_VERSION"));
    if magic != multiboot2::BOOTLOADER_MAGIC {
        refuse("it was not started by a Multiboot2 boot loader; use GRUB's `multiboot2` command");
    }
    let features = match cpu::detect() {
        Ok(features) => features,
        Err(missing) => {
            klog!("tessera: cannot start: the processor lacks `{missing}`, which the system needs");
            cpu::halt_loop()
        }
    };
    cpu::enable();

    // SAFETY: the loader's information lies below 4 GiB, which the early tables map, and nothing writes there before it has been copied out.
    let loaded = unsafe { loader_information(info) };
    let mut info = BootInformation::default();
    if let Err(error) = multiboot2::parse(loaded, &mut info) {
        refuse(error.text());
    }
    let Some((start, end)) = info.module else { refuse("the boot loader gave no bundle; add a `module2` line to its configuration") };
    let bundle = Region { base: start, end }.grown_to(tessera_abi::PAGE_SIZE as u64);
    if start != bundle.base {
        refuse("the bundle does not start on a page");
    }
    panic::set_reboot(info.option("panic") == Some("reboot"));

    let mut map = MemoryMap::new(&info.memory, memory::kernel_image().region(), bundle);
    let mut allocator = BootAllocator::new(core::mem::take(&mut map.free));
    memory::build(&map, &mut allocator, features);
    if info.memory_dropped != 0 {
        klog!("memory: {} entries of the firmware's map found no room", info.memory_dropped);
    }
    klog!("memory: {} MiB of RAM, {} MiB free", map.ram_bytes >> 20, allocator.free().total() >> 20);

    let panic_record = panic::collect_record(&mut allocator, map.record_page);
    let rsdp = info.rsdp.as_ref().map_or(0, |rsdp| {
        let page = allocator.allocate(1);
        memory::copy_to_page(page, rsdp);
        page
    });
    let tables = DirectMap(&map);
    let machine = info.rsdp.as_ref().and_then(|rsdp| acpi::parse(&tables, rsdp)).unwrap_or_else(|| {
        klog!("acpi: no usable tables; going on with one processor and no I/O interrupts");
        acpi::Machine { local_apic: 0xfee0_0000, ..acpi::Machine::default() }
    });
    power::configure(&machine);

    descriptors::start_cpu(0, descriptors::allocate(0, &mut allocator));
    apic::init_boot(machine.local_apic);
    ioapic::init(&machine.ioapics, &machine.overrides);
    let tsc_hz = timer::calibrate(&machine);
    let wall_clock = clock::wall_clock(machine.century, &timer::Clocks);
    let cpu_count = smp::start_all(&machine, &map, &mut allocator);
    memory::retire_boot_tables();
    klog!("cpu: {cpu_count} running, TSC {}.{:03} MHz, features{}", tsc_hz / 1_000_000, tsc_hz / 1000 % 1000, Names(cpu::features()));

    let mut device_regions = map.device_regions(&machine, cpu::physical_bits());
    if rsdp != 0 {
        device_regions.add(Region::with_length(rsdp, tessera_abi::PAGE_SIZE as u64));
    }
    // SAFETY: new zeroed pages, which is a valid value of plain numbers, and nobody else's.
    let known = unsafe { &mut *memory::phys_to_virt(allocator.allocate(BOOT_INFO_PAGES)).cast::<BootInfo>() };
    known.abi_version = tessera_abi::ABI_VERSION;
    known.cpu_count = cpu_count as u32;
    known.tsc_hz = tsc_hz;
    known.boot_tsc = boot_tsc;
    known.ram_bytes = map.ram_bytes;
    known.rsdp = rsdp;
    known.wall_clock = wall_clock;
    // Its end stays zero: the line that was kept is shorter.
    known.command_line[..info.command_line.len()].copy_from_slice(&info.command_line);
    let mut context = BootContext { info: known, device_regions, bundle, panic_record, allocator };
    descriptors::on_kernel_stack(&mut context)
}

/// The loader's information; empty if its size is impossible.
///
/// # Safety
/// `address` is what the loader gave, and is mapped.
unsafe fn loader_information(address: u32) -> &'static [u8] {
    let start = memory::phys_to_virt(address.into()).cast_const();
    // SAFETY: the caller vouches for the memory; the size is read first and bounded.
    unsafe { core::slice::from_raw_parts(start, multiboot2::total_size(core::slice::from_raw_parts(start, 8)).unwrap_or(0)) }
}

/// Names of features, each behind a blank.
struct Names(Features);

impl core::fmt::Display for Names {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter_names().try_for_each(|(name, _)| {
            formatter.write_str(" ")?;
            formatter.write_str(name)
        })
    }
}
