//! A VGA with Bochs's extensions, as QEMU's standard card is one: ports 3B0 to 3DF, the legacy window at A0000, the extensions' ports 1CE and 1CF, and two ranges on the bus, the
//! whole video RAM and a page of registers.
//!
//! The picture is not made here. The registers stand in a page that VMX reads, and VMX draws what they and the video RAM mean. The guest reaches the video RAM through range 0 without an exit; the
//! legacy window, with its planes and latches, is emulated access by access.
//!
//! The video RAM is made in pieces, each when the guest first touches it, by itself or through the card. What is not there reads as zero; when there is no memory for it, what is written is lost and the machine goes on.

mod extensions;
mod power_on;
mod saved;
mod window;

pub use saved::SavedVga;

use super::pci::function::{Function, Space};
use alloc::boxed::Box;
use core::fmt;
use tessera_screen::{Event, Memory, Registers, VIDEO_BYTES, store_pieces};

/// First port.
pub const FIRST_PORT: u16 = 0x3b0;
/// Last port.
pub const LAST_PORT: u16 = 0x3df;
/// Index register of Bochs's extensions; the data register is the next port.
pub const EXTENSIONS: u16 = 0x1ce;
/// Last port of the extensions: an aligned data register more.
pub const EXTENSIONS_END: u16 = 0x1d0;
/// The legacy window in guest memory: first byte, and the one behind it.
pub const WINDOW: core::ops::Range<u64> = 0xa_0000..0xc_0000;
/// Device number on the bus.
pub const SLOT: u8 = 24;
/// Where the ranges are until somebody places them elsewhere.
const VIDEO_ADDRESS: u32 = 0xd000_0000;
const REGISTERS_ADDRESS: u32 = 0xd100_0000;
const REGISTERS_RANGE: u32 = 0x1000;
/// The ranges' base address registers.
const VIDEO_BAR: usize = 0;
const REGISTERS_BAR: usize = 2;
/// In the page of registers: ports from 3C0 on, and the extensions.
const PAGE_PORTS: core::ops::Range<u32> = 0x400..0x420;
const PAGE_EXTENSIONS: core::ops::Range<u32> = 0x500..0x516;

/// Bits of each sequencer register that can be written.
const SEQUENCER_MASK: [u8; 8] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff];
/// Bits of each graphics register that can be written.
const GRAPHICS_MASK: [u8; 16] = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff, 0, 0, 0, 0, 0, 0, 0];

/// What of a screen is outside of the monitor's own memory.
pub trait Surroundings: fmt::Debug + Send {
    /// Shows the guest the pieces of its video RAM that there are at an address, or nowhere.
    fn place(&mut self, address: Option<u32>);
    /// Has a piece of the video RAM made, all zero, if there is memory for it: then `video` has it, and the guest sees it with the others.
    fn make(&mut self, video: &mut Memory, piece: usize);
    /// Whether the guest reaches a piece by itself.
    fn shows(&self, piece: usize) -> bool;
    /// What was typed or moved next.
    fn event(&mut self) -> Option<Event>;
}

/// What a screen is made of.
#[derive(Debug)]
pub struct Display {
    /// Video RAM.
    pub video: Memory,
    /// Where VMX reads the registers.
    pub registers: Memory,
    /// The rest.
    pub surroundings: Box<dyn Surroundings>,
}

/// The card.
#[derive(Debug)]
pub struct Vga {
    display: Display,
    registers: Registers,
    /// The function on the bus.
    pub function: Function,
    sequencer_index: u8,
    crtc_index: u8,
    graphics_index: u8,
    attribute_index: u8,
    /// The next write to 3C0 is data.
    attribute_data: bool,
    dac_reads: bool,
    /// Palette entry and colour of it that is read or written next.
    dac_place: (u8, u8),
    /// Colours that were written of an entry that is not complete.
    dac_cache: [u8; 2],
    extension_index: u16,
    latch: u32,
    /// Reads of the input status; it shows a retrace every other time.
    looks: u8,
    /// Where the guest sees the video RAM.
    placed: Option<u32>,
    /// VMX was not told of all registers yet.
    stale: bool,
    /// Those of the CRTC that changed since, a bit for each.
    stale_crtc: u32,
}

fn function() -> Function {
    let mut function = Function::new(SLOT, 0x1234, 0x1111, 0x0300_0000);
    function.set_subsystem(0x1af4, 0x1100);
    function.set_range(VIDEO_BAR, Space::Memory, VIDEO_BYTES as u32, VIDEO_ADDRESS);
    function.set_range(REGISTERS_BAR, Space::Memory, REGISTERS_RANGE, REGISTERS_ADDRESS);
    // A screen shows something before any driver knows of it.
    function.write(1, u32::MAX, super::pci::function::COMMAND_IO | super::pci::function::COMMAND_MEMORY);
    function
}

