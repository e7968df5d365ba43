//! Which interrupts are let through: those that init gave out, each from its own source alone. Without remapping messages stay as the kernel says.

use super::{Protection, kernel};
use crate::process::trouble;
use crate::root::Root;
use alloc::format;
use alloc::vec::Vec;
use tessera_iommu::{Kind, Route, Source};
use tessera_proto::Failure;
use tessera_proto::init::Level;
use tessera_rt::{Irq, IrqMessage};

impl Protection {
    /// Whether interrupts are remapped.
    #[must_use]
    pub fn remaps_interrupts(&self) -> bool {
        self.units.as_ref().is_some_and(|units| units.iommu.remaps_interrupts())
    }

    /// As whom the I/O APIC raises interrupts. Which of several a line belongs to is in tables that nobody here reads: whoever names such an entry then raises that line's interrupt, and no more.
    fn controller(&self) -> Option<Source> {
        match self.units.as_ref()?.controllers[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    fn is_amd(&self) -> bool {
        self.units.as_ref().is_some_and(|units| units.iommu.kind() == Kind::Amd)
    }
}

impl Root {
    /// Lets an interrupt through that the kernel would have sent as `plain`; answers what its source has to write.
    fn route(&mut self, plain: IrqMessage, level: bool, source: Option<Source>) -> Result<(u64, u32), Failure> {
        if !self.protection.remaps_interrupts() {
            return Ok((plain.address, plain.data));
        }
        let route = Route {
            vector: plain.data as u8,
            // SDM volume 3, 11.11.1.
            destination: (plain.address >> 12) as u32 & 0xff,
            level,
            source,
        };
        let done = self
            .protection
            .with(&mut self.machine, |iommu, access| iommu.let_through(access, &route));
        done.unwrap_or(Ok(())).map_err(kernel)?;
        let plain = (plain.address, plain.data);
        Ok(self
            .protection
            .units
            .as_ref()
            .map_or(plain, |units| units.iommu.message(route.vector, plain)))
    }

    /// Lets the interrupt of a line through.
    ///
    /// # Errors
    /// The unit is silent.
    pub(crate) fn route_line(&mut self, irq: Irq, level: bool) -> Result<(), Failure> {
        if self.protection.remaps_interrupts() {
            let plain = irq.message().map_err(trouble("asking for a line's vector"))?;
            let controller = self.protection.controller();
            self.route(plain, level, controller)?;
        }
        Ok(())
    }

    /// Takes a function's interrupts by message for a processor, if it was not done before, and lets them through. The log says what does not work; the function raises none then.
    pub(crate) fn route_messages(&mut self, index: usize, cpu: u32) {
        self.devices.take_messages(index, cpu);
        let address = self.devices.entries[index].function.address;
        let mut sources = self.requesters(address);
        if !self.protection.is_amd() {
            // An entry compares with one: whom a function behind a bridge looks like, else itself.
            let first = sources.first().copied();
            sources = first.into_iter().collect();
        }
        let plain: Vec<_> = self
            .devices
            .messages(index)
            .iter()
            .filter_map(|slot| Irq::new(*slot).message().ok())
            .collect();
        let mut routed = Ok(Vec::new());
        for source in sources {
            routed = plain.iter().map(|plain| self.route(*plain, false, Some(source))).collect();
            if routed.is_err() {
                break;
            }
        }
        match routed {
            Ok(written) => self.devices.set_written(index, written),
            Err(failure) => self.say(Level::Error, &format!("PCI function {address} raises no interrupts: {failure}")),
        }
    }
}
