//! Files with the states of machines, as their monitors write and read them.

use super::answers::{Answers, Encode, Later};
use super::datastores::{Mounted, seconds, trouble, unique};
use super::guests::Machine;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use tessera_device::loan::{init, refused};
use tessera_proto::datastore::FileData;
use tessera_proto::guest_disk::{BootFile, MAX_READ, StateInfo};
use tessera_proto::vm_manager::FilePlace;
use tessera_proto::vm_memory::{DiskPlace, MachineConfig};
use tessera_proto::{Call, Failure, FailureKind};
use tessera_rt::log;
use tessera_storage::stores::state_file::{Memory, Reader, Trouble, Writer, holds, path_of, suspended};
use tessera_storage::stores::{Datastore, Stores, Volume};

/// Most suspended machines of a datastore that are told of.
const MOST: usize = 512;

/// A file that is being written, when nobody is writing to it.
pub type Writing = RefCell<Option<Writer<Volume>>>;

/// A machine's RAM with its video RAM behind it.
struct GuestRam<'a>(&'a Machine);

impl Memory for GuestRam<'_> {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()> {
        match self.0.in_video(address) {
            Some(offset) => self.0.loan().read_video(offset, bytes),
            None => self.0.ram().copy_out(address, bytes),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) -> Option<Result<(), Failure>> {
        match self.0.in_video(address) {
            Some(offset) => self.0.loan().write_video(offset, bytes),
            None => self.0.ram().copy_in(address, bytes).map(Ok),
        }
    }
}

fn failure(error: Trouble) -> Failure {
    match error {
        Trouble::Store(error) => trouble(error),
        error @ (Trouble::Damage(_) | Trouble::Memory(_)) => Failure::new(FailureKind::BadState, error),
        Trouble::NoMemory(failure) => failure,
        error @ Trouble::Request(_) => Failure::new(FailureKind::BadRequest, error),
    }
}

fn not_begun() -> Failure {
    Failure::new(
        FailureKind::BadState,
        "no file with the machine's state is being written: begin anew",
    )
}

/// Where the state of a machine may be.
struct Candidates {
    name: String,
    /// Where init was told that it is.
    told: Option<(Mounted, String)>,
    stores: Vec<Mounted>,
}

impl Candidates {
    async fn find(self) -> Result<(Mounted, String), Failure> {
        if let Some(told) = self.told {
            return Ok(told);
        }
        for store in self.stores {
            if holds(&store, &self.name).await.map_err(failure)? {
                return Ok((store, path_of(&self.name)));
            }
        }
        let text = format_args!("no datastore has a file {} with the state of {}", path_of(&self.name), self.name);
        Err(Failure::new(FailureKind::NotFound, text))
    }
}

/// Removes a file. That is safe when it answers.
async fn remove(all: &Rc<Stores>, store: &Mounted, path: &str) -> Result<(), Failure> {
    match store.remove(path).await {
        Ok(()) | Err(tessera_datastore::Error::NotFound(_)) => store.flush().await.map_err(trouble)?,
        Err(error) => return Err(trouble(error)),
    }
    // Its space is given back bit by bit.
    let mounted = |all: &Rc<Datastore>| all.store.as_ref().is_ok_and(|known| Rc::ptr_eq(known, store));
    if let Some(datastore) = all.all().into_iter().find(mounted) {
        all.tidy(&datastore);
    }
    Ok(())
}

impl Answers {
    /// Tells init which machines are suspended, by the files in the datastores.
    pub async fn announce_states(&self) {
        // Without machines there is nobody to tell.
        let Ok(mut init) = init() else { return };
        for datastore in self.stores().all() {
            let Ok(store) = &datastore.store else { continue };
            let machines = match suspended(store, MOST).await {
                Ok(machines) => machines,
                Err(error) => {
                    log::warn!("datastore {}: {error}", datastore.name);
                    continue;
                }
            };
            for name in machines {
                let (store, path) = (datastore.name.clone(), path_of(&name));
                log::info!("{name} is suspended: its state is in {store}:{path}");
                if let Err(error) = init.found_state(&name, FilePlace::Store { store, path }) {
                    log::warn!("init does not take note of it: {error}");
                }
            }
        }
    }

    fn state_place(&self, machine: &Machine) -> Result<(Mounted, String), Failure> {
        let Some(FilePlace::Store { store, path }) = machine.file(BootFile::State) else {
            let text = format_args!("nobody said where the state of {} is to be", machine.config().name);
            return Err(Failure::new(FailureKind::BadState, text));
        };
        Ok((self.mounted(&store)?, path))
    }

