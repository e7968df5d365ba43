//! All units of the machine, and the domains.

use crate::{
    Description, Error, Fault, Hardware, Kind, Source, amd,
    remapping::{FunctionTables, Interrupts, Route, Table, message},
    tables::{Shape, Tables},
    vtd,
};
use alloc::vec::Vec;

/// What some functions reach.
#[derive(Debug)]
pub struct Domain {
    /// Who it is for, as the caller numbers them.
    pub owner: usize,
    /// Its number in the units' tables.
    number: u16,
    tables: Tables,
    /// Functions in it, with those that their requests may look like.
    pub sources: Vec<Source>,
    /// Ranges: address and bytes.
    pub ranges: Vec<(u64, u64)>,
}

impl Domain {
    /// Bytes that are mapped.
    #[must_use]
    pub fn mapped(&self) -> u64 {
        self.ranges.iter().map(|(_, length)| length).sum()
    }

    /// Pages of its page tables.
    #[must_use]
    pub fn table_pages(&self) -> usize {
        self.tables.pages()
    }

    fn context(&self, levels: u8) -> (u16, u64, u8) {
        (self.number, self.tables.root, levels)
    }
}

#[derive(Debug)]
enum Units {
    Vtd(Vec<vtd::Unit>, Vec<vtd::Roots>),
    Amd(Vec<amd::Unit>, Vec<amd::Devices>),
}

/// All units.
#[derive(Debug)]
pub struct Iommu {
    units: Units,
    shape: Shape,
    domains: Vec<Domain>,
    /// Numbers that domains may have: 1 to one less than this.
    numbers: u32,
    /// Number of a domain whose functions could not be taken out of the units' memory: nobody gets it again.
    burnt: Vec<u16>,
    /// Which interrupts are let through; none: all that come.
    interrupts: Option<Interrupts>,
}

impl Iommu {
    /// Has all units translate. No function reaches anything afterwards.
    ///
    /// # Errors
    /// There is no memory, or a unit is silent or lacks something. Some units may translate by then.
    pub fn start(hardware: &mut impl Hardware, found: &Description) -> Result<Self, Error> {
        let (units, shape, numbers, interrupts) = match found.kind {
            Kind::Vtd => start_vtd(hardware, found)?,
            Kind::Amd => start_amd(hardware, found)?,
        };
        Ok(Self {
            units,
            shape,
            domains: Vec::new(),
            numbers,
            burnt: Vec::new(),
            interrupts,
        })
    }

    /// Whether interrupts are remapped: nothing is let through but by [`Self::let_through`].
    #[must_use]
    pub const fn remaps_interrupts(&self) -> bool {
        self.interrupts.is_some()
    }

    /// Lets an interrupt through, in place of what its vector's entry said before. Nothing happens where interrupts are not remapped.
    ///
    /// # Errors
    /// `Silent`: the unit may still go by what the entry said before.
    pub fn let_through(&mut self, hardware: &mut impl Hardware, route: &Route) -> Result<(), Error> {
        let mut outcome = Ok(());
        match (&mut self.interrupts, &mut self.units) {
            (Some(Interrupts::Vtd(table)), Units::Vtd(units, _)) => {
                table.set(hardware, route);
                for unit in units {
                    outcome = outcome.and(unit.forget_interrupt(hardware, route.vector));
                }
            }
            (Some(Interrupts::Amd(tables)), Units::Amd(units, devices)) => {
                for source in tables.sources(route) {
                    let (table, fresh) = tables.of(hardware, source)?;
                    FunctionTables::set(hardware, table, route);
                    for devices in devices.iter().filter(|devices| fresh && devices.segment == source.segment) {
                        devices.set_interrupts(hardware, source, table);
                    }
                    for unit in units.iter_mut().filter(|unit| unit.segment == source.segment) {
                        outcome = outcome.and(unit.forget_interrupts(hardware, source.id));
                    }
                }
            }
            _ => {}
        }
        outcome
    }

    /// Address and data with which an interrupt is raised that is let through, and that would be raised by `plain` without remapping.
    #[must_use]
    pub const fn message(&self, vector: u8, plain: (u64, u32)) -> (u64, u32) {
        match self.interrupts {
            Some(Interrupts::Vtd(_)) => message(vector),
            _ => plain,
        }
    }

