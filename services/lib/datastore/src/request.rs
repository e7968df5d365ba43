//! The data path: from bytes of an object to sectors of the device. The data itself never comes by here.
//!
//! A request that finds everything in memory is answered at once by `translate_read` or `translate_write`: one look-up per MiB and a few instructions per block.
//! Others go through `prepare_read` and `prepare_write`, which read metadata and give out blocks. Either way the caller then moves the data between its own memory and
//! the device, and says with `finish` that this is done. Until then no block of the request is given to anybody else; new blocks belong to the object from then on, so
//! that nobody ever reads what was in them before.

use alloc::vec::Vec;
use tessera_block::BlockDevice;

use crate::cache::{Cache, Key};
use crate::error::Error;
use crate::layout::{BLOCK, FANOUT, POINTER};
use crate::pointer::Pointer;
use crate::record::{CHECKSUMS, DYING, Kind};
use crate::space::Run;
use crate::state::{Pending, Place, State, Stop, Try};
use crate::store::Store;

/// Bytes of one request at most.
pub const MAX_REQUEST: u64 = 1 << 30;

/// Where a part of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first sector, counted from the start of the store's device; none for a part that reads as zeroes.
    pub sector: Option<u64>,
    /// Bytes.
    pub length: u32,
}

/// A request under way. [`Store::finish`] takes it back; one that is lost keeps freed space from being used again, and snapshots of its disk waiting.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    object: u32,
    epoch: u64,
    write: bool,
    pending: Option<u64>,
    /// The epoch among the object's writes in place.
    in_place: Option<u64>,
}

/// The answer of a look-up in memory.
#[derive(Debug, PartialEq, Eq)]
pub enum Translated {
    /// The extents are in the list.
    Ready(Ticket),
    /// Not everything is in memory, or blocks must be given out: call `prepare_read` or `prepare_write`.
    NeedsWork,
}

/// How a write is prepared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edges {
    /// Parts of new blocks that the write leaves out get their content now.
    Fill,
    /// The caller writes whole blocks, and nobody else may write any of them meanwhile.
    Locked,
}

/// Adds an extent to the list, to the last one where it goes on from it.
#[inline]
fn push(out: &mut Vec<Extent>, sector: Option<u64>, length: u32, sector_shift: u32) {
    if let Some(last) = out.last_mut() {
        let follows = match (last.sector, sector) {
            (Some(before), Some(now)) => before + u64::from(last.length >> sector_shift) == now,
            (before, now) => before.is_none() && now.is_none(),
        };
        if follows && last.length.checked_add(length).is_some() {
            last.length += length;
            return;
        }
    }
    out.push(Extent { sector, length });
}

/// Whether a range is inside, whole sectors, and of a length that a request can have.
#[inline]
fn check_range(offset: u64, length: u64, size: u64, sector_shift: u32) -> Result<(), Error> {
    if length > MAX_REQUEST || offset.checked_add(length).is_none_or(|end| end > size) {
        return Err(Error::OutOfRange { offset, length, size });
    }
    if (offset | length) & ((1 << sector_shift) - 1) != 0 {
        return Err(Error::Misaligned { sector: 1 << sector_shift });
    }
    Ok(())
}

impl State {
    /// Fills the list; for a write, `floor` says which blocks may be written in place. False where a write needs new blocks.
    fn translate(
        &mut self,
        object: u32,
        offset: u64,
        length: u64,
        floor: Option<u64>,
        sector_shift: u32,
        out: &mut Vec<Extent>,
    ) -> Try<bool> {
        let mut at = offset;
        let end = offset + length;
        while at < end {
            let block = at / BLOCK as u64;
            let key = Key::leaf(object, block);
            let Some(node) = self.cache.get(key) else {
                let Place::Hole { at: hole, .. } = self.locate(key)? else {
                    continue;
                };
                if floor.is_some() {
                    return Ok(false);
                }
                let until = self.hole_end(key, hole).saturating_mul(BLOCK as u64).min(end);
                push(out, None, (until - at) as u32, sector_shift);
                at = until;
                continue;
            };
            for bytes in &node.as_chunks::<POINTER>().0[(block % FANOUT) as usize..] {
                let pointer = Pointer::read(bytes);
                if floor.is_some_and(|floor| pointer.is_hole() || pointer.birth <= floor) {
                    return Ok(false);
                }
                let within = at % BLOCK as u64;
                let part = (BLOCK as u64 - within).min(end - at);
                let sector = (pointer.block << (BLOCK.trailing_zeros() - sector_shift)) + (within >> sector_shift);
                push(out, (!pointer.is_hole()).then_some(sector), part as u32, sector_shift);
                at += part;
                if at == end {
                    break;
                }
            }
        }
        Ok(true)
    }

