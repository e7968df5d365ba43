//! The PCI bus by configuration mechanism 1 (PCI Local Bus Specification 3.0, 3.2.2.3.2): a host bridge and an ISA bridge; further functions are added by whoever has some.

use heapless::Vec;

/// Address port.
pub const ADDRESS: u16 = 0xcf8;
/// First data port.
pub const DATA: u16 = 0xcfc;
/// Most functions on bus 0.
pub const MAX_FUNCTIONS: usize = 16;
const ENABLE: u32 = 1 << 31;

/// One function's configuration space, with a mask of what the guest can write.
#[derive(Clone, Debug)]
pub struct Function {
    slot: u8,
    registers: [u32; 64],
    writable: [u32; 64],
}

impl Function {
    /// Function 0 of device `slot`. `class` is class, subclass, interface and revision, as in register 8.
    #[must_use]
    pub const fn new(slot: u8, vendor: u16, device: u16, class: u32) -> Self {
        let mut registers = [0; 64];
        registers[0] = vendor as u32 | (device as u32) << 16;
        registers[2] = class;
        let mut writable = [0; 64];
        // Command: I/O, memory, bus master, SERR, interrupt disable. Interrupt line.
        writable[1] = 0x0507;
        writable[15] = 0xff;
        Self { slot, registers, writable }
    }
}

/// The bus.
#[derive(Clone, Debug)]
pub struct Pci {
    address: u32,
    functions: Vec<Function, MAX_FUNCTIONS>,
}

impl Default for Pci {
    fn default() -> Self {
        Self::new()
    }
}

impl Pci {
    /// A bus with its host bridge (00.0) and ISA bridge (01.0).
    #[must_use]
    pub fn new() -> Self {
        let mut functions = Vec::new();
        // Red Hat's generic host bridge and Intel's PIIX3 ISA bridge: identities that drivers know to need nothing.
        let _ = functions.push(Function::new(0, 0x1b36, 0x0008, 0x0600_0000));
        let _ = functions.push(Function::new(1, 0x8086, 0x7000, 0x0601_0000));
        Self { address: 0, functions }
    }

    fn function(&mut self) -> Option<(&mut Function, usize)> {
        let address = self.address;
        if address & ENABLE == 0 || address >> 16 & 0xff != 0 || address >> 8 & 7 != 0 {
            return None;
        }
        let function = self
            .functions
            .iter_mut()
            .find(|function| u32::from(function.slot) == address >> 11 & 31)?;
        Some((function, (address >> 2 & 63) as usize))
    }

    /// Reads `width` bytes at a port from 0xcf8 to 0xcff.
    pub fn read(&mut self, port: u16, width: u8) -> u32 {
        let word = if port < DATA {
            if port != ADDRESS || width != 4 {
                return u32::MAX;
            }
            self.address
        } else {
            self.function().map_or(u32::MAX, |(function, index)| function.registers[index])
        };
        word >> ((port & 3) * 8)
    }

    /// Writes; parts that cross a register's end are lost.
    pub fn write(&mut self, port: u16, width: u8, value: u32) {
        if port < DATA {
            if port == ADDRESS && width == 4 {
                self.address = value & 0x80ff_fffc;
            }
            return;
        }
        let shift = u32::from(port & 3) * 8;
        let bytes = if width >= 4 { u32::MAX } else { (1 << (width * 8)) - 1 } << shift;
        if let Some((function, index)) = self.function() {
            let mask = bytes & function.writable[index];
            function.registers[index] = function.registers[index] & !mask | value << shift & mask;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pci: &mut Pci, device: u32, register: u32) -> u32 {
        pci.write(ADDRESS, 4, ENABLE | device << 11 | register);
        pci.read(DATA, 4)
    }

    #[test]
    fn finds_the_bridges_and_nothing_else() {
        let mut pci = Pci::new();
        let present: std::vec::Vec<_> = (0..32).filter(|&device| read(&mut pci, device, 0) != u32::MAX).collect();
        assert_eq!(present, [0, 1]);
        assert_eq!(read(&mut pci, 0, 8) >> 16, 0x0600);
        assert_eq!(read(&mut pci, 1, 8) >> 16, 0x0601);
        pci.write(ADDRESS, 4, ENABLE | 1 << 16);
        assert_eq!(pci.read(DATA, 4), u32::MAX, "no other bus");
        pci.write(ADDRESS, 4, 0);
        assert_eq!(pci.read(DATA, 4), u32::MAX, "not enabled");
    }

    #[test]
    fn widths_and_masks() {
        let mut pci = Pci::new();
        read(&mut pci, 0, 0);
        assert_eq!(pci.read(DATA + 2, 2), 0x0008);
        pci.write(DATA, 4, 0);
        assert_eq!(pci.read(DATA, 4), 0x0008_1b36, "identity is read-only");
        read(&mut pci, 0, 0x3c);
        pci.write(DATA, 1, 11);
        assert_eq!(pci.read(DATA, 4), 11);
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((any::<bool>(), ADDRESS..=0xcff, prop::sample::select(&[1u8, 2, 4]), any::<u32>()), 1..200)) {
            let mut pci = Pci::new();
            for (write, port, width, value) in operations {
                if write { pci.write(port, width, value) } else { pci.read(port, width); }
            }
        }
    }
}