    /// Whose units they are.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.shape.kind
    }

    /// How many units there are.
    #[must_use]
    pub const fn units(&self) -> usize {
        match &self.units {
            Units::Vtd(units, _) => units.len(),
            Units::Amd(units, _) => units.len(),
        }
    }

    /// Bits of addresses that are translated.
    #[must_use]
    pub const fn address_bits(&self) -> u8 {
        12 + 9 * self.shape.levels
    }

    /// All domains.
    #[must_use]
    pub fn domains(&self) -> &[Domain] {
        &self.domains
    }

    /// The domain of an owner.
    #[must_use]
    pub fn domain(&self, owner: usize) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.owner == owner)
    }

    /// Whose functions a source is.
    #[must_use]
    pub fn owner_of(&self, source: Source) -> Option<usize> {
        self.domains
            .iter()
            .find(|domain| domain.sources.contains(&source))
            .map(|domain| domain.owner)
    }

    /// The place of an owner's domain, which is made if there is none.
    fn place(&mut self, hardware: &mut impl Hardware, owner: usize) -> Result<usize, Error> {
        if let Some(place) = self.domains.iter().position(|domain| domain.owner == owner) {
            return Ok(place);
        }
        let used = |number: &u16| self.burnt.contains(number) || self.domains.iter().any(|domain| domain.number == *number);
        let number = (1..self.numbers.min(1 << 16))
            .map(|number| number as u16)
            .find(|number| !used(number))
            .ok_or(Error::NoDomain)?;
        self.domains.push(Domain {
            owner,
            number,
            tables: Tables::new(self.shape, hardware)?,
            sources: Vec::new(),
            ranges: Vec::new(),
        });
        Ok(self.domains.len() - 1)
    }

    fn set(&self, hardware: &mut impl Hardware, source: Source, context: Option<(u16, u64, u8)>) -> Result<(), Error> {
        match &self.units {
            Units::Vtd(_, roots) => roots
                .iter()
                .filter(|roots| roots.segment == source.segment)
                .try_for_each(|roots| roots.set(hardware, source, context)),
            Units::Amd(_, tables) => {
                let tables = tables.iter().filter(|devices| devices.segment == source.segment);
                tables.for_each(|devices| devices.set(hardware, source, context));
                Ok(())
            }
        }
    }

    fn forget_function(&mut self, hardware: &mut impl Hardware, source: Source, number: u16) -> Result<(), Error> {
        // All are asked, even if one is silent.
        let mut outcome = Ok(());
        match &mut self.units {
            Units::Vtd(units, _) => {
                for unit in units.iter_mut().filter(|unit| unit.segment == source.segment) {
                    outcome = outcome.and(unit.forget_function(hardware, source.id, number));
                }
            }
            Units::Amd(units, _) => {
                for unit in units.iter_mut().filter(|unit| unit.segment == source.segment) {
                    outcome = outcome.and(unit.forget_function(hardware, source.id, number));
                }
            }
        }
        outcome
    }

    fn forget_domain(&mut self, hardware: &mut impl Hardware, number: u16) -> Result<(), Error> {
        let mut outcome = Ok(());
        match &mut self.units {
            Units::Vtd(units, _) => {
                for unit in units {
                    outcome = outcome.and(unit.forget_domain(hardware, number));
                }
            }
            Units::Amd(units, _) => {
                for unit in units {
                    outcome = outcome.and(unit.forget_domain(hardware, number));
                }
            }
        }
        outcome
    }

    /// Puts a function into an owner's domain.
    ///
    /// # Errors
    /// `Taken`: it is in another one; or there is no memory, or a unit is silent.
    pub fn attach(&mut self, hardware: &mut impl Hardware, owner: usize, source: Source) -> Result<(), Error> {
        match self.owner_of(source) {
            Some(known) if known == owner => return Ok(()),
            Some(_) => return Err(Error::Taken),
            None => {}
        }
        let place = self.place(hardware, owner)?;
        let context = self.domains[place].context(self.shape.levels);
        self.domains[place].sources.push(source);
        self.set(hardware, source, Some(context))?;
        self.forget_function(hardware, source, context.0)
    }

    /// Has an owner's functions reach a range of memory, in whole pages, at its physical address.
    ///
    /// # Errors
    /// Nothing of it is mapped then.
    pub fn map(&mut self, hardware: &mut impl Hardware, owner: usize, address: u64, length: u64) -> Result<(), Error> {
        self.map_at(hardware, owner, address, address, length)
    }

    /// Has an owner's functions reach `length` bytes of memory at `physical`, in whole pages, by the addresses from `address` on.
    ///
    /// # Errors
    /// Nothing of it is mapped then.
    pub fn map_at(&mut self, hardware: &mut impl Hardware, owner: usize, address: u64, physical: u64, length: u64) -> Result<(), Error> {
        let place = self.place(hardware, owner)?;
        let domain = &mut self.domains[place];
        domain.tables.map(hardware, address, physical, length)?;
        domain.ranges.push((address, length));
        let number = domain.number;
        // Units may remember that nothing was there (CAP.CM; AMD-Vi's NpCache).
        self.forget_domain(hardware, number)
    }

    /// Has them not reach it any more. A range is unmapped as it was mapped.
    ///
    /// # Errors
    /// `Silent`: the functions may reach the memory as before. `NotMapped`: no such range was mapped.
    pub fn unmap(&mut self, hardware: &mut impl Hardware, owner: usize, address: u64, length: u64) -> Result<(), Error> {
        let missing = Error::NotMapped(address);
        let domain = self.domains.iter_mut().find(|domain| domain.owner == owner).ok_or(missing)?;
        let range = domain.ranges.iter().position(|range| *range == (address, length)).ok_or(missing)?;
        domain.ranges.swap_remove(range);
        domain.tables.unmap(hardware, address, length)?;
        let number = domain.number;
        self.forget_domain(hardware, number)
    }

    /// Ends an owner's domain: its functions reach nothing any more.
    ///
    /// # Errors
    /// `Silent`: they may reach all that they could.
    pub fn detach(&mut self, hardware: &mut impl Hardware, owner: usize) -> Result<(), Error> {
        let Some(place) = self.domains.iter().position(|domain| domain.owner == owner) else {
            return Ok(());
        };
        let domain = self.domains.swap_remove(place);
        let mut outcome = Ok(());
        for source in &domain.sources {
            outcome = outcome.and(self.set(hardware, *source, None));
            outcome = outcome.and(self.forget_function(hardware, *source, domain.number));
        }
        outcome = outcome.and(self.forget_domain(hardware, domain.number));
        if outcome.is_ok() {
            domain.tables.end(hardware);
        } else {
            // Its tables may still be walked.
            self.burnt.push(domain.number);
        }
        outcome
    }

    /// Takes what the units recorded since the last time, and whether they have lost some.
    pub fn faults(&mut self, hardware: &mut impl Hardware) -> (Vec<Fault>, bool) {
        let (mut all, mut any_lost) = (Vec::new(), false);
        let mut add = |(faults, lost): (Vec<Fault>, bool)| {
            all.extend(faults);
            any_lost |= lost;
        };
        match &mut self.units {
            Units::Vtd(units, _) => units.iter_mut().for_each(|unit| add(unit.faults(hardware))),
            Units::Amd(units, _) => units.iter_mut().for_each(|unit| add(unit.faults(hardware))),
        }
        (all, any_lost)
    }
}

