//! A viewer of screens: RFB 3.8 (RFC 6143) with raw pixels over a WebSocket, or a plain connection.

use crate::{Result, ensure, web_socket::WebSocket};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// What RFB goes over.
pub trait Wire {
    /// Sends all of it.
    ///
    /// # Errors
    /// The connection ended.
    fn send(&mut self, bytes: &[u8]) -> Result<()>;

    /// Waits for exactly so many bytes.
    ///
    /// # Errors
    /// The connection ended, or they do not come.
    fn take(&mut self, count: usize) -> Result<Vec<u8>>;
}

impl Wire for WebSocket {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Self::send(self, bytes)
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        Self::take(self, count)
    }
}

impl Wire for TcpStream {
    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.write_all(bytes)?)
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// An open view with the picture as far as it is known.
pub struct Viewer<W = WebSocket> {
    socket: W,
    /// Width of the picture in pixels.
    pub width: usize,
    /// Its height.
    pub height: usize,
    /// Its pixels, line by line: red in bits 16 to 23.
    pub pixels: Vec<u32>,
    /// Bytes of updates that came so far.
    pub received: u64,
}

/// Pixels as they are.
pub const RAW: i32 = 0;
/// Tiles, compressed (RFC 6143, 7.7.6): they are counted, not shown.
pub const ZRLE: i32 = 16;
/// Understood beside pixels: a change of size.
const DESKTOP_SIZE: i32 = -223;

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

impl<W: Wire> Viewer<W> {
    /// Goes through the handshake.
    pub fn open(socket: W) -> Result<Self> {
        Self::open_with(socket, RAW)
    }

    /// Goes through the handshake, and asks for pixels in an encoding.
    pub fn open_with(mut socket: W, encoding: i32) -> Result<Self> {
        ensure!(socket.take(12)? == b"RFB 003.008\n", "the other side does not speak RFB 3.8");
        socket.send(b"RFB 003.008\n")?;
        ensure!(socket.take(2)? == [1, 1], "a password is asked for");
        socket.send(&[1])?;
        ensure!(socket.take(4)? == [0; 4], "the viewer is not let in");
        socket.send(&[1])?;
        let head = socket.take(24)?;
        let (width, height) = (number(&head[..2]), number(&head[2..4]));
        socket.take(number(&head[20..24]))?;
        let mut encodings = vec![2, 0, 0, 2];
        encodings.extend(encoding.to_be_bytes());
        encodings.extend(DESKTOP_SIZE.to_be_bytes());
        socket.send(&encodings)?;
        let mut viewer = Self {
            socket,
            width,
            height,
            pixels: vec![0; width * height],
            received: 0,
        };
        viewer.request(false)?;
        Ok(viewer)
    }

    fn request(&mut self, incremental: bool) -> Result<()> {
        self.socket.send(&[3, incremental.into(), 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff])
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>> {
        self.received += count as u64;
        self.socket.take(count)
    }

    /// Takes one update and asks for the next.
    pub fn update(&mut self) -> Result<()> {
        let head = self.take(4)?;
        ensure!(head[0] == 0, "a message of kind {} comes", head[0]);
        for _ in 0..number(&head[2..]) {
            let head = self.take(12)?;
            let [x, y, width, height] = [0, 2, 4, 6].map(|place| number(&head[place..place + 2]));
            match i32::from_be_bytes([head[8], head[9], head[10], head[11]]) {
                DESKTOP_SIZE => (self.width, self.height, self.pixels) = (width, height, vec![0; width * height]),
                ZRLE => {
                    let length = self.take(4)?;
                    self.take(number(&length))?;
                }
                RAW => {
                    ensure!(
                        x + width <= self.width && y + height <= self.height,
                        "a rectangle is outside of the picture"
                    );
                    let bytes = self.take(4 * width * height)?;
                    for (line, row) in bytes.chunks(4 * width).enumerate() {
                        let place = (y + line) * self.width + x;
                        for (pixel, bytes) in self.pixels[place..place + width].iter_mut().zip(row.chunks(4)) {
                            *pixel = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                        }
                    }
                }
                other => ensure!(false, "an encoding {other} comes that was not asked for"),
            }
        }
        self.request(true)
    }

    /// Takes updates until the picture is as wanted; the watchdog bounds it.
    pub fn until(&mut self, mut wanted: impl FnMut(&Self) -> bool) -> Result<()> {
        while !wanted(self) {
            self.update()?;
        }
        Ok(())
    }

    /// Types a character.
    pub fn press(&mut self, character: char) -> Result<()> {
        for down in [1, 0] {
            let mut key = vec![4, down, 0, 0];
            key.extend((character as u32).to_be_bytes());
            self.socket.send(&key)?;
        }
        Ok(())
    }

    /// Moves the pointer.
    pub fn point(&mut self, x: u16, y: u16) -> Result<()> {
        self.point_with(0, x, y)
    }

    /// Moves the pointer, with these buttons down: left 1, middle 2, right 4, a step of the wheel away from the user 8.
    pub fn point_with(&mut self, buttons: u8, x: u16, y: u16) -> Result<()> {
        let ([a, b], [c, d]) = (x.to_be_bytes(), y.to_be_bytes());
        self.socket.send(&[5, buttons, a, b, c, d])
    }

    /// Colour of a pixel.
    #[must_use]
    pub fn pixel(&self, x: usize, y: usize) -> u32 {
        self.pixels.get(y * self.width + x).copied().unwrap_or(u32::MAX)
    }
}

impl Viewer {
    /// Whether the other side ends the view.
    pub fn ends(&mut self) -> Result<bool> {
        self.socket.ends()
    }
}
