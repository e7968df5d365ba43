//! TCP/IP of the host's own port on the virtual switch: addresses by DHCP, by hand and by router advertisement, and a bounded pool of connections.

mod datagram;
mod names;
mod ping;
pub mod setting;
mod stream;

pub use names::NameError;
pub use ping::PingError;
pub use stream::TcpStream;

use alloc::{boxed::Box, rc::Rc, vec, vec::Vec};
use core::{
    cell::RefCell,
    future::poll_fn,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    task::{Poll, Waker},
};
use smoltcp::{
    iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketHandle, SocketSet},
    phy::{self, DeviceCapabilities, Medium},
    socket::{Socket, dhcpv4, dns, tcp},
    time::{Duration, Instant},
    wire::{EthernetAddress, IpCidr, Ipv4Cidr, Ipv6Cidr},
};

/// Connections at a time, with those that are about to end and those that wait for a first packet.
const MOST_SOCKETS: usize = 560;
/// Connections that have begun and were not accepted yet. Only one socket listens: when a frame takes it, the next is made before the next frame.
const BACKLOG: usize = 64;
/// Bytes of a connection's buffers.
const RECEIVE: usize = 8 << 10;
const SEND: usize = 16 << 10;
/// Nothing of what was sent is acknowledged for so long: the other side is gone.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Milliseconds that the other side has to end a connection that ended here.
const ENDING_MS: u64 = 10_000;
/// Milliseconds until the stack is asked again that says it is due and then does nothing.
const AGAIN_MS: u64 = 20;

/// What carries frames: a port of the switch. It never waits.
pub trait Port {
    /// Takes the next frame that arrived into `buffer`; its length.
    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize>;
    /// Sends a frame. `false`: there is no room now, and it is lost, as frames may be.
    fn send(&mut self, frame: &[u8]) -> bool;
    /// Ethernet address.
    fn mac(&self) -> [u8; 6];
    /// Largest packet, without the Ethernet header.
    fn mtu(&self) -> usize;
}

/// Where IPv4 addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4 {
    /// DHCP.
    Dhcp,
    /// By hand.
    Static {
        /// Address.
        address: Ipv4Addr,
        /// Bits of the network.
        prefix: u8,
        /// Router.
        gateway: Option<Ipv4Addr>,
    },
}

struct Adapter {
    port: Box<dyn Port>,
    buffer: Vec<u8>,
}

struct Received<'a>(&'a [u8]);
struct Transmit<'a>(&'a mut dyn Port);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl phy::TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.send(&frame);
        result
    }
}

impl phy::Device for Adapter {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Transmit<'_>)> {
        let length = self.port.receive(&mut self.buffer)?;
        Some((Received(self.buffer.get(..length)?), Transmit(&mut *self.port)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Transmit<'_>> {
        Some(Transmit(&mut *self.port))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.port.mtu() + 14;
        capabilities
    }
}

struct Inner {
    device: Adapter,
    interface: Interface,
    sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    dns: SocketHandle,
    /// Questions that are open.
    queries: usize,
    /// Name servers that were set, and whether those of DHCP come before them.
    name_servers: (Vec<IpAddr>, bool),
    /// Name servers that DHCP brought.
    leased_servers: Vec<IpAddr>,
    gateway: Option<Ipv4Addr>,
    /// IPv6 addresses that were set by hand.
    static_ipv6: Vec<IpCidr>,
    /// The socket that listens, and those whose connections nobody accepted yet.
    listening: Vec<SocketHandle>,
    /// Port that is listened to.
    port: Option<u16>,
    /// Who waits for a connection.
    accepting: Option<Waker>,
    /// Connections that nobody uses any more, and when they are cut.
    ending: Vec<(SocketHandle, u64)>,
    now_ms: u64,
}

/// The stack. Copies are the same.
#[derive(Clone)]
pub struct Stack(Rc<RefCell<Inner>>);

impl Stack {
    /// A stack on a port. `seed` is a random number that sequence numbers are made of.
    #[must_use]
    pub fn new(port: Box<dyn Port>, ipv4: Ipv4, seed: u64, now_ms: u64) -> Self {
        let mac = EthernetAddress(port.mac());
        let buffer = vec![0; port.mtu() + 18];
        let mut device = Adapter { port, buffer };
        let mut config = Config::new(mac.into());
        config.random_seed = seed;
        config.slaac = true;
        let mut interface = Interface::new(config, &mut device, instant(now_ms));
        // Router solicitations need it from the first turn on.
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::Ipv6(link_local(mac)));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let dns = sockets.add(dns::Socket::new(&[], Vec::new()));
        let stack = Self(Rc::new(RefCell::new(Inner {
            device,
            interface,
            sockets,
            dhcp: None,
            dns,
            queries: 0,
            name_servers: (Vec::new(), true),
            leased_servers: Vec::new(),
            gateway: None,
            static_ipv6: Vec::new(),
            listening: Vec::new(),
            port: None,
            accepting: None,
            ending: Vec::new(),
            now_ms,
        })));
        stack.set_ipv4(ipv4);
        stack
    }