type Started = (Units, Shape, u32, Option<Interrupts>);

fn start_vtd(hardware: &mut impl Hardware, found: &Description) -> Result<Started, Error> {
    let mut units = Vec::new();
    let mut shape = Shape {
        kind: Kind::Vtd,
        levels: 4,
        large: 3,
        flush: false,
    };
    let mut levels = [true; 2];
    let mut numbers = u32::MAX;
    let mut remaps = [found.remaps; 2];
    for (number, description) in found.units.iter().enumerate() {
        let (unit, abilities) = vtd::Unit::find(number, description.segment, hardware)?;
        levels = [levels[0] && abilities.levels[0], levels[1] && abilities.levels[1]];
        shape.large = shape.large.min(abilities.large);
        shape.flush |= !abilities.coherent;
        numbers = numbers.min(abilities.domains);
        remaps = [remaps[0] && abilities.remaps[0], remaps[1] && abilities.remaps[1]];
        units.push(unit);
    }
    shape.levels = match levels {
        [_, true] => 4,
        [true, _] => 3,
        _ => return Err(Error::Lacks(0, "page tables that all units know")),
    };
    let [remaps, wide] = remaps;
    let interrupts = if remaps { Some(Table::new(wide, hardware)?) } else { None };
    let mut roots: Vec<vtd::Roots> = Vec::new();
    for unit in &mut units {
        let root = match roots.iter().find(|roots| roots.segment == unit.segment) {
            Some(known) => known.root,
            None => {
                let new = vtd::Roots::new(unit.segment, hardware)?;
                let root = new.root;
                roots.push(new);
                root
            }
        };
        unit.start(hardware, root, interrupts.as_ref())?;
    }
    Ok((Units::Vtd(units, roots), shape, numbers, interrupts.map(Interrupts::Vtd)))
}

fn start_amd(hardware: &mut impl Hardware, found: &Description) -> Result<Started, Error> {
    let shape = Shape {
        kind: Kind::Amd,
        levels: 4,
        large: 3,
        flush: true,
    };
    let nothing = shape.empty(hardware)?;
    let mut units = Vec::new();
    let mut tables: Vec<amd::Devices> = Vec::new();
    for (number, description) in found.units.iter().enumerate() {
        let mut unit = amd::Unit::find(number, description.segment, description.flags, hardware)?;
        let table = match tables.iter().find(|devices| devices.segment == unit.segment) {
            Some(known) => known.table,
            None => {
                let new = amd::Devices::new(unit.segment, (nothing, shape.levels), found.remaps, hardware)?;
                let table = new.table;
                tables.push(new);
                table
            }
        };
        unit.start(hardware, table)?;
        units.push(unit);
    }
    // Without the I/O APICs' identities their interrupts could not be let through.
    let interrupts = found
        .remaps
        .then(|| Interrupts::Amd(FunctionTables::new(found.controllers.clone())));
    Ok((Units::Amd(units, tables), shape, 1 << 16, interrupts))
}
