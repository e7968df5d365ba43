//! Physical memory, by pieces.

/// A piece of memory as devices know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First address.
    pub physical: u64,
    /// Bytes, more than 0.
    pub length: u32,
}

/// Memory that segments name, as this process reaches it.
pub trait Memory {
    /// Sets it to zeros.
    fn clear(&self, segment: Segment);
    /// Copies it out.
    fn copy_out(&self, segment: Segment, bytes: &mut [u8]);
    /// Copies into it.
    fn copy_in(&self, segment: Segment, bytes: &[u8]);
}
