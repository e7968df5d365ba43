//! The few ACPI tables that the kernel needs (ACPI specification 6.5, chapter 5): MADT for processors and interrupt controllers, FADT for
//! timer and power. Tables are bytes from the firmware: each is bounded, checksummed, and read through checked accessors.

use heapless::Vec;
use tessera_abi::MAX_CPUS;

use crate::bytes::{u8_at, u16_at, u32_at, u64_at};

/// Most IOAPICs.
pub const MAX_IOAPICS: usize = 8;
/// Most bytes of a table that are believed.
pub const MAX_TABLE: usize = 4 << 20;
/// Bytes of a table's header.
const HEADER: usize = 36;

/// Gives the bytes of physical memory.
pub trait Physical {
    /// `length` bytes at `address`, or `None` where there is no such memory.
    fn bytes(&self, address: u64, length: usize) -> Option<&[u8]>;
}

/// An I/O interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoApic {
    /// Where its registers are.
    pub address: u64,
    /// Global number of its first input.
    pub first_gsi: u32,
}

/// An ISA interrupt line that arrives elsewhere or otherwise than ISA says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// ISA line.
    pub line: u8,
    /// Global number where it arrives.
    pub gsi: u32,
    /// Level-triggered instead of edge-triggered.
    pub level: bool,
    /// Active low instead of active high.
    pub active_low: bool,
}

/// How the machine is reset through ACPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetRegister {
    /// Write the value to the port.
    Port(u16, u8),
    /// Write the value to physical memory.
    Memory(u64, u8),
}

/// How the machine is switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SoftOff {
    /// PM1a control port.
    pub pm1a: u16,
    /// PM1b control port, or 0.
    pub pm1b: u16,
    /// SLP_TYP for PM1a.
    pub type_a: u8,
    /// SLP_TYP for PM1b.
    pub type_b: u8,
}

/// What the tables say, as far as the kernel asks.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// APIC identities of the processors that may be started, the first [`MAX_CPUS`] of them.
    pub processors: Vec<u32, MAX_CPUS>,
    /// Processors that found no room.
    pub processors_dropped: usize,
    /// Physical address of the local APICs.
    pub local_apic: u64,
    /// I/O interrupt controllers.
    pub ioapics: Vec<IoApic, MAX_IOAPICS>,
    /// Exceptions to the rule for ISA lines.
    pub overrides: Vec<Override, 16>,
    /// Port of the ACPI timer (3.579545 MHz), or 0.
    pub pm_timer: u16,
    /// The ACPI timer has 32 bits instead of 24.
    pub pm_timer_32: bool,
    /// Index of the century in the real-time clock's memory, or 0.
    pub century: u8,
    /// How to reset.
    pub reset: Option<ResetRegister>,
    /// How to switch off.
    pub soft_off: Option<SoftOff>,
}

fn sums_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, &byte| sum.wrapping_add(byte)) == 0
}

/// The table at `address`, if its length and checksum are right.
fn table(memory: &impl Physical, address: u64) -> Option<&[u8]> {
    let length = u32_at(memory.bytes(address, HEADER)?, 4)? as usize;
    if !(HEADER..=MAX_TABLE).contains(&length) {
        return None;
    }
    memory.bytes(address, length).filter(|bytes| sums_to_zero(bytes))
}

/// Reads the tables that the root pointer leads to. A table that is missing or damaged leaves its fields empty; `None` if there is no usable root.
#[inline(never)]
pub fn parse(memory: &impl Physical, rsdp: &[u8]) -> Option<Machine> {
    if rsdp.get(..8)? != b"RSD PTR " || !sums_to_zero(rsdp.get(..20)?) {
        return None;
    }
    let wide = u8_at(rsdp, 15)? >= 2 && rsdp.len() >= 36 && sums_to_zero(&rsdp[..36]);
    let (root, width) =
        match wide.then(|| u64_at(rsdp, 24)).flatten().filter(|&address| address != 0).and_then(|address| table(memory, address)) {
            Some(root) => (root, 8),
            None => (table(memory, u32_at(rsdp, 16)?.into())?, 4),
        };
    let mut machine = Machine { local_apic: 0xfee0_0000, ..Machine::default() };
    for entry in root[HEADER..].chunks_exact(width) {
        let address = if width == 8 { u64_at(entry, 0)? } else { u32_at(entry, 0)?.into() };
        let Some(bytes) = table(memory, address) else { continue };
        let _complete = match &bytes[..4] {
            b"APIC" => read_madt(bytes, &mut machine),
            b"FACP" => read_fadt(memory, bytes, &mut machine),
            _ => Some(()),
        };
    }
    Some(machine)
}

