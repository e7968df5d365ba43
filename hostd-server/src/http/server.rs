//! A connection of HTTP/1.1 from its first byte to its last. Everything that the other side can make us keep or wait for is bounded.

use super::{
    Body, Method, Request, Response, frames,
    head::{self, Framing, Head, Refusal},
    link::{Incoming, Link, Shared, within},
    respond::{self, Sending},
    socket,
};
use crate::{
    future::LocalFuture,
    platform::Platform,
    stream::{Closed, Stream},
};
use alloc::{boxed::Box, format, rc::Rc, string::String, vec};
use core::{
    cell::{Cell, RefCell},
    future::poll_fn,
    task::Poll,
};

/// Who answers requests.
pub type Service = Rc<dyn Fn(Request) -> LocalFuture<'static, Response>>;

/// Milliseconds: for a head (and the handshake of TLS before the first one), between requests, for the other side to take 16 KiB, and at the end.
const HEAD_MS: u64 = 15_000;
const IDLE_MS: u64 = 60_000;
const STALL_MS: u64 = 30_000;
const LINGER_MS: u64 = 2_000;
/// Requests of one connection.
const MOST_REQUESTS: u32 = 10_000;
/// Bytes of an answer's body that are read and sent at once.
const PIECE: usize = 16 << 10;

/// Serves a connection to its end.
pub async fn serve(platform: Rc<dyn Platform>, stream: Box<dyn Stream>, peer: String, secure: bool, service: Service) {
    let link = Rc::new(RefCell::new(Link::new(stream)));
    for turn in 0..MOST_REQUESTS {
        let again = match next_head(&platform, &link, turn == 0).await {
            Ok(Some(head)) => {
                let last = turn + 1 == MOST_REQUESTS;
                exchange(&platform, &link, head, &peer, secure, &service, last).await == Ok(true)
            }
            Ok(None) => break,
            Err(Refusal(status, message)) => {
                let _ = answer(&platform, &link, respond::error(status, message), false, false, false).await;
                false
            }
        };
        if !again {
            break;
        }
    }
    finish(&platform, &link).await;
}

/// `None`: there is no further request.
async fn next_head(platform: &Rc<dyn Platform>, link: &Shared, first: bool) -> Result<Option<Head>, Refusal> {
    if !first && link.borrow().input.is_empty() {
        match within(platform, IDLE_MS, |context| link.borrow_mut().poll_fill(context)).await {
            Some(Ok(1..)) => {}
            _ => return Ok(None),
        }
    }
    let read = within(platform, HEAD_MS, |context| {
        let mut link = link.borrow_mut();
        loop {
            match head::parse(&link.input) {
                Ok(Some((head, length))) => {
                    link.consume(length);
                    return Poll::Ready(Ok(Some(head)));
                }
                Err(refusal) => return Poll::Ready(Err(refusal)),
                Ok(None) => {}
            }
            match link.poll_fill(context) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(Ok(None)),
                Poll::Pending => return Poll::Pending,
            }
        }
    });
    match read.await {
        Some(result) => result,
        // Who did not even begin gets no answer; it may be no client of HTTP.
        None if link.borrow().input.is_empty() => Ok(None),
        None => Err(Refusal(408, "The request's head took longer than 15 seconds.")),
    }
}

/// One request and its answer. Says whether another may follow.
async fn exchange(
    platform: &Rc<dyn Platform>,
    link: &Shared,
    head: Head,
    peer: &str,
    secure: bool,
    service: &Service,
    last: bool,
) -> Result<bool, Closed> {
    link.borrow_mut().answering = false;
    let done = Rc::new(Cell::new(true));
    let body = match head.framing {
        Framing::Length(0) => Body::Empty,
        framing => {
            let incoming = Incoming::new(link.clone(), platform.clone(), framing, head.expects_continue, done.clone());
            Body::Stream(Box::new(incoming))
        }
    };
    let request = Request {
        method: head.method,
        path: head.path,
        query: head.query,
        headers: head.headers,
        peer: peer.into(),
        secure,
        body,
    };
    let web_socket = request.wants_web_socket().then(|| socket::accept(&request));
    let mut response = service(request).await;
    let upgrade = response.upgrade.take().filter(|_| response.status == 101);
    match (upgrade, web_socket) {
        (None, _) if response.status != 101 => {
            let keep_alive = head.keep_alive && done.get() && !last;
            answer(platform, link, response, head.method == Method::Head, head.old, keep_alive).await
        }
        (Some(upgrade), Some(Some(accept))) => {
            response = response
                .with("upgrade", "websocket")
                .with("connection", "Upgrade")
                .with("sec-websocket-accept", accept);
            link.borrow_mut().out = respond::head(&response, Sending::None, false, platform.unix_ms());
            let socket = socket::Socket::new(link.clone(), platform.clone());
            let closed = socket.closed();
            upgrade(Box::new(socket)).await;
            if !closed.get() {
                frames::close(&mut link.borrow_mut().out, 1000);
            }
            Ok(false)
        }
        (Some(_), Some(None)) => {
            let refusal = respond::error(426, "The WebSocket's key or version (13) is wrong.").with("sec-websocket-version", "13");
            answer(platform, link, refusal, false, head.old, false).await
        }
        _ => {
            answer(
                platform,
                link,
                respond::error(400, "This address is one for WebSockets."),
                false,
                head.old,
                false,
            )
            .await
        }
    }
}

