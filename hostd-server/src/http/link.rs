//! A connection's stream with what was read ahead and what waits to be sent, shared by who reads a body and who answers.

use super::{BodyError, BodySource, chunked, head::Framing};
use crate::{
    future::LocalFuture,
    platform::Platform,
    stream::{Closed, Stream},
};
use alloc::{boxed::Box, rc::Rc, vec::Vec};
use core::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::{Context, Poll, ready},
};

/// Bytes that are read at once.
const READ: usize = 4096;
/// A body may keep us waiting so long (milliseconds), and a millisecond more for each byte that came: slower than 1,000 bytes a second over
/// all is not served.
const BODY_GRACE_MS: u64 = 20_000;

/// The stream and its buffers.
pub struct Link {
    stream: Box<dyn Stream>,
    /// Read, but not understood yet.
    pub input: Vec<u8>,
    /// To be sent.
    pub out: Vec<u8>,
    /// The answer has begun: nothing else may stand before its end.
    pub answering: bool,
    sent: usize,
}

/// A link in use by several.
pub type Shared = Rc<RefCell<Link>>;

impl Link {
    pub fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            input: Vec::new(),
            out: Vec::new(),
            answering: false,
            sent: 0,
        }
    }

    /// Reads some more; 0: the end.
    pub fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Closed>> {
        let mut bytes = [0; READ];
        let count = ready!(self.stream.poll_read(context, &mut bytes))?;
        self.input.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    /// Forgets what was understood.
    pub fn consume(&mut self, count: usize) {
        self.input.drain(..count);
        if self.input.is_empty() && self.input.capacity() > 512 {
            self.input = Vec::new();
        }
    }

    /// Ready when everything is sent.
    pub fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        while self.sent < self.out.len() {
            self.sent += ready!(self.stream.poll_write(context, &self.out[self.sent..]))?;
        }
        self.sent = 0;
        if self.out.capacity() > 512 {
            self.out = Vec::new();
        } else {
            self.out.clear();
        }
        self.stream.poll_flush(context)
    }

    pub fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        self.stream.poll_close(context)
    }
}

/// Polls until it is ready; `None`: `ms` milliseconds passed before.
pub async fn within<T>(platform: &Rc<dyn Platform>, ms: u64, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    let mut sleep = platform.sleep(ms);
    poll_fn(|context| match poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => sleep.as_mut().poll(context).map(|()| None),
    })
    .await
}

enum Rest {
    Length(u64),
    Chunked(chunked::Decoder),
}

/// A request's body.
pub struct Incoming {
    link: Shared,
    platform: Rc<dyn Platform>,
    rest: Rest,
    length: Option<u64>,
    /// Set when nothing of it is left on the link.
    done: Rc<Cell<bool>>,
    expects_continue: bool,
    read: u64,
    waited_ms: u64,
    /// Since when it waits, and until when it may.
    waiting: Option<(u64, LocalFuture<'static, ()>)>,
}

impl Incoming {
    pub fn new(link: Shared, platform: Rc<dyn Platform>, framing: Framing, expects_continue: bool, done: Rc<Cell<bool>>) -> Self {
        let (rest, length) = match framing {
            Framing::Length(length) => (Rest::Length(length), Some(length)),
            Framing::Chunked => (Rest::Chunked(chunked::Decoder::new()), None),
        };
        done.set(length == Some(0));
        Self {
            link,
            platform,
            rest,
            length,
            done,
            expects_continue,
            read: 0,
            waited_ms: 0,
            waiting: None,
        }
    }
}

impl BodySource for Incoming {
    fn length(&self) -> Option<u64> {
        self.length
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, BodyError>> {
        let mut link = self.link.borrow_mut();
        if core::mem::take(&mut self.expects_continue) && link.input.is_empty() && !link.answering {
            link.out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if let Poll::Ready(Err(Closed)) = link.poll_drain(context) {
            return Poll::Ready(Err(BodyError::Broken));
        }
        loop {
            if self.done.get() || buffer.is_empty() {
                return Poll::Ready(Ok(0));
            }
            if !link.input.is_empty() {
                let (used, written) = match &mut self.rest {
                    Rest::Length(left) => {
                        let most = usize::try_from(*left).unwrap_or(usize::MAX);
                        let count = link.input.len().min(buffer.len()).min(most);
                        buffer[..count].copy_from_slice(&link.input[..count]);
                        *left -= count as u64;
                        self.done.set(*left == 0);
                        (count, count)
                    }
                    Rest::Chunked(decoder) => match decoder.decode(&link.input, buffer) {
                        Ok(counts) => {
                            self.done.set(decoder.is_done());
                            counts
                        }
                        Err(chunked::Malformed) => return Poll::Ready(Err(BodyError::Broken)),
                    },
                };
                link.consume(used);
                if written > 0 {
                    self.read += written as u64;
                    if let Some((since, _)) = self.waiting.take() {
                        self.waited_ms += self.platform.monotonic_ms().saturating_sub(since);
                    }
                    return Poll::Ready(Ok(written));
                }
                continue;
            }
            match link.poll_fill(context) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Err(BodyError::Broken)),
                Poll::Pending => {
                    let left = (BODY_GRACE_MS + self.read).saturating_sub(self.waited_ms);
                    let platform = &self.platform;
                    let (_, sleep) = self.waiting.get_or_insert_with(|| (platform.monotonic_ms(), platform.sleep(left)));
                    return sleep.as_mut().poll(context).map(|()| Err(BodyError::TimedOut));
                }
            }
        }
    }
}
