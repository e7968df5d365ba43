//! Reading and writing through memory, for files, checksummed disks, and whoever has no memory of its own to hand to the device.

use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use tessera_block::BlockDevice;

use crate::bytes::checksum;
use crate::error::Error;
use crate::layout::{BLOCK, MAX_SIZE};
use crate::log::Entry;
use crate::pointer::Block;
use crate::record::{CHECKSUMS, Kind};
use crate::request::{Edges, Extent};
use crate::store::Store;

/// Bytes that are written at once.
const CHUNK: usize = 1 << 20;

impl<D: BlockDevice> Store<D> {
    /// Reads any bytes of a file, disk or snapshot. Checksums are checked where there are any.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::OutOfRange`], [`Error::Io`], [`Error::Damaged`].
    pub async fn read(&self, object: u32, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let (size, checked) = {
            let state = self.state.borrow();
            let record = &state.object(object)?.record;
            (record.size, record.is(CHECKSUMS))
        };
        let length = buffer.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(Error::OutOfRange { offset, length, size });
        }
        let mut at = offset;
        let mut rest = buffer;
        while !rest.is_empty() {
            let within = (at % BLOCK as u64) as usize;
            let whole = rest.len() / BLOCK * BLOCK;
            let part = if within != 0 || whole == 0 || checked {
                let part = (BLOCK - within).min(rest.len());
                let block = self.read_object_block(object, at / BLOCK as u64).await?;
                rest[..part].copy_from_slice(&block[within..within + part]);
                part
            } else {
                // The object's size need not be whole blocks; what is asked for here is inside.
                let part = whole.min(CHUNK);
                self.read_whole(object, at, &mut rest[..part]).await?;
                part
            };
            at += part as u64;
            rest = &mut rest[part..];
        }
        Ok(())
    }

    async fn read_whole(&self, object: u32, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let mut extents = Vec::new();
        let ticket = self.prepare_read(object, offset, buffer.len() as u64, &mut extents).await?;
        let mut done = 0;
        let mut result = Ok(());
        for Extent { sector, length } in extents {
            let part = &mut buffer[done..done + length as usize];
            done += length as usize;
            match sector {
                Some(sector) => result = self.device.read(sector, part).await.map_err(Error::io("reading data")),
                None => part.fill(0),
            }
            if result.is_err() {
                break;
            }
        }
        self.finish(ticket, result.is_ok());
        result
    }

    /// One whole block of an object, also the one that its end is in.
    pub(crate) async fn read_object_block(&self, object: u32, block: u64) -> Result<Rc<Block>, Error> {
        let (pointer, checked, epoch) = self
            .run(|state| {
                let pointer = state.find(object, block)?.0;
                Ok((pointer, state.object(object)?.record.is(CHECKSUMS), state.tickets.begin()))
            })
            .await?;
        let read = if pointer.is_hole() {
            Ok(Rc::new([0; BLOCK]))
        } else {
            self.read_block(pointer.block, "reading data").await
        };
        self.state.borrow_mut().tickets.end(epoch);
        match read {
            Ok(content) if checked && !pointer.is_hole() && checksum(&content[..]) != pointer.crc => Err(Error::Damaged {
                what: "data",
                block: pointer.block,
            }),
            read => read,
        }
    }

    /// Writes any bytes of a file or disk; a file grows where it has to. [`Store::flush`] makes it durable.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::ReadOnly`] for a snapshot, [`Error::OutOfRange`] for a disk, [`Error::BadSize`] for a file, [`Error::NoSpace`], [`Error::Io`],
    /// [`Error::Damaged`]. What was before the part that could not be written is written then.
    pub async fn write(&self, object: u32, offset: u64, data: &[u8]) -> Result<(), Error> {
        let length = data.len() as u64;
        let grows = {
            let state = self.state.borrow();
            state.check_writable()?;
            let record = &state.living(object)?.record;
            let (kind, size) = (record.kind, record.size);
            let end = offset
                .checked_add(length)
                .filter(|&end| end <= MAX_SIZE)
                .ok_or(Error::OutOfRange { offset, length, size })?;
            match kind {
                Kind::File => (end > size && length > 0).then_some(size),
                Kind::Disk if end > size => return Err(Error::OutOfRange { offset, length, size }),
                Kind::Disk => None,
                Kind::Folder => {
                    return Err(Error::WrongKind {
                        name: record.name.clone(),
                        expected: "file or disk",
                    });
                }
                Kind::Snapshot => return Err(Error::ReadOnly),
            }
        };
        if let Some(size) = grows.filter(|size| size / BLOCK as u64 != offset / BLOCK as u64) {
            self.clear_tail(object, size).await?;
        }
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let part = (CHUNK - (at % CHUNK as u64) as usize).min(rest.len());
            self.write_part(object, at, &rest[..part], grows.is_some()).await?;
            at += part as u64;
            rest = &rest[part..];
        }
        Ok(())
    }

    /// Clears what of an object's last block lies behind its end at `size`. A growth that a power cut undid may have left something there, which must not show when the object
    /// grows again.
    pub(crate) async fn clear_tail(&self, object: u32, size: u64) -> Result<(), Error> {
        let edge = size.next_multiple_of(BLOCK as u64);
        let block = size / BLOCK as u64;
        if edge == size || self.run(|state| Ok(state.find(object, block)?.0.is_hole())).await? {
            return Ok(());
        }
        self.write_part(object, size, &[0; BLOCK][..(edge - size) as usize], false).await
    }

    /// Writes a part, and has a file that `grows` reach to its end then.
    async fn write_part(&self, object: u32, offset: u64, data: &[u8], grows: bool) -> Result<(), Error> {
        let start = offset / BLOCK as u64 * BLOCK as u64;
        let end = (offset + data.len() as u64).next_multiple_of(BLOCK as u64);
        let mut extents = Vec::new();
        let ticket = self.begin_write(object, start, end - start, Edges::Locked, &mut extents).await?;
        let mut whole = Vec::new();
        let mut content = data;
        if offset != start || end != offset + data.len() as u64 {
            self.let_writes_in_place_end(object).await;
            whole = vec![0; (end - start) as usize];
            // The blocks are locked, so their edges stay what they are.
            for (block, partial) in [(start, offset != start), (end - BLOCK as u64, end != offset + data.len() as u64)] {
                if !partial {
                    continue;
                }
                match self.read_object_block(object, block / BLOCK as u64).await {
                    Ok(old) => whole[(block - start) as usize..][..BLOCK].copy_from_slice(&old[..]),
                    Err(error) => {
                        self.finish(ticket, false);
                        return Err(error);
                    }
                }
            }
            if grows {
                // As in `clear_tail`. The size is that of now: whoever wrote these blocks before has set it.
                let size = self.state.borrow().object(object).map_or(end, |object| object.record.size);
                whole[(size.clamp(start, end) - start) as usize..].fill(0);
            }
            whole[(offset - start) as usize..][..data.len()].copy_from_slice(data);
            content = &whole;
        }
        let checked = self.state.borrow().object(object).is_ok_and(|object| object.record.is(CHECKSUMS));
        let checksums: Vec<u32> = if checked {
            content.chunks(BLOCK).map(checksum).collect()
        } else {
            Vec::new()
        };
        let mut done = 0;
        let mut result = Ok(());
        for Extent { sector, length } in extents {
            let part = &content[done..done + length as usize];
            done += length as usize;
            if let Some(sector) = sector {
                result = self.device.write(sector, part).await.map_err(Error::io("writing data"));
            }
            if result.is_err() {
                break;
            }
        }
        self.finish_with(ticket, result.is_ok(), &checksums);
        if grows && result.is_ok() {
            let mut state = self.state.borrow_mut();
            let size = offset + data.len() as u64;
            if state.object(object).is_ok_and(|object| object.record.size < size) {
                state.set_size(object, size);
                state.unlogged.push(Entry::Size { object, size });
            }
        }
        drop(whole);
        result
    }

    /// Makes whole blocks inside a range of a disk or file a hole, which reads as zeroes, and gives their space back. What of the range is no whole
    /// block keeps its content.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::ReadOnly`], [`Error::OutOfRange`], [`Error::Io`], [`Error::Damaged`].
    pub async fn discard(&self, object: u32, offset: u64, length: u64) -> Result<(), Error> {
        let size = {
            let state = self.state.borrow();
            state.check_writable()?;
            let record = &state.living(object)?.record;
            if record.kind == Kind::Snapshot {
                return Err(Error::ReadOnly);
            }
            record.size
        };
        let limit = offset
            .checked_add(length)
            .filter(|&limit| limit <= size)
            .ok_or(Error::OutOfRange { offset, length, size })?;
        // The block that the end is in counts as whole when all of it is in the range.
        let end = if limit == size {
            limit.div_ceil(BLOCK as u64)
        } else {
            limit / BLOCK as u64
        };
        self.unmap_blocks(object, offset.div_ceil(BLOCK as u64), end).await
    }

    pub(crate) async fn unmap_blocks(&self, object: u32, mut block: u64, end: u64) -> Result<(), Error> {
        while block < end {
            self.relieve().await?;
            let next = self
                .run(|state| {
                    state.check_writable()?;
                    state.living(object)?;
                    // One leaf at a time.
                    let until = end.min((block / crate::layout::FANOUT + 1) * crate::layout::FANOUT);
                    if state.is_blocked(object, block, until) {
                        return Ok(None);
                    }
                    let (next, changed) = state.unmap(object, block, end)?;
                    if changed {
                        state.unlogged.push(Entry::Unmap {
                            object,
                            block,
                            count: (next - block) as u32,
                        });
                    }
                    Ok(Some(next))
                })
                .await?;
            match next {
                Some(next) => block = next,
                None => {
                    self.event
                        .until(|| (!self.state.borrow().is_blocked(object, block, block + 1)).then_some(()))
                        .await
                }
            }
        }
        Ok(())
    }

    /// Makes a range of a disk or file read as zeroes: whole blocks by giving them back, the rest by writing.
    ///
    /// # Errors
    /// As [`Store::write`] and [`Store::discard`].
    pub async fn write_zeroes(&self, object: u32, offset: u64, length: u64) -> Result<(), Error> {
        let size = self.state.borrow().living(object)?.record.size;
        let end = offset
            .checked_add(length)
            .filter(|&end| end <= size)
            .ok_or(Error::OutOfRange { offset, length, size })?;
        let (first, last) = (
            offset.next_multiple_of(BLOCK as u64).min(end),
            (end / BLOCK as u64 * BLOCK as u64).max(offset.next_multiple_of(BLOCK as u64).min(end)),
        );
        let zeroes = [0; BLOCK];
        self.write(object, offset, &zeroes[..(first - offset) as usize]).await?;
        self.discard(object, first, last - first).await?;
        self.write(object, last, &zeroes[..(end - last) as usize]).await
    }
}
