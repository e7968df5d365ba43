//! Virtio over PCI (virtio 1.2, 4.1): a memory range with the register files and the MSI-X table, and an I/O range with a port at which all queues are notified, so that the kernel signals the server
//! itself when the driver notifies (a port's doorbell, see `GuestSpace`).

mod saved;

pub use saved::SavedVirtio;

use super::registers::{self, MAX_QUEUES, Registers, Service};
use super::{CONFIG_LENGTH, DeviceConfig};
use crate::apic::{Interrupts, Kick, Message};
use crate::devices::pci::function::{Function, Space};
use crate::devices::pci::line_of;
use crate::devices::pci::msix::{self, Msix};

/// Red Hat, who keep virtio's identities; a device of the standard is 0x1040 and its kind.
const VENDOR: u16 = 0x1af4;
const DEVICE: u16 = 0x1040;
/// Base address registers.
const IO: usize = 0;
const MEMORY: usize = 2;
const IO_LENGTH: u32 = 4;
const MEMORY_LENGTH: u32 = 0x2000;
/// Parts of the memory range.
const COMMON: u32 = 0;
const ISR: u32 = 0x100;
const OWN: u32 = 0x200;
const TABLE: u32 = 0x1000;
const PENDING: u32 = 0x1800;
/// Interrupt status: a queue; the configuration.
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;
/// Capability of a vendor's own.
const VENDOR_CAPABILITY: u8 = 9;

/// A device.
#[derive(Clone, Debug)]
pub struct VirtioPci {
    function: Function,
    config: DeviceConfig,
    registers: Registers,
    msix: Msix,
    isr: u8,
    /// The bit of a vCPU thread's signals that stands for the first queue; the others follow.
    first_signal: u32,
    /// Registers of configuration space that are more than memory: MSI-X control, and the window to the ranges.
    msix_register: usize,
    window_register: usize,
    /// vCPU whose thread each queue's server signals, and the vector that its bit is routed to there; 0: none, the monitor gets the bit.
    pointed: [usize; MAX_QUEUES],
    routed: [u8; MAX_QUEUES],
}

/// A capability that says where a part is (4.1.4).
fn capability(length: u8, kind: u8, bar: usize, offset: u32, bytes: u32) -> [u8; 14] {
    let mut content = [0; 14];
    content[..3].copy_from_slice(&[length, kind, bar as u8]);
    content[6..10].copy_from_slice(&offset.to_le_bytes());
    content[10..].copy_from_slice(&bytes.to_le_bytes());
    content
}

