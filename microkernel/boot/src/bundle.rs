//! Checks of the boot module's header (see [`tessera_abi::bundle`]).

use tessera_abi::bundle::{BundleHeader, MAGIC, MAX_SEGMENTS, Segment};
use tessera_abi::object::Rights;
use tessera_abi::{ABI_VERSION, PAGE_SIZE, layout};

/// Why a bundle cannot be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleError {
    /// It does not begin as one.
    NoBundle,
    /// It was built for another kernel interface.
    Version,
    /// Parts of it are missing.
    CutShort,
    /// A segment of init reaches out of the bundle or of user memory, or is writable and executable.
    BadSegment,
}

impl BundleError {
    /// One line for people.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::NoBundle => "the boot module is no Tessera bundle",
            Self::Version => "the bundle was built for another version of the kernel interface: build both anew",
            Self::CutShort => "the bundle is cut short",
            Self::BadSegment => "the bundle's init has a segment that reaches too far or is writable and executable",
        }
    }
}

/// The segments of init, in a bundle of which `loaded` bytes are in memory.
///
/// # Errors
/// What is wrong with the header; nothing in it may be used then.
pub fn segments(header: &BundleHeader, loaded: u64) -> Result<&[Segment], BundleError> {
    let page = PAGE_SIZE as u64;
    let inside = |offset: u64, bytes: u64| offset.checked_add(bytes).is_some_and(|end| end <= loaded);
    if header.magic != MAGIC {
        return Err(BundleError::NoBundle);
    }
    if header.abi_version != ABI_VERSION {
        return Err(BundleError::Version);
    }
    let count = header.segment_count as usize;
    if header.length > loaded || !inside(header.manifest_offset, header.manifest_length) || count > MAX_SEGMENTS {
        return Err(BundleError::CutShort);
    }
    let segments = &header.segments[..count];
    let good = |segment: &Segment| {
        let end = segment.address.checked_add(segment.length);
        (segment.address | segment.offset | segment.length).is_multiple_of(page)
            && inside(segment.offset, segment.length)
            && segment.address >= layout::USER_BOTTOM
            && end.is_some_and(|end| end <= layout::USER_TOP)
            && !rights(segment).contains(Rights::WRITE | Rights::EXECUTE)
    };
    if segments.iter().all(good) { Ok(segments) } else { Err(BundleError::BadSegment) }
}

/// What init may do with a segment.
#[must_use]
pub fn rights(segment: &Segment) -> Rights {
    Rights::from_bits_truncate(segment.rights as u8) | Rights::READ
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = PAGE_SIZE as u64;

    fn header() -> BundleHeader {
        let mut segments = [Segment::default(); MAX_SEGMENTS];
        segments[0] = Segment {
            address: layout::USER_BOTTOM,
            offset: PAGE,
            length: 2 * PAGE,
            rights: (Rights::READ | Rights::EXECUTE).bits().into(),
        };
        let (length, entry) = (8 * PAGE, layout::USER_BOTTOM);
        BundleHeader {
            magic: MAGIC,
            abi_version: ABI_VERSION,
            segment_count: 1,
            length,
            entry,
            manifest_offset: 5 * PAGE,
            manifest_length: 99,
            segments,
        }
    }

    #[test]
    fn takes_a_good_one_and_says_what_is_wrong_with_others() {
        assert_eq!(segments(&header(), 8 * PAGE).unwrap().len(), 1);
        let fails = |change: &dyn Fn(&mut BundleHeader)| {
            let mut header = header();
            change(&mut header);
            segments(&header, 8 * PAGE).unwrap_err()
        };
        assert_eq!(segments(&header(), 7 * PAGE).unwrap_err(), BundleError::CutShort);
        assert_eq!(fails(&|h| h.magic[7] = 9), BundleError::NoBundle);
        assert_eq!(fails(&|h| h.abi_version += 1), BundleError::Version);
        assert_eq!(fails(&|h| h.manifest_offset = u64::MAX - 3), BundleError::CutShort);
        assert_eq!(fails(&|h| h.segment_count = 9), BundleError::CutShort);
        assert_eq!(fails(&|h| h.segments[0].address = layout::USER_TOP), BundleError::BadSegment);
        assert_eq!(fails(&|h| h.segments[0].address = layout::USER_TOP - PAGE), BundleError::BadSegment);
        assert_eq!(fails(&|h| h.segments[0].address = 0), BundleError::BadSegment);
        assert_eq!(fails(&|h| h.segments[0].offset = 7 * PAGE), BundleError::BadSegment);
        assert_eq!(fails(&|h| h.segments[0].offset += 1), BundleError::BadSegment);
        assert_eq!(fails(&|h| h.segments[0].rights = 7), BundleError::BadSegment);
    }

    proptest! {
        /// Whatever the header says: what is accepted lies in the bundle and in user memory.
        #[test]
        fn accepts_only_what_lies_inside(
            loaded in 1u64..64, length in 0u64..80, manifest in any::<(u64, u64)>(), near: bool, count in 0u32..10,
            parts in proptest::collection::vec((any::<u64>(), 0u64..80, 0u64..80, any::<u64>()), MAX_SEGMENTS),
        ) {
            let mut header = header();
            (header.length, header.segment_count) = (length * PAGE, count);
            if !near {
                (header.manifest_offset, header.manifest_length) = manifest;
            }
            for (to, (address, offset, length, rights)) in header.segments.iter_mut().zip(parts) {
                let address = if near { layout::USER_BOTTOM + address % 512 * PAGE } else { address };
                *to = Segment { address, offset: offset * PAGE, length: length * PAGE, rights };
            }
            if let Ok(segments) = segments(&header, loaded * PAGE) {
                prop_assert!(header.length <= loaded * PAGE);
                for segment in segments {
                    prop_assert!(segment.offset + segment.length <= loaded * PAGE);
                    prop_assert!(segment.address >= layout::USER_BOTTOM && segment.address + segment.length <= layout::USER_TOP);
                    prop_assert!(!rights(segment).contains(Rights::WRITE | Rights::EXECUTE));
                }
            }
        }
    }
}
