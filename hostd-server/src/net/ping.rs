//! Echo requests and their answers: ICMP (RFC 792) and ICMPv6 (RFC 4443, 4).

use super::{Inner, Stack};
use crate::future::LocalFuture;
use alloc::{rc::Rc, vec, vec::Vec};
use core::{
    cell::RefCell,
    future::{Future, poll_fn},
    net::IpAddr,
    pin::Pin,
    task::Poll,
};
use smoltcp::{
    iface::SocketHandle,
    socket::icmp::{self, Endpoint, PacketBuffer, PacketMetadata},
    wire::{IpAddress, IpCidr},
};

/// Bytes before the data.
const HEADER: usize = 8;
/// Answers that wait: somebody may send more than one.
const PACKETS: usize = 4;

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingError {
    /// It is no address of one host elsewhere.
    NotOneHost,
    /// It is an address of this host.
    Own,
    /// This host has no address of that family.
    NoAddress,
    /// No router is known, and it is in no network of this host.
    NoRoute,
}

impl core::fmt::Display for PingError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotOneHost => "it is not the address of one host",
            Self::Own => "it is an address of this host",
            Self::NoAddress => "this host has no address of that family: see what DHCP says, or set one",
            Self::NoRoute => "it is in no network of this host, and no router is known",
        })
    }
}

struct Socket {
    stack: Rc<RefCell<Inner>>,
    handle: SocketHandle,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.stack.borrow_mut().sockets.remove(self.handle);
    }
}

/// An echo request; the stack fills in its checksum.
fn request(to: IpAddr, id: u16, sequence: u16, data: &[u8]) -> Vec<u8> {
    let kind = if to.is_ipv4() { 8 } else { 128 };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(data);
    packet
}

/// Whether `packet` is the answer to [`request`]; checksums were looked at before.
fn answers(packet: &[u8], to: IpAddr, id: u16, sequence: u16, data: &[u8]) -> bool {
    let kind = if to.is_ipv4() { 0 } else { 129 };
    let Some((header, rest)) = packet.split_at_checked(HEADER) else {
        return false;
    };
    header[..2] == [kind, 0] && header[4..6] == id.to_be_bytes() && header[6..] == sequence.to_be_bytes() && rest == data
}

impl Inner {
    fn reaches(&self, to: IpAddr) -> Result<(), PingError> {
        let one = match to {
            IpAddr::V4(to) => !(to.is_multicast() || to.is_broadcast() || to.is_unspecified() || to.is_loopback()),
            IpAddr::V6(to) => !(to.is_multicast() || to.is_unspecified() || to.is_loopback()),
        };
        if !one {
            return Err(PingError::NotOneHost);
        }
        let address = IpAddress::from(to);
        if self.interface.has_ip_addr(address) {
            return Err(PingError::Own);
        }
        let mut own = self.interface.ip_addrs().iter().filter(|own| match own {
            IpCidr::Ipv4(_) => to.is_ipv4(),
            IpCidr::Ipv6(_) => to.is_ipv6(),
        });
        let near = own.clone().any(|own| own.contains_addr(&address));
        if own.next().is_none() {
            return Err(PingError::NoAddress);
        }
        // Routers of IPv6 are announced to the stack, which keeps them for itself.
        if to.is_ipv4() && !near && self.gateway.is_none() {
            return Err(PingError::NoRoute);
        }
        Ok(())
    }
}

impl Stack {
    /// Sends an echo request with `data` and waits until its answer or `limit` is there. False: no answer came in time. `id` is to be a random number, so that nobody who does not see the
    /// request can answer it.
    ///
    /// # Errors
    /// Why nothing was sent.
    pub async fn ping(&self, to: IpAddr, id: u16, sequence: u16, data: &[u8], mut limit: LocalFuture<'_, ()>) -> Result<bool, PingError> {
        self.0.borrow().reaches(to)?;
        let buffer = |packets| PacketBuffer::new(vec![PacketMetadata::EMPTY; packets], vec![0; packets * (HEADER + data.len())]);
        let mut socket = icmp::Socket::new(buffer(PACKETS), buffer(1));
        let packet = request(to, id, sequence, data);
        // The socket is new and has room for it.
        if socket.bind(Endpoint::Ident(id)).is_err() || socket.send_slice(&packet, to.into()).is_err() {
            return Err(PingError::NotOneHost);
        }
        let handle = self.0.borrow_mut().sockets.add(socket);
        let socket = Socket {
            stack: self.0.clone(),
            handle,
        };
        let answered = poll_fn(|context| {
            let inner = &mut *socket.stack.borrow_mut();
            let icmp = inner.sockets.get_mut::<icmp::Socket<'_>>(socket.handle);
            while let Ok((packet, from)) = icmp.recv() {
                if IpAddr::from(from) == to && answers(packet, to, id, sequence, data) {
                    return Poll::Ready(true);
                }
            }
            icmp.register_recv_waker(context.waker());
            Pin::new(&mut limit).poll(context).map(|()| false)
        });
        Ok(answered.await)
    }
}
