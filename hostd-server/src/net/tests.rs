use super::*;
use crate::stream::Stream;
use alloc::{collections::VecDeque, string::String};
use core::{
    future::Future,
    task::{Context, Waker},
};
use proptest::prelude::*;

type Frames = Rc<RefCell<VecDeque<Vec<u8>>>>;

struct Cable {
    incoming: Frames,
    outgoing: Frames,
    last: u8,
}

impl Port for Cable {
    fn receive(&mut self, buffer: &mut [u8]) -> Option<usize> {
        let frame = self.incoming.borrow_mut().pop_front()?;
        let length = frame.len().min(buffer.len());
        buffer[..length].copy_from_slice(&frame[..length]);
        Some(length)
    }

    fn send(&mut self, frame: &[u8]) -> bool {
        self.outgoing.borrow_mut().push_back(frame.to_vec());
        true
    }

    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.last]
    }

    fn mtu(&self) -> usize {
        1500
    }
}

fn pair() -> (Stack, Stack) {
    let (one, two) = (Frames::default(), Frames::default());
    let stack = |incoming: &Frames, outgoing: &Frames, last| {
        let cable = Cable {
            incoming: incoming.clone(),
            outgoing: outgoing.clone(),
            last,
        };
        let address = Ipv4Addr::new(10, 0, 0, last);
        let ipv4 = Ipv4::Static {
            address,
            prefix: 24,
            gateway: None,
        };
        Stack::new(Box::new(cable), ipv4, u64::from(last), 0)
    };
    (stack(&one, &two, 1), stack(&two, &one, 2))
}

fn connect(stack: &Stack, port: u16) -> TcpStream {
    let inner = &mut *stack.0.borrow_mut();
    let mut socket = tcp::Socket::new(tcp::SocketBuffer::new(vec![0; 4096]), tcp::SocketBuffer::new(vec![0; 4096]));
    let to = (Ipv4Addr::new(10, 0, 0, 1), 443);
    socket.connect(inner.interface.context(), to, port).unwrap();
    let handle = inner.sockets.add(socket);
    TcpStream::new(stack.0.clone(), handle)
}

#[test]
fn connections_come_carry_bytes_and_end() {
    let (server, client) = pair();
    let mut context = Context::from_waker(Waker::noop());
    let mut now = 0;
    for round in 0..30u16 {
        let mut out = connect(&client, 50_000 + round);
        let (mut accepted, mut sent, mut got) = (None, 0, Vec::new());
        let data: Vec<u8> = (0..30_000u32).map(|at| (at / 3) as u8).collect();
        {
            let mut accept = Box::pin(server.accept(443));
            for _ in 0..2000 {
                if let (None, Poll::Ready((stream, peer))) = (&accepted, core::future::Future::poll(accept.as_mut(), &mut context)) {
                    assert_eq!(peer, IpAddr::from([10, 0, 0, 2]));
                    accepted = Some(stream);
                }
                server.poll(now);
                client.poll(now);
                if accepted.is_some() {
                    break;
                }
                now += 5;
            }
        }
        let mut stream = accepted.expect("a connection");
        assert!(server.is_drained());
        assert!(matches!(stream.poll_write(&mut context, b"answer"), Poll::Ready(Ok(6))));
        server.poll(now);
        assert!(!server.is_drained(), "nothing was acknowledged yet");
        for _ in 0..5000 {
            if let Poll::Ready(Ok(count)) = out.poll_write(&mut context, &data[sent..]) {
                sent += count;
            }
            let mut buffer = [0; 3000];
            if let Poll::Ready(Ok(count)) = stream.poll_read(&mut context, &mut buffer) {
                got.extend_from_slice(&buffer[..count]);
            }
            server.poll(now);
            client.poll(now);
            now += 1;
            if got.len() == data.len() {
                break;
            }
        }
        assert!(got == data, "{} of {} bytes", got.len(), data.len());
        assert!(server.is_drained(), "everything has arrived");
    }
    // Everything that was used is given back.
    for _ in 0..3000 {
        server.poll(now);
        client.poll(now);
        now += 10;
    }
    // The resolver's, and one that listens.
    assert_eq!(server.0.borrow().sockets.iter().count(), 2);
    assert!(server.0.borrow().ending.is_empty());
}

