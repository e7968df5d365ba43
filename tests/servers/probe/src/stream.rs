//! Writes and reads a file of a datastore through memory that is shared with the storage server, which may be killed meanwhile.

use crate::report::{line, verdict};
use tessera_abi::Error;
use tessera_proto::{CallError, FailureKind, datastore};
use tessera_rt::{Connection, Frame, abi::object::Rights, start, vm};

/// Bytes that go at once, at an odd place of the buffer.
const PART: u32 = 200_000;
const AT: u32 = 12_345;

/// The byte of a round at a place in the file.
const fn byte(round: u64, place: u64) -> u8 {
    (place.wrapping_mul(31).wrapping_add(place >> 8).wrapping_add(round * 7)) as u8
}

/// Writes the bytes that stand in the buffer, until they are safe: a server that ends loses what it had not made safe.
fn write(client: &mut datastore::Client<Connection>, store: &str, path: &str, offset: u64) -> Result<(), CallError> {
    loop {
        let life = client.put(store, path, offset, PART, AT)?;
        match client.sync(store, life) {
            Err(CallError::Failed(failure)) if failure.kind == FailureKind::BadState => {}
            other => return other,
        }
    }
}

fn go(store: &str, rounds: u64) -> Result<(), CallError> {
    let mut client = datastore::Client(start::connect("storage"));
    let grant = start::find("buffer").ok_or(CallError::Kernel(Error::BadSlot))?;
    let buffer = vm::map(Frame::new(grant.slot), Rights::READ | Rights::WRITE, 0)?;
    // SAFETY: mapped for the life of the process. The storage server reads and writes it only while this thread waits for its answer.
    let bytes = unsafe { core::slice::from_raw_parts_mut(buffer.as_ptr(), buffer.length) };
    let path = "stream";
    client.create_file(store, path)?;
    let length = bytes.len() as u32;
    for wrong in [(length, 1), (0, length + 1), (u32::MAX, u32::MAX)] {
        if client.put(store, path, 0, wrong.1, wrong.0).is_ok() {
            line(format_args!("probe: stream FAILED memory outside of the buffer was taken"));
        }
    }
    for round in 0..rounds {
        let start = round * 4 * u64::from(PART) / 3;
        let part = AT as usize..(AT + PART) as usize;
        for (place, byte_there) in (start..).zip(&mut bytes[part.clone()]) {
            *byte_there = byte(round, place);
        }
        write(&mut client, store, path, start)?;
        bytes[part.clone()].fill(0);
        let got = client.fetch(store, path, start, PART + 5, AT)?;
        let same = (start..).zip(&bytes[part]).all(|(place, found)| *found == byte(round, place));
        if got != PART || !same {
            line(format_args!(
                "probe: stream FAILED round {round} reads back {got} bytes, the same: {same}"
            ));
            return Ok(());
        }
        line(format_args!("probe: stream: round {round} is done"));
    }
    Ok(())
}

/// Writes and reads `rounds` parts of a file in `store`.
pub fn run(store: &str, rounds: u64) {
    match go(store, rounds) {
        Ok(()) => verdict("stream", None),
        Err(error) => verdict("stream", Some(format_args!("{error}"))),
    }
}