impl VirtioPci {
    /// Device `slot`, its ranges at these addresses. Its queues have the bits of vCPU threads' signals from `first_signal` on.
    #[must_use]
    pub fn new(slot: u8, io: u32, memory: u32, first_signal: u32, config: DeviceConfig) -> Self {
        let mut function = Function::new(slot, VENDOR, DEVICE + config.kind, config.class);
        function.set_subsystem(VENDOR, DEVICE + config.kind);
        function.set_line(line_of(slot));
        function.set_range(IO, Space::Io, IO_LENGTH, io);
        function.set_range(MEMORY, Space::Memory, MEMORY_LENGTH, memory);
        // One vector for each queue and one for the configuration.
        let msix = Msix::new(config.queues + 1);
        let mut add = |content: &[u8], writable: &[u8]| function.add_capability(VENDOR_CAPABILITY, content, writable);
        // All of them fit behind the header; a test counts.
        add(&capability(16, 1, MEMORY, COMMON, registers::LENGTH as u32), &[]);
        // The multiplier is 0: one place for all.
        let mut notify = [0; 18];
        notify[..14].copy_from_slice(&capability(20, 2, IO, 0, IO_LENGTH));
        add(&notify, &[]);
        add(&capability(16, 3, MEMORY, ISR, 1), &[]);
        add(&capability(16, 4, MEMORY, OWN, CONFIG_LENGTH as u32), &[]);
        let mut window = [0; 18];
        window[..14].copy_from_slice(&capability(20, 5, 0, 0, 0));
        let window = add(&window, &[0, 0, 0xff, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        let table = function.add_capability(msix::CAPABILITY, &msix.capability(MEMORY as u8, TABLE, PENDING), &msix::WRITABLE);
        Self {
            function,
            config,
            registers: Registers::new(&config),
            msix,
            isr: 0,
            first_signal,
            msix_register: usize::from(table.unwrap_or(0)) / 4,
            window_register: usize::from(window.unwrap_or(0)) / 4,
            pointed: [0; MAX_QUEUES],
            routed: [0; MAX_QUEUES],
        }
    }

    /// What it was made of.
    #[must_use]
    pub const fn config(&self) -> &DeviceConfig {
        &self.config
    }

    /// Device number on its bus.
    #[must_use]
    pub const fn slot(&self) -> u8 {
        self.function.slot()
    }

    /// The monitor's own driver begins to use it: see [`Registers::adopt`].
    pub fn adopt<K: Kick>(&mut self, features: u64, queues: &[registers::QueueConfig], to: &Interrupts<K>) {
        self.registers.adopt(features, queues);
        to.wake_link();
    }

    /// Its registers.
    #[must_use]
    pub const fn registers(&self) -> &Registers {
        &self.registers
    }

    /// The offset of an access in one of its ranges.
    #[must_use]
    pub fn offset(&self, space: Space, address: u64, width: u8) -> Option<u32> {
        let index = match space {
            Space::Io => IO,
            Space::Memory => MEMORY,
        };
        self.function.offset(index, space, address, width)
    }

    /// The port at which queues are notified, if the guest lets the device answer to ports.
    #[must_use]
    pub fn notify_port(&self) -> Option<u16> {
        self.function.range(IO, Space::Io).and_then(|port| u16::try_from(port).ok())
    }

    /// Reads a register of configuration space.
    pub fn config_read<K: Kick>(&mut self, register: usize, to: &Interrupts<K>) -> u32 {
        if register == self.window_register + 4
            && let Some((space, offset, width)) = self.window()
        {
            return self.range_read(space, offset, width, to) as u32;
        }
        self.function.read(register)
    }

    /// Writes a register of configuration space.
    pub fn config_write<K: Kick>(&mut self, register: usize, mask: u32, value: u32, to: &Interrupts<K>) {
        if register == self.window_register + 4 {
            if let Some((space, offset, width)) = self.window() {
                self.range_write(space, offset, width, u64::from(value), to);
            }
            return;
        }
        self.function.write(register, mask, value);
        if register == self.msix_register {
            let control = (self.function.read(register) >> 16) as u16;
            self.msix.set_control(control, &mut |message| to.send(&message, None));
            self.reroute(to);
        }
        if self.registers.service() != Service::Idle && (register == 1 || register == 4 || register == self.msix_register) {
            // Ports or interrupts may have moved.
            to.wake_link();
        }
    }

    /// The window in configuration space to the ranges (4.1.4.9): which range, offset and width the driver put there.
    fn window(&self) -> Option<(Space, u32, u8)> {
        let at = |index: usize| self.function.read(self.window_register + index);
        let (bar, offset, width) = (at(1) as u8, at(2), at(3));
        let (space, length) = match usize::from(bar) {
            IO => (Space::Io, IO_LENGTH),
            MEMORY => (Space::Memory, MEMORY_LENGTH),
            _ => return None,
        };
        let fits = matches!(width, 1 | 2 | 4) && offset.is_multiple_of(width) && offset <= length - width;
        fits.then_some((space, offset, width as u8))
    }

    /// Reads `width` bytes at an offset that [`Self::offset`] gave.
    pub fn range_read<K: Kick>(&mut self, space: Space, offset: u32, width: u8, _to: &Interrupts<K>) -> u64 {
        if space == Space::Io {
            return 0;
        }
        match offset {
            COMMON..ISR => self.registers.read(offset, width, &self.config),
            // Reading it takes it (4.1.4.5).
            ISR => u64::from(core::mem::take(&mut self.isr)),
            OWN..TABLE => {
                let mut value = [0; 8];
                let start = (offset - OWN) as usize;
                for (byte, own) in value[..usize::from(width.min(8))]
                    .iter_mut()
                    .zip(self.config.space.iter().skip(start))
                {
                    *byte = *own;
                }
                u64::from_le_bytes(value)
            }
            TABLE..PENDING => self.msix.read_table_bytes(offset - TABLE, width),
            _ if offset >= PENDING => self.msix.read_pending_bytes(offset - PENDING, width),
            _ => 0,
        }
    }

    /// Writes `width` bytes at an offset that [`Self::offset`] gave.
    pub fn range_write<K: Kick>(&mut self, space: Space, offset: u32, width: u8, value: u64, to: &Interrupts<K>) {
        if space == Space::Io {
            // Where the kernel has no doorbell: the server is not there yet, or the access is an odd one.
            to.ring(self.index());
            return;
        }
        let tell = match offset {
            OWN..TABLE => {
                self.write_own((offset - OWN) as usize, width, value);
                false
            }
            COMMON..ISR => self.registers.write(offset, width, value, &self.config, self.msix.count()),
            TABLE..PENDING => {
                let mut send = |message: Message| to.send(&message, None);
                self.msix.write_table_bytes(offset - TABLE, width, value, &mut send)
            }
            _ => false,
        };
        if tell {
            self.reroute(to);
        }
        if tell {
            to.wake_link();
        }
    }

    fn write_own(&mut self, start: usize, width: u8, value: u64) {
        let bytes = value.to_le_bytes();
        for (at, byte) in (start..CONFIG_LENGTH).zip(&bytes[..usize::from(width.min(8))]) {
            if self.config.writable >> at & 1 != 0 {
                self.config.space[at] = *byte;
            }
        }
    }

    /// Its place among the devices.
    const fn index(&self) -> usize {
        self.function.slot() as usize - super::super::pci::FIRST_DEVICE as usize
    }

    /// The bit of a vCPU thread's signals with which a queue's server says that the queue interrupts.
    #[must_use]
    pub const fn signal_bit(&self, queue: u16) -> u32 {
        self.first_signal + queue as u32 % self.config.queues as u32
    }

    /// The queue that a bit stands for.
    #[must_use]
    pub fn queue_of(&self, bit: u32) -> Option<u16> {
        let queue = bit.checked_sub(self.first_signal)? as u16;
        (!self.config.local && queue < self.config.queues).then_some(queue)
    }

    /// What a queue's interrupt sends, if it goes out as a message and nothing masks it: the first vCPU that it is for, and the vector if it can be routed there without the monitor.
    fn route<K: Kick>(&self, queue: u16, to: &Interrupts<K>) -> Option<(usize, u8)> {
        self.msix.route(self.registers.vector(queue), to)
    }

    /// The vCPU whose thread a queue's server should signal.
    #[must_use]
    pub fn target<K: Kick>(&self, queue: u16, to: &Interrupts<K>) -> usize {
        self.route(queue, to).map_or(0, |(target, _)| target)
    }

    /// A queue's server signals the thread of vCPU `target` from now on.
    pub fn point<K: Kick>(&mut self, queue: u16, target: usize, to: &Interrupts<K>) {
        let number = usize::from(queue) % MAX_QUEUES;
        if self.pointed[number] != target && core::mem::take(&mut self.routed[number]) != 0 {
            to.set_route(self.pointed[number], self.signal_bit(queue), 0);
        }
        self.pointed[number] = target;
        self.reroute(to);
    }

    /// Routes each queue's bit to its vector where it is signalled, or to the monitor.
    fn reroute<K: Kick>(&mut self, to: &Interrupts<K>) {
        if self.config.local {
            return;
        }
        let serving = matches!(self.registers.service(), Service::Serving | Service::Wanted { .. });
        for queue in 0..self.config.queues {
            let number = usize::from(queue);
            let route = self
                .route(queue, to)
                .filter(|(target, _)| serving && *target == self.pointed[number]);
            let vector = route.map_or(0, |(_, vector)| vector);
            if core::mem::replace(&mut self.routed[number], vector) != vector {
                to.set_route(self.pointed[number], self.signal_bit(queue), vector);
            }
        }
    }

    /// A queue interrupts. `from` is the vCPU whose thread this is.
    pub fn queue_interrupt<K: Kick>(&mut self, queue: u16, to: &Interrupts<K>, from: Option<usize>) {
        self.interrupt(self.registers.vector(queue), ISR_QUEUE, to, from);
    }

    fn interrupt<K: Kick>(&mut self, vector: u16, cause: u8, to: &Interrupts<K>, from: Option<usize>) {
        if self.config.hidden {
            // Its driver looks by itself.
            return;
        }
        if self.msix.is_enabled() {
            self.msix.raise(vector, &mut |message| to.send(&message, from));
        } else {
            self.isr |= cause;
        }
    }

    /// Whether it asks for its line.
    pub const fn line_interrupt(&mut self) -> bool {
        let pending = self.isr != 0 && !self.msix.is_enabled();
        self.function.set_interrupt(pending)
    }

    /// The server serves it.
    pub fn served<K: Kick>(&mut self, to: &Interrupts<K>) {
        self.registers.served();
        self.reroute(to);
    }

    /// The server stopped serving it.
    pub fn stopped<K: Kick>(&mut self, to: &Interrupts<K>) {
        self.registers.stopped();
        self.isr = 0;
        self.reroute(to);
    }

    /// The server died.
    pub fn server_died(&mut self) {
        self.registers.server_died();
    }

    /// The driver broke a rule: it has to reset the device.
    pub fn broken<K: Kick>(&mut self, to: &Interrupts<K>) {
        if self.registers.needs_reset() {
            self.interrupt(self.registers.config_vector(), ISR_CONFIG, to, None);
        }
    }

    /// Its own configuration space is changed; `change` answers whether the driver is to be told.
    pub fn reconfigure<K: Kick>(&mut self, change: impl FnOnce(&mut DeviceConfig) -> bool, to: &Interrupts<K>) {
        if change(&mut self.config) && self.registers.config_changed() {
            self.interrupt(self.registers.config_vector(), ISR_CONFIG, to, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block;
    use super::super::registers::tests::start;
    use super::*;
    use crate::apic::routing::{Event, tests::Kicks};
    use proptest::prelude::*;

    fn device() -> (VirtioPci, Interrupts<Kicks>) {
        let mut device = VirtioPci::new(3, 0xc040, 0xc001_0000, 12, block::config(&block::tests::disk()));
        let to = Interrupts::new(2, Kicks::default());
        device.config_write(1, u32::MAX, 7, &to);
        (device, to)
    }

    fn started() -> (VirtioPci, Interrupts<Kicks>) {
        let (mut device, to) = device();
        start(&mut |offset, width, value| device.range_write(Space::Memory, offset, width, value, &to));
        device.served(&to);
        (device, to)
    }

    /// Capabilities as a driver walks them: identity and offset.
    fn walk(device: &mut VirtioPci, to: &Interrupts<Kicks>) -> std::vec::Vec<(u8, usize)> {
        let mut found = std::vec::Vec::new();
        let mut next = device.config_read(13, to) as usize & 0xff;
        while next != 0 {
            let word = device.config_read(next / 4, to);
            found.push((word as u8, next));
            next = (word >> 8) as usize & 0xff;
        }
        found
    }

    #[test]
    fn all_parts_are_announced() {
        let (mut device, to) = device();
        let found = walk(&mut device, &to);
        let kinds: std::vec::Vec<u8> = found
            .iter()
            .filter(|(kind, _)| *kind == 9)
            .map(|(_, at)| (device.config_read(at / 4, &to) >> 24) as u8)
            .collect();
        assert_eq!(kinds, [1, 2, 3, 4, 5]);
        assert_eq!(found.last().unwrap().0, msix::CAPABILITY);
        let notify = found[1].1 / 4;
        assert_eq!(device.config_read(notify + 1, &to) & 0xff, IO as u32);
        assert_eq!(device.config_read(notify + 4, &to), 0, "one port for all queues");
        assert_eq!(device.config_read(found[5].1 / 4, &to) >> 16, 4, "five vectors");
    }

    #[test]
    fn the_window_reaches_the_ranges() {
        let (mut device, to) = device();
        let window = device.window_register;
        for (register, value) in [(1, MEMORY as u32), (2, 18), (3, 2)] {
            device.config_write(window + register, u32::MAX, value, &to);
        }
        assert_eq!(device.config_read(window + 4, &to), 4, "number of queues");
        device.config_write(window + 2, u32::MAX, 22, &to);
        device.config_write(window + 4, u32::MAX, 3, &to);
        assert_eq!(device.range_read(Space::Memory, 22, 2, &to), 3);
        for bad in [(1, 4), (2, MEMORY_LENGTH), (3, 3)] {
            let (mut device, to) = (device.clone(), &to);
            device.config_write(window + bad.0, u32::MAX, bad.1, to);
            device.config_write(window + 4, u32::MAX, 1, to);
        }
    }

    #[test]
    fn messages_and_lines() {
        let (mut device, to) = started();
        device.queue_interrupt(1, &to, None);
        assert!(device.line_interrupt());
        assert_eq!(device.range_read(Space::Memory, ISR, 1, &to), 1);
        assert!(!device.line_interrupt(), "reading takes it");
        device.config_write(device.msix_register, u32::MAX, 0x8000_0000, &to);
        // Queue 1 has vector 2: to vCPU 1, vector 0x61.
        for (word, value) in [(0, 0xfee0_1000), (4, 0), (8, 0x61), (12, 0)] {
            device.range_write(Space::Memory, TABLE + 32 + word, 4, value, &to);
        }
        assert_eq!(device.target(1, &to), 1);
        assert!(
            to.inbox(1).routes().iter().all(|vector| *vector == 0),
            "signalled elsewhere: through the monitor"
        );
        device.point(1, 1, &to);
        assert_eq!(to.inbox(1).routes()[13], 0x61);
        device.range_write(Space::Memory, TABLE + 44, 4, 1, &to);
        assert_eq!(to.inbox(1).routes()[13], 0, "masked");
        device.range_write(Space::Memory, TABLE + 44, 4, 0, &to);
        assert_eq!(to.inbox(1).routes()[13], 0x61);
        let _ = to.inbox(1).take_events();
        device.queue_interrupt(1, &to, None);
        assert_eq!(to.inbox(1).take_events() & Event::VECTORS, Event::VECTORS);
        assert!(!device.line_interrupt());
        assert_eq!(device.target(0, &to), 0, "no vector");
        device.queue_interrupt(0, &to, None);
    }

    #[test]
    fn a_broken_rule_and_a_new_size_are_told() {
        let (mut device, to) = started();
        device.broken(&to);
        assert_eq!(device.range_read(Space::Memory, 20, 1, &to), 79);
        assert_eq!(device.range_read(Space::Memory, ISR, 1, &to), 2);
        let resize = |config: &mut DeviceConfig| {
            block::set_sectors(config, 77);
            true
        };
        device.reconfigure(resize, &to);
        assert_eq!(device.range_read(Space::Memory, OWN, 8, &to), 77);
        assert_eq!(device.range_read(Space::Memory, ISR, 1, &to), 2);
    }

    #[test]
    fn the_link_is_woken_when_there_is_something_to_tell() {
        let (mut device, to) = device();
        start(&mut |offset, width, value| device.range_write(Space::Memory, offset, width, value, &to));
        assert_eq!(to.kicked().links(), 1);
        device.served(&to);
        device.range_write(Space::Io, 0, 2, 1, &to);
        assert_eq!(to.kicked().rings(), [1]);
        device.range_write(Space::Memory, 20, 1, 0, &to);
        assert_eq!(to.kicked().links(), 2);
        device.stopped(&to);
        assert_eq!(device.range_read(Space::Memory, 20, 1, &to), 0);
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((0u8..7, any::<u32>(), prop::sample::select(&[1u8, 2, 4, 8]), any::<u64>()), 1..300)) {
            let (mut device, to) = device();
            for (kind, place, width, value) in operations {
                let offset = place % (MEMORY_LENGTH - 8);
                match kind {
                    0 => device.range_write(Space::Memory, offset, width, value, &to),
                    1 => { device.range_read(Space::Memory, offset, width, &to); }
                    2 => device.config_write(place as usize % 64, value as u32, (value >> 32) as u32, &to),
                    3 => { device.config_read(place as usize % 64, &to); }
                    4 => device.range_write(Space::Memory, offset % 64, width, value & 0xff, &to),
                    5 => device.queue_interrupt(place as u16 % 6, &to, None),
                    _ => match place % 4 {
                        0 => device.served(&to),
                        1 => device.stopped(&to),
                        2 => device.broken(&to),
                        _ => device.server_died(),
                    }
                }
                device.line_interrupt();
            }
        }
    }
}