    fn begin(&mut self, object: u32, write: bool, pending: Option<u64>) -> Ticket {
        let mut in_place = None;
        if write {
            if let Ok(object) = self.object_mut(object) {
                object.writing += 1;
                if pending.is_none() {
                    in_place = Some(object.in_place.begin());
                }
            }
        }
        Ticket {
            object,
            epoch: self.tickets.begin(),
            write,
            pending,
            in_place,
        }
    }

    /// Whether writes to these blocks must wait.
    pub(crate) fn is_blocked(&self, object: u32, block: u64, end: u64) -> bool {
        self.object(object).is_ok_and(|object| {
            object.frozen
                || object
                    .pending
                    .iter()
                    .any(|other| block < other.block + other.count && other.block < end)
        })
    }
}

/// Blocks that need their edges filled before the caller's data: the object's block, what it was, and the new place.
struct Prepared {
    ticket: Ticket,
    fills: Vec<(Pointer, u64)>,
    extents: Vec<Extent>,
}

impl<D: BlockDevice> Store<D> {
    /// Looks up where to read `length` bytes at `offset` of an object, without waiting. Extents are added to `out`, together `length` bytes, in order.
    ///
    /// Objects with checksums are not read this way, but with [`Store::read`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::OutOfRange`], [`Error::Misaligned`]; [`Error::Damaged`] is found out by `prepare_read`.
    #[inline]
    pub fn translate_read(&self, object: u32, offset: u64, length: u64, out: &mut Vec<Extent>) -> Result<Translated, Error> {
        let mut state = self.state.borrow_mut();
        let record = &state.object(object)?.record;
        check_range(offset, length, record.size, self.sector_shift())?;
        if record.flags & CHECKSUMS != 0 {
            return Ok(Translated::NeedsWork);
        }
        let before = out.len();
        match state.translate(object, offset, length, None, self.sector_shift(), out) {
            Ok(true) => Ok(Translated::Ready(state.begin(object, false, None))),
            Ok(false) | Err(Stop::Need(_)) => {
                out.truncate(before);
                Ok(Translated::NeedsWork)
            }
            Err(Stop::Error(error)) => Err(error),
        }
    }

    /// Looks up where to write `length` bytes at `offset` of an object in place, without waiting. Extents are added to `out`, each with a sector.
    ///
    /// # Errors
    /// As [`Store::translate_read`], and [`Error::ReadOnly`], [`Error::Failed`].
    #[inline]
    pub fn translate_write(&self, object: u32, offset: u64, length: u64, out: &mut Vec<Extent>) -> Result<Translated, Error> {
        let mut state = self.state.borrow_mut();
        let found = state.object(object)?;
        check_range(offset, length, found.record.size, self.sector_shift())?;
        let floor = found.floor();
        let idle = found.pending.is_empty() && !found.frozen;
        if found.record.kind == Kind::Snapshot || found.record.flags & DYING != 0 {
            return Err(Error::ReadOnly);
        }
        state.check_writable()?;
        // A write under way that locked its blocks may have them in place.
        if !idle && state.is_blocked(object, offset / BLOCK as u64, (offset + length).div_ceil(BLOCK as u64)) {
            return Ok(Translated::NeedsWork);
        }
        let before = out.len();
        match state.translate(object, offset, length, Some(floor), self.sector_shift(), out) {
            Ok(true) => Ok(Translated::Ready(state.begin(object, true, None))),
            Ok(false) | Err(Stop::Need(_)) => {
                out.truncate(before);
                Ok(Translated::NeedsWork)
            }
            Err(Stop::Error(error)) => Err(error),
        }
    }

    /// [`Store::translate_read`] that reads metadata where it has to.
    ///
    /// # Errors
    /// As that, and [`Error::Io`], [`Error::Damaged`].
    pub async fn prepare_read(&self, object: u32, offset: u64, length: u64, out: &mut Vec<Extent>) -> Result<Ticket, Error> {
        let before = out.len();
        self.run(|state| {
            out.truncate(before);
            check_range(offset, length, state.object(object)?.record.size, self.sector_shift())?;
            state.translate(object, offset, length, None, self.sector_shift(), out)?;
            Ok(state.begin(object, false, None))
        })
        .await
    }

