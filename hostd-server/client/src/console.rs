//! A machine's serial console: a WebSocket (RFC 6455) between the terminal and the host.

use crate::http::Place;
use anyhow::{Context, Result, bail};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io::{ErrorKind, IsTerminal, Read, Write},
    process::{Command, Stdio},
    sync::mpsc::{self, TryRecvError},
    time::{Duration, Instant},
};

/// Leaves the console: Ctrl-].
const LEAVE: u8 = 0x1d;
/// Most bytes of a frame that is taken; the host's are of at most 4 KiB.
const MOST: u64 = 1 << 20;
/// How long one look at the host waits before one at the keyboard.
const LOOK: Duration = Duration::from_millis(20);
/// Input that is no keyboard leaves the console when it has ended and the machine was silent for so long.
const SILENCE: Duration = Duration::from_secs(3);

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A terminal that gives each key at once, and is what it was when this is dropped.
struct Raw(Option<String>);

impl Raw {
    fn begin() -> Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Self(None));
        }
        let before = Command::new("stty")
            .arg("-g")
            .stdin(Stdio::inherit())
            .output()
            .context("stty cannot be run")?;
        let before = String::from_utf8_lossy(&before.stdout).trim().to_owned();
        let raw = Command::new("stty").args(["raw", "-echo"]).status().context("stty cannot be run")?;
        if before.is_empty() || !raw.success() {
            bail!("stty cannot set the terminal");
        }
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = Command::new("stty").arg(before).status();
        }
    }
}

/// Bytes that nobody foresees: they keep what is typed from looking like another protocol to what stands between (10.3).
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// A client's frame: whole, and masked (5.2, 5.3).
fn frame(kind: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![0x80 | kind];
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// Takes a whole frame of the host out of what came; `None`: there is more to come.
///
/// # Errors
/// It breaks the protocol, or is too long.
fn take(came: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>> {
    let [first, second, rest @ ..] = came.as_slice() else {
        return Ok(None);
    };
    if second & 0x80 != 0 || first & 0x70 != 0 {
        bail!("the host breaks the WebSocket protocol");
    }
    let wide = match second {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let Some(length) = rest.get(..wide) else {
        return Ok(None);
    };
    let length = match wide {
        0 => u64::from(*second),
        _ => length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    if length > MOST {
        bail!("the host sends a frame of {length} bytes");
    }
    let (kind, head) = (first & 15, 2 + wide);
    let end = head + length as usize;
    if came.len() < end {
        return Ok(None);
    }
    let payload = came[head..end].to_vec();
    came.drain(..end);
    Ok(Some((kind, payload)))
}

/// What is typed, up to Ctrl-] or the end.
fn keyboard() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(16);
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = std::io::stdin().read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Connects the terminal with the console of a machine until Ctrl-], or until the host ends it.
///
/// # Errors
/// The host refused, was not reached, or the connection broke.
pub fn run(place: &Place, id: &str, name: &str) -> Result<()> {
    // The certificate says already who answers: what the accepting key would prove (4.2.2) is not looked at.
    let headers = [
        ("Connection", "Upgrade".to_owned()),
        ("Upgrade", "websocket".into()),
        ("Sec-WebSocket-Version", "13".into()),
        ("Sec-WebSocket-Key", format!("{:016x}{:05x}A==", random(), random() & 0xf_ffff)),
    ];
    let answer = place.send(
        "GET",
        &format!("/api/v1/vms/{id}/console"),
        &headers,
        0,
        &mut std::io::empty(),
        |_| (),
    )?;
    if answer.status != 101 {
        answer.json()?;
        bail!("the host does not open a console");
    }
    eprintln!("Console of {name}; Ctrl-] leaves it.");
    let raw = Raw::begin()?;
    let (mut stream, socket) = (answer.stream, answer.socket);
    socket.set_read_timeout(Some(LOOK))?;
    let (keys, mut screen) = (keyboard(), std::io::stdout());
    let (mut came, mut buffer, mut ended) = (Vec::new(), vec![0; 4096], None);
    let send = |stream: &mut std::io::BufReader<Box<dyn crate::http::Stream>>, kind, payload: &[u8]| {
        let mask = (random() as u32).to_be_bytes();
        let stream = stream.get_mut();
        stream.write_all(&frame(kind, payload, mask)).and_then(|()| stream.flush())
    };
    'open: loop {
        match keys.try_recv() {
            Ok(typed) => {
                let leave = typed.iter().position(|byte| *byte == LEAVE);
                send(&mut stream, BINARY, &typed[..leave.unwrap_or(typed.len())])?;
                if leave.is_some() {
                    break;
                }
            }
            Err(TryRecvError::Disconnected) => {
                if ended.get_or_insert_with(Instant::now).elapsed() > SILENCE {
                    break;
                }
            }
            Err(TryRecvError::Empty) => {}
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => came.extend(&buffer[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
            Err(error) => {
                drop(raw);
                return Err(error).context("the connection broke");
            }
        }
        while let Some((kind, payload)) = take(&mut came)? {
            match kind {
                // 0: a message goes on.
                0 | TEXT | BINARY => {
                    screen.write_all(&payload)?;
                    screen.flush()?;
                    ended = ended.map(|_| Instant::now());
                }
                PING => send(&mut stream, PONG, &payload)?,
                CLOSE => break 'open,
                _ => {}
            }
        }
    }
    let _ = send(&mut stream, CLOSE, &1000_u16.to_be_bytes());
    drop(raw);
    eprintln!();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a host makes of a payload: the same without a mask.
    fn of_host(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(kind, payload, [0; 4]);
        bytes[1] &= 0x7f;
        let mask = bytes.len() - payload.len() - 4;
        bytes.drain(mask..mask + 4);
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn frames_come_out_whole_however_they_are_cut(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..6), cut in 1_usize..64
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|payload| of_host(BINARY, payload)).collect();
            let (mut came, mut found) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                came.extend(piece);
                while let Some((kind, payload)) = take(&mut came).unwrap() {
                    prop_assert_eq!(kind, BINARY);
                    found.push(payload);
                }
            }
            prop_assert_eq!(found, payloads);
            prop_assert!(came.is_empty());
        }

        #[test]
        fn whatever_a_host_sends_is_refused_or_bounded(mut came in prop::collection::vec(any::<u8>(), 0..64)) {
            let length = came.len();
            while let Ok(Some((_, payload))) = take(&mut came) {
                prop_assert!(payload.len() < length);
            }
        }
    }

    #[test]
    fn long_frames_are_refused_before_they_come() {
        let mut came = vec![0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0];
        assert!(take(&mut came).is_err());
    }

    #[test]
    fn masks_are_laid_over_what_is_typed() {
        assert_eq!(frame(BINARY, b"ab", [1, 2, 3, 4]), [0x82, 0x82, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2]);
    }
}
