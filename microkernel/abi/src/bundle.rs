//! The boot bundle: the one module that the boot loader hands over beside the kernel. `image-builder` writes it; the kernel reads the fixed header
//! only and starts init from it; init finds manifest, programs and files through the manifest.
//!
//! Everything starts on a page. Programs are laid out as they will stand in memory, so that nobody parses an executable at boot.

/// First bytes of a bundle.
pub const MAGIC: [u8; 8] = *b"TESSERA\x01";
/// Most segments of init.
pub const MAX_SEGMENTS: usize = 8;

/// The first page. All offsets count from the start of the bundle, in bytes, and are multiples of the page size.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BundleHeader {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`crate::ABI_VERSION`] that the servers inside were built for.
    pub abi_version: u32,
    /// Used entries of `segments`.
    pub segment_count: u32,
    /// Length of the whole bundle, a multiple of the page size.
    pub length: u64,
    /// init's entry point.
    pub entry: u64,
    /// Where the manifest (postcard) stands.
    pub manifest_offset: u64,
    /// Its exact length.
    pub manifest_length: u64,
    /// init's segments, mapped where they lie; zero-initialised memory is included.
    pub segments: [Segment; MAX_SEGMENTS],
}

/// A piece of init.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Segment {
    /// Where it is mapped; page-aligned.
    pub address: u64,
    /// Where it lies in the bundle.
    pub offset: u64,
    /// Its length, a multiple of the page size.
    pub length: u64,
    /// [`crate::object::Rights`] bits: read, write, execute; never write and execute.
    pub rights: u64,
}
