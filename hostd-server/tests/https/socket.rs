//! TCP of the system as a stream that never waits.

use std::{
    cell::Cell,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    task::{Context, Poll},
};
use tessera_hostd::stream::{Closed, Stream};

thread_local! {
    static MOVED: Cell<u64> = const { Cell::new(0) };
}

/// Bytes that went through this thread's sockets.
pub fn moved() -> u64 {
    MOVED.get()
}

pub struct Socket(TcpStream);

impl Socket {
    pub fn new(socket: TcpStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self(socket))
    }
}

fn poll(result: io::Result<usize>) -> Poll<Result<usize, Closed>> {
    match result {
        Ok(count) => {
            MOVED.set(MOVED.get() + count as u64);
            Poll::Ready(Ok(count))
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Poll::Pending,
        Err(_) => Poll::Ready(Err(Closed)),
    }
}

impl Stream for Socket {
    fn poll_read(&mut self, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, Closed>> {
        poll(self.0.read(buffer))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Closed>> {
        poll(self.0.write(bytes))
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        Poll::Ready(self.0.shutdown(Shutdown::Write).map_err(|_| Closed))
    }
}