async fn drain(platform: &Rc<dyn Platform>, link: &Shared) -> Result<(), Closed> {
    within(platform, STALL_MS, |context| link.borrow_mut().poll_drain(context))
        .await
        .unwrap_or(Err(Closed))
}

/// Sends an answer. Says whether another request may follow.
async fn answer(
    platform: &Rc<dyn Platform>,
    link: &Shared,
    response: Response,
    head_only: bool,
    old: bool,
    keep_alive: bool,
) -> Result<bool, Closed> {
    let sending = respond::sending(&response, old);
    let keep_alive = keep_alive && sending != Sending::ToEnd;
    let head = respond::head(&response, sending, keep_alive, platform.unix_ms());
    {
        let mut link = link.borrow_mut();
        link.answering = true;
        link.out.extend_from_slice(&head);
    }
    if head_only || sending == Sending::None {
        drain(platform, link).await?;
        return Ok(keep_alive);
    }
    match response.body {
        Body::Empty => {}
        Body::Bytes(bytes) => pieces(platform, link, &bytes).await?,
        Body::Static(bytes) => pieces(platform, link, bytes).await?,
        Body::Stream(mut source) => {
            let mut left = if let Sending::Length(length) = sending {
                Some(length)
            } else {
                None
            };
            let mut buffer = vec![0; PIECE];
            while left != Some(0) {
                let room = left.map_or(PIECE, |left| usize::try_from(left).unwrap_or(PIECE).min(PIECE));
                let count = poll_fn(|context| source.poll_read(context, &mut buffer[..room]))
                    .await
                    .map_err(|_| Closed)?;
                if count == 0 {
                    break;
                }
                left = left.map(|left| left - count as u64);
                {
                    let out = &mut link.borrow_mut().out;
                    if sending == Sending::Chunked {
                        out.extend_from_slice(format!("{count:x}\r\n").as_bytes());
                    }
                    out.extend_from_slice(&buffer[..count]);
                    if sending == Sending::Chunked {
                        out.extend_from_slice(b"\r\n");
                    }
                }
                drain(platform, link).await?;
            }
            if left.is_some_and(|left| left > 0) {
                // Less came than was promised: the other side must see that something is missing.
                return Err(Closed);
            }
            if sending == Sending::Chunked {
                link.borrow_mut().out.extend_from_slice(b"0\r\n\r\n");
            }
        }
    }
    drain(platform, link).await?;
    Ok(keep_alive)
}

async fn pieces(platform: &Rc<dyn Platform>, link: &Shared, bytes: &[u8]) -> Result<(), Closed> {
    for piece in bytes.chunks(PIECE) {
        link.borrow_mut().out.extend_from_slice(piece);
        drain(platform, link).await?;
    }
    Ok(())
}

/// Says goodbye, and takes what is still on its way for a while: to end with bytes unread would take the answer away from the other side.
async fn finish(platform: &Rc<dyn Platform>, link: &Shared) {
    let _ = within(platform, LINGER_MS, |context| {
        let mut link = link.borrow_mut();
        match link.poll_drain(context) {
            Poll::Ready(Ok(())) => link.poll_close(context),
            other => other,
        }
    })
    .await;
    let _ = within(platform, LINGER_MS, |context| {
        let mut link = link.borrow_mut();
        // A bounded number at each turn.
        for _ in 0..16 {
            link.input.clear();
            match link.poll_fill(context) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
