//! A TCP connection as a stream.

use super::Inner;
use crate::stream::{Closed, Stream};
use alloc::rc::Rc;
use core::{
    cell::RefCell,
    task::{Context, Poll},
};
use smoltcp::{iface::SocketHandle, socket::tcp};

/// An open connection. Dropped, it is closed in good order, or cut if the other side does not do its part.
pub struct TcpStream {
    stack: Rc<RefCell<Inner>>,
    handle: SocketHandle,
}

impl TcpStream {
    pub(super) fn new(stack: Rc<RefCell<Inner>>, handle: SocketHandle) -> Self {
        Self { stack, handle }
    }

    fn with<T>(&self, act: impl FnOnce(&mut tcp::Socket<'_>) -> T) -> T {
        act(self.stack.borrow_mut().sockets.get_mut(self.handle))
    }
}

impl Stream for TcpStream {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, Closed>> {
        self.with(|socket| match socket.recv_slice(buffer) {
            Ok(0) => {
                socket.register_recv_waker(context.waker());
                Poll::Pending
            }
            Ok(count) => Poll::Ready(Ok(count)),
            Err(tcp::RecvError::Finished) => Poll::Ready(Ok(0)),
            Err(_) => Poll::Ready(Err(Closed)),
        })
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Closed>> {
        self.with(|socket| match socket.send_slice(bytes) {
            Ok(0) => {
                socket.register_send_waker(context.waker());
                Poll::Pending
            }
            Ok(count) => Poll::Ready(Ok(count)),
            Err(_) => Poll::Ready(Err(Closed)),
        })
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        // What the stack holds is on its way: the next turn sends it.
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        self.with(|socket| socket.close());
        Poll::Ready(Ok(()))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.stack.borrow_mut().end(self.handle);
    }
}
