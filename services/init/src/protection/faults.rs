//! Accesses that an IOMMU refused: remembered, and said in the log.

use super::{LOOK_MS, Protection, QUIET_MS, REMEMBERED};
use crate::root::Root;
use alloc::format;
use alloc::string::{String, ToString};
use tessera_iommu::{Fault, FaultKind};
use tessera_pci::Address;
use tessera_proto::init::Level;
use tessera_proto::iommu::{AccessKind, FaultInfo};
use tessera_rt::time;

impl Root {
    /// Looks for accesses that were refused, and says so.
    pub fn look_at_faults(&mut self) {
        if self.protection.units.is_none() || time::now() < self.protection.due {
            return;
        }
        self.protection.due = time::after(time::milliseconds(LOOK_MS));
        let taken = self.protection.with(&mut self.machine, |iommu, access| Ok(iommu.faults(access)));
        let Some(Ok((mut faults, lost))) = taken else { return };
        if faults.is_empty() && self.unnamed_fault() {
            faults.push(Fault {
                source: None,
                address: None,
                kind: FaultKind::Unknown,
                reason: 0,
            });
        }
        for fault in faults {
            self.refused(&fault);
        }
        if lost {
            self.protection.total += 1;
            self.say(Level::Warn, "IOMMU: more accesses were refused than it could record");
        }
    }

    /// Whether an AMD unit signalled an abort as a PCI function. QEMU's unit records no events before version 10.1, but does this.
    fn unnamed_fault(&self) -> bool {
        let Some(units) = &self.protection.units else { return false };
        let mut any = false;
        for source in &units.functions {
            let address = Address {
                segment: source.segment,
                bus: source.bus(),
                device: source.place() >> 3,
                function: source.place() & 7,
            };
            any |= self.devices.take_abort(address);
        }
        any
    }

    /// Remembers and logs a refused access.
    fn refused(&mut self, fault: &Fault) {
        let now = time::now();
        let owner = fault
            .source
            .and_then(|source| self.protection.units.as_ref()?.iommu.owner_of(source));
        let server = owner
            .and_then(|owner| self.servers.get(owner))
            .map_or_else(String::new, |record| record.name.clone());
        let info = FaultInfo {
            tsc: now,
            function: fault.source.map_or_else(String::new, |source| source.to_string()),
            server,
            address: fault.address,
            kind: match fault.kind {
                FaultKind::Read => AccessKind::Read,
                FaultKind::Write => AccessKind::Write,
                FaultKind::Interrupt => AccessKind::Interrupt,
                FaultKind::Unknown => AccessKind::Unknown,
            },
            reason: fault.reason,
            count: 1,
        };
        self.protection.total += 1;
        let line = self.protection.count(&info, now).then(|| fault_line(&info));
        let alike = |known: &&mut FaultInfo| {
            (&known.function, &known.server, known.address, known.kind) == (&info.function, &info.server, info.address, info.kind)
        };
        match self.protection.faults.back_mut().filter(alike) {
            Some(known) => {
                known.count += 1;
                known.tsc = now;
            }
            None => {
                if self.protection.faults.len() == REMEMBERED {
                    self.protection.faults.pop_front();
                }
                self.protection.faults.push_back(info);
            }
        }
        if let Some(line) = line {
            self.say(Level::Error, &line);
        }
    }
}

impl Protection {
    /// Whether a function's fault is to be logged now.
    fn count(&mut self, info: &FaultInfo, now: u64) -> bool {
        let until = now.saturating_add(time::milliseconds(QUIET_MS));
        match self.quiet.iter_mut().find(|(function, ..)| *function == info.function) {
            Some((_, end, count)) if now < *end => {
                *count += 1;
                false
            }
            Some((_, end, count)) => {
                (*end, *count) = (until, 0);
                true
            }
            None => {
                // There are no more functions than this; a unit that names others is not believed for ever.
                if self.quiet.len() < 256 {
                    self.quiet.push((info.function.clone(), until, 0));
                }
                true
            }
        }
    }
}

fn fault_line(info: &FaultInfo) -> String {
    let what = match info.kind {
        AccessKind::Read => "read",
        AccessKind::Write => "write",
        AccessKind::Interrupt => "interrupt through",
        AccessKind::Unknown => "access",
    };
    let holder = if info.server.is_empty() {
        "held by nobody".into()
    } else {
        format!("of {}", info.server)
    };
    match (info.function.as_str(), info.address) {
        ("", _) => "IOMMU: a device was refused memory that was not lent to its server; the IOMMU does not say which".into(),
        (function, Some(address)) => format!(
            "IOMMU: PCI function {function} ({holder}) tried to {what} {address:#x}, which was not lent to it, and was refused (reason {})",
            info.reason
        ),
        (function, None) => {
            format!("IOMMU: PCI function {function} ({holder}) tried to {what} memory that was not lent to it, and was refused")
        }
    }
}
