//! The ACPI tables of a guest (ACPI 6.5, chapter 5): root pointer, XSDT, FADT, FACS, DSDT, MADT.

use crate::apic::ioapic;
use crate::apic::lapic;
use crate::devices::chipset::TIMER_PIN;
use crate::devices::{hpet, keyboard, pci, power, pvpanic, rtc, uart};
use acpi_tables::aml::{self, AddressSpace, AddressSpaceCacheable};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};
use alloc::vec::Vec;

const OEM: [u8; 6] = *b"TESSRA";
const OEM_TABLE: [u8; 8] = *b"TESSERA ";
/// Each table starts on such a boundary; FACS must (5.2.10).
const ALIGNMENT: usize = 64;

/// Collects AML bytes.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl AmlSink for Bytes {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

/// Where the firmware ACPI control structure is, from `base` on: the first table behind the root pointer.
pub const FACS: u64 = ALIGNMENT as u64;

/// All tables for `vcpus` processors, and a screen with keyboard and mouse or none, to be put at guest-physical `base`. The root pointer comes first.
#[must_use]
pub fn build(base: u64, vcpus: usize, screen: bool) -> Vec<u8> {
    with_timer(base, vcpus, screen, false)
}

/// The same, and a high precision event timer or none.
fn with_timer(base: u64, vcpus: usize, screen: bool, timer: bool) -> Vec<u8> {
    let mut image = Vec::with_capacity(0x1000);
    // Room for the root pointer, which is known last.
    image.resize(ALIGNMENT, 0);
    let facs = place(&mut image, base, &facs());
    let dsdt = place(&mut image, base, &dsdt(screen));
    let fadt = place(&mut image, base, fadt(facs, dsdt, screen).as_slice());
    let madt = place(&mut image, base, madt(vcpus).as_slice());
    let mut xsdt = XSDT::new(OEM, OEM_TABLE, 1);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    if timer {
        let timer = place(&mut image, base, event_timer().as_slice());
        xsdt.add_entry(timer);
    }
    let xsdt = place(&mut image, base, &bytes(&xsdt));
    let rsdp = bytes(&Rsdp::new(OEM, xsdt));
    image[..rsdp.len()].copy_from_slice(&rsdp);
    image
}

/// File with the root pointer for firmware.
pub const ROOT_FILE: &str = "etc/acpi/rsdp";
/// File with the tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";

/// Tables whose place firmware chooses.
#[derive(Debug)]
pub struct ForLoader {
    /// The root pointer.
    pub root: Vec<u8>,
    /// The tables.
    pub tables: Vec<u8>,
    /// What the firmware does to link them (QEMU `hw/acpi/bios-linker-loader.c`).
    pub script: Vec<u8>,
}

/// All tables for firmware, which puts them where it wants. Its machines have a high precision event timer.
#[must_use]
pub fn for_loader(vcpus: usize, screen: bool) -> ForLoader {
    /// Length of the root pointer.
    const ROOT: usize = 36;
    let mut tables = with_timer(0, vcpus, screen, true);
    let word = |tables: &[u8], at: usize| {
        let bytes = tables.get(at..at + 4).unwrap_or(&[0; 4]);
        bytes.iter().rev().fold(0, |word, byte| word << 8 | *byte as usize)
    };
    let mut root = tables[..ROOT].to_vec();
    let xsdt = word(&root, 24);
    let xsdt_length = word(&tables, xsdt + 4);
    let fadt = word(&tables, xsdt + 36);
    let fadt_length = word(&tables, fadt + 4);
    let mut script = Script::default();
    script.allocate(TABLES_FILE, ALIGNMENT as u32, 1);
    script.allocate(ROOT_FILE, 16, 2);
    for (offset, width) in [(36, 4), (40, 4), (132, 8), (140, 8)] {
        script.pointer(TABLES_FILE, fadt + offset, width);
    }
    for entry in (xsdt + 36..xsdt + xsdt_length).step_by(8) {
        script.pointer(TABLES_FILE, entry, 8);
    }
    script.pointer(ROOT_FILE, 24, 8);
    // One firmware adds what is missing to the byte, the other takes it for zero.
    for (table, length) in [(fadt, fadt_length), (xsdt, xsdt_length)] {
        tables[table + 9] = 0;
        script.checksum(TABLES_FILE, table + 9, table, length);
    }
    (root[8], root[32]) = (0, 0);
    script.checksum(ROOT_FILE, 8, 0, 20);
    script.checksum(ROOT_FILE, 32, 0, ROOT);
    ForLoader {
        root,
        tables,
        script: script.0,
    }
}

