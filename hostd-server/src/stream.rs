//! Byte streams: what TCP, TLS and the developer's machine's sockets have in common.

use alloc::boxed::Box;
use core::task::{Context, Poll};

/// The other side is gone, or what it sends breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// A stream of bytes in both directions. Reading and writing have wakers of their own.
pub trait Stream {
    /// Reads some bytes; 0: the end.
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, Closed>>;
    /// Writes some of `bytes`, at least one.
    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Closed>>;
    /// Ready when everything that was written is on its way.
    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Closed>>;
    /// Says that nothing more will be written.
    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Closed>>;
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, Closed>> {
        (**self).poll_read(context, buffer)
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Closed>> {
        (**self).poll_write(context, bytes)
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        (**self).poll_flush(context)
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        (**self).poll_close(context)
    }
}
