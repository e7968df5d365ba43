//! A connection that became a WebSocket (RFC 6455).

use super::{
    Message, Request, WebSocket,
    frames::{self, Decoder, Event},
    link::Shared,
};
use crate::{future::LocalFuture, platform::Platform};
use alloc::{rc::Rc, string::String};
use core::{
    cell::Cell,
    task::{Context, Poll},
};
use sha1::{Digest, Sha1};

/// What may wait to be sent; more is not taken.
const MOST_WAITING: usize = 64 << 10;
/// After so many milliseconds of silence a ping is sent; after as many again the other side is gone.
const SILENCE_MS: u64 = 30_000;
/// Appended to the key (1.3).
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What the server says about the key (4.2.2). `None`: key or version is not as it must be.
pub fn accept(request: &Request) -> Option<String> {
    let key = request.header("sec-websocket-key")?;
    let base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let sound = key.len() == 24 && key.ends_with("==") && key.bytes().take(22).all(base64);
    (sound && request.header("sec-websocket-version") == Some("13"))
        .then(|| base64_encode(&Sha1::new().chain_update(key).chain_update(MAGIC).finalize()))
}

fn base64_encode(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { digit as char } else { '=' });
        }
    }
    text
}

/// An open WebSocket.
pub struct Socket {
    link: Shared,
    platform: Rc<dyn Platform>,
    decoder: Decoder,
    closed: Rc<Cell<bool>>,
    silence: LocalFuture<'static, ()>,
    pinged: bool,
}

impl Socket {
    pub fn new(link: Shared, platform: Rc<dyn Platform>) -> Self {
        let silence = platform.sleep(SILENCE_MS);
        Self {
            link,
            platform,
            decoder: Decoder::default(),
            closed: Rc::new(Cell::new(false)),
            silence,
            pinged: false,
        }
    }

    /// Set when the end was said, or there is nobody left to say it to.
    pub fn closed(&self) -> Rc<Cell<bool>> {
        self.closed.clone()
    }

    fn close(&mut self, code: u16) -> Poll<Option<Message>> {
        if !self.closed.replace(true) {
            frames::close(&mut self.link.borrow_mut().out, code);
        }
        Poll::Ready(None)
    }
}

impl WebSocket for Socket {
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            if self.closed.get() {
                return Poll::Ready(None);
            }
            let mut link = self.link.borrow_mut();
            if let Poll::Ready(Err(_)) = link.poll_drain(context) {
                self.closed.set(true);
                return Poll::Ready(None);
            }
            match self.decoder.decode(&link.input) {
                Ok(Some((used, event))) => {
                    link.consume(used);
                    match event {
                        Some(Event::Message(message)) => return Poll::Ready(Some(message)),
                        // Who does not take our pongs gets no more of them.
                        Some(Event::Ping(bytes)) if link.out.len() < MOST_WAITING => frames::pong(&mut link.out, &bytes),
                        Some(Event::Ping(_) | Event::Pong) | None => {}
                        Some(Event::Close) => {
                            drop(link);
                            return self.close(1000);
                        }
                    }
                    continue;
                }
                Err(frames::Violation(code)) => {
                    drop(link);
                    return self.close(code);
                }
                Ok(None) => {}
            }
            match link.poll_fill(context) {
                Poll::Ready(Ok(1..)) => {
                    self.silence = self.platform.sleep(SILENCE_MS);
                    self.pinged = false;
                }
                Poll::Ready(_) => self.closed.set(true),
                Poll::Pending => {
                    if self.silence.as_mut().poll(context).is_pending() {
                        return Poll::Pending;
                    }
                    if core::mem::replace(&mut self.pinged, true) {
                        self.closed.set(true);
                    } else {
                        frames::ping(&mut link.out);
                        self.silence = self.platform.sleep(SILENCE_MS);
                    }
                }
            }
        }
    }

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        if self.closed.get() {
            return Poll::Ready(false);
        }
        let mut link = self.link.borrow_mut();
        match link.poll_drain(context) {
            Poll::Ready(Ok(())) => Poll::Ready(true),
            Poll::Ready(Err(_)) => {
                self.closed.set(true);
                Poll::Ready(false)
            }
            Poll::Pending if link.out.len() < MOST_WAITING => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        }
    }

    fn send(&mut self, message: Message) {
        if !self.closed.get() {
            frames::encode(&mut self.link.borrow_mut().out, &message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_standard_is_accepted() {
        let hash = Sha1::new().chain_update("dGhlIHNhbXBsZSBub25jZQ==").chain_update(MAGIC).finalize();
        assert_eq!(base64_encode(&hash), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(base64_encode(b"M"), "TQ==");
    }
}