    /// Changes where IPv4 addresses come from.
    pub fn set_ipv4(&self, ipv4: Ipv4) {
        let inner = &mut *self.0.borrow_mut();
        if let Some(dhcp) = inner.dhcp.take() {
            inner.sockets.remove(dhcp);
            inner.leased_servers.clear();
            inner.tell_name_servers();
        }
        match ipv4 {
            Ipv4::Dhcp => {
                inner.set_address(None, None);
                inner.dhcp = Some(inner.sockets.add(dhcpv4::Socket::new()));
            }
            Ipv4::Static { address, prefix, gateway } => {
                inner.set_address(Some(Ipv4Cidr::new(address, prefix.min(32))), gateway);
            }
        }
    }

    /// Changes the IPv6 addresses that are set by hand; those that the stack makes itself stay.
    pub fn set_ipv6(&self, addresses: &[(Ipv6Addr, u8)]) {
        let inner = &mut *self.0.borrow_mut();
        let new: Vec<IpCidr> = addresses
            .iter()
            .map(|(address, prefix)| IpCidr::Ipv6(Ipv6Cidr::new(*address, (*prefix).min(128))))
            .collect();
        let old = core::mem::replace(&mut inner.static_ipv6, new.clone());
        inner.interface.update_ip_addrs(|all| {
            all.retain(|address| !old.contains(address));
            for address in new {
                // There is room for more than can be set by hand.
                let _ = all.push(address);
            }
        });
    }

    /// The router of IPv4.
    #[must_use]
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.0.borrow().gateway
    }

    /// Addresses with the bits of their networks.
    #[must_use]
    pub fn addresses(&self) -> Vec<(IpAddr, u8)> {
        let inner = self.0.borrow();
        inner
            .interface
            .ip_addrs()
            .iter()
            .map(|cidr| (IpAddr::from(cidr.address()), cidr.prefix_len()))
            .collect()
    }

    /// Does what is to be done: takes frames, sends frames, wakes who waits. Milliseconds until it has to be called again even if nothing
    /// arrives; `None`: only then.
    pub fn poll(&self, now_ms: u64) -> Option<u64> {
        let inner = &mut *self.0.borrow_mut();
        inner.now_ms = now_ms;
        let now = instant(now_ms);
        let polled = inner.exchange(now);
        if let Some(handle) = inner.dhcp {
            match inner.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).poll() {
                Some(dhcpv4::Event::Configured(lease)) => {
                    let (address, router) = (lease.address, lease.router);
                    inner.leased_servers = lease.dns_servers.iter().copied().map(IpAddr::V4).collect();
                    inner.set_address(Some(address), router);
                    inner.tell_name_servers();
                }
                Some(dhcpv4::Event::Deconfigured) => inner.set_address(None, None),
                None => {}
            }
        }
        let sockets = &mut inner.sockets;
        inner.ending.retain(|(handle, deadline)| {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(*handle);
            if *deadline <= now_ms {
                socket.abort();
            }
            let over = matches!(socket.state(), tcp::State::Closed | tcp::State::TimeWait);
            if over {
                sockets.remove(*handle);
            }
            !over
        });
        let next = inner.ending.iter().map(|(_, deadline)| deadline.saturating_sub(now_ms)).min();
        let delay = inner.interface.poll_delay(now, &inner.sockets).map(|delay| delay.total_millis());
        // smoltcp 0.14 names a time in the past for ever once no router answered its solicitations (RFC 4861, section 6.3.7): what was due and led to nothing is not due again at once.
        let delay = delay.map(|delay| if polled == PollResult::None { delay.max(AGAIN_MS) } else { delay });
        [next, delay].into_iter().flatten().min()
    }

    /// Everything that was written into connections has arrived at the other side.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        let inner = self.0.borrow();
        inner.sockets.iter().all(|(_, socket)| match socket {
            Socket::Tcp(socket) => socket.send_queue() == 0,
            _ => true,
        })
    }

    /// The next connection to `port`. One waits at a time.
    pub async fn accept(&self, port: u16) -> (TcpStream, IpAddr) {
        poll_fn(|context| {
            let inner = &mut *self.0.borrow_mut();
            inner.port = Some(port);
            inner.listen();
            let Some((place, remote)) = inner.begun() else {
                inner.accepting = Some(context.waker().clone());
                return Poll::Pending;
            };
            let handle = inner.listening.remove(place);
            Poll::Ready((TcpStream::new(self.0.clone(), handle), remote))
        })
        .await
    }
}

