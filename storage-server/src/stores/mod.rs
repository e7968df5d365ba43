//! The datastores of the machine: found on its disks, mounted, kept tidy.

mod backing;
mod space;
pub mod state_file;

pub use backing::StoreDisk;
pub use space::Space;

use crate::disk::Disk;
use alloc::{format, rc::Rc, string::String, vec::Vec};
use core::cell::{Cell, RefCell};
use tessera_block::{BlockDevice, Partition};
use tessera_datastore::{
    Error, FormatOptions, Memory as ObjectMemory, MountOptions, Store,
    gpt::{self, GptError},
};
use tessera_device::{Executor, Memory};
use tessera_rt::log;

/// What a datastore stands on: a disk, or a part of one.
pub type Volume = Partition<Rc<Disk>>;

/// Bytes of metadata that are kept in memory for each datastore.
const CACHE: usize = 1 << 20;
/// Rounds of [`Stores::watch`] from one look at the space that is left to the next.
const LOOK: u32 = 16;
/// MiB of removed disks whose space is given back before others have their turn.
const RECLAIM: usize = 16;

/// A datastore, or what should be one.
pub struct Datastore {
    /// Name: its label, made unique.
    pub name: String,
    /// The disk that it is on.
    pub disk: Rc<Disk>,
    /// The partition from 1 on; 0: the whole disk.
    pub partition: u32,
    /// First sector on the disk.
    pub first: u64,
    /// The mounted store, or why it is none.
    pub store: Result<Rc<Store<Volume>>, String>,
    /// The log says already that it is nearly full.
    warned: Cell<bool>,
}

/// All of them.
pub struct Stores {
    executor: Rc<Executor>,
    list: RefCell<Vec<Rc<Datastore>>>,
    /// Partitions of disks, as their tables were when they were looked at.
    partitions: RefCell<Vec<(Rc<Disk>, Vec<gpt::Entry>)>>,
    space: Rc<Space>,
    /// For what all of them know of their files, disks and snapshots.
    memory: ObjectMemory,
    round: Cell<u32>,
}

impl Stores {
    /// None yet; `heap`: bytes of the server's heap.
    #[must_use]
    pub fn new(executor: Rc<Executor>, heap: u64) -> Rc<Self> {
        Rc::new(Self {
            executor,
            list: RefCell::default(),
            partitions: RefCell::default(),
            space: Rc::default(),
            memory: ObjectMemory::of_heap(heap),
            round: Cell::new(0),
        })
    }

    /// Those that are known.
    #[must_use]
    pub fn all(&self) -> Vec<Rc<Datastore>> {
        self.list.borrow().clone()
    }

