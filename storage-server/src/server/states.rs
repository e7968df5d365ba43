//! Files with the states of machines, as their monitors write and read them.

use super::answers::{Answers, Later};
use super::datastores::{Mounted, seconds, trouble, unique};
use super::guests::Machine;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use tessera_device::Ram;
use tessera_proto::datastore::FileData;
use tessera_proto::guest_disk::{BootFile, MAX_READ, StateInfo};
use tessera_proto::vm_manager::FilePlace;
use tessera_proto::{Call, Failure, FailureKind};
use tessera_storage::stores::state_file::{Memory, Reader, Trouble, Writer};
use tessera_storage::stores::{Datastore, Volume};

/// A file that is being written, when nobody is writing to it.
pub type Writing = RefCell<Option<Writer<Volume>>>;

struct GuestRam(Rc<Ram>);

impl Memory for GuestRam {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        self.0.copy_out(address, bytes)
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Option<()> {
        self.0.copy_in(address, bytes)
    }
}

fn failure(error: Trouble) -> Failure {
    match error {
        Trouble::Store(error) => trouble(error),
        error @ (Trouble::Damage(_) | Trouble::Memory(_)) => Failure::new(FailureKind::BadState, error),
        error @ Trouble::Request(_) => Failure::new(FailureKind::BadRequest, error),
    }
}

fn not_begun() -> Failure {
    Failure::new(
        FailureKind::BadState,
        "no file with the machine's state is being written: begin anew",
    )
}

impl Answers {
    fn state_place(&self, machine: &Machine) -> Result<(Mounted, String), Failure> {
        let Some(FilePlace::Store { store, path }) = machine.file(BootFile::State) else {
            let text = format_args!("nobody said where the state of {} is to be", machine.config().name);
            return Err(Failure::new(FailureKind::BadState, text));
        };
        Ok((self.mounted(&store)?, path))
    }

    pub(super) fn begin_state_file(&self, call: &mut Call, length: u64, check: u32) -> Later<()> {
        let machine = self.guests().machine(call)?;
        let (store, path) = self.guests().with_files_of_now(call, &machine, || self.state_place(&machine))?;
        let memory = machine.config().memory;
        let id = unique().iter().fold(0, |id: u64, byte| id.rotate_left(8) ^ u64::from(*byte));
        self.later(call, async move {
            machine.writing().take();
            let writer = Writer::begin(store, &path, id, memory, (length, check), seconds())
                .await
                .map_err(failure)?;
            machine.writing().replace(Some(writer));
            Ok(())
        })
    }

    /// Does something with the file that is being written. After a failure it is not written any further.
    fn with_writer(
        &self,
        call: &mut Call,
        act: impl AsyncFnOnce(&mut Writer<Volume>, &Machine) -> Result<(), Trouble> + 'static,
    ) -> Later<()> {
        let machine = self.guests().machine(call)?;
        let mut writer = machine.writing().take().ok_or_else(not_begun)?;
        self.later(call, async move {
            act(&mut writer, &machine).await.map_err(failure)?;
            machine.writing().replace(Some(writer));
            Ok(())
        })
    }

    pub(super) fn write_state_file(&self, call: &mut Call, offset: u64, data: &[u8]) -> Later<()> {
        let data = Vec::from(data);
        self.with_writer(call, async move |writer, _| writer.state(offset, &data).await)
    }

    pub(super) fn save_ram(&self, call: &mut Call, address: u64, length: u64) -> Later<()> {
        self.with_writer(call, async move |writer, machine| {
            writer.memory(&GuestRam(machine.ram()), address, length).await
        })
    }

    pub(super) fn end_state_file(&self, call: &mut Call) -> Later<u64> {
        let machine = self.guests().machine(call)?;
        let writer = machine.writing().take().ok_or_else(not_begun)?;
        self.later(call, async move { writer.finish().await.map_err(failure) })
    }

    pub(super) fn abandon_state_file(&self, call: &mut Call) -> Later<()> {
        let machine = self.guests().machine(call)?;
        let writer = machine.writing().take();
        self.later(call, async move {
            if let Some(writer) = writer {
                writer.abandon().await;
            }
            Ok(())
        })
    }

    pub(super) fn open_state_file(&self, call: &mut Call) -> Later<StateInfo> {
        let machine = self.guests().machine(call)?;
        let (store, path) = self.guests().with_files_of_now(call, &machine, || self.state_place(&machine))?;
        self.later(call, async move {
            let reader = Reader::open(store, &path, machine.config().memory).await.map_err(failure)?;
            reader.check_state().await.map_err(failure)?;
            let header = *reader.header();
            Ok(StateInfo {
                state: header.state,
                length: header.length,
            })
        })
    }

    pub(super) fn read_state_file(&self, call: &mut Call, offset: u64, length: u32) -> Later<FileData> {
        let machine = self.guests().machine(call)?;
        let (store, path) = self.state_place(&machine)?;
        self.later(call, async move {
            let reader = Reader::open(store, &path, machine.config().memory).await.map_err(failure)?;
            let data = reader
                .state(offset, u64::from(length).min(MAX_READ as u64))
                .await
                .map_err(failure)?;
            Ok(FileData { data })
        })
    }

    pub(super) fn load_ram(&self, call: &mut Call) -> Later<()> {
        let machine = self.guests().machine(call)?;
        let (store, path) = self.state_place(&machine)?;
        self.later(call, async move {
            let reader = Reader::open(store, &path, machine.config().memory).await.map_err(failure)?;
            reader.memory(&GuestRam(machine.ram())).await.map_err(failure)
        })
    }

    pub(super) fn remove_state_file(&self, call: &mut Call) -> Later<()> {
        let machine = self.guests().machine(call)?;
        let (store, path) = self.state_place(&machine)?;
        let stores = self.stores().clone();
        self.later(call, async move {
            match store.remove(&path).await {
                Ok(()) | Err(tessera_datastore::Error::NotFound(_)) => store.flush().await.map_err(trouble)?,
                Err(error) => return Err(trouble(error)),
            }
            // Its space is given back bit by bit.
            let mounted = |all: &Rc<Datastore>| all.store.as_ref().is_ok_and(|known| Rc::ptr_eq(known, &store));
            if let Some(datastore) = stores.all().into_iter().find(mounted) {
                stores.tidy(&datastore);
            }
            Ok(())
        })
    }
}