impl Vga {
    /// A card after power-on and what a machine's firmware does: 80 by 25 characters, nothing on the screen. Without `fill` the video RAM keeps what it holds.
    #[must_use]
    pub fn new(display: Display, fill: bool) -> Self {
        let mut vga = Self {
            display,
            registers: Registers::default(),
            function: function(),
            sequencer_index: 0,
            crtc_index: 0,
            graphics_index: 0,
            attribute_index: 0,
            attribute_data: false,
            dac_reads: false,
            dac_place: (0, 0),
            dac_cache: [0; 2],
            extension_index: 0,
            latch: 0,
            looks: 0,
            placed: None,
            stale: true,
            stale_crtc: 0,
        };
        store_pieces(&vga.display.registers, vga.display.video.pieces());
        vga.power_on(fill);
        vga
    }

    /// Has the piece with a byte of the video RAM made, if it is not there.
    fn want(&mut self, offset: usize) {
        let Display {
            video,
            registers,
            surroundings,
        } = &mut self.display;
        if !video.is_there(offset)
            && let Some(piece) = video.piece_of(offset)
        {
            surroundings.make(video, piece);
            store_pieces(registers, video.pieces());
        }
    }

    /// The guest touched an address that it does not see. If it is video RAM, that is made. Answers whether the guest sees it now and is to try again.
    pub fn touch(&mut self, address: u64) -> bool {
        let Some(offset) = self.function.offset(VIDEO_BAR, Space::Memory, address, 1) else {
            return false;
        };
        self.want(offset as usize);
        let piece = self.display.video.piece_of(offset as usize);
        piece.is_some_and(|piece| self.display.surroundings.shows(piece))
    }

    /// Power-on state.
    pub fn reset(&mut self) {
        self.power_on(true);
    }

    fn power_on(&mut self, fill: bool) {
        self.function = function();
        self.registers = power_on::registers();
        if fill {
            self.want(0);
            power_on::fill(&self.display.video);
        }
        (self.attribute_data, self.dac_reads, self.dac_place) = (false, false, (0, 0));
        (self.extension_index, self.latch, self.stale) = (0, 0, true);
        self.settle();
    }

    /// Something may have changed: the guest sees the video RAM where it wants to, and VMX the registers.
    pub fn settle(&mut self) {
        let wanted = self.function.range(VIDEO_BAR, Space::Memory);
        if wanted != self.placed {
            self.placed = wanted;
            self.display.surroundings.place(wanted);
        }
        let crtc = core::mem::take(&mut self.stale_crtc);
        if core::mem::take(&mut self.stale) {
            self.registers.store(&self.display.registers);
        } else if crtc != 0 {
            (0..32)
                .filter(|index| crtc >> index & 1 != 0)
                .for_each(|index| self.registers.store_crtc(&self.display.registers, index));
        }
    }

    /// Bytes of the video RAM.
    #[must_use]
    pub const fn video_bytes(&self) -> u64 {
        self.display.video.length() as u64
    }

    /// What was typed or moved next.
    pub fn event(&mut self) -> Option<Event> {
        self.display.surroundings.event()
    }

    /// The registers.
    #[must_use]
    pub const fn registers(&self) -> &Registers {
        &self.registers
    }

    /// Ports of the colour or the monochrome set, whichever does not answer.
    fn is_deaf(&self, port: u16) -> bool {
        let colour = self.registers.misc & 1 != 0;
        match port {
            0x3b0..=0x3bf => colour,
            0x3d0..=0x3df => !colour,
            _ => false,
        }
    }

    /// Reads a byte at a port from [`FIRST_PORT`] to [`LAST_PORT`].
    pub fn read(&mut self, port: u16) -> u8 {
        if self.is_deaf(port) {
            return 0xff;
        }
        match port {
            0x3c0 if !self.attribute_data => self.attribute_index | u8::from(self.registers.lit) << 5,
            0x3c0 => 0,
            0x3c1 => self.registers.attribute[usize::from(self.attribute_index & 31)],
            // Input status 0: the monitor's sense line says that there is one.
            0x3c2 => 0x10,
            0x3c4 => self.sequencer_index,
            0x3c5 => self.registers.sequencer[usize::from(self.sequencer_index & 7)],
            0x3c6 => self.registers.mask,
            0x3c7 => {
                if self.dac_reads {
                    3
                } else {
                    0
                }
            }
            0x3c8 => self.dac_place.0,
            0x3c9 => self.read_dac(),
            0x3cc => self.registers.misc,
            0x3ce => self.graphics_index,
            0x3cf => self.registers.graphics[usize::from(self.graphics_index & 15)],
            0x3b4 | 0x3d4 => self.crtc_index,
            0x3b5 | 0x3d5 => self.registers.crtc[usize::from(self.crtc_index & 31)],
            0x3ba | 0x3da => {
                self.attribute_data = false;
                self.looks = self.looks.wrapping_add(1);
                // Drivers wait for either; neither is connected to anything here.
                if self.looks & 1 == 0 { 0 } else { 9 }
            }
            _ => 0xff,
        }
    }

    fn read_dac(&mut self) -> u8 {
        let (entry, colour) = self.dac_place;
        let value = self.registers.dac[usize::from(entry) * 3 + usize::from(colour)];
        self.dac_place = if colour == 2 {
            (entry.wrapping_add(1), 0)
        } else {
            (entry, colour + 1)
        };
        value
    }

