//! One function's configuration space (PCI Local Bus Specification 3.0, 6.1, 6.2.5, 6.7): registers with masks of what the guest can write, base addresses, capabilities.

/// Registers of 32 bits.
pub const REGISTERS: usize = 64;
/// Command: answers to I/O ports.
pub const COMMAND_IO: u32 = 1;
/// Command: answers to memory.
pub const COMMAND_MEMORY: u32 = 2;
/// Command: raises no line interrupts.
const COMMAND_NO_LINE: u32 = 1 << 10;
/// Status: a line interrupt is pending.
const STATUS_INTERRUPT: u32 = 1 << 19;
/// Status: there is a list of capabilities.
const STATUS_CAPABILITIES: u32 = 1 << 20;
/// First byte behind the header.
const FIRST_CAPABILITY: usize = 0x40;

/// What a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory,
}

/// A function.
#[derive(Clone, Debug)]
pub struct Function {
    slot: u8,
    pub(super) registers: [u32; REGISTERS],
    pub(super) writable: [u32; REGISTERS],
    /// Length of each base address register's range; 0: there is none.
    lengths: [u32; 6],
    next_capability: usize,
    last_capability: usize,
}

impl Function {
    /// Function 0 of device `slot`. `class` is class, subclass, interface and revision, as in register 8.
    #[must_use]
    pub const fn new(slot: u8, vendor: u16, device: u16, class: u32) -> Self {
        let mut registers = [0; REGISTERS];
        registers[0] = vendor as u32 | (device as u32) << 16;
        registers[2] = class;
        let mut writable = [0; REGISTERS];
        // Command: I/O, memory, bus master, SERR, interrupt disable. Interrupt line.
        writable[1] = 0x0507;
        writable[15] = 0xff;
        Self {
            slot,
            registers,
            writable,
            lengths: [0; 6],
            next_capability: FIRST_CAPABILITY,
            last_capability: 0,
        }
    }

    /// Device number on its bus.
    #[must_use]
    pub const fn slot(&self) -> u8 {
        self.slot
    }

    /// Identities of the subsystem.
    pub const fn set_subsystem(&mut self, vendor: u16, device: u16) {
        self.registers[11] = vendor as u32 | (device as u32) << 16;
    }

    /// The function interrupts by INTA, which is wired to `line`.
    pub const fn set_line(&mut self, line: u8) {
        self.registers[15] = 1 << 8 | line as u32;
    }

    /// A base address register with a range of `length` bytes, a power of two, placed at `address` as firmware would.
    pub const fn set_range(&mut self, index: usize, space: Space, length: u32, address: u32) {
        let kind = match space {
            Space::Io => 1,
            Space::Memory => 0,
        };
        self.lengths[index] = length;
        self.writable[4 + index] = !(length - 1);
        self.registers[4 + index] = address & !(length - 1) | kind;
    }

    /// Bytes of a range; 0: there is none.
    #[must_use]
    pub const fn length(&self, index: usize) -> u32 {
        self.lengths[index]
    }

    /// Where a range starts, if the guest lets it answer.
    #[must_use]
    pub const fn range(&self, index: usize, space: Space) -> Option<u32> {
        let (wanted, kind) = match space {
            Space::Io => (COMMAND_IO, 1),
            Space::Memory => (COMMAND_MEMORY, 0),
        };
        let register = self.registers[4 + index];
        if self.lengths[index] == 0 || register & 1 != kind || self.registers[1] & wanted == 0 {
            return None;
        }
        Some(register & self.writable[4 + index])
    }

    /// The offset of an access in a range, if all of it lies there.
    #[must_use]
    pub fn offset(&self, index: usize, space: Space, address: u64, width: u8) -> Option<u32> {
        let offset = address.checked_sub(u64::from(self.range(index, space)?))?;
        let inside = offset + u64::from(width) <= u64::from(self.lengths[index]);
        inside.then_some(offset as u32)
    }

    /// Adds a capability of `content` behind its first two bytes, of which the guest can write what `writable` says. Its offset; `None` if there is no room.
    pub fn add_capability(&mut self, kind: u8, content: &[u8], writable: &[u8]) -> Option<u8> {
        let start = self.next_capability;
        let end = start + (2 + content.len()).next_multiple_of(4);
        if end > REGISTERS * 4 {
            return None;
        }
        self.put_byte(start, kind);
        for (place, byte) in (start + 2..).zip(content) {
            self.put_byte(place, *byte);
        }
        for (place, mask) in (start + 2..).zip(writable) {
            self.writable[place / 4] |= u32::from(*mask) << (place % 4 * 8);
        }
        if self.last_capability == 0 {
            self.put_byte(0x34, start as u8);
            self.registers[1] |= STATUS_CAPABILITIES;
        } else {
            self.put_byte(self.last_capability + 1, start as u8);
        }
        (self.last_capability, self.next_capability) = (start, end);
        Some(start as u8)
    }