    /// [`Store::translate_write`] that gives out blocks where it has to, and waits while the disk's snapshot is taken. What the request leaves out of a new block is
    /// written there before this returns.
    ///
    /// # Errors
    /// As that, and [`Error::NoSpace`], [`Error::Io`], [`Error::Damaged`].
    pub async fn prepare_write(&self, object: u32, offset: u64, length: u64, out: &mut Vec<Extent>) -> Result<Ticket, Error> {
        {
            let state = self.state.borrow();
            let record = &state.living(object)?.record;
            check_range(offset, length, record.size, self.sector_shift())?;
            if record.is(CHECKSUMS) {
                return Err(Error::WrongKind {
                    name: record.name.clone(),
                    expected: "disk without checksums (use `write`)",
                });
            }
        }
        self.begin_write(object, offset, length, Edges::Fill, out).await
    }

    pub(crate) async fn begin_write(
        &self,
        object: u32,
        offset: u64,
        length: u64,
        edges: Edges,
        out: &mut Vec<Extent>,
    ) -> Result<Ticket, Error> {
        let (first, end) = (offset / BLOCK as u64, (offset + length).div_ceil(BLOCK as u64));
        let mut made_space = false;
        let prepared = loop {
            self.event
                .until(|| (!self.state.borrow().is_blocked(object, first, end)).then_some(()))
                .await;
            self.relieve().await?;
            let attempt = self.run(|state| {
                state.check_writable()?;
                if state.living(object)?.record.kind == Kind::Snapshot {
                    return Err(Error::ReadOnly.into());
                }
                if state.is_blocked(object, first, end) {
                    return Ok(None);
                }
                state.prepare(object, offset, length, edges, self.sector_shift()).map(Some)
            });
            match attempt.await {
                Ok(Some(prepared)) => break prepared,
                Ok(None) => {}
                Err(error @ Error::NoSpace { .. }) => {
                    // What was freed can be given out after a commit.
                    if made_space || self.state.borrow().space.waiting() == 0 {
                        return Err(error);
                    }
                    made_space = true;
                    let held = self.lock.hold().await;
                    self.commit(&held, &[], |_| {}).await?;
                }
                Err(error) => return Err(error),
            }
        };
        for (old, new) in &prepared.fills {
            if let Err(error) = self.fill(*old, *new).await {
                self.finish(prepared.ticket, false);
                return Err(error);
            }
        }
        out.extend(prepared.extents);
        Ok(prepared.ticket)
    }

    async fn fill(&self, old: Pointer, new: u64) -> Result<(), Error> {
        let content = if old.is_hole() {
            alloc::rc::Rc::new([0; BLOCK])
        } else {
            self.read_block(old.block, "copying a block").await?
        };
        self.device
            .write(self.sector(new), &content[..])
            .await
            .map_err(Error::io("copying a block"))
    }

    /// Waits for the writes in place that are under way: they may be writing parts of blocks that the caller has locked and is about to write anew as a whole.
    pub(crate) async fn let_writes_in_place_end(&self, object: u32) {
        let Ok(ended) = self.state.borrow_mut().object_mut(object).map(|object| object.in_place.advance()) else {
            return;
        };
        self.event
            .until(|| {
                let state = self.state.borrow();
                state
                    .object(object)
                    .map_or(Some(()), |object| object.in_place.ended(ended).then_some(()))
            })
            .await;
    }

    /// A request came to its end. `done` says whether its data is where it should be: after a write, new blocks belong to the object then, durably from the next
    /// [`Store::flush`] on; otherwise the object keeps what it had.
    pub fn finish(&self, ticket: Ticket, done: bool) {
        self.finish_with(ticket, done, &[]);
    }

    pub(crate) fn finish_with(&self, ticket: Ticket, done: bool, checksums: &[u32]) {
        let mut state = self.state.borrow_mut();
        state.tickets.end(ticket.epoch);
        if !ticket.write {
            return;
        }
        let mut waited_for = ticket.pending.is_some();
        let mut pending = None;
        if let Ok(object) = state.object_mut(ticket.object) {
            object.writing = object.writing.saturating_sub(1);
            waited_for |= object.frozen;
            if let Some(epoch) = ticket.in_place {
                waited_for |= object.in_place.is_waited_for();
                object.in_place.end(epoch);
            }
            let place = object.pending.iter().position(|pending| Some(pending.id) == ticket.pending);
            pending = place.map(|place| object.pending.swap_remove(place));
        }
        if let Some(pending) = pending {
            let start = pending.block;
            for (block, run) in pending.runs {
                let part = checksums
                    .get((block - start) as usize..)
                    .map_or(&[][..], |rest| &rest[..rest.len().min(run.count as usize)]);
                state.settle(ticket.object, block, run, done, part);
            }
        }
        drop(state);
        if waited_for {
            self.event.notify();
        }
    }
}

