//! A small HTTP/1.1 server for 127.0.0.1: what connections of the host do, done plainly.

use smol::{
    Async, Timer,
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io,
    net::TcpStream,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};
use tessera_hostd::{
    api::Api,
    http::{Body, BodyError, BodySource, Message, Method, Request, Response, WebSocket},
};

const MOST_HEAD: usize = 32 << 10;

type Stream = Rc<Async<TcpStream>>;

/// What of the connection's bytes belongs to the request's body.
struct Incoming {
    stream: Stream,
    early: Rc<RefCell<VecDeque<u8>>>,
    left: Rc<Cell<Left>>,
    length: Option<u64>,
    proceed: Option<Vec<u8>>,
}

/// How the body goes on.
#[derive(Clone, Copy, PartialEq)]
enum Left {
    Bytes(u64),
    /// Bytes of this chunk, and whether its line's end is still to come.
    Chunk(u64, bool),
    End,
}

impl Incoming {
    fn poll_some(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, BodyError>> {
        if let Some(bytes) = self.proceed.take() {
            // 25 bytes on a fresh connection fit its buffer.
            let _ = Pin::new(&mut &*self.stream).poll_write(context, &bytes);
        }
        let mut early = self.early.borrow_mut();
        if !early.is_empty() {
            let count = early.len().min(buffer.len());
            for (place, byte) in buffer.iter_mut().zip(early.drain(..count)) {
                *place = byte;
            }
            return Poll::Ready(Ok(count));
        }
        match Pin::new(&mut &*self.stream).poll_read(context, buffer) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(BodyError::Broken)),
            Poll::Ready(Ok(count)) => Poll::Ready(Ok(count)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// A line of the chunks' framing, byte by byte; what was read of it before a pause is put back.
    fn poll_line(&mut self, context: &mut Context<'_>) -> Poll<Result<String, BodyError>> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            match self.poll_some(context, &mut byte) {
                Poll::Ready(Ok(_)) if byte[0] == b'\n' => {
                    return Poll::Ready(
                        String::from_utf8(line)
                            .map(|line| line.trim().to_string())
                            .map_err(|_| BodyError::Broken),
                    );
                }
                Poll::Ready(Ok(_)) if line.len() < 256 => line.push(byte[0]),
                Poll::Ready(_) => return Poll::Ready(Err(BodyError::Broken)),
                Poll::Pending => {
                    self.early.borrow_mut().extend(line);
                    return Poll::Pending;
                }
            }
        }
    }
}

impl BodySource for Incoming {
    fn length(&self) -> Option<u64> {
        self.length
    }
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<Result<usize, BodyError>> {
        loop {
            let most = match self.left.get() {
                Left::End | Left::Bytes(0) => return Poll::Ready(Ok(0)),
                Left::Bytes(left) => left,
                Left::Chunk(0, after) => {
                    let line = std::task::ready!(self.poll_line(context))?;
                    if after {
                        self.left.set(Left::Chunk(0, false));
                        continue;
                    }
                    let size = u64::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16).map_err(|_| BodyError::Broken)?;
                    if size == 0 {
                        self.left.set(Left::End);
                        // The empty line after the last chunk; trailers are not taken.
                        let _ = std::task::ready!(self.poll_line(context))?;
                        return Poll::Ready(Ok(0));
                    }
                    self.left.set(Left::Chunk(size, true));
                    continue;
                }
                Left::Chunk(left, _) => left,
            };
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
            let count = std::task::ready!(self.poll_some(context, &mut buffer[..most]))?;
            self.left.set(match self.left.get() {
                Left::Bytes(left) => Left::Bytes(left - count as u64),
                Left::Chunk(left, after) => Left::Chunk(left - count as u64, after),
                Left::End => Left::End,
            });
            return Poll::Ready(Ok(count));
        }
    }
}

