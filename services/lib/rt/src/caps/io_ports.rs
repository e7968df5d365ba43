//! Ranges of I/O ports.

use super::{CNode, ask, order};
use tessera_abi::Error;
use tessera_abi::object::{Rights, io_ports};

capability! {
    /// A range of I/O ports.
    IoPorts
}

impl IoPorts {
    /// Reads a byte.
    ///
    /// # Errors
    /// `BadArgument` outside the range, `NoRight`.
    #[inline]
    pub fn read_u8(self, port: u16) -> Result<u8, Error> {
        ask(self.slot(), io_ports::IN, &[port.into(), 1]).map(|words| words[0] as u8)
    }

    /// Reads a word.
    ///
    /// # Errors
    /// As [`Self::read_u8`].
    pub fn read_u16(self, port: u16) -> Result<u16, Error> {
        ask(self.slot(), io_ports::IN, &[port.into(), 2]).map(|words| words[0] as u16)
    }

    /// Reads a double word.
    ///
    /// # Errors
    /// As [`Self::read_u8`].
    pub fn read_u32(self, port: u16) -> Result<u32, Error> {
        ask(self.slot(), io_ports::IN, &[port.into(), 4]).map(|words| words[0] as u32)
    }

    /// Writes a byte.
    ///
    /// # Errors
    /// As [`Self::read_u8`].
    #[inline]
    pub fn write_u8(self, port: u16, value: u8) -> Result<(), Error> {
        order(self.slot(), io_ports::OUT, &[port.into(), 1, value.into()])
    }

    /// Writes a word.
    ///
    /// # Errors
    /// As [`Self::read_u8`].
    pub fn write_u16(self, port: u16, value: u16) -> Result<(), Error> {
        order(self.slot(), io_ports::OUT, &[port.into(), 2, value.into()])
    }

    /// Writes a double word.
    ///
    /// # Errors
    /// As [`Self::read_u8`].
    pub fn write_u32(self, port: u16, value: u32) -> Result<(), Error> {
        order(self.slot(), io_ports::OUT, &[port.into(), 4, value.into()])
    }

    /// Derives a capability to `count` ports from `first` on.
    ///
    /// # Errors
    /// `BadArgument`, `SlotOccupied`.
    pub fn slice(self, first: u16, count: u32, table: CNode, to: u32, rights: Rights) -> Result<Self, Error> {
        let place = if table == CNode::OWN { 0 } else { table.slot() };
        order(
            self.slot(),
            io_ports::SLICE,
            &[first.into(), count.into(), place.into(), to.into(), rights.bits().into()],
        )?;
        Ok(Self::new(to))
    }
}
