//! What the server answers. Whatever needs a disk is answered later, by a task that holds the caller's Reply.

use super::buffers::Buffers;
use super::guests::Guests;
use alloc::{format, rc::Rc, string::String, vec, vec::Vec};
use core::cell::{Cell, RefCell};
use core::future::Future;
use tessera_block::{BlockDevice, IoError};
use tessera_datastore::gpt::{self, GptError};
use tessera_device::Executor;
use tessera_proto::{
    Call, Failure, FailureKind, Page,
    datastore::{self, ChangedRanges, FileData},
    guest_disk::{self, GuestDiskEvent, StateInfo},
    interface_of,
    storage::{self, DiskData, DiskEvent, DiskInfo, GuestDiskStatistics, MAX_DATA, PartitionInfo},
};
use tessera_rt::{Reply, Untyped, abi::syscall::MessageInfo, message::Message, start::start_info};
use tessera_storage::{disk::Disk, pattern, stores::Stores};

/// The word in the manifest that allows [`storage::Server::exercise`].
const EXERCISE: &str = "exercise";
/// Most sectors of one exercise.
const MAX_SECTORS: u32 = 1 << 16;

/// The state behind the answers.
pub struct Answers {
    executor: Rc<Executor>,
    disks: Rc<[Rc<Disk>]>,
    stores: Rc<Stores>,
    /// Takes the next caller.
    reply: Cell<Reply>,
    spare: Rc<RefCell<Vec<Reply>>>,
    guests: Rc<Guests>,
    buffers: Buffers,
}

/// What becomes of an answer that was put off.
pub(super) type Later<T> = Result<T, Failure>;

impl Answers {
    /// Answers about these disks; `spare` are Replies for answers that are put off.
    pub fn new(executor: Rc<Executor>, disks: Rc<[Rc<Disk>]>, stores: Rc<Stores>, spare: Vec<Reply>) -> Self {
        Self {
            executor,
            disks,
            stores,
            reply: Cell::new(Reply::FIRST),
            spare: Rc::new(RefCell::new(spare)),
            guests: Rc::default(),
            buffers: Buffers::default(),
        }
    }

    /// The Reply for the next caller.
    pub fn reply(&self) -> Reply {
        self.reply.get()
    }

    /// Answers a request, now or later.
    pub fn message(&self, call: &mut Call, request: &[u8], reply: &mut [u8]) -> usize {
        match interface_of(request) {
            Some(number) if number == guest_disk::INTERFACE.number => guest_disk::dispatch(&mut &*self, call, request, reply),
            Some(number) if number == datastore::INTERFACE.number => datastore::dispatch(&mut &*self, call, request, reply),
            _ => storage::dispatch(&mut &*self, call, request, reply),
        }
    }

    /// Virtual machines.
    pub fn guests(&self) -> &Rc<Guests> {
        &self.guests
    }

    /// Memory shared with clients.
    pub fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Runs what has to wait.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// All disks.
    pub fn disks(&self) -> &[Rc<Disk>] {
        &self.disks
    }

    /// All datastores.
    pub fn stores(&self) -> &Rc<Stores> {
        &self.stores
    }

    /// The disk of that name.
    pub fn disk(&self, name: &str) -> Result<Rc<Disk>, Failure> {
        let found = self.disks.iter().find(|disk| disk.name() == name);
        found.cloned().ok_or_else(|| {
            Failure::new(
                FailureKind::NotFound,
                format_args!("there is no disk `{name}`: `disk list` shows all"),
            )
        })
    }

    /// Puts the answer off: `work` makes it.
    pub(super) fn later<T: Encode + 'static>(&self, call: &mut Call, work: impl Future<Output = Later<T>> + 'static) -> Later<T> {
        // A watched machine keeps one for as long as it runs, so there is no fixed number of them.
        let spare = self.spare.borrow_mut().pop().or_else(|| Untyped::OWN.reply().ok());
        let Some(spare) = spare else {
            return Err(Failure::new(
                FailureKind::Exhausted,
                "the storage server has too much to do: try again",
            ));
        };
        let reply = self.reply.replace(spare);
        let replies = self.spare.clone();
        self.executor.spawn(async move {
            let result = work.await;
            answer(reply, &result);
            replies.borrow_mut().push(reply);
        });
        call.defer();
        // Not sent.
        Err(FailureKind::Internal.into())
    }
}

/// Results that can be put off.
pub(super) trait Encode {
    fn encode(result: &Later<Self>, call: &mut Call, bytes: &mut [u8]) -> usize
    where
        Self: Sized;
}

macro_rules! encode {
    ($($kind:ty),*) => {$(
        impl Encode for $kind {
            fn encode(result: &Later<Self>, call: &mut Call, bytes: &mut [u8]) -> usize {
                tessera_proto::answer(call, 0, result, bytes)
            }
        }
    )*};
}

encode!(
    (),
    bool,
    u32,
    u64,
    GuestDiskEvent,
    StateInfo,
    DiskData,
    FileData,
    ChangedRanges,
    Page<PartitionInfo>
);

fn answer<T: Encode>(reply: Reply, result: &Later<T>) {
    let mut message = Message::take();
    let length = T::encode(result, &mut Call::default(), message.bytes());
    let mut words = message.load(length);
    // BadState: the caller is gone, which is as good.
    let _ = reply.send(MessageInfo::new(length, 0), &mut words);
}

/// A disk's error as a refusal.
fn trouble(name: &str, error: IoError) -> Failure {
    let kind = match error {
        IoError::OutOfRange { .. } | IoError::Misaligned { .. } => FailureKind::BadRequest,
        IoError::Unsupported => FailureKind::Unsupported,
        IoError::ReadOnly => FailureKind::NotAllowed,
        IoError::Gone => FailureKind::NotFound,
        _ => FailureKind::Internal,
    };
    Failure::new(kind, format_args!("{name}: {error}"))
}

