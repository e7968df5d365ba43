//! Files that hold the state of suspended machines (`tessera_vm_state` is their format).
//!
//! The header is written when everything else is safe, so a file that was not finished, whatever cut it off, has none and is refused.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use tessera_block::BlockDevice;
use tessera_datastore::{Error, Kind, Store};
use tessera_proto::Failure;
use tessera_vm_state::{BLOCK, CHUNK, Chunk, Damage, ENDING, Header, MAX_STATE, blocks, checksum, named};

/// Pages that are read or written at once.
const TOGETHER: usize = 32;

/// Why a file cannot be written or read.
#[derive(Debug)]
pub enum Trouble {
    /// The datastore's.
    Store(Error),
    /// What is in the file.
    Damage(Damage),
    /// The request makes no sense: why.
    Request(&'static str),
    /// The file belongs to another machine: how much memory that has.
    Memory(u64),
    /// There is no memory for it: why.
    NoMemory(Failure),
}

impl fmt::Display for Trouble {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(formatter),
            Self::Damage(damage) => damage.fmt(formatter),
            Self::Request(what) => formatter.write_str(what),
            Self::NoMemory(why) => write!(formatter, "what its screen showed: {why}"),
            Self::Memory(bytes) => write!(
                formatter,
                "it is of another machine, or of this one when it was made up otherwise: that had {} MiB of memory",
                bytes >> 20
            ),
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<Damage> for Trouble {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

/// A machine's RAM, as it is copied from and to.
pub trait Memory {
    /// Reads at a guest-physical address.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<()>;
    /// Writes there. `None`: the machine has no such memory.
    ///
    /// # Errors
    /// There is none for it.
    fn write(&self, address: u64, bytes: &[u8]) -> Option<Result<(), Failure>>;
}

/// A file that is being written.
pub struct Writer<D: BlockDevice> {
    store: Rc<Store<D>>,
    file: u32,
    path: String,
    header: Header,
    /// Guest-physical address from which the next chunk is.
    next: u64,
}

impl<D: BlockDevice> Writer<D> {
    /// Begins a file, in place of what has the name, for a machine of that name with so many bytes of RAM; the monitor's part has `state` bytes with that CRC-32C. `id` is a number that no other file has.
    ///
    /// # Errors
    /// It is too long; the datastore's.
    pub async fn begin(
        store: Rc<Store<D>>,
        path: &str,
        id: u64,
        (name, memory): (&str, u64),
        (state, state_check): (u64, u32),
        now: u64,
    ) -> Result<Self, Trouble> {
        let name = named(name).ok_or(Trouble::Request("the machine's name is too long"))?;
        if state > MAX_STATE {
            return Err(Trouble::Request("the state of its processors and devices is too long"));
        }
        match store.lookup(path) {
            Ok(info) if info.kind == Kind::File => store.remove(path).await?,
            Ok(_) => return Err(Trouble::Request("what has that name is no file")),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
        let file = store.create_file(path, now)?;
        let header = Header {
            name,
            id,
            memory,
            state,
            state_check,
            chunks: 0,
            length: Header::STATE + blocks(state),
        };
        store.set_file_size(file, header.length).await?;
        Ok(Self {
            store,
            file,
            path: path.to_string(),
            header,
            next: 0,
        })
    }

    /// Writes a piece of the monitor's part.
    ///
    /// # Errors
    /// It lies outside; the datastore's.
    pub async fn state(&self, offset: u64, bytes: &[u8]) -> Result<(), Trouble> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > self.header.state) {
            return Err(Trouble::Request("a piece lies outside of what was announced"));
        }
        Ok(self.store.write(self.file, Header::STATE + offset, bytes).await?)
    }

    /// Writes `length` bytes of RAM from `address` on, behind what was written before.
    ///
    /// # Errors
    /// It is not where the last piece ended; the datastore's.
    pub async fn memory(&mut self, memory: &dyn Memory, address: u64, length: u64) -> Result<(), Trouble> {
        let end = address.checked_add(length).filter(|end| *end <= self.header.memory);
        let whole = end.is_some_and(|end| end.is_multiple_of(CHUNK) || end == self.header.memory);
        if address != self.next || !whole {
            return Err(Trouble::Request("pieces of memory come in their order, in whole MiB"));
        }
        let end = end.unwrap_or(address);
        let mut data = Vec::new();
        while self.next < end {
            let chunk_end = end.min(self.next + CHUNK);
            let mut chunk = Box::new(Chunk::new(self.header.id, self.next));
            data.resize(BLOCK, 0);
            let mut page = [0; BLOCK];
            for (number, at) in (self.next..chunk_end).step_by(BLOCK).enumerate() {
                memory
                    .read(at, &mut page)
                    .ok_or(Trouble::Request("the machine has less memory than it should"))?;
                if chunk.add(number, &page) {
                    data.extend_from_slice(&page);
                }
            }
            if chunk.count() > 0 {
                data[..BLOCK].copy_from_slice(&chunk.encode());
                let at = self.header.length;
                let length = at + data.len() as u64;
                self.store.set_file_size(self.file, length).await?;
                for (place, part) in (at..).step_by(TOGETHER * BLOCK).zip(data.chunks(TOGETHER * BLOCK)) {
                    self.store.write(self.file, place, part).await?;
                }
                self.header.length = length;
                self.header.chunks += 1;
            }
            self.next = chunk_end;
        }
        Ok(())
    }

    /// Finishes the file: when this answers, it is whole and safe. Answers its length.
    ///
    /// # Errors
    /// Not all of the memory was written; the datastore's.
    pub async fn finish(self) -> Result<u64, Trouble> {
        if self.next != self.header.memory {
            return Err(Trouble::Request("not all of its memory was written"));
        }
        self.store.flush().await?;
        self.store.write(self.file, 0, &self.header.encode()).await?;
        self.store.flush().await?;
        Ok(self.header.length)
    }

    /// Removes what was written.
    pub async fn abandon(self) {
        // What is left is refused, and overwritten by the next.
        let _ = self.store.remove(&self.path).await;
    }
}

/// Where the state of a machine of that name is kept when it is suspended.
#[must_use]
pub fn path_of(name: &str) -> String {
    let mut path = String::from(name);
    path.push_str(ENDING);
    path
}

/// Whether a store has a file with the state of the suspended machine `name`. What is damaged counts, for it may be all that is left; what was not written to its end does not.
///
/// # Errors
/// The datastore's.
pub async fn holds<D: BlockDevice>(store: &Store<D>, name: &str) -> Result<bool, Trouble> {
    let info = match store.lookup(&path_of(name)) {
        Ok(info) if info.kind == Kind::File && info.size >= BLOCK as u64 => info,
        Ok(_) | Err(Error::NotFound(_)) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let mut block = [0; BLOCK];
    store.read(info.id, 0, &mut block).await?;
    Ok(match Header::decode(&block, info.size) {
        Ok(header) => header.name() == name,
        Err(damage) => damage != Damage::NotState,
    })
}

/// The machines whose state a store has, at most `most`.
///
/// # Errors
/// The datastore's.
pub async fn suspended<D: BlockDevice>(store: &Store<D>, most: usize) -> Result<Vec<String>, Trouble> {
    let mut machines = Vec::new();
    for info in store.list("")? {
        let Some(name) = info.name.strip_suffix(ENDING).filter(|name| !name.is_empty()) else {
            continue;
        };
        if machines.len() < most && holds(store, name).await? {
            machines.push(name.to_string());
        }
    }
    Ok(machines)
}

/// A file that is read.
pub struct Reader<D: BlockDevice> {
    store: Rc<Store<D>>,
    file: u32,
    header: Header,
}

impl<D: BlockDevice> Reader<D> {
    /// Opens a file and checks its header. `memory`: the bytes of RAM that the machine has.
    ///
    /// # Errors
    /// It is none of a machine with that much; the datastore's.
    pub async fn open(store: Rc<Store<D>>, path: &str, memory: u64) -> Result<Self, Trouble> {
        let info = store.lookup(path)?;
        if info.kind != Kind::File {
            return Err(Trouble::Request("what has that name is no file"));
        }
        if info.size < BLOCK as u64 {
            return Err(Damage::NotState.into());
        }
        let mut block = [0; BLOCK];
        store.read(info.id, 0, &mut block).await?;
        let header = Header::decode(&block, info.size)?;
        if header.memory != memory {
            return Err(Trouble::Memory(header.memory));
        }
        Ok(Self {
            store,
            file: info.id,
            header,
        })
    }

    /// Its header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Reads a piece of the monitor's part; less at its end.
    ///
    /// # Errors
    /// The datastore's.
    pub async fn state(&self, offset: u64, length: u64) -> Result<Vec<u8>, Trouble> {
        let length = length.min(self.header.state.saturating_sub(offset));
        let mut bytes = vec![0; length as usize];
        self.store.read(self.file, Header::STATE + offset, &mut bytes).await?;
        Ok(bytes)
    }

    /// Checks the monitor's part as a whole.
    ///
    /// # Errors
    /// It is damaged; the datastore's.
    pub async fn check_state(&self) -> Result<(), Trouble> {
        if checksum(&self.state(0, MAX_STATE).await?) == self.header.state_check {
            Ok(())
        } else {
            Err(Damage::Checksum("the state of processors and devices").into())
        }
    }

    /// Loads all of the RAM, which is all zeros before.
    ///
    /// # Errors
    /// It is damaged; the datastore's.
    pub async fn memory(&self, memory: &dyn Memory) -> Result<(), Trouble> {
        let header = &self.header;
        let (mut place, mut from) = (header.ram(), 0);
        let mut block = [0; BLOCK];
        let mut data = vec![0; TOGETHER * BLOCK];
        for _ in 0..header.chunks {
            let missing = Damage::Nonsense("it ends before its last chunk of memory");
            let fits = |pages: usize, place: u64| place + pages as u64 * BLOCK as u64 <= header.length;
            if !fits(1, place) {
                return Err(missing.into());
            }
            self.store.read(self.file, place, &mut block).await?;
            place += BLOCK as u64;
            let chunk = Chunk::decode(&block, header.id, header.memory, from)?;
            if !fits(chunk.count(), place) {
                return Err(missing.into());
            }
            let pages: Vec<usize> = chunk.pages().collect();
            for numbers in pages.chunks(TOGETHER) {
                let part = &mut data[..numbers.len() * BLOCK];
                self.store.read(self.file, place, part).await?;
                for (number, page) in numbers.iter().zip(part.chunks_exact(BLOCK)) {
                    if !chunk.is_right(*number, page) {
                        return Err(Damage::Checksum("a page of memory").into());
                    }
                    let address = chunk.address + (*number * BLOCK) as u64;
                    memory
                        .write(address, page)
                        .ok_or(Damage::Nonsense("a page is for memory that the machine does not have"))?
                        .map_err(Trouble::NoMemory)?;
                }
                place += part.len() as u64;
            }
            from = chunk.address + CHUNK;
        }
        if place == header.length {
            Ok(())
        } else {
            Err(Damage::Nonsense("something follows its last chunk of memory").into())
        }
    }
}

#[cfg(test)]
#[path = "state_file_tests.rs"]
mod tests;