/// Multiple APIC description table (5.2.12). `None` where it ends early; what came before counts.
fn read_madt(bytes: &[u8], machine: &mut Machine) -> Option<()> {
    machine.local_apic = u32_at(bytes, 36)?.into();
    let mut rest = bytes.get(44..)?;
    while !rest.is_empty() {
        let length = usize::from(u8_at(rest, 1)?);
        // At least its own header, so that the loop always moves on.
        let entry = rest.get(..length).filter(|entry| entry.len() >= 2)?;
        rest = &rest[length..];
        let _complete = read_madt_entry(entry, machine);
    }
    Some(())
}

fn read_madt_entry(entry: &[u8], machine: &mut Machine) -> Option<()> {
    // Bit 0: enabled. Processors that are only "online capable" (bit 1) are not there yet.
    let mut processor = |id: u32, flags: u32| {
        if flags & 1 != 0 && !machine.processors.contains(&id) && machine.processors.push(id).is_err() {
            machine.processors_dropped += 1;
        }
    };
    match u8_at(entry, 0)? {
        0 => match u8_at(entry, 3)? {
            // Means "described by an x2APIC entry".
            0xff => {}
            id => processor(id.into(), u32_at(entry, 4)?),
        },
        1 => {
            let ioapic = IoApic { address: u32_at(entry, 4)?.into(), first_gsi: u32_at(entry, 8)? };
            machine.ioapics.push(ioapic).ok()?;
        }
        2 => {
            let (bus, line, gsi, flags) = (u8_at(entry, 2)?, u8_at(entry, 3)?, u32_at(entry, 4)?, u16_at(entry, 8)?);
            if bus == 0 && line < 16 {
                // Polarity in bits 0 and 1, trigger in bits 2 and 3; 3 is "active low" and "level".
                let entry = Override { line, gsi, level: flags >> 2 & 3 == 3, active_low: flags & 3 == 3 };
                machine.overrides.retain(|other| other.line != line);
                machine.overrides.push(entry).ok()?;
            }
        }
        5 => machine.local_apic = u64_at(entry, 4)?,
        9 => match u32_at(entry, 4)? {
            u32::MAX => {}
            id => processor(id, u32_at(entry, 8)?),
        },
        _ => {}
    }
    Some(())
}

/// Fixed description table (5.2.9).
fn read_fadt(memory: &impl Physical, bytes: &[u8], machine: &mut Machine) -> Option<()> {
    let dsdt = u32_at(bytes, 40)?;
    let pm1a = u32_at(bytes, 64)?;
    let pm1b = u32_at(bytes, 68)?;
    machine.pm_timer = u16::try_from(u32_at(bytes, 76)?).unwrap_or(0);
    machine.century = u8_at(bytes, 108)?;
    let flags = u32_at(bytes, 112)?;
    machine.pm_timer_32 = flags & 1 << 8 != 0;
    if flags & 1 << 10 != 0 && bytes.len() > 128 {
        // A generic address: space, bits, offset, size, address.
        let value = u8_at(bytes, 128)?;
        let address = u64_at(bytes, 120)?;
        machine.reset = match u8_at(bytes, 116)? {
            0 => Some(ResetRegister::Memory(address, value)),
            1 => u16::try_from(address).ok().map(|port| ResetRegister::Port(port, value)),
            _ => None,
        };
    }
    let dsdt = u64_at(bytes, 140).filter(|&address| address != 0).unwrap_or(dsdt.into());
    let pm1a = u16::try_from(pm1a).ok().filter(|&port| port != 0)?;
    let (type_a, type_b) = sleep_types(table(memory, dsdt)?.get(HEADER..)?)?;
    machine.soft_off = Some(SoftOff { pm1a, pm1b: u16::try_from(pm1b).unwrap_or(0), type_a, type_b });
    Some(())
}

/// SLP_TYP values for soft-off, from the package named `\_S5_` in the bytecode of the DSDT (20.2.5.4). The package is a constant list in all
/// firmware known, so it is looked for instead of interpreted.
fn sleep_types(code: &[u8]) -> Option<(u8, u8)> {
    let name = code.windows(4).position(|window| window == b"_S5_")?;
    let package = code.get(name + 4..)?;
    if u8_at(package, 0)? != 0x12 {
        return None;
    }
    // The length takes 1 to 4 bytes, its top two bits say how many follow; then comes the number of elements.
    let mut at = 1 + 1 + usize::from(u8_at(package, 1)? >> 6) + 1;
    let mut integer = || -> Option<u8> {
        let (value, size) = match u8_at(package, at)? {
            0x00 => (0, 1),
            0x01 => (1, 1),
            0x0a => (u8_at(package, at + 1)?, 2),
            _ => return None,
        };
        at += size;
        Some(value & 7)
    };
    Some((integer()?, integer().unwrap_or(0)))
}

#[cfg(test)]
mod tests;
