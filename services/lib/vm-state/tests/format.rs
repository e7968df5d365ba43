//! What is written is read again, and nothing else is.

use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use tessera_vm_state::{BLOCK, CHUNK, CHUNK_PAGES, Chunk, Damage, Header, blocks, decode, encode, named};

fn header() -> impl Strategy<Value = Header> {
    (any::<u64>(), 1u64..1 << 30, 0u64..1 << 20, any::<u32>(), "\\PC{1,16}").prop_map(|(id, memory, state, state_check, name)| {
        let chunks = memory / CHUNK;
        Header {
            name: named(&name).unwrap(),
            id,
            memory,
            state,
            state_check,
            chunks,
            length: BLOCK as u64 + blocks(state) + chunks * BLOCK as u64,
        }
    })
}

fn simplest() -> Header {
    Header {
        name: named("vm").unwrap(),
        id: 0,
        memory: CHUNK,
        state: 0,
        state_check: 0,
        chunks: 0,
        length: BLOCK as u64,
    }
}

fn chunk() -> impl Strategy<Value = Chunk> {
    (any::<u64>(), 0u64..64, prop::collection::btree_set(0..CHUNK_PAGES, 0..40)).prop_map(|(id, place, pages)| {
        let mut chunk = Chunk::new(id, place * CHUNK);
        for page in pages {
            assert!(chunk.add(page, &[page as u8 | 1; BLOCK]));
        }
        chunk
    })
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct State {
    #[serde(with = "tessera_vm_state::array")]
    registers: [u32; 64],
    words: Vec<u64>,
}

#[test]
fn versions_and_strangers_are_told_apart() {
    let mut block = [0; BLOCK];
    assert_eq!(
        Header::decode(&block, 0),
        Err(Damage::NotState),
        "an empty file, or one that was not finished"
    );
    let header = simplest();
    block = header.encode();
    assert_eq!(Header::decode(&block, BLOCK as u64), Ok(header));
    assert!(matches!(Header::decode(&block, 5000), Err(Damage::Nonsense(_))));
    assert_eq!(header.name(), "vm");
    assert_eq!(named(&"x".repeat(65)), None);
    assert_eq!(named("a\0b"), None);
    for name in [[0; 64], [0xff; 64], [b"a\0b".as_slice(), &[0; 61]].concat().try_into().unwrap()] {
        let nameless = Header { name, ..header };
        assert!(matches!(Header::decode(&nameless.encode(), BLOCK as u64), Err(Damage::Nonsense(_))));
    }
}

#[test]
fn zeros_are_left_out() {
    let mut chunk = Chunk::new(1, 0);
    assert!(!chunk.add(3, &[0; BLOCK]));
    assert!(!chunk.add(CHUNK_PAGES, &[1; BLOCK]));
    assert_eq!(chunk.count(), 0);
}

proptest! {
    #[test]
    fn headers_come_back(header in header()) {
        prop_assert_eq!(Header::decode(&header.encode(), header.length), Ok(header));
    }

    #[test]
    fn a_header_with_a_flipped_bit_is_refused(header in header(), bit in 0..BLOCK * 8) {
        let mut block = header.encode();
        block[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Header::decode(&block, header.length).is_err());
    }

    #[test]
    fn chunks_come_back(chunk in chunk()) {
        let memory = 64 * CHUNK;
        let back = Chunk::decode(&chunk.encode(), chunk.id, memory, 0).unwrap();
        prop_assert_eq!(back.pages().count(), back.count());
        for page in back.pages() {
            prop_assert!(back.is_right(page, &[page as u8 | 1; BLOCK]));
            prop_assert!(!back.is_right(page, &[page as u8 ^ 0x80; BLOCK]));
        }
        prop_assert_eq!(&back, &chunk);
        prop_assert!(Chunk::decode(&chunk.encode(), chunk.id ^ 1, memory, 0).is_err(), "of another file");
        prop_assert!(Chunk::decode(&chunk.encode(), chunk.id, memory, chunk.address + 1).is_err(), "twice");
        if chunk.count() > 0 {
            prop_assert!(Chunk::decode(&chunk.encode(), chunk.id, chunk.address, 0).is_err(), "behind the end");
        }
    }

    #[test]
    fn a_chunk_with_a_flipped_bit_is_refused(chunk in chunk(), bit in 0..BLOCK * 8) {
        let mut block = chunk.encode();
        block[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Chunk::decode(&block, chunk.id, 64 * CHUNK, 0).is_err());
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), BLOCK), magic in any::<bool>()) {
        let mut block = [0; BLOCK];
        block.copy_from_slice(&bytes);
        if magic {
            block[..8].copy_from_slice(&simplest().encode()[..8]);
        }
        prop_assert!(Header::decode(&block, BLOCK as u64).is_err());
        prop_assert!(Chunk::decode(&block, 0, u64::MAX, 0).is_err());
        let _ = decode::<State>(&bytes);
    }

    #[test]
    fn the_monitors_part_is_read_to_its_end(registers in prop::collection::vec(any::<u32>(), 64), words in prop::collection::vec(any::<u64>(), 0..9)) {
        let state = State { registers: registers.try_into().unwrap(), words };
        let bytes = encode(&state).unwrap();
        prop_assert_eq!(decode::<State>(&bytes), Ok(state));
        prop_assert!(decode::<State>(&bytes[..bytes.len() - 1]).is_err());
        let longer = [&bytes[..], &[0]].concat();
        prop_assert!(decode::<State>(&longer).is_err());
    }
}
