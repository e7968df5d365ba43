//! Interrupts.

use super::{CNode, Notification, ask, order};
use tessera_abi::Error;
use tessera_abi::object::{irq, irq_control};

capability! {
    /// One interrupt source.
    Irq
}

capability! {
    /// The right to take interrupt sources and to look at all of them.
    IrqControl
}

/// Where a device must write to raise a message-signalled interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqMessage {
    /// Address.
    pub address: u64,
    /// Data.
    pub data: u32,
}

/// Counters of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IrqStatus {
    /// In use.
    pub used: bool,
    /// Interrupts so far.
    pub count: u64,
    /// Line; `None` for a message-signalled one.
    pub line: Option<u32>,
    /// Processor that takes it.
    pub cpu: u32,
    /// Masked until acknowledged.
    pub masked: bool,
}

impl Irq {
    /// Signals the notification at each interrupt.
    ///
    /// # Errors
    /// `BadSlot`, `WrongKind`, `NoRight`.
    pub fn bind(self, notification: Notification) -> Result<(), Error> {
        order(self.slot(), irq::BIND, &[notification.slot().into()])
    }

    /// The interrupt is handled: unmasks it.
    ///
    /// # Errors
    /// `NoRight`.
    #[inline]
    pub fn acknowledge(self) -> Result<(), Error> {
        order(self.slot(), irq::ACK, &[])
    }

    /// Where its source must write, were nothing remapped: the address says which processor, the data which vector.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn message(self) -> Result<IrqMessage, Error> {
        ask(self.slot(), irq::MESSAGE, &[]).map(|words| IrqMessage {
            address: words[0],
            data: words[1] as u32,
        })
    }
}

impl IrqControl {
    /// Takes an interrupt line with the polarity and trigger mode that the firmware says; `remapped`: an IOMMU's entry with the vector's number says where to. Answers whether it is level-triggered.
    ///
    /// # Errors
    /// `BadArgument` (no such line), `SlotOccupied`, `BadState` (taken).
    pub fn line(self, line: u32, table: CNode, to: u32, remapped: bool) -> Result<bool, Error> {
        const AS_FIRMWARE_SAYS: u64 = 1 << 2;
        let place = if table == CNode::OWN { 0 } else { table.slot() };
        let flags = AS_FIRMWARE_SAYS | u64::from(remapped) << 3;
        let words = ask(self.slot(), irq_control::LINE, &[line.into(), place.into(), to.into(), flags])?;
        Ok(words[1] != 0)
    }

    /// Takes a message-signalled interrupt for a processor.
    ///
    /// # Errors
    /// `NoMemory` (no vector left), `SlotOccupied`.
    pub fn msi(self, cpu: u32, table: CNode, to: u32) -> Result<Irq, Error> {
        let place = if table == CNode::OWN { 0 } else { table.slot() };
        order(self.slot(), irq_control::MSI, &[cpu.into(), place.into(), to.into()])?;
        Ok(Irq::new(to))
    }

    /// Counters of vector `index`; `None` past the last.
    ///
    /// # Errors
    /// `NoRight`.
    pub fn info(self, index: u32) -> Result<Option<IrqStatus>, Error> {
        match ask(self.slot(), irq_control::INFO, &[index.into()]) {
            Ok([used, count, line, cpu, masked, _]) => Ok(Some(IrqStatus {
                used: used != 0,
                count,
                line: (line != u64::MAX).then_some(line as u32),
                cpu: cpu as u32,
                masked: masked != 0,
            })),
            Err(Error::BadArgument) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