    /// Where the state of a suspended machine may be, of which nobody told: the datastores of its disks, all of which have to be there, or all that there are.
    fn state_stores(&self, config: &MachineConfig) -> Result<Vec<Mounted>, Failure> {
        let mut stores: Vec<Mounted> = Vec::new();
        let mut add = |store: Mounted| {
            if !stores.iter().any(|known| Rc::ptr_eq(known, &store)) {
                stores.push(store);
            }
        };
        let mut own = false;
        for disk in &config.disks {
            if let DiskPlace::Store { store, .. } = &disk.place {
                add(self.mounted(store)?);
                own = true;
            }
        }
        if !own {
            self.stores()
                .all()
                .into_iter()
                .filter_map(|known| known.store.clone().ok())
                .for_each(add);
        }
        Ok(stores)
    }

    fn candidates(&self, machine: &Machine) -> Result<Candidates, Failure> {
        let told = machine.file(BootFile::State).is_some();
        Ok(Candidates {
            name: machine.config().name.clone(),
            told: if told { Some(self.state_place(machine)?) } else { None },
            stores: if told { Vec::new() } else { self.state_stores(machine.config())? },
        })
    }

    pub(super) fn find_state_file(&self, call: &mut Call) -> Later<bool> {
        // Its memory need not be borrowed for this.
        let config = init().and_then(|mut init| init.machine(call.badge)).map_err(refused)?;
        let stores = self.state_stores(&config)?;
        self.later(call, async move {
            for store in stores {
                if holds(&store, &config.name).await.map_err(failure)? {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    pub(super) fn discard_state_file(&self, call: &mut Call) -> Later<()> {
        let config = init().and_then(|mut init| init.machine(call.badge)).map_err(refused)?;
        let path = path_of(&config.name);
        let told = match config.files.get(BootFile::State as usize).cloned().flatten() {
            Some(FilePlace::Store { store, path: told }) if told.trim_matches('/') == path => self.mounted(&store).ok(),
            _ => None,
        };
        let stores = self.state_stores(&config)?;
        let all = self.stores().clone();
        self.later(call, async move {
            for store in stores {
                let kept = told.as_ref().is_some_and(|told| Rc::ptr_eq(told, &store));
                if !kept && holds(&store, &config.name).await.map_err(failure)? {
                    remove(&all, &store, &path).await?;
                }
            }
            Ok(())
        })
    }

    pub(super) fn begin_state_file(&self, call: &mut Call, length: u64, check: u32) -> Later<()> {
        let machine = self.guests().machine(call)?;
        let (store, path) = self.guests().with_files_of_now(call, &machine, || self.state_place(&machine))?;
        let memory = machine.memory();
        let id = unique().iter().fold(0, |id: u64, byte| id.rotate_left(8) ^ u64::from(*byte));
        self.later(call, async move {
            machine.writing().take();
            let writer = Writer::begin(store, &path, id, (&machine.config().name, memory), (length, check), seconds())
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
            if machine.in_video(address.saturating_add(length)).is_some() {
                // The guest stands still: no more of it is made.
                machine.loan().look_at_video().map_err(Trouble::NoMemory)?;
            }
            writer.memory(&GuestRam(machine), address, length).await
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

    /// Does something with the file that holds the machine's state.
    fn with_reader<T: Encode + 'static>(
        &self,
        call: &mut Call,
        act: impl AsyncFnOnce(Reader<Volume>, &Machine) -> Result<T, Trouble> + 'static,
    ) -> Later<T> {
        let machine = self.guests().machine(call)?;
        let candidates = self.candidates(&machine)?;
        self.later(call, async move {
            let (store, path) = candidates.find().await?;
            let reader = Reader::open(store, &path, machine.memory()).await.map_err(failure)?;
            act(reader, &machine).await.map_err(failure)
        })
    }

    pub(super) fn open_state_file(&self, call: &mut Call) -> Later<StateInfo> {
        let machine = self.guests().machine(call)?;
        self.guests().with_files_of_now(call, &machine, || Ok(()))?;
        self.with_reader(call, async |reader, _| {
            reader.check_state().await?;
            let header = *reader.header();
            Ok(StateInfo {
                state: header.state,
                length: header.length,
            })
        })
    }

    pub(super) fn read_state_file(&self, call: &mut Call, offset: u64, length: u32) -> Later<FileData> {
        self.with_reader(call, async move |reader, _| {
            let data = reader.state(offset, u64::from(length).min(MAX_READ as u64)).await?;
            Ok(FileData { data })
        })
    }

    pub(super) fn load_ram(&self, call: &mut Call) -> Later<()> {
        self.with_reader(call, async |reader, machine| reader.memory(&GuestRam(machine)).await)
    }

    pub(super) fn remove_state_file(&self, call: &mut Call) -> Later<()> {
        let machine = self.guests().machine(call)?;
        let (candidates, all) = (self.candidates(&machine)?, self.stores().clone());
        self.later(call, async move {
            match candidates.find().await {
                Ok((store, path)) => remove(&all, &store, &path).await,
                // It was asked for before, by a call that is repeated.
                Err(failure) if failure.kind == FailureKind::NotFound => Ok(()),
                Err(failure) => Err(failure),
            }
        })
    }
}