    /// The one of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Rc<Datastore>> {
        self.list.borrow().iter().find(|store| store.name == name).cloned()
    }

    /// Looks on every disk for datastores and mounts them.
    pub async fn find(self: &Rc<Self>, disks: &[Rc<Disk>]) {
        for disk in disks.iter().filter(|disk| disk.is_there()) {
            match gpt::read(disk).await {
                Ok(table) => {
                    let marked = table.partitions.iter().filter(|partition| partition.kind == gpt::DATASTORE_TYPE);
                    for partition in marked {
                        self.mount(disk, partition.number, partition.first, partition.sectors).await;
                    }
                    self.partitions.borrow_mut().push((disk.clone(), table.partitions));
                }
                Err(GptError::Missing) => self.mount(disk, 0, 0, disk.geometry().sectors).await,
                Err(error) => log::warn!("disk {}: {error}", disk.name()),
            }
        }
    }

    /// Mounts what is there. A whole disk without a datastore is nobody's business; a partition that says that it has one is.
    async fn mount(self: &Rc<Self>, disk: &Rc<Disk>, partition: u32, first: u64, sectors: u64) {
        let place = if partition == 0 {
            format!("disk {}", disk.name())
        } else {
            format!("partition {partition} of disk {}", disk.name())
        };
        let options = MountOptions {
            cache: CACHE,
            memory: self.memory.clone(),
            read_only: disk.geometry().read_only,
        };
        let mounted = match Partition::new(disk.clone(), first, sectors) {
            Ok(volume) => Store::mount(volume, options).await.map(Rc::new),
            Err(error) => Err(Error::Io {
                doing: "finding the partition",
                error,
            }),
        };
        if matches!(mounted, Err(Error::NotADatastore | Error::TooSmall { .. })) && partition == 0 {
            return;
        }
        let name = match &mounted {
            Ok(store) => store.identity().0,
            Err(_) => disk.name().into(),
        };
        let store = match mounted {
            Ok(store) => {
                let usage = store.usage();
                log::info!(
                    "datastore {name} on {place}: {} of {} MiB in use",
                    usage.used >> 20,
                    usage.size >> 20
                );
                Ok(store)
            }
            Err(error) => {
                log::error!("the datastore on {place} cannot be mounted: {error}");
                Err(format!("{error}"))
            }
        };
        self.add(Datastore {
            name: self.unique(name),
            disk: disk.clone(),
            partition,
            first,
            store,
            warned: Cell::new(false),
        });
    }

    fn add(self: &Rc<Self>, datastore: Datastore) {
        let datastore = Rc::new(datastore);
        if datastore.store.is_ok() && !datastore.disk.geometry().read_only {
            self.tidy(&datastore);
        }
        self.list.borrow_mut().push(datastore);
    }

    fn unique(&self, name: String) -> String {
        let name = if name.is_empty() { String::from("datastore") } else { name };
        let taken = |name: &str| self.named(name).is_some();
        if !taken(&name) {
            return name;
        }
        (2..)
            .map(|number: u32| format!("{name}-{number}"))
            .find(|name| !taken(name))
            .unwrap_or(name)
    }

    /// First sector and length of a partition of a disk, as it was when this server started: tables that are written while it runs are looked at by the next one.
    #[must_use]
    pub fn partition(&self, disk: &Rc<Disk>, number: u32) -> Option<(u64, u64)> {
        let known = self.partitions.borrow();
        let (_, partitions) = known.iter().find(|(other, _)| Rc::ptr_eq(other, disk))?;
        let found = partitions.iter().find(|partition| partition.number == number)?;
        Some((found.first, found.sectors))
    }

    /// The datastore that a disk or a partition of it (0: all of it) is in use by.
    #[must_use]
    pub fn user_of(&self, disk: &Rc<Disk>, partition: u32) -> Option<Rc<Datastore>> {
        let list = self.list.borrow();
        let mut on_it = list.iter().filter(|store| Rc::ptr_eq(&store.disk, disk));
        on_it
            .find(|store| store.partition == partition || store.partition == 0 || partition == 0)
            .cloned()
    }

    /// Makes a datastore on a disk or partition and mounts it.
    ///
    /// # Errors
    /// There is one already, or what formatting met.
    pub async fn format(self: &Rc<Self>, disk: &Rc<Disk>, partition: u32, mut options: FormatOptions) -> Result<(), String> {
        let (first, sectors) = if partition == 0 {
            match gpt::read(disk).await {
                Err(GptError::Missing) => (0, disk.geometry().sectors),
                Ok(_) => return Err(format!("{} has a partition table: name a partition", disk.name())),
                Err(error) => return Err(format!("{error}")),
            }
        } else {
            let table = gpt::read(disk).await.map_err(|error| format!("{error}"))?;
            let found = table.partitions.iter().find(|known| known.number == partition);
            let found = found.ok_or_else(|| format!("{} has no partition {partition}", disk.name()))?;
            (found.first, found.sectors)
        };
        let known = self.all();
        let used = known
            .iter()
            .find(|known| Rc::ptr_eq(&known.disk, disk) && known.partition == partition);
        if let Some(used) = used {
            return Err(format!("the datastore {} is there already", used.name));
        }
        let volume = Partition::new(disk.clone(), first, sectors).map_err(|error| format!("{error}"))?;
        options.memory = self.memory.clone();
        let store = Store::format(volume, &options).await.map_err(|error| format!("{error}"))?;
        log::info!("made datastore {} on {}", options.label, disk.name());
        self.add(Datastore {
            name: self.unique(options.label.clone()),
            disk: disk.clone(),
            partition,
            first,
            store: Ok(Rc::new(store)),
            warned: Cell::new(false),
        });
        Ok(())
    }

    /// Gives back, bit by bit, the space of what was removed.
    pub fn tidy(self: &Rc<Self>, datastore: &Rc<Datastore>) {
        let (Ok(store), name, space) = (datastore.store.clone(), datastore.name.clone(), self.space.clone()) else {
            return;
        };
        self.executor.spawn(async move {
            loop {
                match store.reclaim(RECLAIM).await {
                    Ok(true) => space.changed(),
                    Ok(false) => break,
                    Err(error) => return log::warn!("datastore {name}: giving space back: {error}"),
                }
            }
            if let Err(error) = store.flush().await {
                log::warn!("datastore {name}: {error}");
            }
            space.changed();
        });
    }

    /// A virtual disk, for a guest whose memory is `memory`.
    ///
    /// # Errors
    /// There is no such disk, or no such datastore.
    pub fn open(self: &Rc<Self>, name: &str, path: &str, memory: Rc<dyn Memory>) -> Result<Rc<StoreDisk>, String> {
        let datastore = self.named(name).ok_or_else(|| {
            let known: Vec<String> = self.all().iter().map(|store| store.name.clone()).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            format!("there is no datastore `{name}`; there are: {known}")
        })?;
        let store = datastore.store.clone().map_err(|error| format!("datastore {name}: {error}"))?;
        let info = store.lookup(path).map_err(|error| format!("datastore {name}: {error}"))?;
        if !matches!(
            info.kind,
            tessera_datastore::Kind::Disk | tessera_datastore::Kind::Snapshot | tessera_datastore::Kind::File
        ) {
            return Err(format!("{path} in datastore {name} is a {}, no disk", info.kind.name()));
        }
        Ok(StoreDisk::new(
            datastore.clone(),
            store,
            &info,
            memory,
            self.executor.clone(),
            self.space.clone(),
        ))
    }

    /// Wakes those who wait for space, to look again, and says when a datastore has little left. Called now and then.
    pub fn watch(&self) {
        self.space.changed();
        let round = self.round.replace(self.round.get().wrapping_add(1));
        if !round.is_multiple_of(LOOK) {
            return;
        }
        for datastore in self.list.borrow().iter() {
            let Ok(store) = &datastore.store else { continue };
            let usage = store.usage();
            if usage.near_full && !datastore.warned.replace(true) {
                log::warn!(
                    "datastore {} is nearly full, {} of {} MiB are left: remove something, or make it larger",
                    datastore.name,
                    usage.available >> 20,
                    usage.size >> 20
                );
            } else if !usage.near_full {
                datastore.warned.set(false);
            }
        }
    }
}