/// Serves requests of one connection until it ends. `files` answers what is not the API's.
///
/// # Errors
/// Those of the connection.
pub async fn serve(stream: Async<TcpStream>, api: Rc<Api>, files: impl Fn(&Request) -> Response) -> io::Result<()> {
    let peer = stream.get_ref().peer_addr()?.ip().to_string();
    let stream: Stream = Rc::new(stream);
    let mut buffer: Vec<u8> = Vec::new();
    loop {
        let (head, mut request, length, chunked, proceed) = loop {
            match parse(&buffer, &peer) {
                Ok(Some(found)) => break found,
                Ok(None) if buffer.len() < MOST_HEAD => {
                    let mut some = [0; 4096];
                    let count = smol::future::or(async { (&*stream).read(&mut some).await }, async {
                        Timer::after(Duration::from_secs(30)).await;
                        Ok(0)
                    })
                    .await?;
                    if count == 0 {
                        return Ok(());
                    }
                    buffer.extend_from_slice(&some[..count]);
                }
                Ok(None) => return plain(&stream, 431).await,
                Err(status) => return plain(&stream, status).await,
            }
        };
        let early = Rc::new(RefCell::new(buffer[head..].iter().copied().collect::<VecDeque<u8>>()));
        let left = Rc::new(Cell::new(if chunked { Left::Chunk(0, false) } else { Left::Bytes(length) }));
        if chunked || length > 0 {
            let proceed = proceed.then(|| b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
            let length = (!chunked).then_some(length);
            request.body = Body::Stream(Box::new(Incoming {
                stream: stream.clone(),
                early: early.clone(),
                left: left.clone(),
                length,
                proceed,
            }));
        }
        let head_only = request.method == Method::Head;
        let close = request
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let key = request.header("sec-websocket-key").map(str::to_string);
        let response = if request.path.starts_with("/api/") {
            api.answer(request).await
        } else {
            files(&request)
        };
        if let (101, Some(key), Some(upgrade)) = (response.status, key, response.upgrade) {
            let accept = base64(
                &sha1_smol::Sha1::from(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
                    .digest()
                    .bytes(),
            );
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            (&*stream).write_all(answer.as_bytes()).await?;
            let read = early.borrow().iter().copied().collect();
            upgrade(Box::new(Socket {
                stream,
                read,
                write: VecDeque::new(),
                closed: false,
            }))
            .await;
            return Ok(());
        }
        let response = Response { upgrade: None, ..response };
        // What of the body was not wanted is not read either: the connection ends.
        let close = close || !matches!(left.get(), Left::Bytes(0) | Left::End);
        write(&stream, response, head_only, close).await?;
        if close {
            // Closing with bytes unread resets the connection, and the answer with it.
            let mut waste = [0; 4096];
            let drain = async {
                for _ in 0..1024 {
                    if (&*stream).read(&mut waste).await.unwrap_or(0) == 0 {
                        break;
                    }
                }
            };
            let _ = stream.get_ref().shutdown(std::net::Shutdown::Write);
            smol::future::or(drain, async {
                Timer::after(Duration::from_millis(500)).await;
            })
            .await;
            return Ok(());
        }
        buffer = early.borrow().iter().copied().collect();
    }
}

type Head = (usize, Request, u64, bool, bool);

fn parse(bytes: &[u8], peer: &str) -> Result<Option<Head>, u16> {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(|_| 400_u16)? else {
        return Ok(None);
    };
    let method = Method::parse(head.method.unwrap_or("")).ok_or(501_u16)?;
    let target = head.path.unwrap_or("");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = Vec::new();
    for field in head.headers.iter() {
        headers.push((
            field.name.to_ascii_lowercase(),
            std::str::from_utf8(field.value).map_err(|_| 400_u16)?.to_string(),
        ));
    }
    let request = Request {
        method,
        path: path.into(),
        query: query.into(),
        headers,
        peer: peer.into(),
        secure: false,
        body: Body::Empty,
    };
    let body = request
        .header("content-length")
        .map_or(Ok(0), |value| value.parse::<u64>())
        .map_err(|_| 400_u16)?;
    let chunked = request
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let proceed = request
        .header("expect")
        .is_some_and(|value| value.eq_ignore_ascii_case("100-continue"));
    Ok(Some((length, request, body, chunked, proceed)))
}

async fn plain(stream: &Stream, status: u16) -> io::Result<()> {
    write(stream, Response::new(status), false, true).await
}

async fn write(stream: &Stream, response: Response, head_only: bool, close: bool) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {} \r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let length = response.body.length();
    match length {
        _ if response.status == 204 => {}
        Some(length) => head.push_str(&format!("content-length: {length}\r\n")),
        None => head.push_str("transfer-encoding: chunked\r\n"),
    }
    head.push_str(if close { "connection: close\r\n\r\n" } else { "\r\n" });
    let mut out = &**stream;
    out.write_all(head.as_bytes()).await?;
    if head_only {
        return Ok(());
    }
    match response.body {
        Body::Empty => {}
        Body::Bytes(bytes) => out.write_all(&bytes).await?,
        Body::Static(bytes) => out.write_all(bytes).await?,
        Body::Stream(mut source) => {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let count = std::future::poll_fn(|context| source.poll_read(context, &mut buffer))
                    .await
                    .map_err(|_| io::ErrorKind::BrokenPipe)?;
                if length.is_none() {
                    out.write_all(format!("{count:x}\r\n").as_bytes()).await?;
                }
                out.write_all(&buffer[..count]).await?;
                if length.is_none() {
                    out.write_all(b"\r\n").await?;
                }
                if count == 0 {
                    break;
                }
            }
        }
    }
    out.flush().await
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let number = chunk
            .iter()
            .enumerate()
            .fold(0_u32, |number, (index, byte)| number | u32::from(*byte) << (16 - 8 * index));
        (0..4)
            .map(|index| {
                if index <= chunk.len() {
                    DIGITS[(number >> (18 - 6 * index)) as usize & 63] as char
                } else {
                    '='
                }
            })
            .collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

struct Socket {
    stream: Stream,
    read: Vec<u8>,
    write: VecDeque<u8>,
    closed: bool,
}

impl Socket {
    fn frame(&mut self, opcode: u8, bytes: &[u8]) {
        self.write.push_back(0x80 | opcode);
        match bytes.len() {
            length @ 0..126 => self.write.push_back(length as u8),
            length @ 126..65536 => {
                self.write.push_back(126);
                self.write.extend((length as u16).to_be_bytes());
            }
            length => {
                self.write.push_back(127);
                self.write.extend((length as u64).to_be_bytes());
            }
        }
        self.write.extend(bytes);
    }

    fn flush(&mut self, context: &mut Context<'_>) {
        while !self.write.is_empty() {
            match Pin::new(&mut &*self.stream).poll_write(context, self.write.make_contiguous()) {
                Poll::Ready(Ok(count)) if count > 0 => drop(self.write.drain(..count)),
                Poll::Pending => return,
                Poll::Ready(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
    }

    /// Opcode and payload of a whole frame; fragments are not taken.
    fn take(&mut self) -> Result<Option<(u8, Vec<u8>)>, ()> {
        let [first, second, ..] = self.read[..] else { return Ok(None) };
        if first & 0xf0 != 0x80 || second & 0x80 == 0 {
            return Err(());
        }
        let (length, start) = match second & 127 {
            126 => match self.read.get(2..4) {
                Some(bytes) => (usize::from(u16::from_be_bytes([bytes[0], bytes[1]])), 4),
                None => return Ok(None),
            },
            127 => return Err(()),
            short => (usize::from(short), 2),
        };
        if self.read.len() < start + 4 + length {
            return Ok(None);
        }
        let mask: Vec<u8> = self.read[start..start + 4].to_vec();
        let payload = self.read[start + 4..start + 4 + length]
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        self.read.drain(..start + 4 + length);
        Ok(Some((first & 15, payload)))
    }
}

impl WebSocket for Socket {
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        loop {
            self.flush(context);
            if self.closed {
                return Poll::Ready(None);
            }
            match self.take() {
                Ok(Some((1, bytes))) => return Poll::Ready(String::from_utf8(bytes).ok().map(Message::Text)),
                Ok(Some((2, bytes))) => return Poll::Ready(Some(Message::Binary(bytes))),
                Ok(Some((9, bytes))) => self.frame(10, &bytes),
                Ok(Some((10, _))) => {}
                Ok(Some(_)) | Err(()) => self.closed = true,
                Ok(None) => {
                    let mut some = [0; 4096];
                    match std::task::ready!(Pin::new(&mut &*self.stream).poll_read(context, &mut some)) {
                        Ok(count) if count > 0 => self.read.extend_from_slice(&some[..count]),
                        _ => self.closed = true,
                    }
                }
            }
        }
    }
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        self.flush(context);
        match (self.closed, self.write.len() > 64 << 10) {
            (true, _) => Poll::Ready(false),
            (_, true) => Poll::Pending,
            _ => Poll::Ready(true),
        }
    }
    fn send(&mut self, message: Message) {
        match message {
            Message::Text(text) => self.frame(1, text.as_bytes()),
            Message::Binary(bytes) => self.frame(2, &bytes),
        }
    }
}
