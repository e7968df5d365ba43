//! A machine's serial console.

use super::{error, machines};
use alloc::rc::Rc;
use core::task::{Context, Poll};
use tessera_hostd::{
    future::LocalFuture,
    host::{Console, HostError},
    platform::Platform,
};
use tessera_proto::{
    vm_console::{Client, MAX_DATA},
    vm_manager::VmService,
};
use tessera_rt::{Connection, Endpoint, slots, time};

/// Milliseconds between two looks.
const LOOK_MS: u64 = 30;
/// Milliseconds that the console's server has to answer.
const PATIENCE_MS: u64 = 1000;

/// An open console.
pub struct Serial {
    platform: Rc<dyn Platform>,
    slot: u32,
    cursor: u64,
    pause: Option<LocalFuture<'static, ()>>,
}

impl Serial {
    /// Opens a machine's console.
    pub fn open(platform: Rc<dyn Platform>, name: &str) -> Result<Self, HostError> {
        let slot = machines::connect(name, VmService::Console).map_err(|failure| error(name, failure))?;
        Ok(Self {
            platform,
            slot,
            cursor: 0,
            pause: None,
        })
    }

    fn client(&self) -> Client<Connection> {
        Client(Connection::with_timeout(Endpoint::new(self.slot), time::milliseconds(PATIENCE_MS)))
    }

    /// Looks again after a pause.
    fn wait(&mut self, context: &mut Context<'_>) {
        loop {
            let pause = self.pause.get_or_insert_with(|| self.platform.sleep(LOOK_MS));
            if pause.as_mut().poll(context).is_pending() {
                return;
            }
            self.pause = None;
        }
    }
}

impl Drop for Serial {
    fn drop(&mut self) {
        slots::free(self.slot);
    }
}

impl Console for Serial {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        // A console that is gone ends.
        let Ok(chunk) = self.client().read(self.cursor) else {
            return Poll::Ready(0);
        };
        if chunk.data.is_empty() {
            self.wait(context);
            return Poll::Pending;
        }
        let count = chunk.data.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk.data[..count]);
        self.cursor = chunk.next - (chunk.data.len() - count) as u64;
        Poll::Ready(count)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<usize> {
        let part = &bytes[..bytes.len().min(MAX_DATA)];
        match self.client().write(part) {
            Ok(0) if !part.is_empty() => {
                // The guest does not read.
                self.wait(context);
                Poll::Pending
            }
            Ok(taken) => Poll::Ready(taken as usize),
            Err(_) => Poll::Ready(0),
        }
    }
}
