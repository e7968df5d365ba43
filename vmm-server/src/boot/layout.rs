//! Where things stand in guest-physical memory at boot.

/// Descriptor table that the boot protocol asks for.
pub const GDT: u64 = 0x6000;
/// The "zero page", `struct boot_params`.
pub const BOOT_PARAMS: u64 = 0x7000;
/// Page tables that map the first 4 GiB one to one: one PML4, one PDPT, four page directories.
pub const PAGE_TABLES: u64 = 0x8000;
/// Kernel command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Most bytes of it, with its terminating zero.
pub const COMMAND_LINE_LENGTH: u64 = 0x1_0000;
/// What a Multiboot kernel is told. Its segments end below, and it ends at [`LOW_END`].
pub const MULTIBOOT: u64 = 0x9_f000;
/// End of usable conventional memory; the extended BIOS data area would follow.
pub const LOW_END: u64 = 0x9_fc00;
/// ACPI tables, in what is the BIOS area on a PC: the root pointer stands first, where a search would find it.
pub const ACPI: u64 = 0xe_0000;
/// End of the BIOS area.
pub const BIOS_END: u64 = 0x10_0000;
/// Where memory above 1 MiB begins.
pub const HIGH_START: u64 = 0x10_0000;
/// Devices are from here to 4 GiB; RAM ends below.
pub const DEVICES: u64 = 0xc000_0000;
