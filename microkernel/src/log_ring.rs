//! The kernel's log as a ring of bytes behind a [`LogHeader`], laid out for whoever maps it.

use tessera_abi::boot::LogHeader;

/// Bytes of header and ring together: whole pages.
pub const LOG_BYTES: usize = 16 * 1024;
/// Bytes of text that are kept.
pub const CAPACITY: usize = LOG_BYTES - size_of::<LogHeader>();

/// The log.
#[repr(C, align(4096))]
pub struct LogRing {
    header: LogHeader,
    text: [u8; CAPACITY],
}

const _: () = assert!(size_of::<LogRing>() == LOG_BYTES);

impl LogRing {
    /// An empty log. All of it is zero, so that it takes no room in the kernel's file; the capacity is written with the first text.
    pub const fn new() -> Self {
        Self { header: LogHeader { written: 0, capacity: 0 }, text: [0; CAPACITY] }
    }

    /// Appends text; the oldest gives way.
    pub fn append(&mut self, text: &[u8]) {
        self.header.capacity = CAPACITY as u64;
        for &byte in text {
            self.text[(self.header.written % CAPACITY as u64) as usize] = byte;
            self.header.written += 1;
        }
    }

    /// The last bytes, at most `limit`, oldest first.
    pub fn tail(&self, limit: usize) -> impl Iterator<Item = u8> {
        let count = self.header.written.min(limit as u64).min(CAPACITY as u64);
        (self.header.written - count..self.header.written).map(|position| self.text[(position % CAPACITY as u64) as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keeps_the_newest(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5000), 0..10)) {
            let mut ring = Box::new(LogRing::new());
            let mut all = vec![];
            for chunk in &chunks {
                ring.append(chunk);
                all.extend(chunk);
            }
            let kept = all.len().min(CAPACITY);
            prop_assert_eq!(ring.tail(usize::MAX).collect::<Vec<_>>(), &all[all.len() - kept..]);
            prop_assert_eq!(ring.tail(3).collect::<Vec<_>>(), &all[all.len() - all.len().min(3)..]);
            prop_assert_eq!(ring.header.written, all.len() as u64);
        }
    }
}