#[test]
fn as_many_connections_as_wait_begin_in_one_turn() {
    let (server, client) = pair();
    let mut context = Context::from_waker(Waker::noop());
    let mut accept = |server: &Stack| Box::pin(server.accept(443)).as_mut().poll(&mut context);
    assert!(accept(&server).is_pending());
    // Neighbours are known before the burst: what waits for an address is one packet.
    drop(connect(&client, 40_000));
    let clients = (0..BACKLOG + 10).map(|number| connect(&client, 41_000 + u16::try_from(number).unwrap()));
    let mut clients: Vec<_> = clients.collect();
    for now in 0..200 {
        client.poll(now * 10);
        server.poll(now * 10);
    }
    let mut accepted = Vec::new();
    while let Poll::Ready((stream, _)) = accept(&server) {
        accepted.push(stream);
    }
    assert!(accepted.len() >= BACKLOG, "{} connections were taken", accepted.len());
    // Those beyond were refused; there is room for others now.
    clients.push(connect(&client, 42_000));
    for now in 200..400 {
        client.poll(now * 10);
        server.poll(now * 10);
    }
    assert!(accept(&server).is_ready());
    assert!(server.0.borrow().listening.len() <= BACKLOG);
}

proptest! {
    #[test]
    fn no_frame_makes_it_panic(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 0..8), kind in 0usize..4) {
        let (server, client) = pair();
        // Else it would not listen.
        let mut accept = Box::pin(server.accept(443));
        let _ = core::future::Future::poll(accept.as_mut(), &mut Context::from_waker(Waker::noop()));
        for frame in frames {
            let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
            bytes.extend_from_slice([&[8, 0], &[8, 6], &[0x86, 0xdd], &[1, 2]][kind]);
            bytes.extend_from_slice(&frame);
            client.0.borrow_mut().device.port.send(&bytes);
        }
        server.poll(1);
        server.poll(2000);
    }
}

/// Answers what arrives at a UDP port of a stack.
fn answer_datagrams(stack: &Stack, port: u16) -> SocketHandle {
    use smoltcp::socket::udp;
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 4096]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).unwrap();
    stack.0.borrow_mut().sockets.add(socket)
}

fn answer_with(stack: &Stack, handle: SocketHandle, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let inner = &mut *stack.0.borrow_mut();
    let socket = inner.sockets.get_mut::<smoltcp::socket::udp::Socket<'_>>(handle);
    while let Ok((question, from)) = socket.recv() {
        let (question, to) = (question.to_vec(), from.endpoint);
        if let Some(bytes) = answer(&question) {
            socket.send_slice(&bytes, to).unwrap();
        }
    }
}

/// 192.0.2.7 for questions of type A (RFC 1035, 4.1.3) about `lab.example`, no such name for all else.
fn resolver(question: &[u8]) -> Option<Vec<u8>> {
    let mut answer = question.to_vec();
    let known = question.get(12..)?.starts_with(b"\x03lab\x07example\0\0\x01");
    answer[2] |= 0x80;
    if known {
        answer[7] = 1;
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
    } else {
        answer[3] |= 3;
    }
    Some(answer)
}

fn drive<T>(stacks: [&Stack; 2], future: impl Future<Output = T>, mut turn: impl FnMut()) -> T {
    let mut context = Context::from_waker(Waker::noop());
    let mut future = core::pin::pin!(future);
    for now in 0..60_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        for stack in stacks {
            stack.poll(now * 5);
        }
        turn();
    }
    panic!("it does not end");
}

#[test]
fn names_are_looked_up_in_domains_and_answers_of_others_are_not_taken() {
    let (server, client) = pair();
    let port = answer_datagrams(&server, 53);
    let look_up = |name: &str, search: &[String]| {
        drive([&server, &client], client.resolve(name, search), || {
            answer_with(&server, port, resolver)
        })
    };
    assert_eq!(look_up("lab.example", &[]), Err(NameError::NoServer));
    assert_eq!(look_up("192.0.2.9", &[]), Ok(vec![IpAddr::from([192, 0, 2, 9])]));
    client.set_name_servers(&[IpAddr::from([10, 0, 0, 1])], false);
    let known = Ok(vec![IpAddr::from([192, 0, 2, 7])]);
    assert_eq!(look_up("lab.example", &[]), known);
    assert_eq!(look_up("lab", &["wrong".into(), "example".into()]), known);
    assert_eq!(look_up("other.example", &[]), Err(NameError::NotFound));
    assert_eq!(look_up("..", &[]), Err(NameError::BadName));
    // Nobody waits for it any more.
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        let mut query = Box::pin(client.resolve("lab.example", &[]));
        assert!(query.as_mut().poll(&mut context).is_pending());
    }
    assert_eq!(client.0.borrow().queries, 0);
}