/// Commands for firmware, 128 bytes each.
#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn push(&mut self, command: u32, files: &[&str], numbers: &[u8]) {
        let start = self.0.len();
        self.0.extend_from_slice(&command.to_le_bytes());
        for file in files {
            let end = self.0.len() + 56;
            self.0.extend_from_slice(file.as_bytes());
            self.0.resize(end, 0);
        }
        self.0.extend_from_slice(numbers);
        self.0.resize(start + 128, 0);
    }

    /// Loads a file. Zone 1 is anywhere, 2 the BIOS area.
    fn allocate(&mut self, file: &str, alignment: u32, zone: u8) {
        let [a, b, c, d] = alignment.to_le_bytes();
        self.push(1, &[file], &[a, b, c, d, zone]);
    }

    /// Adds the address of the tables to a pointer.
    fn pointer(&mut self, file: &str, offset: usize, width: u8) {
        let [a, b, c, d] = (offset as u32).to_le_bytes();
        self.push(2, &[file, TABLES_FILE], &[a, b, c, d, width]);
    }

    /// Has the bytes of a table sum to zero.
    fn checksum(&mut self, file: &str, offset: usize, start: usize, length: usize) {
        let mut numbers = [0; 12];
        for (place, number) in numbers.chunks_exact_mut(4).zip([offset, start, length]) {
            place.copy_from_slice(&(number as u32).to_le_bytes());
        }
        self.push(3, &[file], &numbers);
    }
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut sink = Bytes::default();
    table.to_aml_bytes(&mut sink);
    sink.0
}

fn place(image: &mut Vec<u8>, base: u64, table: &[u8]) -> u64 {
    image.resize(image.len().next_multiple_of(ALIGNMENT), 0);
    let address = base + image.len() as u64;
    image.extend_from_slice(table);
    address
}

/// Firmware ACPI control structure (5.2.10). What a system writes there before it sleeps is read by [`crate::boot::wake`], or by the machine's firmware.
fn facs() -> [u8; 64] {
    let mut table = [0; 64];
    table[..4].copy_from_slice(b"FACS");
    table[4] = 64;
    table[32] = 2;
    table
}

/// Fixed ACPI description table (5.2.9), offsets of table 5.9.
fn fadt(facs: u64, dsdt: u64, screen: bool) -> Sdt {
    const WBINVD: u32 = 1;
    const C1: u32 = 1 << 2;
    const NO_SLEEP_BUTTON: u32 = 1 << 5;
    const RESET_REGISTER: u32 = 1 << 10;
    let mut table = Sdt::new(*b"FACP", 276, 6, OEM, OEM_TABLE, 1);
    table.write_u32(36, facs as u32);
    table.write_u32(40, dsdt as u32);
    // Preferred profile: enterprise server.
    table.write_u8(45, 4);
    table.write_u16(46, power::LINE as u16);
    // SMI command 0: always in ACPI mode.
    table.write_u32(56, u32::from(power::EVENT));
    table.write_u32(64, u32::from(power::CONTROL));
    table.write_u32(76, u32::from(power::TIMER));
    table.write_u8(88, 4);
    table.write_u8(89, 2);
    table.write_u8(91, 4);
    // Latencies that say: no C2, no C3.
    table.write_u16(96, 0xfff);
    table.write_u16(98, 0xfff);
    table.write_u8(108, rtc::CENTURY);
    // Boot architecture: legacy devices, no ASPM; an 8042, or no VGA and no 8042 to speak of.
    table.write_u16(109, 1 | 1 << 4 | if screen { 1 << 1 } else { 1 << 2 });
    table.write_u32(112, WBINVD | C1 | NO_SLEEP_BUTTON | RESET_REGISTER);
    gas(&mut table, 116, power::RESET, 8);
    table.write_u8(128, power::RESET_VALUE);
    table.write_u8(131, 5);
    table.write_u64(132, facs);
    table.write_u64(140, dsdt);
    gas(&mut table, 148, power::EVENT, 32);
    gas(&mut table, 172, power::CONTROL, 16);
    gas(&mut table, 208, power::TIMER, 32);
    table.update_checksum();
    table
}

