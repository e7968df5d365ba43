//! Prints the system's log on the report port, line by line as it grows.

use crate::report::line;
use tessera_proto::supervisor;
use tessera_rt::{start, time};

/// Runs for ever.
pub fn run() {
    let mut client = supervisor::Client(start::connect("supervisor"));
    let mut cursor = 0;
    loop {
        match client.log(cursor) {
            Ok(chunk) => {
                if chunk.lost != 0 {
                    line(format_args!("log: {} lines lost", chunk.lost));
                }
                for entry in &chunk.lines {
                    line(format_args!("log: {} {}: {}", entry.server, entry.level, entry.text));
                }
                cursor = chunk.next;
                if chunk.lines.is_empty() {
                    time::sleep_until(time::after(time::milliseconds(5)));
                }
            }
            Err(error) => {
                line(format_args!("probe: relay FAILED {error}"));
                return;
            }
        }
    }
}