#[test]
fn a_network_that_nobody_answers_in_is_not_polled_without_end() {
    let (stack, _) = pair();
    let (mut now, mut turns) = (0, 0);
    while now < 60_000 && turns < 10_000 {
        now += stack.poll(now).unwrap_or(60_000);
        turns += 1;
    }
    assert!(turns <= 60_000 / AGAIN_MS + 100, "{turns} turns in {now} ms");
}

#[test]
fn a_datagram_is_answered() {
    let (server, client) = pair();
    let port = answer_datagrams(&server, 123);
    let to = (Ipv4Addr::new(10, 0, 0, 1), 123).into();
    let before = client.0.borrow().sockets.iter().count();
    let answer = drive([&server, &client], client.ask(to, 60_000, b"what"), || {
        answer_with(&server, port, |question| Some([question, b"ever"].concat()));
    });
    assert_eq!(answer.as_deref(), Some(&b"whatever"[..]));
    assert_eq!(client.0.borrow().sockets.iter().count(), before, "a socket is left behind");
}

/// Longer than the second in which the stack asks for no other neighbour.
const LIMIT_MS: u64 = 2500;

/// Two stacks run until a ping is over; its outcome, and the milliseconds that it took.
fn ping_between(from: &Stack, other: &Stack, to: IpAddr, data: &[u8]) -> (Result<bool, PingError>, u64) {
    let mut context = Context::from_waker(Waker::noop());
    let begun = from.0.borrow().now_ms;
    let clock = Rc::new(core::cell::Cell::new(begun));
    let end = clock.clone();
    let limit = Box::pin(poll_fn(move |_| {
        if end.get() >= begun + LIMIT_MS {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
    let mut ping = Box::pin(from.ping(to, 0x1234, 7, data, limit));
    loop {
        if let Poll::Ready(outcome) = ping.as_mut().poll(&mut context) {
            return (outcome, clock.get() - begun);
        }
        from.poll(clock.get());
        other.poll(clock.get());
        clock.set(clock.get() + 1);
    }
}

#[test]
fn an_echo_is_answered_by_who_is_there() {
    let (one, two) = pair();
    let near = |last| IpAddr::from([10, 0, 0, last]);
    for length in [0, 1, 56, 1400] {
        let data: Vec<u8> = (0..length).map(|at: usize| at as u8).collect();
        let (outcome, took) = ping_between(&one, &two, near(2), &data);
        assert_eq!(outcome, Ok(true), "{length} bytes");
        assert!(took < LIMIT_MS, "{took} ms");
    }
    let link_local = two.addresses().into_iter().find(|(address, _)| address.is_ipv6()).unwrap().0;
    assert_eq!(ping_between(&one, &two, link_local, b"data").0, Ok(true), "{link_local}");
    assert_eq!(ping_between(&one, &two, near(3), b"data"), (Ok(false), LIMIT_MS));
    let before = one.0.borrow().sockets.iter().count();
    for (to, error) in [
        (near(1), PingError::Own),
        ([10, 0, 1, 2].into(), PingError::NoRoute),
        ([255; 4].into(), PingError::NotOneHost),
        ([224, 0, 0, 1].into(), PingError::NotOneHost),
        (Ipv6Addr::LOCALHOST.into(), PingError::NotOneHost),
    ] {
        assert_eq!(ping_between(&one, &two, to, b"data").0, Err(error), "{to}");
    }
    one.set_ipv4(Ipv4::Dhcp);
    assert_eq!(ping_between(&one, &two, near(2), b"data").0, Err(PingError::NoAddress));
    assert_eq!(
        one.0.borrow().sockets.iter().count(),
        before + 1,
        "DHCP's, and none that nobody waits for"
    );
}
