//! The PCI bus by configuration mechanism 1 (PCI Local Bus Specification 3.0, 3.2.2.3.2): a host bridge, an ISA bridge, and behind them virtio devices.
//!
//! What a machine's firmware does is done from the start: ranges have addresses in the windows that the DSDT names, and functions know their interrupt line.

pub mod function;
pub mod msix;
pub mod passthrough;
mod q35;
mod saved;

pub use saved::{SavedFunction, SavedPci};

use super::ahci::Ahci;
use super::e1000e::E1000e;
use super::vga::{self, Display, Vga};
use super::virtio::{DeviceConfig, FIRST_SIGNAL, MAX_SIGNALS, VirtioPci};
use super::watchdog::{self, Watchdog};
use super::xhci::{self, Xhci};
use crate::apic::{Interrupts, Kick};
use crate::memory::GuestMemory;
use alloc::boxed::Box;
use alloc::vec::Vec;
use function::{Function, REGISTERS, Space};
use passthrough::Passthrough;

/// Address port.
pub const ADDRESS: u16 = 0xcf8;
/// First data port.
pub const DATA: u16 = 0xcfc;
/// Most virtio devices.
pub const MAX_DEVICES: usize = 20;
const ENABLE: u32 = 1 << 31;
/// Device number of the first virtio device.
pub const FIRST_DEVICE: u8 = 2;
/// Ports from here on are for devices on the bus, as the DSDT says.
pub const IO_WINDOW: u16 = 0xc000;
/// Memory from here up to the I/O APIC is for devices on the bus.
pub const MEMORY_WINDOW: u32 = 0xc000_0000;
/// Distance of two devices' ranges in either.
const IO_STEP: u16 = 0x40;
const MEMORY_STEP: u32 = 0x1_0000;
/// Lines of the interrupt controllers that INTA of device 0, 1, 2 ... are wired to, in turn. Both controllers have them under the same number.
pub const LINES: [u8; 2] = [10, 11];

/// The line of a device's INTA.
#[must_use]
pub const fn line_of(slot: u8) -> u8 {
    // INTA to INTD of device 0 go to line 10, 10, 11, 11, and each device is one further; those from 25 on are not rotated. This is what firmware
    // makes of ICH9's eight wires.
    if slot > 24 { LINES[0] } else { LINES[slot as usize / 2 % 2] }
}

/// What the bus begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Board {
    /// Bridges that need no driver: for kernels that are booted directly.
    Plain,
    /// Those of Intel's Q35 with ICH9, where firmware expects them.
    Q35,
}

impl Board {
    const fn bridges(self) -> [Function; 2] {
        match self {
            // Red Hat's generic host bridge and Intel's PIIX3 ISA bridge: identities that drivers know to need nothing.
            Self::Plain => [
                Function::new(0, 0x1b36, 0x0008, 0x0600_0000),
                Function::new(1, 0x8086, 0x7000, 0x0601_0000),
            ],
            Self::Q35 => [q35::host_bridge(), q35::isa_bridge()],
        }
    }
}

/// A register of a function.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: u8,
    function: u8,
    register: usize,
}

/// The bits of an access of `width` bytes.
const fn width_mask(width: u8) -> u32 {
    if width >= 4 { u32::MAX } else { (1 << (width * 8)) - 1 }
}

/// The bus.
#[derive(Debug)]
pub struct Pci {
    address: u32,
    board: Board,
    bridges: [Function; 2],
    /// At most [`MAX_DEVICES`]; on the heap, for the board is moved about on small stacks.
    devices: Vec<VirtioPci>,
    /// The graphics card, on machines with a screen.
    display: Option<Box<Vga>>,
    /// The host adapter with the CD-ROM drive and hard disks.
    ahci: Option<Box<Ahci>>,
    /// Network cards that are no virtio devices.
    cards: Vec<E1000e>,
    /// The watchdog, on machines that have one.
    watchdog: Option<Box<Watchdog>>,
    /// The USB controller with a tablet, on machines with a screen.
    xhci: Option<Box<Xhci>>,
    /// Functions of the host.
    passed: Vec<Passthrough>,
}

