//! Writes and reads a disk over and over, whatever happens to the storage server meanwhile.

use crate::report::verdict;
use tessera_abi::Error;
use tessera_proto::{CallError, FailureKind, storage};
use tessera_rt::{start, time};

/// Sectors of one round.
const SECTORS: u32 = 2048;

/// Exercises `disk` in `rounds` rounds. The server may end in the middle of one, which is then done again; nothing else may go wrong.
pub fn run(disk: &str, rounds: u64) {
    let mut client = storage::Client(start::connect("storage"));
    let mut repeated = 0;
    for round in 0..rounds {
        let mut again = true;
        while again {
            again = false;
            match client.exercise(disk, 64 + round * 128, SECTORS, round) {
                Ok(()) => {}
                Err(CallError::Kernel(Error::ServerDied)) => {
                    repeated += 1;
                    again = true;
                }
                // The new one has not found its disks yet.
                Err(CallError::Failed(failure)) if failure.kind == FailureKind::NotFound && repeated > 0 => {
                    time::sleep_until(time::after(time::milliseconds(20)));
                    again = true;
                }
                Err(error) => return verdict("disk", Some(format_args!("round {round}: {error}"))),
            }
        }
        crate::report::line(format_args!("disk: round {round} is done, {repeated} were repeated"));
    }
    verdict("disk", None);
}