    fn put_byte(&mut self, place: usize, byte: u8) {
        let (register, shift) = (&mut self.registers[place / 4], place % 4 * 8);
        *register = *register & !(0xff << shift) | u32::from(byte) << shift;
    }

    /// A register, by its number.
    #[must_use]
    pub const fn read(&self, index: usize) -> u32 {
        self.registers[index % REGISTERS]
    }

    /// Writes the bits of `mask`, as far as the guest can.
    pub const fn write(&mut self, index: usize, mask: u32, value: u32) {
        let index = index % REGISTERS;
        let mask = mask & self.writable[index];
        self.registers[index] = self.registers[index] & !mask | value & mask;
    }

    /// Says what a register holds after power-on, and which of its bits the guest can write.
    pub const fn set_register(&mut self, index: usize, value: u32, writable: u32) {
        self.registers[index % REGISTERS] = value;
        self.writable[index % REGISTERS] = writable;
    }

    /// Changes a register that is the device's to change.
    pub const fn set(&mut self, index: usize, value: u32) {
        self.registers[index % REGISTERS] = value;
    }

    /// Says in the status register whether a line interrupt is pending, and answers whether it reaches the line.
    pub const fn set_interrupt(&mut self, pending: bool) -> bool {
        if pending {
            self.registers[1] |= STATUS_INTERRUPT;
        } else {
            self.registers[1] &= !STATUS_INTERRUPT;
        }
        pending && self.registers[1] & COMMAND_NO_LINE == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizing_and_placing() {
        let mut function = Function::new(2, 1, 2, 0);
        function.set_range(0, Space::Io, 16, 0xc040);
        function.set_range(2, Space::Memory, 0x2000, 0xc000_0000);
        assert_eq!(function.range(0, Space::Io), None, "not enabled");
        function.write(1, u32::MAX, 3);
        assert_eq!(function.range(0, Space::Io), Some(0xc040));
        assert_eq!(function.offset(2, Space::Memory, 0xc000_1ffc, 4), Some(0x1ffc));
        assert_eq!(function.offset(2, Space::Memory, 0xc000_1ffd, 4), None, "half outside");
        assert_eq!(function.offset(2, Space::Io, 0xc000_0000, 4), None);
        function.write(4, u32::MAX, u32::MAX);
        function.write(6, u32::MAX, u32::MAX);
        assert_eq!((function.read(4), function.read(6)), (0xffff_fff1, 0xffff_e000));
        function.write(5, u32::MAX, u32::MAX);
        assert_eq!(function.read(5), 0, "no range");
        assert_eq!(function.offset(0, Space::Io, 0xffff_fff0, 4), Some(0));
    }

    #[test]
    fn capabilities_are_a_list() {
        let mut function = Function::new(2, 1, 2, 0);
        assert_eq!(function.add_capability(9, &[16; 14], &[]), Some(0x40));
        assert_eq!(
            function.add_capability(0x11, &[4, 0, 2, 0x10, 0, 0, 2, 0x18, 0, 0], &[0, 0xc0]),
            Some(0x50)
        );
        assert_eq!(function.read(13) & 0xff, 0x40);
        assert_ne!(function.read(1) & STATUS_CAPABILITIES, 0);
        assert_eq!(function.read(0x40 / 4) & 0xffff, 0x5009);
        assert_eq!(function.read(0x50 / 4), 0x0004_0011);
        function.write(0x50 / 4, u32::MAX, u32::MAX);
        assert_eq!(function.read(0x50 / 4), 0xc004_0011);
        assert_eq!(function.add_capability(9, &[0; 200], &[]), None);
    }

    #[test]
    fn line_interrupts_can_be_off() {
        let mut function = Function::new(2, 1, 2, 0);
        assert!(function.set_interrupt(true));
        function.write(1, u32::MAX, COMMAND_NO_LINE);
        assert!(!function.set_interrupt(true));
        assert_ne!(function.read(1) & STATUS_INTERRUPT, 0);
        assert!(!function.set_interrupt(false));
        assert_eq!(function.read(1) & STATUS_INTERRUPT, 0);
    }

    proptest! {
        #[test]
        fn ranges_hold_what_they_say(writes in prop::collection::vec((0usize..64, any::<u32>(), any::<u32>()), 1..50), address: u64, width in 1u8..9) {
            let mut function = Function::new(2, 1, 2, 3);
            function.set_range(0, Space::Io, 16, 0xc040);
            function.set_range(1, Space::Memory, 0x2000, 0xc000_0000);
            for (index, mask, value) in writes {
                function.write(index, mask, value);
            }
            prop_assert_eq!(function.read(0), 0x0002_0001);
            for (index, space, length) in [(0, Space::Io, 16), (1, Space::Memory, 0x2000)] {
                if let Some(offset) = function.offset(index, space, address, width) {
                    prop_assert!(offset + u32::from(width) <= length);
                }
            }
        }
    }
}