/// The table of the high precision event timer (IA-PC HPET Specification 1.0a, 3.2.4).
fn event_timer() -> Sdt {
    let mut table = Sdt::new(*b"HPET", 56, 1, OEM, OEM_TABLE, 1);
    table.write_u32(36, hpet::CAPABILITIES as u32);
    // A generic address structure for memory.
    table.write_bytes(40, &[0, 64, 0, 0]);
    table.write_u64(44, hpet::ADDRESS);
    // Ticks that a periodic timer lasts at least.
    table.write_u16(53, hpet::LEAST_TICKS);
    table.update_checksum();
    table
}

/// A generic address structure (5.2.3.2) for a port.
fn gas(table: &mut Sdt, offset: usize, port: u16, bits: u8) {
    let access = match bits {
        8 => 1,
        16 => 2,
        _ => 3,
    };
    table.write_bytes(offset, &[1, bits, 0, access]);
    table.write_u64(offset + 4, u64::from(port));
}

/// Multiple APIC description table (5.2.12).
fn madt(vcpus: usize) -> Sdt {
    let mut table = Sdt::new(*b"APIC", 44, 5, OEM, OEM_TABLE, 1);
    table.write_u32(36, lapic::BASE_ADDRESS as u32);
    // There is a pair of 8259s.
    table.write_u32(40, 1);
    for i in 0..vcpus as u8 {
        table.append_slice(&[0, 8, i, i, 1, 0, 0, 0]);
    }
    let mut entry = [1, 12, ioapic::ID, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    entry[4..8].copy_from_slice(&(ioapic::ADDRESS as u32).to_le_bytes());
    table.append_slice(&entry);
    // The PIT is at pin 2; the system control interrupt is level-triggered, active high.
    table.append_slice(&[2, 10, 0, 0, TIMER_PIN as u8, 0, 0, 0, 0, 0]);
    table.append_slice(&[2, 10, 0, power::LINE as u8, power::LINE as u8, 0, 0, 0, 0xd, 0]);
    // NMI at LINT1 of all processors.
    table.append_slice(&[4, 6, 0xff, 0, 0, 1]);
    table
}

/// A piece of finished AML.
struct Code(Vec<u8>);

impl Aml for Code {
    fn to_aml_bytes(&self, sink: &mut dyn AmlSink) {
        self.0.iter().for_each(|byte| sink.byte(*byte));
    }
}

fn name(path: &str, value: &dyn Aml) -> Code {
    Code(bytes(&aml::Name::new(path.into(), value)))
}

fn device(path: &str, children: &[Code]) -> Code {
    Code(bytes(&aml::Device::new(
        path.into(),
        children.iter().map(|child| child as &dyn Aml).collect(),
    )))
}

fn resources(children: &[&dyn Aml]) -> Code {
    name("_CRS", &aml::ResourceTemplate::new(children.to_vec()))
}

fn hardware_id(id: &str) -> Code {
    name("_HID", &aml::EISAName::new(id))
}

/// PCI routing table (6.2.13): INTA of each device number goes to a line that both controllers have.
fn routing() -> Code {
    let entry = |slot: u8| {
        let (address, line) = (u32::from(slot) << 16 | 0xffff, u32::from(pci::line_of(slot)));
        Code(bytes(&aml::Package::new(
            [&address as &dyn Aml, &aml::ZERO, &aml::ZERO, &line].into(),
        )))
    };
    let entries: Vec<Code> = (1..32).map(entry).collect();
    name("_PRT", &aml::Package::new(entries.iter().map(|entry| entry as &dyn Aml).collect()))
}

/// Differentiated system description table: the sleep state that keeps RAM and the one that powers off, the PCI bus, the serial port and the clock.
fn dsdt(screen: bool) -> Vec<u8> {
    let sleep_state = |path, value: u16| {
        let value = value as u8;
        name(
            path,
            &aml::Package::new([&value as &dyn Aml, &value, &aml::ZERO, &aml::ZERO].into()),
        )
    };
    let edge = |line: usize| aml::Interrupt::new(true, true, false, false, line as u32);
    let serial = resources(&[&aml::IO::new(uart::PORT, uart::PORT, 1, 8), &edge(uart::LINE)]);
    let clock = resources(&[&aml::IO::new(0x70, 0x70, 1, 2), &edge(rtc::LINE)]);
    let panics = resources(&[&aml::IO::new(pvpanic::PORT, pvpanic::PORT, 1, 1)]);
    let mut isa = Vec::from([
        name("_ADR", &0x1_0000u32),
        device("PEVT", &[name("_HID", &pvpanic::HARDWARE_ID), panics]),
        device("COM1", &[hardware_id("PNP0501"), name("_UID", &aml::ONE), serial]),
        device("RTC_", &[hardware_id("PNP0B00"), clock]),
    ]);
    if screen {
        let [keys, mouse] = keyboard::LINES;
        let controller = resources(&[&aml::IO::new(0x60, 0x60, 1, 1), &aml::IO::new(0x64, 0x64, 1, 1), &edge(keys)]);
        isa.push(device("KBD_", &[hardware_id("PNP0303"), controller]));
        isa.push(device("MOU_", &[hardware_id("PNP0F13"), resources(&[&edge(mouse)])]));
    }
    let windows = resources(&[
        &AddressSpace::<u16>::new_bus_number(0, 0),
        &aml::IO::new(0xcf8, 0xcf8, 1, 8),
        &AddressSpace::<u16>::new_io(0, 0xcf7, None),
        &AddressSpace::<u16>::new_io(0xd00, 0xffff, None),
        &AddressSpace::<u32>::new_memory(AddressSpaceCacheable::NotCacheable, true, pci::MEMORY_WINDOW, 0xfebf_ffff, None),
    ]);
    let bridge = [
        hardware_id("PNP0A03"),
        name("_UID", &aml::ZERO),
        name("_BBN", &aml::ZERO),
        windows,
        routing(),
        device("ISA_", &isa),
    ];
    let bridge = device("PCI0", &bridge);
    let system_bus = aml::Scope::new("_SB_".into(), [&bridge as &dyn Aml].into());
    let mut table = Sdt::new(*b"DSDT", 36, 6, OEM, OEM_TABLE, 1);
    table.append_slice(&sleep_state("_S3_", power::SLEEP_RAM).0);
    table.append_slice(&sleep_state("_S5_", power::SLEEP_OFF).0);
    table.append_slice(&bytes(&system_bus));
    table.as_slice().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(image: &[u8], base: u64, address: u64) -> &[u8] {
        let start = (address - base) as usize;
        let length = u32::from_le_bytes(image[start + 4..start + 8].try_into().unwrap()) as usize;
        &image[start..start + length]
    }

    fn u64_at(bytes: &[u8], offset: usize) -> u64 {
        u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
    }

    fn sum(bytes: &[u8]) -> u8 {
        bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }

    #[test]
    fn all_tables_are_linked_and_sum_to_zero() {
        let base = 0xe_0000;
        let image = build(base, 4, true);
        assert!(image.len() < 0x2000);
        assert_eq!(&image[..8], b"RSD PTR ");
        assert_eq!(sum(&image[..20]), 0);
        assert_eq!(sum(&image[..36]), 0);
        let xsdt = table(&image, base, u64_at(&image, 24));
        assert_eq!((&xsdt[..4], sum(xsdt), xsdt.len()), (&b"XSDT"[..], 0, 36 + 16));
        let fadt = table(&image, base, u64_at(xsdt, 36));
        assert_eq!((&fadt[..4], sum(fadt), fadt.len()), (&b"FACP"[..], 0, 276));
        let dsdt = table(&image, base, u64_at(fadt, 140));
        assert_eq!((&dsdt[..4], sum(dsdt)), (&b"DSDT"[..], 0));
        assert_eq!(u64_at(fadt, 132) % 64, 0);
        assert_eq!(&table(&image, base, base + FACS)[..4], b"FACS");
        assert_eq!(u64_at(fadt, 132), base + FACS);
        let madt = table(&image, base, u64_at(xsdt, 44));
        assert_eq!((&madt[..4], sum(madt)), (&b"APIC"[..], 0));
        let mut entries = &madt[44..];
        let mut processors = 0;
        while !entries.is_empty() {
            processors += usize::from(entries[0] == 0);
            entries = &entries[usize::from(entries[1])..];
        }
        assert_eq!(processors, 4);
    }

    /// Does what firmware does, with the tables at `base`.
    fn link(loaded: &mut ForLoader, base: u64, adds: bool) {
        let script = loaded.script.clone();
        let name = |bytes: &[u8]| std::string::String::from_utf8(bytes.iter().copied().take_while(|byte| *byte != 0).collect()).unwrap();
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
        for command in script.chunks(128) {
            let file = if name(&command[4..60]) == ROOT_FILE {
                &mut loaded.root
            } else {
                &mut loaded.tables
            };
            match number(command) {
                2 => {
                    assert_eq!(name(&command[60..116]), TABLES_FILE);
                    let (at, width) = (number(&command[116..]), usize::from(command[120]));
                    let mut value = [0; 8];
                    value[..width].copy_from_slice(&file[at..at + width]);
                    let value = (u64::from_le_bytes(value) + base).to_le_bytes();
                    file[at..at + width].copy_from_slice(&value[..width]);
                }
                3 => {
                    let [at, start, length] = [60, 64, 68].map(|place| number(&command[place..]));
                    let sum = sum(&file[start..start + length]);
                    file[at] = if adds { file[at].wrapping_sub(sum) } else { sum.wrapping_neg() };
                }
                other => assert_eq!(other, 1),
            }
        }
    }

    #[test]
    fn firmware_links_the_tables_where_it_wants() {
        let base = 0x7fe_0000;
        let wanted = with_timer(base, 2, true, true);
        assert!(wanted.windows(4).any(|window| window == b"HPET") && !build(base, 2, true).windows(4).any(|window| window == b"HPET"));
        for adds in [false, true] {
            let mut loaded = for_loader(2, true);
            link(&mut loaded, base, adds);
            assert_eq!(loaded.root, wanted[..36]);
            assert_eq!(loaded.tables[64..], wanted[64..]);
        }
    }

    #[test]
    fn a_keyboard_is_there_with_a_screen() {
        let named = |screen| dsdt(screen).windows(4).any(|window| window == b"KBD_");
        assert!(named(true) && !named(false));
        let architecture = |screen| fadt(0, 0, screen).as_slice()[109];
        assert_eq!((architecture(true), architecture(false)), (0x13, 0x15));
    }

    #[test]
    fn interrupts_of_devices_are_routed_to_their_lines() {
        let dsdt = dsdt(false);
        let at = dsdt.windows(4).position(|window| window == b"_PRT").unwrap();
        // Package of 31: the first entry is device 1's, as four elements.
        let entry = [0x12, 0x0b, 4, 0x0c, 0xff, 0xff, 1, 0, 0, 0, 0x0a, 10];
        assert!(
            dsdt[at..at + 24].windows(entry.len()).any(|window| window == entry),
            "{:x?}",
            &dsdt[at..at + 24]
        );
    }

    #[test]
    fn the_power_off_package_is_what_the_device_expects() {
        let dsdt = dsdt(false);
        let at = dsdt.windows(4).position(|window| window == b"_S5_").unwrap();
        // Package of four: type for PM1a, type for PM1b, two reserved.
        assert_eq!(dsdt[at + 4], 0x12);
        assert_eq!(&dsdt[at + 6..at + 13], &[4, 0x0a, 5, 0x0a, 5, 0, 0]);
    }
}
