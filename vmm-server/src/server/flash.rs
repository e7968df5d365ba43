//! The variables of a guest's firmware: brought into its flash memory at the start, and kept by the storage server when the guest changed them.

use super::boot_file::{self, Stored};
use super::devices::{self, Devices};
use super::host::Kernel;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use tessera_manifest::{GuestFile, StartVm};
use tessera_proto::CallError;
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
    /// Makes the part of the flash memory writable that `firmware` has for variables, and fills it, unless the machine goes on with its state, which it is part of. `None`: it has none.
    pub fn connect(
        machine: &'static Machine<Kernel>,
        vm: &StartVm,
        firmware: &dyn File,
        fill: bool,
    ) -> Result<Option<&'static Self>, String> {
        let Some(length) = flash::variables(firmware.head()) else {
            return Ok(None);
        };
        let start = machine.memory.flash();
        let template = Part { offset: 0, length };
        if fill {
            firmware
                .load(&machine.memory, start, template)
                .ok_or("the firmware's variables cannot be read")?;
        }
        let place = match &vm.config.variables {
            Some(GuestFile::Store { store, path }) => Some(boot_file::stored(BootFile::Variables, store, path)?),
            _ => None,
        };
        let mut flash = Flash::new(start, length);
        match &place {
            Some(kept) if kept.length() == length && !fill => {}
            // The storage server knows RAM where it is, not where it is seen once more.
            Some(kept) if kept.length() == length => kept
                .load(&machine.memory, machine.memory.flash_backing(), template)
                .ok_or("the variables of the firmware that were kept cannot be read")?,
            // A new file is empty: it gets the firmware's own.
            _ => flash.mark_all(),
        }
        flash.set_kept(place.is_some());
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
        let kept = self.keep_at(place.as_ref());
        if let Err(error) = kept {
            log::error!("the variables of the firmware cannot be kept any more: {error}");
            *place = None;
            if let Some(flash) = self.machine.chipset().flash() {
                flash.set_kept(false);
            }
        }
    }

    /// Sends what was changed. The guest goes on when the storage server has it; then it is made safe, once for all of it: the power may fail, but each time would take a disk's cache seconds.
    fn keep_at(&self, place: Option<&Stored>) -> Result<(), CallError> {
        let mut sent = false;
        loop {
            let (asked, next) = match self.machine.chipset().flash() {
                Some(flash) => (flash.asked(), flash.take(&self.machine.memory)),
                None => return Ok(()),
            };
            match (place, next) {
                (Some(kept), Some((offset, bytes))) => {
                    for (at, part) in (offset..).step_by(MAX_READ).zip(bytes.chunks(MAX_READ)) {
                        kept.client().keep_variables(at, FileData { data: part.to_vec() }, false)?;
                    }
                    sent = true;
                }
                (None, Some(_)) => {}
                (_, None) => {
                    if let Some(flash) = self.machine.chipset().flash() {
                        flash.set_done(asked);
                    }
                    break;
                }
            }
        }
        match place {
            Some(kept) if sent => kept.client().keep_variables(0, FileData { data: Vec::new() }, true),
            _ => Ok(()),
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
