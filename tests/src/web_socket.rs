//! A client of WebSockets over TLS (RFC 6455), with OpenSSL's own client, which is not ours, as the way to the other side.

use crate::{Failure, Result, ensure};
use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::Duration,
};

/// How long a single answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Any key does.
const KEY: &str = "dGVzdCBvZiBhIHNjcmVlbg==";

/// An open WebSocket whose messages are one stream of bytes.
pub struct WebSocket {
    child: Child,
    input: ChildStdin,
    /// What came over the connection, piece by piece.
    wire: Receiver<Vec<u8>>,
    /// Bytes of the connection that no frame was made of yet.
    frames: Vec<u8>,
    /// Bytes of messages that nobody took yet.
    data: Vec<u8>,
    closed: bool,
}

impl WebSocket {
    /// Connects to a path at a port of this machine. The answer's status is an error unless it is 101.
    pub fn connect(port: u16, path: &str) -> Result<Self> {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::new("openssl has no pipes"));
        };
        let (sender, wire) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 16 << 10];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut socket = Self {
            child,
            input,
            wire,
            frames: Vec::new(),
            data: Vec::new(),
            closed: false,
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        socket.input.write_all(request.as_bytes())?;
        socket.input.flush()?;
        let end = loop {
            if let Some(end) = socket.frames.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            ensure!(socket.receive()?, "the connection ended before the answer's head");
        };
        let head: Vec<u8> = socket.frames.drain(..end).collect();
        let head = String::from_utf8_lossy(&head).into_owned();
        ensure!(
            head.starts_with("HTTP/1.1 101 "),
            "{path} is answered with {}",
            head.lines().next().unwrap_or("")
        );
        Ok(socket)
    }

    /// Waits for bytes; false: there are no more.
    fn receive(&mut self) -> Result<bool> {
        match self.wire.recv_timeout(PATIENCE) {
            Ok(bytes) => {
                self.frames.extend_from_slice(&bytes);
                Ok(true)
            }
            Err(RecvTimeoutError::Disconnected) => Ok(false),
            Err(RecvTimeoutError::Timeout) => Err(Failure::new("nothing came over the WebSocket")),
        }
    }

    /// Sends a message.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let mut frame = vec![0x82];
        match u8::try_from(bytes.len()) {
            Ok(length @ ..126) => frame.push(0x80 | length),
            _ => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(bytes.len()).map_err(|_| Failure::new("too long"))?.to_be_bytes());
            }
        }
        // A mask of zeros is one too.
        frame.extend([0; 4]);
        frame.extend_from_slice(bytes);
        self.input.write_all(&frame)?;
        self.input.flush()?;
        Ok(())
    }

    /// Takes frames apart as far as they came.
    fn unpack(&mut self) {
        while let [first, second, rest @ ..] = &self.frames[..] {
            let (head, length) = match (second & 127, rest) {
                (126, [a, b, ..]) => (4, usize::from(u16::from_be_bytes([*a, *b]))),
                (127, [0, 0, 0, 0, a, b, c, d, ..]) => (10, u32::from_be_bytes([*a, *b, *c, *d]) as usize),
                (126 | 127, _) => return,
                (length, _) => (2, usize::from(length)),
            };
            let Some(body) = self.frames.get(head..head + length) else { return };
            match first & 15 {
                0..=2 => self.data.extend_from_slice(body),
                8 => self.closed = true,
                // Pings: the test is over before an answer is due.
                _ => {}
            }
            self.frames.drain(..head + length);
        }
    }

    /// Exactly so many bytes of messages.
    pub fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        loop {
            self.unpack();
            if self.data.len() >= count {
                return Ok(self.data.drain(..count).collect());
            }
            ensure!(!self.closed, "the WebSocket was closed");
            ensure!(self.receive()?, "the connection ended");
        }
    }

    /// Whether the other side ends it.
    pub fn ends(&mut self) -> Result<bool> {
        loop {
            self.unpack();
            if self.closed || !self.receive()? {
                return Ok(true);
            }
        }
    }
}

impl Drop for WebSocket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