impl State {
    /// New blocks of a write are written, or not.
    fn settle(&mut self, object: u32, block: u64, run: Run, done: bool, checksums: &[u32]) {
        if done && !self.failed {
            self.space.publish(run);
            // The leaves were pinned, so nothing has to be read.
            if self.map(object, block, run, checksums).is_ok() {
                self.log_map(object, block, run, checksums);
            } else {
                self.failed = true;
            }
        } else {
            self.space.abandon(run, !done);
        }
        self.pins(object, block, run, Cache::unpin);
    }

    fn pins(&mut self, object: u32, block: u64, run: Run, change: fn(&mut Cache, Key)) {
        for index in block / FANOUT..=(block + run.count - 1) / FANOUT {
            change(&mut self.cache, Key::new(object, 0, index));
        }
    }

    /// Decides which blocks are written in place and gives out the others.
    fn prepare(&mut self, object: u32, offset: u64, length: u64, edges: Edges, sector_shift: u32) -> Try<Prepared> {
        let (first, end) = (offset / BLOCK as u64, (offset + length).div_ceil(BLOCK as u64));
        let floor = self.object(object)?.floor();
        let mut targets: Vec<Pointer> = Vec::with_capacity((end - first) as usize);
        for block in first..end {
            targets.push(self.find(object, block)?.0);
        }
        let is_fresh = |pointer: &Pointer| pointer.is_hole() || pointer.birth <= floor;
        let wanted = targets.iter().filter(|pointer| is_fresh(pointer)).count() as u64;
        let mut runs = Vec::new();
        let mut fills = Vec::new();
        if wanted > 0 {
            let mut leaves = 0;
            for index in first / FANOUT..=(end - 1) / FANOUT {
                leaves += 1;
                self.ensure(Key::new(object, 0, index))?;
            }
            let available = self.available_to(object);
            if available < wanted + leaves {
                return Err(Error::NoSpace {
                    needed: wanted * BLOCK as u64,
                    available: available * BLOCK as u64,
                }
                .into());
            }
            if let Err(stop) = self.allocate(object, first, &targets, is_fresh, &mut runs) {
                for (_, run) in runs {
                    self.space.abandon(run, false);
                }
                return Err(stop);
            }
            for &(block, run) in &runs {
                self.pins(object, block, run, Cache::pin);
                for step in 0..run.count {
                    let at = block + step;
                    let partial = at * (BLOCK as u64) < offset || (at + 1) * BLOCK as u64 > offset + length;
                    let target = &mut targets[(at - first) as usize];
                    if partial && edges == Edges::Fill {
                        fills.push((*target, run.start + step));
                    }
                    target.block = run.start + step;
                }
            }
        }
        let mut extents = Vec::new();
        let mut at = offset;
        for target in &targets {
            let within = at % BLOCK as u64;
            let part = (BLOCK as u64 - within).min(offset + length - at);
            let sector = (target.block << (BLOCK.trailing_zeros() - sector_shift)) + (within >> sector_shift);
            push(&mut extents, Some(sector), part as u32, sector_shift);
            at += part;
        }
        let pending = (!runs.is_empty() || edges == Edges::Locked).then(|| {
            self.next_pending += 1;
            self.next_pending
        });
        if let (Some(id), Ok(found)) = (pending, self.object_mut(object)) {
            found.pending.push(Pending {
                id,
                block: first,
                count: end - first,
                runs,
            });
        }
        Ok(Prepared {
            ticket: self.begin(object, true, pending),
            fills,
            extents,
        })
    }

    /// Gives out blocks for the fresh ones of `targets`, which start at the object's block `first`; in runs as long as can be.
    fn allocate(
        &mut self,
        object: u32,
        first: u64,
        targets: &[Pointer],
        is_fresh: impl Fn(&Pointer) -> bool,
        runs: &mut Vec<(u64, Run)>,
    ) -> Try<()> {
        let mut hint = match first
            .checked_sub(1)
            .and_then(|before| Some((before, self.cache.peek(Key::leaf(object, before))?)))
        {
            Some((before, leaf)) => crate::pointer::pointer(leaf, (before % FANOUT) as usize).block,
            None => 0,
        };
        hint = if hint == 0 { self.object(object)?.hint } else { hint + 1 };
        let mut at = 0;
        while at < targets.len() {
            if !is_fresh(&targets[at]) {
                at += 1;
                continue;
            }
            let wanted = targets[at..].iter().take_while(|target| is_fresh(target)).count() as u64;
            let run = self.space.allocate(hint, wanted).map_err(|group| match group {
                Some(group) => Stop::Need(crate::state::Need::Group(group)),
                None => Stop::Error(Error::NoSpace {
                    needed: wanted * BLOCK as u64,
                    available: 0,
                }),
            })?;
            runs.push((first + at as u64, run));
            hint = run.start + run.count;
            at += run.count as usize;
        }
        self.object_mut(object)?.hint = hint;
        Ok(())
    }
}
