//! Commands and what completes them (NVM Express Base 2.0, 3.3.3 and 4.2; NVM Command Set 1.0, 3.2).

use tessera_block::IoError;

/// Admin commands.
pub mod admin {
    /// Create I/O submission queue.
    pub const CREATE_SQ: u8 = 0x01;
    /// Get log page.
    pub const LOG_PAGE: u8 = 0x02;
    /// Create I/O completion queue.
    pub const CREATE_CQ: u8 = 0x05;
    /// Identify.
    pub const IDENTIFY: u8 = 0x06;
    /// Set features.
    pub const SET_FEATURES: u8 = 0x09;
    /// Request for an event.
    pub const ASYNC_EVENT: u8 = 0x0c;
}

/// I/O commands.
pub mod io {
    /// Flush.
    pub const FLUSH: u8 = 0x00;
    /// Write.
    pub const WRITE: u8 = 0x01;
    /// Read.
    pub const READ: u8 = 0x02;
    /// Write zeroes.
    pub const WRITE_ZEROES: u8 = 0x08;
    /// Dataset management.
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// Every namespace.
pub const ALL_NAMESPACES: u32 = u32::MAX;

/// How a command names its memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pointer {
    /// It is a scatter-gather list instead of pages.
    pub list: bool,
    /// The two words.
    pub words: [u64; 2],
}

/// A command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Command {
    /// Operation.
    pub opcode: u8,
    /// Namespace.
    pub namespace: u32,
    /// Memory, unless it is named by segments.
    pub pointer: Pointer,
    /// Double words 10 to 15.
    pub arguments: [u32; 6],
}

impl Command {
    /// Bytes of an entry of a submission queue.
    pub const LENGTH: usize = 64;

    /// The entry, as eight words, with the memory `pointer`.
    #[must_use]
    #[inline]
    pub fn encode(&self, id: u16, pointer: Pointer) -> [u64; 8] {
        let list = if pointer.list { 1 << 14 } else { 0 };
        let pair = |index: usize| u64::from(self.arguments[index]) | u64::from(self.arguments[index + 1]) << 32;
        [
            u64::from(self.opcode) | list | u64::from(id) << 16 | u64::from(self.namespace) << 32,
            0,
            0,
            pointer.words[0],
            pointer.words[1],
            pair(0),
            pair(2),
            pair(4),
        ]
    }
}

/// What a completion says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub u16);

impl Status {
    /// It went well.
    #[must_use]
    pub const fn is_ok(self) -> bool {
        self.0 & 0x7ff == 0
    }

    /// As an outcome for a command at `sector`.
    ///
    /// # Errors
    /// What went wrong.
    pub fn outcome(self, sector: u64) -> Result<(), IoError> {
        let code = self.0 & 0x7ff;
        // Status code type in bits 8 to 10, status code below (4.2.3).
        Err(match code {
            0 => return Ok(()),
            0x001 => IoError::Unsupported,
            0x00b => IoError::Gone,
            0x020 | 0x182 => IoError::ReadOnly,
            0x081 => IoError::Full,
            // Write fault, unrecovered read error, guard, application tag, reference tag, deallocated block.
            0x280..=0x284 | 0x287 => IoError::Media { sector },
            code => IoError::Device { code: code.into() },
        })
    }
}
