//! Waiting for an emulator that connects to a socket of ours.
//!
//! We listen and it connects: so no port or path has to be guessed, and nothing is lost that it sends before we look.

use super::Process;
use crate::{Failure, Result};
use std::{io, thread, time::Duration};

/// Calls `accept`, which must not block, until it gives a connection; fails as soon as the emulator has ended, naming `log` as the place that says why.
pub fn accept<T>(process: &mut Process, log: &str, mut accept: impl FnMut() -> io::Result<T>) -> Result<T> {
    loop {
        match accept() {
            Ok(stream) => return Ok(stream),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if let Some(status) = process.0.try_wait()? {
                    return Err(Failure::new(format!("the emulator ended at once ({status}); {log} says why")));
                }
                thread::sleep(Duration::from_millis(5));
            }
            Err(e) => return Err(e.into()),
        }
    }
}
