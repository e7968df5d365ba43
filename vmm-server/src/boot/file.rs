//! A file that a guest is started with: in the image, where it can be looked at in memory, or in a datastore, from where it goes straight into the guest's RAM.

use crate::memory::GuestMemory;

/// Bytes that [`File::head`] has at least, or all of a shorter file: headers and tables stand there.
pub const HEAD: usize = 64 << 10;

/// A file.
pub trait File {
    /// Bytes.
    fn length(&self) -> u64;
    /// Its beginning.
    fn head(&self) -> &[u8];
    /// Copies a part into guest RAM. `None` unless all of it is in the file and fits; it may be that nothing is known about what is there then.
    fn load(&self, memory: &GuestMemory, address: u64, part: Part) -> Option<()>;
}

/// A part of a file, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub length: u64,
}

impl Part {
    /// All of a file.
    pub fn all(file: &dyn File) -> Self {
        Self {
            offset: 0,
            length: file.length(),
        }
    }
}

impl File for &[u8] {
    fn length(&self) -> u64 {
        self.len() as u64
    }

    fn head(&self) -> &[u8] {
        self
    }

    fn load(&self, memory: &GuestMemory, address: u64, part: Part) -> Option<()> {
        let begin = usize::try_from(part.offset).ok()?;
        let length = usize::try_from(part.length).ok()?;
        memory.write_slice(address, self.get(begin..)?.get(..length)?)
    }
}
