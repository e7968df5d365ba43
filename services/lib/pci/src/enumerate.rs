//! Finding functions.

use crate::bar::{self, Bar};
use crate::capability::{self, Capability, Msi, Msix, id};
use crate::{Address, ConfigSpace, command, register};
use alloc::vec::Vec;

/// What a function is (PCI Code and ID Assignment 1.11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Base class: 1 storage, 2 network, 3 display, 6 bridges.
    pub base: u8,
    /// Sub-class.
    pub sub: u8,
    /// Programming interface.
    pub interface: u8,
}

/// Layout of the registers from 0x10 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A device.
    Device,
    /// A bridge with the bus right below it and the last bus below that.
    Bridge {
        /// Bus below.
        secondary: u8,
        /// Last bus below.
        last: u8,
    },
    /// CardBus, or what nobody knows.
    Other,
}

/// A function of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// Who made it.
    pub vendor: u16,
    /// What they call it.
    pub device: u16,
    /// Subsystem vendor and device; 0 for bridges.
    pub subsystem: (u16, u16),
    /// What it is.
    pub class: Class,
    /// Revision.
    pub revision: u8,
    /// Header.
    pub header: Header,
    /// Ranges of addresses; none for bridges.
    pub bars: Vec<Bar>,
    /// Capabilities.
    pub capabilities: Vec<Capability>,
    /// Interrupt line that the firmware wrote down; 0xff: none.
    pub line: u8,
    /// Interrupt pin, 1 to 4; 0: none.
    pub pin: u8,
    /// Interrupts by message.
    pub msi: Option<Msi>,
    /// Interrupts by a table of messages.
    pub msix: Option<Msix>,
}

/// Most functions that are taken in.
const MOST: usize = 1024;

/// All functions that can be reached from the first bus of `space` through bridges, in the order in which they are found. Afterwards no function but bridges may access memory by
/// itself: whatever the firmware had it do, its memory is somebody else's now.
#[must_use]
pub fn enumerate(space: &impl ConfigSpace) -> Vec<Function> {
    let (segment, buses) = space.buses();
    let mut found = Vec::new();
    let mut seen = [false; 256];
    let mut waiting = alloc::vec![*buses.start()];
    seen[usize::from(*buses.start())] = true;
    while let Some(bus) = waiting.pop() {
        for device in 0..32 {
            let mut functions = 1;
            for function in 0..8 {
                if function >= functions || found.len() >= MOST {
                    break;
                }
                let address = Address {
                    segment,
                    bus,
                    device,
                    function,
                };
                let Some((one, several)) = look(space, address) else {
                    continue;
                };
                if function == 0 && several {
                    functions = 8;
                }
                if let Header::Bridge { secondary, .. } = one.header
                    && buses.contains(&secondary)
                    && !core::mem::replace(&mut seen[usize::from(secondary)], true)
                {
                    waiting.push(secondary);
                }
                found.push(one);
            }
        }
    }
    found
}

/// Looks at one function; says too whether its device has several.
fn look(space: &impl ConfigSpace, address: Address) -> Option<(Function, bool)> {
    let identity = space.read(address, register::IDENTITY);
    let vendor = identity as u16;
    if vendor == 0xffff || vendor == 0 {
        return None;
    }
    let class = space.read(address, register::CLASS);
    let header = (space.read(address, register::HEADER) >> 16) as u8;
    let class_type = Class {
        base: (class >> 24) as u8,
        sub: (class >> 16) as u8,
        interface: (class >> 8) as u8,
    };
    let buses = space.read(address, register::BUSES);
    let header_type = match header & 0x7f {
        0 => Header::Device,
        1 => Header::Bridge {
            secondary: (buses >> 8) as u8,
            last: (buses >> 16) as u8,
        },
        _ => Header::Other,
    };
    let device = header_type == Header::Device;
    // Bridges of the chipset have side effects behind their registers and nobody is given them.
    let bars = if device && class_type.base != 6 {
        crate::change_command(space, address, 0, command::BUS_MASTER);
        bar::probe(space, address, 6)
    } else {
        Vec::new()
    };
    let subsystem = if device { space.read(address, register::SUBSYSTEM) } else { 0 };
    let interrupt = space.read(address, register::INTERRUPT);
    let capabilities = capability::list(space, address);
    let msix = capability::find(&capabilities, id::MSIX).and_then(|offset| Msix::read(space, address, offset));
    let function = Function {
        address,
        vendor,
        device: (identity >> 16) as u16,
        subsystem: (subsystem as u16, (subsystem >> 16) as u16),
        class: class_type,
        revision: class as u8,
        header: header_type,
        bars,
        line: interrupt as u8,
        pin: (interrupt >> 8) as u8,
        msi: capability::find(&capabilities, id::MSI)
            .filter(|offset| *offset <= 0xe8)
            .map(|offset| Msi { offset }),
        msix,
        capabilities,
    };
    Some((function, header & 0x80 != 0))
}

impl Function {
    /// The range of a register.
    #[must_use]
    pub fn bar(&self, index: u8) -> Option<&Bar> {
        self.bars.iter().find(|bar| bar.index == index)
    }
}
