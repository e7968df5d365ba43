//! The CD-ROM drive's medium: a thread that reads what commands ask for, out of the image or by the storage server.

use super::devices::{self, Devices};
use super::host::Kernel;
use alloc::boxed::Box;
use alloc::string::String;
use tessera_manifest::StartVm;
use tessera_rt::Mutex;
use tessera_vmm::boot::{File, Part};
use tessera_vmm::devices::ahci::{Job, Outcome, SECTOR};
use tessera_vmm::machine::Machine;

/// The drive.
pub struct CdRom {
    machine: &'static Machine<Kernel>,
    /// Held while it is read into the guest's memory.
    medium: Mutex<Option<Box<dyn File + Send>>>,
}

impl CdRom {
    /// Starts the thread of the drive that is on the bus, with this medium in it or without.
    pub fn connect(machine: &'static Machine<Kernel>, vm: &StartVm, medium: Option<Box<dyn File + Send>>) -> Result<&'static Self, String> {
        let drive: &'static Self = Box::leak(Box::new(Self {
            machine,
            medium: Mutex::new(medium),
        }));
        devices::spawn(vm, "CD-ROM drive", move || {
            drive.work();
            None
        })?;
        Ok(drive)
    }

    /// Puts another medium into the drive, or takes out what is there; what is being read ends before.
    pub fn change(&self, medium: Option<Box<dyn File + Send>>) {
        let mut present = self.medium.lock();
        let bytes = medium.as_ref().map(|medium| medium.length());
        *present = medium;
        if let Some(ahci) = self.machine.chipset().pci().ahci() {
            ahci.change_medium(bytes);
        }
    }

    /// Bytes of the medium that the guest sees, and whether it wants to keep it.
    pub fn medium(&self) -> (Option<u64>, bool) {
        let mut chipset = self.machine.chipset();
        chipset.pci().ahci().map_or((None, false), |ahci| ahci.medium())
    }

    fn work(&self) {
        let (memory, interrupts) = (&self.machine.memory, &self.machine.interrupts);
        loop {
            let medium = self.medium.lock();
            let job = {
                let mut chipset = self.machine.chipset();
                let job = chipset.pci().ahci().and_then(|ahci| ahci.take(memory));
                chipset.settle_pci(interrupts);
                job
            };
            let Some(job) = job else { return };
            let outcome = match medium.as_deref().and_then(|medium| self.read(medium, &job)) {
                Some(()) => Outcome::Done,
                None => Outcome::Failed,
            };
            drop(medium);
            let mut chipset = self.machine.chipset();
            if let Some(ahci) = chipset.pci().ahci() {
                ahci.finish(&job, outcome, memory, interrupts);
            }
            chipset.settle_pci(interrupts);
        }
    }

    fn read(&self, medium: &dyn File, job: &Job) -> Option<()> {
        let memory = &self.machine.memory;
        let mut offset = job.offset;
        for &(address, length) in &job.pieces {
            // The last sector may be shorter in the file.
            let there = medium.length().saturating_sub(offset).min(length);
            if length - there >= SECTOR {
                return None;
            }
            medium.load(memory, address, Part { offset, length: there })?;
            memory.clear(address + there, length - there)?;
            offset += length;
        }
        Some(())
    }
}

impl Devices for CdRom {
    fn stopped(&self, act: &mut dyn FnMut()) {
        let medium = self.medium.lock();
        act();
        drop(medium);
    }

    fn paused(&self, act: &mut dyn FnMut()) {
        // A command whose end is not known to the guest yet is begun again.
        self.stopped(act);
    }
}