    /// Writes a byte at a port from [`FIRST_PORT`] to [`LAST_PORT`].
    pub fn write(&mut self, port: u16, value: u8) {
        if self.is_deaf(port) {
            return;
        }
        match port {
            0x3c0 => self.write_attribute(value),
            0x3c2 => self.registers.misc = value & !0x10,
            0x3c4 => return self.sequencer_index = value & 7,
            0x3c5 => {
                let index = usize::from(self.sequencer_index & 7);
                self.registers.sequencer[index] = value & SEQUENCER_MASK[index];
            }
            0x3c6 => self.registers.mask = value,
            0x3c7 | 0x3c8 => return (self.dac_reads, self.dac_place) = (port == 0x3c7, (value, 0)),
            0x3c9 => self.write_dac(value),
            0x3ce => return self.graphics_index = value & 15,
            0x3cf => {
                let index = usize::from(self.graphics_index & 15);
                self.registers.graphics[index] = value & GRAPHICS_MASK[index];
            }
            0x3b4 | 0x3d4 => return self.crtc_index = value,
            0x3b5 | 0x3d5 => return self.write_crtc(value),
            _ => return,
        }
        self.stale = true;
    }

    fn write_attribute(&mut self, value: u8) {
        self.attribute_data ^= true;
        if self.attribute_data {
            (self.attribute_index, self.registers.lit) = (value & 31, value & 0x20 != 0);
            return;
        }
        let mask = match self.attribute_index {
            0..16 => 0x3f,
            0x10 => 0xef,
            0x11 => 0xff,
            0x12 => 0x3f,
            0x13 | 0x14 => 0x0f,
            _ => return,
        };
        self.registers.attribute[usize::from(self.attribute_index)] = value & mask;
    }

    fn write_dac(&mut self, value: u8) {
        let (entry, colour) = self.dac_place;
        match self.dac_cache.get_mut(usize::from(colour)) {
            Some(cached) => {
                *cached = value;
                self.dac_place.1 = colour + 1;
            }
            None => {
                let [red, green] = self.dac_cache;
                self.registers.dac[usize::from(entry) * 3..][..3].copy_from_slice(&[red, green, value]);
                self.dac_place = (entry.wrapping_add(1), 0);
            }
        }
    }

    fn write_crtc(&mut self, value: u8) {
        let index = usize::from(self.crtc_index);
        let locked = index < 8 && self.registers.crtc[0x11] & 0x80 != 0;
        if let Some(register) = self.registers.crtc.get_mut(index) {
            match (locked, index) {
                (false, _) => *register = value,
                // Of what is locked, one bit of line compare is not.
                (true, 7) => *register = *register & !0x10 | value & 0x10,
                _ => {}
            }
            self.stale_crtc |= 1 << index;
        }
    }

    /// Reads at an address of one of the ranges; `None`: none of them is there.
    pub fn range_read(&mut self, address: u64, width: u8) -> Option<u64> {
        if let Some(offset) = self.function.offset(VIDEO_BAR, Space::Memory, address, width) {
            let bytes = (0..u32::from(width)).map(|place| u64::from(self.display.video.byte((offset + place) as usize)) << (8 * place));
            return Some(bytes.fold(0, |all, byte| all | byte));
        }
        let offset = self.function.offset(REGISTERS_BAR, Space::Memory, address, width)?;
        let bytes = (offset..offset + u32::from(width)).zip(0u32..).map(|(place, number)| {
            let byte = if PAGE_PORTS.contains(&place) {
                self.read(0x3c0 + (place - PAGE_PORTS.start) as u16)
            } else if PAGE_EXTENSIONS.contains(&place) {
                self.extension(((place - PAGE_EXTENSIONS.start) / 2) as u16).to_le_bytes()[(place & 1) as usize]
            } else {
                0xff
            };
            u64::from(byte) << (8 * number)
        });
        Some(bytes.fold(0, |all, byte| all | byte))
    }

    /// Writes; false: no range is there.
    pub fn range_write(&mut self, address: u64, width: u8, value: u64) -> bool {
        let bytes = value.to_le_bytes();
        let bytes = &bytes[..usize::from(width.min(8))];
        if let Some(offset) = self.function.offset(VIDEO_BAR, Space::Memory, address, width) {
            // It may reach from one piece into the next.
            self.want(offset as usize);
            self.want(offset as usize + bytes.len().saturating_sub(1));
            self.display.video.write(offset as usize, bytes);
            return true;
        }
        let Some(offset) = self.function.offset(REGISTERS_BAR, Space::Memory, address, width) else {
            return false;
        };
        if PAGE_EXTENSIONS.contains(&offset) {
            if width == 2 {
                self.set_extension(((offset - PAGE_EXTENSIONS.start) / 2) as u16, value as u16);
            }
        } else {
            for (place, byte) in (offset..).zip(bytes).filter(|(place, _)| PAGE_PORTS.contains(place)) {
                self.write(0x3c0 + (place - PAGE_PORTS.start) as u16, *byte);
            }
        }
        true
    }
}

#[cfg(test)]
pub(crate) mod tests;
