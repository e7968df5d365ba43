use super::*;
use crate::stream::Stream;
use alloc::collections::VecDeque;
use core::task::{Context, Waker};
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
    }
    // Everything that was used is given back.
    for _ in 0..3000 {
        server.poll(now);
        client.poll(now);
        now += 10;
    }
    assert!(server.0.borrow().sockets.iter().count() <= BACKLOG);
    assert!(server.0.borrow().ending.is_empty());
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
