//! TLS 1.3 over a stream, by rustls without buffers of its own: what a connection may keep is bounded here.

use crate::stream::{Closed, Stream};
use alloc::{sync::Arc, vec::Vec};
use core::task::{Context, Poll, ready};
use tessera_crypto::rustls::{
    ServerConfig,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus},
};

/// Most that is read before it is understood: one record of the largest size (RFC 8446, 5.2) with its header.
const MOST_INCOMING: usize = 5 + (16 << 10) + 256;
/// Plaintext of one record that is sent.
const RECORD: usize = 16 << 10;
/// A record's header, type and tag.
const OVERHEAD: usize = 5 + 1 + 16;
/// Buffers that are larger than this are given back when they are empty.
const KEPT: usize = 512;

/// The server's side of a connection. The handshake goes on while it is read.
pub struct TlsStream<S> {
    inner: S,
    tls: UnbufferedServerConnection,
    /// Ciphertext that is not understood yet.
    incoming: Vec<u8>,
    /// Plaintext that was not asked for yet, and how much of it was.
    plain: Vec<u8>,
    taken: usize,
    /// Ciphertext on its way out, and how much of it is gone.
    outgoing: Vec<u8>,
    sent: usize,
    ended: bool,
    failed: bool,
    closing: bool,
}

/// What to do where application data may be sent.
enum Want<'a> {
    Nothing,
    Send(&'a [u8]),
    Close,
}

impl<S: Stream> TlsStream<S> {
    /// Begins.
    ///
    /// # Errors
    /// When rustls refuses its configuration.
    pub fn new(inner: S, config: Arc<ServerConfig>) -> Result<Self, Closed> {
        Ok(Self {
            inner,
            tls: UnbufferedServerConnection::new(config).map_err(|_| Closed)?,
            incoming: Vec::new(),
            plain: Vec::new(),
            taken: 0,
            outgoing: Vec::new(),
            sent: 0,
            ended: false,
            failed: false,
            closing: false,
        })
    }

    /// Understands what is there. Says whether what was wanted was done.
    fn process(&mut self, want: Want<'_>) -> Result<bool, Closed> {
        let mut failure = false;
        loop {
            let UnbufferedStatus { mut discard, state } = self.tls.process_tls_records(&mut self.incoming);
            let mut done = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let Ok(record) = record else {
                            failure = true;
                            break;
                        };
                        discard += record.discard;
                        self.plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    let at = self.outgoing.len();
                    if let Err(EncodeError::InsufficientSize(error)) = data.encode(&mut []) {
                        self.outgoing.resize(at + error.required_size, 0);
                        let written = data.encode(&mut self.outgoing[at..]).unwrap_or(0);
                        self.outgoing.truncate(at + written);
                    }
                    // That was the alert. What else came stays unread: rustls would fail at it anew, and that it does so twice is a panic
                    // in its debug build.
                    if failure {
                        done = Some(Err(Closed));
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::BlockedHandshake) => done = Some(Ok(false)),
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let at = self.outgoing.len();
                    let room = match want {
                        Want::Nothing => 0,
                        Want::Send(bytes) => bytes.len() + OVERHEAD,
                        Want::Close => 2 + OVERHEAD,
                    };
                    self.outgoing.resize(at + room, 0);
                    let written = match want {
                        Want::Nothing => Ok(0),
                        Want::Send(bytes) => traffic.encrypt(bytes, &mut self.outgoing[at..]),
                        Want::Close => traffic.queue_close_notify(&mut self.outgoing[at..]),
                    };
                    self.outgoing.truncate(at + *written.as_ref().unwrap_or(&0));
                    done = Some(match written {
                        Ok(_) => Ok(true),
                        Err(EncryptError::InsufficientSize(_) | EncryptError::EncryptExhausted) => Err(Closed),
                    });
                }
                Ok(ConnectionState::PeerClosed) => self.ended = true,
                Ok(ConnectionState::Closed) => {
                    self.ended = true;
                    done = Some(Ok(false));
                }
                // No early data is offered.
                Ok(_) => done = Some(Err(Closed)),
                // The next turn encodes the alert; a second failure ends it.
                Err(_) if failure => done = Some(Err(Closed)),
                Err(_) => failure = true,
            }
            self.incoming.drain(..discard.min(self.incoming.len()));
            if let Some(done) = done {
                if self.incoming.is_empty() && self.incoming.capacity() > KEPT {
                    self.incoming = Vec::new();
                }
                let result = if failure { Err(Closed) } else { done };
                self.failed |= result.is_err();
                return result;
            }
        }
    }

    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        while self.sent < self.outgoing.len() {
            let written = ready!(self.inner.poll_write(context, &self.outgoing[self.sent..]))?;
            self.sent += written;
        }
        self.sent = 0;
        if self.outgoing.capacity() > KEPT {
            self.outgoing = Vec::new();
        } else {
            self.outgoing.clear();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Stream> Stream for TlsStream<S> {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, Closed>> {
        loop {
            if self.taken < self.plain.len() {
                let count = buffer.len().min(self.plain.len() - self.taken);
                buffer[..count].copy_from_slice(&self.plain[self.taken..][..count]);
                self.taken += count;
                if self.taken == self.plain.len() {
                    self.taken = 0;
                    self.plain = Vec::new();
                }
                return Poll::Ready(Ok(count));
            }
            // Answers of the handshake and alerts; who reads must not wait for them unless nothing comes.
            if let Poll::Ready(Err(Closed)) = self.poll_drain(context) {
                self.failed = true;
            }
            if self.failed {
                return Poll::Ready(Err(Closed));
            }
            if self.ended {
                return Poll::Ready(Ok(0));
            }
            // An other side that sends without taking what it causes gets no further.
            if self.outgoing.len() > 2 * RECORD {
                return Poll::Pending;
            }
            let mut bytes = [0; 2048];
            let room = bytes.len().min(MOST_INCOMING - self.incoming.len());
            if room == 0 {
                self.failed = true;
                return Poll::Ready(Err(Closed));
            }
            let count = ready!(self.inner.poll_read(context, &mut bytes[..room]))?;
            if count == 0 {
                // Without close_notify: whoever reads knows by its own framing whether something is missing.
                self.ended = true;
                return Poll::Ready(Ok(0));
            }
            self.incoming.extend_from_slice(&bytes[..count]);
            if self.process(Want::Nothing).is_err() {
                // The alert goes out if there is room for it.
                let _ = self.poll_drain(context);
                return Poll::Ready(Err(Closed));
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Closed>> {
        if self.failed || self.closing {
            return Poll::Ready(Err(Closed));
        }
        ready!(self.poll_drain(context))?;
        let count = bytes.len().min(RECORD);
        if !self.process(Want::Send(&bytes[..count]))? {
            self.failed = true;
            return Poll::Ready(Err(Closed));
        }
        // As much as goes at once.
        if let Poll::Ready(Err(Closed)) = self.poll_drain(context) {
            return Poll::Ready(Err(Closed));
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        ready!(self.poll_drain(context))?;
        self.inner.poll_flush(context)
    }

    fn poll_close(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        if !self.closing && !self.failed {
            self.closing = true;
            let _ = self.process(Want::Close);
        }
        ready!(self.poll_drain(context))?;
        self.inner.poll_close(context)
    }
}