impl Inner {
    /// Takes the frames that are there and sends what is to be sent.
    fn exchange(&mut self, now: Instant) -> PollResult {
        let mut result = PollResult::None;
        self.interface.poll_maintenance(now);
        loop {
            match self.interface.poll_ingress_single(now, &mut self.device, &mut self.sockets) {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed => {}
                PollIngressSingleResult::SocketStateChanged => {
                    result = PollResult::SocketStateChanged;
                    self.listen();
                }
            }
        }
        while self.interface.poll_egress(now, &mut self.device, &mut self.sockets) == PollResult::SocketStateChanged {
            result = PollResult::SocketStateChanged;
        }
        if self.begun().is_some() {
            if let Some(waker) = self.accepting.take() {
                waker.wake();
            }
        }
        result
    }

    /// Sees to it that a socket listens, within the bounds.
    fn listen(&mut self) {
        let Some(port) = self.port else { return };
        // Connections that ended before they were some.
        let mut ended = Vec::new();
        self.listening.retain(|handle| {
            let open = self.sockets.get::<tcp::Socket<'_>>(*handle).is_open();
            if !open {
                ended.push(*handle);
            }
            open
        });
        for handle in ended {
            self.sockets.remove(handle);
        }
        let listens = self
            .listening
            .iter()
            .any(|handle| self.sockets.get::<tcp::Socket<'_>>(*handle).is_listening());
        if listens || self.listening.len() >= BACKLOG || self.sockets.iter().count() >= MOST_SOCKETS {
            return;
        }
        let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(vec![0; RECEIVE]), tcp::SocketBuffer::new(vec![0; SEND]));
        socket.set_timeout(Some(TIMEOUT));
        socket.set_nagle_enabled(false);
        if socket.listen(port).is_ok() {
            self.listening.push(self.sockets.add(socket));
        }
    }

    /// The oldest connection that has begun: its place among those that nobody accepted, and the other side.
    fn begun(&self) -> Option<(usize, IpAddr)> {
        self.listening.iter().enumerate().find_map(|(place, handle)| {
            let socket = self.sockets.get::<tcp::Socket<'_>>(*handle);
            let remote = socket.remote_endpoint().filter(|_| socket.may_send())?;
            Some((place, remote.addr.into()))
        })
    }

    fn set_address(&mut self, address: Option<Ipv4Cidr>, gateway: Option<Ipv4Addr>) {
        self.interface.update_ip_addrs(|addresses| {
            addresses.retain(|address| !matches!(address, IpCidr::Ipv4(_)));
            if let Some(address) = address {
                let _ = addresses.push(IpCidr::Ipv4(address));
            }
        });
        self.gateway = gateway;
        let routes = self.interface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(gateway) = gateway {
            let _ = routes.add_default_ipv4_route(gateway);
        }
    }

    fn end(&mut self, handle: SocketHandle) {
        self.sockets.get_mut::<tcp::Socket<'_>>(handle).close();
        self.ending.push((handle, self.now_ms + ENDING_MS));
    }
}

/// fe80::/64 with the Ethernet address in it (RFC 4291, appendix A).
fn link_local(mac: EthernetAddress) -> Ipv6Cidr {
    let [a, b, c, d, e, f] = mac.0.map(u16::from);
    let address = Ipv6Addr::new(0xfe80, 0, 0, 0, (a ^ 2) << 8 | b, c << 8 | 0xff, 0xfe00 | d, e << 8 | f);
    Ipv6Cidr::new(address, 64)
}

fn instant(ms: u64) -> Instant {
    Instant::from_millis(i64::try_from(ms).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
