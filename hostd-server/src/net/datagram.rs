//! A question in one packet and its answer, over UDP.

use super::{Inner, Stack};
use alloc::{rc::Rc, vec, vec::Vec};
use core::{cell::RefCell, future::poll_fn, net::SocketAddr, task::Poll};
use smoltcp::{
    iface::SocketHandle,
    socket::udp::{self, PacketBuffer, PacketMetadata},
    wire::{IpAddress, IpEndpoint},
};

/// Bytes of packets that wait.
const BUFFER: usize = 2048;
/// Packets that wait.
const PACKETS: usize = 4;
/// First of the ports that are used (RFC 6335, 6), and how many they are.
const PORTS: (u16, u16) = (49_152, 16_384);

struct Socket {
    stack: Rc<RefCell<Inner>>,
    handle: SocketHandle,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.stack.borrow_mut().sockets.remove(self.handle);
    }
}

impl Stack {
    /// Sends `question` from a port that `number` chooses, and waits for a packet from where it went to. `None`: it cannot be sent. The answer may never come.
    pub async fn ask(&self, to: SocketAddr, number: u16, question: &[u8]) -> Option<Vec<u8>> {
        let buffer = || PacketBuffer::new(vec![PacketMetadata::EMPTY; PACKETS], vec![0; BUFFER]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        let endpoint = IpEndpoint::new(IpAddress::from(to.ip()), to.port());
        socket.bind(PORTS.0 + number % PORTS.1).ok()?;
        socket.send_slice(question, endpoint).ok()?;
        let handle = self.0.borrow_mut().sockets.add(socket);
        let socket = Socket {
            stack: self.0.clone(),
            handle,
        };
        poll_fn(|context| {
            let inner = &mut *socket.stack.borrow_mut();
            let udp = inner.sockets.get_mut::<udp::Socket<'_>>(socket.handle);
            while let Ok((bytes, from)) = udp.recv() {
                if from.endpoint == endpoint {
                    return Poll::Ready(Some(bytes.to_vec()));
                }
            }
            udp.register_recv_waker(context.waker());
            Poll::Pending
        })
        .await
    }
}