impl Default for Pci {
    fn default() -> Self {
        Self::new()
    }
}

impl Pci {
    /// A bus with its host bridge (00.0) and ISA bridge (01.0).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            address: 0,
            board: Board::Plain,
            bridges: Board::Plain.bridges(),
            devices: Vec::new(),
            display: None,
            ahci: None,
            cards: Vec::new(),
            watchdog: None,
            xhci: None,
            passed: Vec::new(),
        }
    }

    /// Adds a function of the host. Before virtio devices, which have the bits that are left.
    pub fn add_passed(&mut self, passed: Passthrough) {
        self.passed.push(passed);
    }

    /// Bits of vCPU threads' signals that functions of the host have: the last ones.
    #[must_use]
    pub fn passed_signals(&self) -> u32 {
        self.passed.iter().map(|passed| u32::from(passed.vectors())).sum()
    }

    /// A function of the host, and its vector, that a bit of a vCPU thread's signals stands for: its interrupt came.
    pub fn passed_signal<K: Kick>(&mut self, bit: u32, to: &Interrupts<K>, from: Option<usize>) {
        for passed in &mut self.passed {
            if let Some(vector) = passed.vector_of(bit) {
                passed.interrupt(vector, to, from);
            }
        }
    }

    /// Adds a USB controller with a tablet.
    pub fn add_xhci(&mut self) {
        self.xhci = Some(Box::new(Xhci::new()));
    }

    /// The USB controller.
    pub fn xhci(&mut self) -> Option<&mut Xhci> {
        self.xhci.as_deref_mut()
    }

    /// Adds a watchdog.
    pub fn add_watchdog(&mut self, action: watchdog::Action) {
        self.watchdog = Some(Box::new(Watchdog::new(action)));
    }

    /// The watchdog.
    pub fn watchdog(&mut self) -> Option<&mut Watchdog> {
        self.watchdog.as_deref_mut()
    }

    /// What the bus began with.
    #[must_use]
    pub const fn board(&self) -> Board {
        self.board
    }

    /// Plugs the graphics card in, with what the video RAM holds or with an empty screen.
    pub fn add_display(&mut self, display: Display, fill: bool) {
        self.display = Some(Box::new(Vga::new(display, fill)));
    }

    /// The graphics card.
    pub fn display(&mut self) -> Option<&mut Vga> {
        self.display.as_deref_mut()
    }

    /// Changes what the bus begins with. Before devices are added.
    pub const fn set_board(&mut self, board: Board) {
        self.board = board;
        self.bridges = board.bridges();
    }

    /// Adds the host adapter for SATA.
    pub fn add_ahci(&mut self, ahci: Ahci) {
        self.ahci = Some(Box::new(ahci));
    }

    /// Adds a network card that is no virtio device.
    pub fn add_card(&mut self, card: E1000e) {
        self.cards.push(card);
    }

    /// Whether a controller that the guest sees stands before a device that it does not see.
    #[must_use]
    pub fn hides_devices(&self) -> bool {
        self.xhci.is_some() || !self.cards.is_empty() || self.ahci.as_ref().is_some_and(|ahci| ahci.has_disks())
    }

    /// The host adapter for SATA.
    pub fn ahci(&mut self) -> Option<&mut Ahci> {
        self.ahci.as_deref_mut()
    }

    /// Goes on with what the guest asked of controllers that stand before hidden devices, and with what these did. Answers whether an interrupt line may have changed.
    // Most machines hide none; where it is asked, its size would come each time.
    #[inline(never)]
    pub fn run_hidden<K: Kick>(&mut self, memory: &GuestMemory, to: &Interrupts<K>) -> bool {
        let Self {
            ahci,
            cards,
            devices,
            xhci,
            ..
        } = self;
        let mut changed = ahci.as_mut().is_some_and(|ahci| ahci.run(memory, devices, to));
        for card in cards {
            changed |= card.run(memory, devices, to);
        }
        if let Some(xhci) = xhci {
            changed |= xhci.run(memory, to);
        }
        changed
    }

    /// Adds a virtio device; false if there are [`MAX_DEVICES`], or not enough bits for its queues.
    pub fn add(&mut self, config: DeviceConfig) -> bool {
        let bits = |config: &DeviceConfig| if config.local { 0 } else { u32::from(config.queues) };
        let queues: u32 = self.devices.iter().map(|device| bits(device.config())).sum();
        if self.devices.len() == MAX_DEVICES || queues + bits(&config) + self.passed_signals() > MAX_SIGNALS {
            return false;
        }
        let index = self.devices.len() as u8;
        let slot = FIRST_DEVICE + index;
        let io = u32::from(IO_WINDOW + IO_STEP * u16::from(index));
        let memory = MEMORY_WINDOW + MEMORY_STEP * u32::from(index);
        self.devices.push(VirtioPci::new(slot, io, memory, FIRST_SIGNAL + queues, config));
        true
    }

    /// Power-on state of all functions.
    pub fn reset(&mut self) {
        self.address = 0;
        self.bridges = self.board.bridges();
        for device in core::mem::take(&mut self.devices) {
            self.add(*device.config());
        }
        if let Some(display) = &mut self.display {
            display.reset();
        }
        if let Some(ahci) = &mut self.ahci {
            ahci.reset();
        }
        self.cards.iter_mut().for_each(E1000e::reset);
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.reset();
        }
        if let Some(xhci) = &mut self.xhci {
            **xhci = Xhci::new();
        }
        self.passed.iter_mut().for_each(Passthrough::reset);
    }

    /// The virtio devices, in the order in which they were added.
    #[must_use]
    pub fn devices(&self) -> &[VirtioPci] {
        &self.devices
    }

    /// A virtio device.
    pub fn device(&mut self, index: usize) -> Option<&mut VirtioPci> {
        self.devices.get_mut(index)
    }

    /// The device and queue that a bit of a vCPU thread's signals stands for.
    #[must_use]
    pub fn signalled(&self, bit: u32) -> Option<(usize, u16)> {
        let mut devices = self.devices.iter().enumerate();
        devices.find_map(|(index, device)| Some((index, device.queue_of(bit)?)))
    }

    /// The place that the address register names.
    const fn selected(&self) -> Option<Place> {
        let address = self.address;
        if address & ENABLE == 0 || address >> 16 & 0xff != 0 {
            return None;
        }
        Some(Place {
            slot: (address >> 11 & 31) as u8,
            function: (address >> 8 & 7) as u8,
            register: (address >> 2 & 63) as usize,
        })
    }

    /// A function that is nothing but its registers.
    fn plain(&mut self, place: Place) -> Option<&mut Function> {
        if let Some(ahci) = self.ahci.as_mut().filter(|ahci| ahci.place() == (place.slot, place.function)) {
            return Some(ahci.function());
        }
        if let Some(card) = self.cards.iter_mut().find(|card| (card.slot(), 0) == (place.slot, place.function)) {
            return Some(card.function());
        }
        if let Some(display) = self.display.as_mut().filter(|_| (place.slot, place.function) == (vga::SLOT, 0)) {
            return Some(&mut display.function);
        }
        let own = |bridge: &&mut Function| place.function == 0 && bridge.slot() == place.slot;
        self.bridges.iter_mut().find(own)
    }

    fn virtio(&mut self, place: Place) -> Option<&mut VirtioPci> {
        let index = place.slot.checked_sub(FIRST_DEVICE).filter(|_| place.function == 0)?;
        self.devices.get_mut(usize::from(index)).filter(|device| !device.config().hidden)
    }

    fn watchdog_at(&mut self, place: Place) -> Option<&mut Watchdog> {
        self.watchdog
            .as_deref_mut()
            .filter(|_| (place.slot, place.function) == (watchdog::SLOT, 0))
    }

    fn xhci_at(&mut self, place: Place) -> Option<&mut Xhci> {
        self.xhci.as_deref_mut().filter(|_| (place.slot, place.function) == (xhci::SLOT, 0))
    }

    fn passed_at(&mut self, place: Place) -> Option<&mut Passthrough> {
        self.passed
            .iter_mut()
            .find(|passed| (passed.slot(), 0) == (place.slot, place.function))
    }

    /// Reads a register of configuration space; ones where no function is.
    fn config_read<K: Kick>(&mut self, place: Place, to: &Interrupts<K>) -> u32 {
        if let Some(watchdog) = self.watchdog_at(place) {
            watchdog.function().read(place.register)
        } else if let Some(xhci) = self.xhci_at(place) {
            xhci.config_read(place.register)
        } else if let Some(bridge) = self.plain(place) {
            bridge.read(place.register)
        } else if let Some(device) = self.virtio(place) {
            device.config_read(place.register, to)
        } else if let Some(passed) = self.passed_at(place) {
            passed.config_read(place.register)
        } else {
            u32::MAX
        }
    }

    /// Writes the bits of `mask`.
    fn config_write<K: Kick>(&mut self, place: Place, mask: u32, value: u32, to: &Interrupts<K>) {
        if let Some(watchdog) = self.watchdog_at(place) {
            watchdog.config_write(place.register, mask, value);
        } else if let Some(xhci) = self.xhci_at(place) {
            xhci.config_write(place.register, mask, value, to);
        } else if let Some(bridge) = self.plain(place) {
            bridge.write(place.register, mask, value);
            if let Some(display) = self.display.as_mut().filter(|_| (place.slot, place.function) == (vga::SLOT, 0)) {
                display.settle();
            }
        } else if let Some(device) = self.virtio(place) {
            device.config_write(place.register, mask, value, to);
        } else if let Some(passed) = self.passed_at(place) {
            passed.config_write(place.register, mask, value, to);
        }
    }

    /// Reads `width` bytes at a port from 0xcf8 to 0xcff.
    pub fn read<K: Kick>(&mut self, port: u16, width: u8, to: &Interrupts<K>) -> u32 {
        let word = if port < DATA {
            if port != ADDRESS || width != 4 {
                return u32::MAX;
            }
            self.address
        } else {
            match self.selected() {
                Some(place) => self.config_read(place, to),
                None => u32::MAX,
            }
        };
        word >> ((port & 3) * 8)
    }

    /// Writes; parts that cross a register's end are lost.
    pub fn write<K: Kick>(&mut self, port: u16, width: u8, value: u32, to: &Interrupts<K>) {
        if port < DATA {
            if port == ADDRESS && width == 4 {
                self.address = value & 0x80ff_fffc;
            }
            return;
        }
        let shift = u32::from(port & 3) * 8;
        if let Some(place) = self.selected() {
            self.config_write(place, width_mask(width) << shift, value << shift, to);
        }
    }

    /// What an address in the window of configuration space names (PCI Express Base Specification 5.0, 7.2.2), if it is in the window. `None` inside: another bus.
    fn mapped(&self, address: u64) -> Option<Option<Place>> {
        let offset = match self.board {
            Board::Plain => return None,
            Board::Q35 => address.checked_sub(q35::window(&self.bridges[0])?)?,
        };
        (offset < q35::WINDOW).then_some(())?;
        let register = (offset >> 2 & 0x3ff) as usize;
        Some((offset >> 20 == 0).then_some(Place {
            slot: (offset >> 15 & 31) as u8,
            function: (offset >> 12 & 7) as u8,
            register,
        }))
    }

    /// Reads through the window to configuration space; `None` if the address is not in it.
    pub fn mapped_read<K: Kick>(&mut self, address: u64, width: u8, to: &Interrupts<K>) -> Option<u64> {
        let Some(place) = self.mapped(address)? else {
            return Some(u64::MAX);
        };
        let word = match place.register {
            0..REGISTERS => self.config_read(place, to),
            // No function has extended capabilities.
            _ if self.config_read(Place { register: 0, ..place }, to) == u32::MAX => u32::MAX,
            _ => 0,
        };
        // What lies behind the register's end is not read.
        let value = u64::from(word >> ((address & 3) * 8));
        Some(if width >= 8 {
            value | u64::MAX << 32
        } else {
            value & ((1 << (8 * u32::from(width))) - 1)
        })
    }

    /// Writes through it; false if the address is not in it.
    pub fn mapped_write<K: Kick>(&mut self, address: u64, width: u8, value: u64, to: &Interrupts<K>) -> bool {
        let Some(place) = self.mapped(address) else {
            return false;
        };
        let shift = (address & 3) as u32 * 8;
        if let Some(place) = place.filter(|place| place.register < REGISTERS) {
            self.config_write(place, width_mask(width) << shift, (value as u32) << shift, to);
        }
        true
    }

    fn at(&mut self, space: Space, address: u64, width: u8) -> Option<(&mut VirtioPci, u32)> {
        self.devices.iter_mut().find_map(|device| {
            let offset = device.offset(space, address, width)?;
            Some((device, offset))
        })
    }

    /// Reads a device's range; `None` if none is there.
    pub fn range_read<K: Kick>(&mut self, space: Space, address: u64, width: u8, to: &Interrupts<K>) -> Option<u64> {
        if let (Space::Memory, Some(display)) = (space, &mut self.display)
            && let Some(value) = display.range_read(address, width)
        {
            return Some(value);
        }
        if let (Space::Memory, Some(ahci)) = (space, &self.ahci)
            && let Some(value) = ahci.range_read(address, width)
        {
            return Some(value);
        }
        if space == Space::Memory
            && let Some(value) = self.cards.iter_mut().find_map(|card| card.range_read(address, width))
        {
            return Some(value);
        }
        if let (Space::Memory, Some(watchdog)) = (space, &self.watchdog)
            && let Some(value) = watchdog.range_read(address, width)
        {
            return Some(value);
        }
        if let (Space::Memory, Some(xhci)) = (space, &mut self.xhci)
            && let Some(value) = xhci.range_read(address, width)
        {
            return Some(value);
        }
        if space == Space::Memory
            && let Some(value) = self.passed.iter().find_map(|passed| passed.range_read(address, width))
        {
            return Some(value);
        }
        let (device, offset) = self.at(space, address, width)?;
        Some(device.range_read(space, offset, width, to))
    }

    /// Writes a device's range; false if none is there.
    pub fn range_write<K: Kick>(&mut self, space: Space, address: u64, width: u8, value: u64, to: &Interrupts<K>) -> bool {
        if let (Space::Memory, Some(display)) = (space, &mut self.display)
            && display.range_write(address, width, value)
        {
            display.settle();
            return true;
        }
        if let (Space::Memory, Some(ahci)) = (space, &mut self.ahci)
            && let Some(work) = ahci.range_write(address, width, value)
        {
            if work {
                to.wake_link();
            }
            return true;
        }
        if space == Space::Memory && self.cards.iter_mut().any(|card| card.range_write(address, width, value)) {
            return true;
        }
        if let (Space::Memory, Some(watchdog)) = (space, &mut self.watchdog)
            && watchdog.range_write(address, width, value)
        {
            return true;
        }
        if let (Space::Memory, Some(xhci)) = (space, &mut self.xhci)
            && xhci.range_write(address, width, value, to)
        {
            return true;
        }
        if space == Space::Memory && self.passed.iter_mut().any(|passed| passed.range_write(address, width, value, to)) {
            return true;
        }
        let Some((device, offset)) = self.at(space, address, width) else {
            return false;
        };
        device.range_write(space, offset, width, value, to);
        true
    }

    /// The lines of [`LINES`] that any device asks for, as bits.
    pub fn lines(&mut self) -> u32 {
        // Each says it in its status register too.
        let mut asked = 0;
        let mut ask = |wants: bool, slot: u8| asked |= u32::from(wants) << line_of(slot);
        if let Some(ahci) = &mut self.ahci {
            ask(ahci.line_interrupt(), ahci.place().0);
        }
        if let Some(xhci) = &mut self.xhci {
            ask(xhci.line_interrupt(), xhci::SLOT);
        }
        for card in &mut self.cards {
            ask(card.line_interrupt(), card.slot());
        }
        for device in &mut self.devices {
            ask(device.line_interrupt(), device.slot());
        }
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apic::routing::tests::Kicks;
    use crate::devices::virtio::block;
    use proptest::prelude::*;

    fn board() -> Interrupts<Kicks> {
        Interrupts::new(1, Kicks::default())
    }

    fn read(pci: &mut Pci, device: u32, register: u32) -> u32 {
        let to = board();
        pci.write(ADDRESS, 4, ENABLE | device << 11 | register, &to);
        pci.read(DATA, 4, &to)
    }

    #[test]
    fn finds_the_bridges_and_nothing_else() {
        let (mut pci, to) = (Pci::new(), board());
        let present: std::vec::Vec<_> = (0..32).filter(|&device| read(&mut pci, device, 0) != u32::MAX).collect();
        assert_eq!(present, [0, 1]);
        assert_eq!(read(&mut pci, 0, 8) >> 16, 0x0600);
        assert_eq!(read(&mut pci, 1, 8) >> 16, 0x0601);
        pci.write(ADDRESS, 4, ENABLE | 1 << 16, &to);
        assert_eq!(pci.read(DATA, 4, &to), u32::MAX, "no other bus");
        pci.write(ADDRESS, 4, 0, &to);
        assert_eq!(pci.read(DATA, 4, &to), u32::MAX, "not enabled");
    }

    #[test]
    fn widths_and_masks() {
        let (mut pci, to) = (Pci::new(), board());
        read(&mut pci, 0, 0);
        assert_eq!(pci.read(DATA + 2, 2, &to), 0x0008);
        pci.write(DATA, 4, 0, &to);
        assert_eq!(pci.read(DATA, 4, &to), 0x0008_1b36, "identity is read-only");
        read(&mut pci, 0, 0x3c);
        pci.write(DATA, 1, 11, &to);
        assert_eq!(pci.read(DATA, 4, &to), 11);
    }

    #[test]
    fn devices_keep_their_place_over_a_reset() {
        let (mut pci, to) = (Pci::new(), board());
        for _ in 0..MAX_SIGNALS / 4 {
            assert!(pci.add(block::config(&block::tests::disk())));
        }
        let bits: std::vec::Vec<_> = (0..64).filter_map(|bit| pci.signalled(bit)).collect();
        let queues: std::vec::Vec<_> = (0..14).flat_map(|device| (0..4).map(move |queue| (device, queue))).collect();
        assert_eq!(bits, queues, "each queue has a bit of its own");
        assert!(!pci.add(block::config(&block::tests::disk())));
        assert_eq!(read(&mut pci, 3, 0), 0x1042_1af4);
        assert_eq!(read(&mut pci, 3, 0x10), 0xc041);
        assert_eq!(read(&mut pci, 3, 0x18), 0xc001_0000);
        assert_eq!(read(&mut pci, 3, 0x3c), 0x010b);
        assert_eq!(pci.range_read(Space::Memory, 0xc001_0012, 2, &to), None, "not enabled");
        read(&mut pci, 3, 4);
        pci.write(DATA, 2, 3, &to);
        assert_eq!(pci.range_read(Space::Memory, 0xc001_0012, 2, &to), Some(4), "queues");
        assert!(pci.range_write(Space::Io, 0xc040, 2, 1, &to));
        pci.reset();
        assert_eq!(read(&mut pci, 3, 4) & 3, 0);
        assert_eq!(read(&mut pci, 3, 0x10), 0xc041);
        assert_eq!(pci.devices().len(), 14);
    }

    proptest! {
        #[test]
        fn survives_anything(operations in prop::collection::vec((any::<bool>(), ADDRESS..=0xcff, prop::sample::select(&[1u8, 2, 4]), any::<u32>()), 1..200)) {
            let (mut pci, to) = (Pci::new(), board());
            pci.add(block::config(&block::tests::disk()));
            for (write, port, width, value) in operations {
                if write { pci.write(port, width, value, &to) } else { pci.read(port, width, &to); }
            }
        }
    }
}
