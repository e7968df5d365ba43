//! What the guest printed last. The scrollback is the ring itself that the VMM writes: this side gives bytes back as late as the writer's need for room allows. So a VMX that was killed and
//! started again finds all of it, and readers' cursors, which count the bytes of the stream, stay good.

use alloc::vec::Vec;
use tessera_ring::Reader;

/// The part of the ring that is always kept free for the writer: one in this many.
const RESERVE: usize = 4;

/// The guest's output.
pub struct Scrollback<'a> {
    reader: Reader<'a>,
    /// End of the stream when it was last looked at.
    seen: u64,
}

/// Part of the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Cursor for what follows.
    pub next: u64,
    /// Bytes between the asked cursor and the first returned one that are gone.
    pub lost: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

impl<'a> Scrollback<'a> {
    /// The scrollback in a ring, with whatever it holds from before.
    #[must_use]
    pub fn new(reader: Reader<'a>) -> Self {
        let mut scrollback = Self {
            seen: reader.position(),
            reader,
        };
        scrollback.update();
        scrollback
    }

    /// The writer may have written: gives it room. Returns whether there is anything new.
    pub fn update(&mut self) -> bool {
        // A writer whose counter makes no sense loses what it wrote, nothing else.
        self.reader.resynchronise();
        let kept = self.reader.capacity() - self.reader.capacity() / RESERVE;
        self.reader.skip(self.reader.available().saturating_sub(kept));
        let end = self.end();
        core::mem::replace(&mut self.seen, end) != end
    }

    /// Cursor behind the newest byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.reader.position().wrapping_add(self.reader.available() as u64)
    }

    /// At most `limit` bytes from `cursor` on; a cursor that is too old, or of another run of the machine, stands for the oldest byte.
    #[must_use]
    pub fn read(&self, cursor: u64, limit: usize) -> Chunk {
        let (oldest, available) = (self.reader.position(), self.reader.available());
        let offset = cursor.wrapping_sub(oldest);
        let (offset, lost) = if offset <= available as u64 {
            (offset as usize, 0)
        } else {
            (0, oldest.saturating_sub(cursor))
        };
        let mut data = alloc::vec![0; limit.min(available - offset)];
        let length = self.reader.peek(offset, &mut data);
        data.truncate(length);
        Chunk {
            next: oldest.wrapping_add((offset + length) as u64),
            lost,
            data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tessera_ring::Writer;

    #[repr(C, align(64))]
    struct Shared([u8; 128 + 256]);

    fn ring(shared: &mut Shared) -> (Writer<'_>, Scrollback<'_>) {
        let (base, length) = (shared.0.as_mut_ptr(), shared.0.len());
        // SAFETY: both sides live shorter than the memory, and nothing else touches it.
        unsafe {
            (
                Writer::attach(base, length).unwrap(),
                Scrollback::new(Reader::attach(base, length).unwrap()),
            )
        }
    }

    #[test]
    fn output_is_kept_until_the_writer_needs_the_room() {
        let mut shared = Shared([0; 384]);
        let (mut writer, mut scrollback) = ring(&mut shared);
        assert!(!scrollback.update());
        assert_eq!(writer.write(b"hello"), 5);
        assert!(scrollback.update());
        assert!(!scrollback.update());
        assert_eq!(
            scrollback.read(0, 100),
            Chunk {
                next: 5,
                lost: 0,
                data: b"hello".to_vec()
            }
        );
        assert_eq!(
            scrollback.read(3, 1),
            Chunk {
                next: 4,
                lost: 0,
                data: b"l".to_vec()
            }
        );
        assert_eq!(
            scrollback.read(5, 100),
            Chunk {
                next: 5,
                lost: 0,
                data: Vec::new()
            }
        );
        assert_eq!(scrollback.read(77, 100).data, b"hello");
        assert_eq!(writer.write(&[b'x'; 300]), 251);
        assert!(scrollback.update());
        assert_eq!(writer.room(), 64);
        let chunk = scrollback.read(2, 1000);
        assert_eq!((chunk.next, chunk.lost, chunk.data.len()), (256, 62, 192));
    }

    #[test]
    fn a_new_instance_finds_everything() {
        let mut shared = Shared([0; 384]);
        {
            let (mut writer, mut scrollback) = ring(&mut shared);
            writer.write(b"before");
            scrollback.update();
            writer.write(b" and after");
        }
        let (_, scrollback) = ring(&mut shared);
        assert_eq!(scrollback.read(0, 100).data, b"before and after");
        assert_eq!(scrollback.read(6, 100).data, b" and after");
    }

    #[test]
    fn garbled_counters_do_no_harm() {
        for (written, read) in [(u64::MAX, 0), (5, u64::MAX), (u64::MAX / 2, 3), (0, 1)] {
            let mut shared = Shared([0; 384]);
            shared.0[..8].copy_from_slice(&u64::to_le_bytes(written));
            shared.0[64..72].copy_from_slice(&u64::to_le_bytes(read));
            let (_, mut scrollback) = ring(&mut shared);
            scrollback.update();
            for cursor in [0, 1, u64::MAX, written, read] {
                assert!(scrollback.read(cursor, 4096).data.len() <= 256);
            }
        }
    }

    proptest! {
        #[test]
        fn a_reader_that_keeps_up_sees_the_whole_stream(pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..100), 1usize..200), 0..100)) {
            let mut shared = Shared([0; 384]);
            let (mut writer, mut scrollback) = ring(&mut shared);
            let (mut sent, mut seen, mut cursor) = (Vec::new(), Vec::new(), 0);
            for (piece, limit) in pieces {
                let written = writer.write(&piece);
                sent.extend_from_slice(&piece[..written]);
                scrollback.update();
                loop {
                    let chunk = scrollback.read(cursor, limit);
                    prop_assert!(chunk.data.len() <= limit);
                    prop_assert_eq!(chunk.lost, 0);
                    prop_assert_eq!(chunk.next, cursor + chunk.data.len() as u64);
                    if chunk.data.is_empty() {
                        break;
                    }
                    cursor = chunk.next;
                    seen.extend_from_slice(&chunk.data);
                }
            }
            prop_assert_eq!(seen, sent);
        }
    }
}