impl storage::Server for &Answers {
    fn disks(&mut self, _call: &mut Call, first: u32) -> Result<Page<DiskInfo>, Failure> {
        let all = (0..).zip(self.disks.iter()).skip(first as usize);
        Ok(Page::fill(all.map(|(number, disk)| (number, disk.info()))))
    }

    fn partitions(&mut self, call: &mut Call, disk: &str, first: u32) -> Result<Page<PartitionInfo>, Failure> {
        let disk = self.disk(disk)?;
        self.later(call, partitions(disk, first))
    }

    fn read(&mut self, call: &mut Call, disk: &str, sector: u64, offset: u32, length: u32) -> Result<DiskData, Failure> {
        let disk = self.disk(disk)?;
        if length as usize > MAX_DATA || offset > 1 << 16 {
            return Err(FailureKind::BadRequest.into());
        }
        self.later(call, read(disk, sector, offset as usize, length as usize))
    }

    fn exercise(&mut self, call: &mut Call, disk: &str, sector: u64, count: u32, seed: u64) -> Result<(), Failure> {
        if !start_info().arguments.iter().any(|word| word == EXERCISE) {
            let text = "what is on disks is not to be destroyed: only a test's manifest allows that (arguments = [\"exercise\"])";
            return Err(Failure::new(FailureKind::NotAllowed, text));
        }
        let disk = self.disk(disk)?;
        if count == 0 || count > MAX_SECTORS {
            return Err(FailureKind::BadRequest.into());
        }
        self.later(call, exercise(disk, sector, count, seed))
    }

    fn events(&mut self, _call: &mut Call, disk: &str, first: u32) -> Result<Page<DiskEvent>, Failure> {
        let all = self.disk(disk)?.events();
        Ok(Page::fill((0..).zip(all).skip(first as usize)))
    }

    fn guest_disks(&mut self, _call: &mut Call, first: u32) -> Result<Page<GuestDiskStatistics>, Failure> {
        let all = self.guests().statistics();
        Ok(Page::fill((0..).zip(all).skip(first as usize)))
    }
}

async fn partitions(disk: Rc<Disk>, first: u32) -> Later<Page<PartitionInfo>> {
    let none = Page {
        items: Vec::new(),
        next: None,
    };
    if !disk.is_there() {
        return Ok(none);
    }
    let table = match gpt::read(&*disk).await {
        Ok(table) => table,
        Err(GptError::Missing) => return Ok(none),
        Err(GptError::Io(error)) => return Err(trouble(disk.name(), error)),
        Err(error) => return Err(Failure::new(FailureKind::Internal, format_args!("{}: {error}", disk.name()))),
    };
    let all = (0..).zip(&table.partitions).skip(first as usize);
    Ok(Page::fill(all.map(|(index, entry)| {
        let info = PartitionInfo {
            number: entry.number,
            first: entry.first,
            sectors: entry.sectors,
            kind: guid(&entry.kind),
            name: entry.name.clone(),
        };
        (index, info)
    })))
}

/// A GUID as people write it: its first three parts stand with their lowest byte first (UEFI 2.10, appendix A).
fn guid(bytes: &[u8; 16]) -> String {
    let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::new();
    for (place, index) in order.into_iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes[index]));
    }
    text
}

async fn read(disk: Rc<Disk>, sector: u64, offset: usize, length: usize) -> Later<DiskData> {
    let geometry = disk.geometry();
    let size = geometry.sector_size.max(1) as usize;
    let sector = sector.saturating_add((offset / size) as u64);
    let offset = offset % size;
    if sector >= geometry.sectors {
        return Err(trouble(
            disk.name(),
            IoError::OutOfRange {
                sector,
                count: 1,
                sectors: geometry.sectors,
            },
        ));
    }
    let count = ((offset + length).div_ceil(size) as u64).min(geometry.sectors - sector) as usize;
    let mut bytes = vec![0; count * size];
    disk.read(sector, &mut bytes).await.map_err(|error| trouble(disk.name(), error))?;
    bytes.drain(..offset.min(bytes.len()));
    bytes.truncate(length);
    Ok(DiskData { data: bytes })
}

async fn exercise(disk: Rc<Disk>, sector: u64, count: u32, seed: u64) -> Later<()> {
    let name: String = disk.name().into();
    let size = disk.geometry().sector_size as usize;
    let fail = |error| trouble(&name, error);
    // Odd lengths, so that commands are cut in odd places.
    let step = (200 << 10) / size as u64;
    let end = sector.saturating_add(count.into());
    let mut at = sector;
    while at < end {
        let sectors = step.min(end - at);
        let bytes = pattern::sectors(seed, at, sectors as usize, size);
        disk.write(at, &bytes).await.map_err(fail)?;
        at += sectors;
    }
    disk.flush().await.map_err(fail)?;
    let mut at = sector;
    while at < end {
        let sectors = step.min(end - at);
        let mut bytes = vec![0; sectors as usize * size];
        disk.read(at, &mut bytes).await.map_err(fail)?;
        let expected = pattern::sectors(seed, at, sectors as usize, size);
        if let Some(place) = bytes.iter().zip(&expected).position(|(one, other)| one != other) {
            let text = format!(
                "{name}: byte {} of sector {} is not what was written",
                place % size,
                at + (place / size) as u64
            );
            return Err(Failure::new(FailureKind::Internal, text));
        }
        at += sectors;
    }
    Ok(())
}
