//! The variables of a guest's firmware: brought into its flash memory at the start, and kept by the storage server when the guest changed them.

use super::boot_file::{self, Stored};
use super::devices::{self, Devices};
use super::host::Kernel;
use alloc::boxed::Box;
use alloc::string::String;
use tessera_manifest::{GuestFile, StartVm};
use tessera_proto::datastore::FileData;
use tessera_proto::guest_disk::{BootFile, MAX_READ};
use tessera_rt::{Mutex, log};
use tessera_vmm::boot::{File, Part};
use tessera_vmm::devices::flash::{self, Flash};
use tessera_vmm::machine::Machine;

/// Where they are kept.
pub struct Variables {
    machine: &'static Machine<Kernel>,
    /// Held while they are sent. `None`: nowhere, or it failed; they last as long as the machine runs.
    place: Mutex<Option<Stored>>,
}

impl Variables {
    /// Makes the part of the flash memory writable that `firmware` has for variables, and fills it. `None`: it has none.
    pub fn connect(machine: &'static Machine<Kernel>, vm: &StartVm, firmware: &dyn File) -> Result<Option<&'static Self>, String> {
        let Some(length) = flash::variables(firmware.head()) else {
            return Ok(None);
        };
        let start = machine.memory.flash();
        let template = Part { offset: 0, length };
        firmware
            .load(&machine.memory, start, template)
            .ok_or("the firmware's variables cannot be read")?;
        let place = match &vm.config.variables {
            Some(GuestFile::Store { store, path }) => Some(boot_file::stored(BootFile::Variables, store, path)?),
            _ => None,
        };
        let mut flash = Flash::new(start, length);
        match &place {
            // The storage server knows RAM where it is, not where it is seen once more.
            Some(kept) if kept.length() == length => kept
                .load(&machine.memory, machine.memory.usable_end(), template)
                .ok_or("the variables of the firmware that were kept cannot be read")?,
            // A new file is empty: it gets the firmware's own.
            _ => flash.mark_all(),
        }
        machine.chipset().add_flash(flash);
        let variables: &'static Self = Box::leak(Box::new(Self {
            machine,
            place: Mutex::new(place),
        }));
        devices::spawn(vm, "flash memory", move || {
            variables.keep();
            None
        })?;
        Ok(Some(variables))
    }

    fn keep(&self) {
        let mut place = self.place.lock();
        let take = || {
            let mut chipset = self.machine.chipset();
            chipset.flash().and_then(|flash| flash.take(&self.machine.memory))
        };
        let mut next = take();
        while let (Some(kept), Some((offset, bytes))) = (place.as_ref(), next) {
            next = take();
            let parts = bytes.len().div_ceil(MAX_READ);
            for (number, (at, part)) in (offset..).step_by(MAX_READ).zip(bytes.chunks(MAX_READ)).enumerate() {
                let data = FileData { data: part.to_vec() };
                // Making each part safe would take a disk's cache seconds: what the guest changed is to be safe soon, its power may fail.
                let last = next.is_none() && number + 1 == parts;
                if let Err(error) = kept.client().keep_variables(at, data, last) {
                    log::error!("the variables of the firmware cannot be kept any more: {error}");
                    *place = None;
                    return;
                }
            }
        }
    }
}

impl Devices for Variables {
    fn stopped(&self, act: &mut dyn FnMut()) {
        // What was changed is kept before the guest begins anew.
        self.keep();
        let place = self.place.lock();
        act();
        drop(place);
    }

    fn paused(&self, act: &mut dyn FnMut()) {
        self.stopped(act);
    }
}
