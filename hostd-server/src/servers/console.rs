//! The serial console of a machine, served by its VMX.

use super::{
    Answer, failed,
    machines::{self, Slot},
};
use alloc::{boxed::Box, rc::Rc, vec::Vec};
use core::task::{Context, Poll};
use tessera_hostd::{future::LocalFuture, host::Console, platform::Platform};
use tessera_proto::{
    CallError,
    vm_console::{Client, MAX_DATA},
    vm_manager::VmService,
};
use tessera_rt::{Connection, abi::Error};

/// How long a VMX may take to answer; it is not trusted to.
pub const PATIENCE: u64 = 1000;
/// How often to look for what the guest printed, in milliseconds.
const INTERVAL: u64 = 20;
/// How often to try again in a row while the VMX is started again.
const TRIES: u32 = 100;

/// Waits until it is time to look again.
pub struct Pause {
    platform: Rc<dyn Platform>,
    sleep: Option<LocalFuture<'static, ()>>,
    failures: u32,
}

impl Pause {
    pub fn new(platform: Rc<dyn Platform>) -> Self {
        Self {
            platform,
            sleep: None,
            failures: 0,
        }
    }

    /// Whether a pause goes on.
    pub fn lasts(&mut self, context: &mut Context<'_>) -> bool {
        let lasts = self.sleep.as_mut().is_some_and(|sleep| sleep.as_mut().poll(context).is_pending());
        if !lasts {
            self.sleep = None;
        }
        lasts
    }

    /// Begins one; the task is woken at its end.
    pub fn begin(&mut self, context: &mut Context<'_>) {
        self.sleep = Some(self.platform.sleep(INTERVAL));
        if !self.lasts(context) {
            // It was over at once: look again in the next round.
            context.waker().wake_by_ref();
        }
    }

    /// Whether to try again after a call failed.
    fn again(&mut self, error: &CallError) -> bool {
        self.failures += 1;
        matches!(error, CallError::Kernel(Error::ServerDied)) && self.failures < TRIES
    }
}

/// What was read and not yet handed on.
#[derive(Default)]
pub struct Pieces {
    data: Vec<u8>,
    taken: usize,
}

impl Pieces {
    /// These bytes come next. All that were there are handed on.
    pub fn put(&mut self, data: Vec<u8>) {
        *self = Self { data, taken: 0 };
    }

    /// Everything is handed on.
    pub const fn is_empty(&self) -> bool {
        self.taken == self.data.len()
    }

    /// Hands on what there is room for: the number of bytes.
    pub fn take(&mut self, buffer: &mut [u8]) -> usize {
        let rest = self.data.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        self.taken += count;
        count
    }
}

struct View {
    client: Client<Connection>,
    /// Frees the slot at the end.
    _slot: Slot,
    cursor: u64,
    pieces: Pieces,
    reading: Pause,
    writing: Pause,
}

/// Connects to a machine's console, which takes a while if it is starting.
pub fn connect(name: &str) -> Answer<Slot> {
    machines::connect(name, VmService::Console, machines::CONNECT_PATIENCE)
}

/// Opens a console that is connected to.
pub fn open(slot: Slot, platform: Rc<dyn Platform>) -> Answer<Box<dyn Console>> {
    let mut view = View {
        client: Client(slot.connection(PATIENCE)),
        _slot: slot,
        cursor: 0,
        pieces: Pieces::default(),
        reading: Pause::new(platform.clone()),
        writing: Pause::new(platform),
    };
    // A console that does not answer is told of now, not as one that is empty.
    let chunk = view.client.read(0).map_err(|error| failed("The console cannot be read", &error))?;
    view.cursor = chunk.next;
    view.pieces.put(chunk.data);
    Ok(Box::new(view))
}

impl Console for View {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        if self.pieces.is_empty() {
            if self.reading.lasts(context) {
                return Poll::Pending;
            }
            match self.client.read(self.cursor) {
                Ok(chunk) => {
                    self.reading.failures = 0;
                    // A VMX that was started again counts anew.
                    self.cursor = chunk.next;
                    self.pieces.put(chunk.data);
                }
                Err(error) if self.reading.again(&error) => {}
                Err(_) => return Poll::Ready(0),
            }
            if self.pieces.is_empty() {
                self.reading.begin(context);
                return Poll::Pending;
            }
        }
        Poll::Ready(self.pieces.take(buffer))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<usize> {
        if bytes.is_empty() {
            return Poll::Ready(0);
        }
        if self.writing.lasts(context) {
            return Poll::Pending;
        }
        let part = bytes.get(..MAX_DATA).unwrap_or(bytes);
        match self.client.write(part) {
            Ok(0) => {}
            Ok(taken) => {
                self.writing.failures = 0;
                return Poll::Ready((taken as usize).min(part.len()));
            }
            Err(error) if self.writing.again(&error) => {}
            Err(_) => return Poll::Ready(0),
        }
        // The guest does not read what was typed.
        self.writing.begin(context);
        Poll::Pending
    }
}
