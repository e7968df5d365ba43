//! One serial port of an emulated machine: bytes go in, lines are waited for.

use crate::{Failure, Result, text::Plain};
use regex::Regex;
use std::{
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::Instant,
};

/// What came in so far, without escape sequences.
#[derive(Debug, Default)]
struct Received {
    text: Vec<u8>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    received: Mutex<Received>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Received> {
        // The holder only appends bytes; what it leaves behind after a panic is still a valid text.
        self.received.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A serial port.
pub struct Serial {
    name: String,
    writer: Box<dyn Write + Send>,
    shared: Arc<Shared>,
    /// Everything before this offset was consumed by an earlier wait.
    cursor: usize,
    deadline: Instant,
    log: PathBuf,
    fatal: Vec<String>,
}

impl Serial {
    /// Reads `reader` to its end on a thread of its own, and keeps what comes in `log`, raw.
    pub fn new(name: &str, mut reader: Box<dyn Read + Send>, writer: Box<dyn Write + Send>, log: &Path, deadline: Instant) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut file = File::create(log).map_err(|e| Failure::new(format!("cannot write {}: {e}", log.display())))?;
        let sink = Arc::clone(&shared);
        thread::spawn(move || {
            let mut plain = Plain::default();
            let mut buffer = [0; 4096];
            loop {
                let count = match reader.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => count,
                };
                // A log that cannot be written (disk full) must not stop the test.
                let _ = file.write_all(&buffer[..count]);
                plain.push(&buffer[..count], &mut sink.lock().text);
                sink.changed.notify_all();
            }
            sink.lock().closed = true;
            sink.changed.notify_all();
        });
        Ok(Self {
            name: name.into(),
            writer,
            shared,
            cursor: 0,
            deadline,
            log: log.into(),
            fatal: Vec::new(),
        })
    }

    /// From now on, every wait fails at once when `text` appears before what it waits for.
    pub fn fatal(&mut self, text: &str) {
        self.fatal.push(text.into());
    }

    /// Waits for any of `texts`. Returns which one came first and what stood before it; the next wait begins behind it.
    pub fn expect_any(&mut self, texts: &[&str]) -> Result<(usize, String)> {
        self.wait(&texts.join("' or '"), |unread| {
            texts
                .iter()
                .enumerate()
                .filter_map(|(index, text)| find(unread, text.as_bytes()).map(|at| (at, at + text.len(), index)))
                .min_by_key(|&(at, end, _)| (at, usize::MAX - end))
        })
    }

    /// Waits for `text` and returns what stood before it.
    pub fn expect(&mut self, text: &str) -> Result<String> {
        self.expect_any(&[text]).map(|(_, before)| before)
    }

    /// Waits for a complete line that matches and returns its groups (0: the whole match).
    pub fn expect_line(&mut self, pattern: &str) -> Result<Vec<String>> {
        let regex = Regex::new(pattern).map_err(|e| Failure::new(e.to_string()))?;
        let mut groups = Vec::new();
        self.wait(pattern, |unread| {
            let mut start = 0;
            for line in unread.split_inclusive(|&b| b == b'\n') {
                let end = start + line.len();
                if line.ends_with(b"\n") {
                    let line = String::from_utf8_lossy(&line[..line.len() - 1]);
                    if let Some(captures) = regex.captures(&line) {
                        groups = captures
                            .iter()
                            .map(|g| g.map_or(String::new(), |m| m.as_str().to_owned()))
                            .collect();
                        return Some((start, end, 0));
                    }
                }
                start = end;
            }
            None
        })?;
        Ok(groups)
    }

    /// Whether `text` came in since the last wait's match; consumes nothing and does not wait.
    #[must_use]
    pub fn has(&self, text: &str) -> bool {
        find(&self.shared.lock().text[self.cursor..], text.as_bytes()).is_some()
    }

    /// Everything that ever came in.
    #[must_use]
    pub fn all(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().text).into_owned()
    }

    /// Forgets what has come in so far.
    pub fn skip_all(&mut self) {
        self.cursor = self.shared.lock().text.len();
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer
            .write_all(bytes)
            .and_then(|()| self.writer.flush())
            .map_err(|e| Failure::new(format!("{}: cannot send: {e}; {}", self.name, self.tail())))
    }

    /// Sends a line as a terminal does.
    pub fn send_line(&mut self, line: &str) -> Result<()> {
        self.send(format!("{line}\r").as_bytes())
    }

    /// Waits until the machine closes the port, which it does when it ends.
    pub fn expect_end(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut received = shared.lock();
        while !received.closed {
            let Some(left) = self.deadline.checked_duration_since(Instant::now()) else {
                drop(received);
                return Err(Failure::new(format!("{}: the machine did not end; {}", self.name, self.tail())));
            };
            received = shared
                .changed
                .wait_timeout(received, left)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
        Ok(())
    }

    /// `search` gets the unread text and returns start, end and a tag of what it found.
    fn wait(&mut self, what: &str, mut search: impl FnMut(&[u8]) -> Option<(usize, usize, usize)>) -> Result<(usize, String)> {
        let shared = Arc::clone(&self.shared);
        let mut received = shared.lock();
        loop {
            let unread = &received.text[self.cursor..];
            let found = search(unread);
            let horizon = found.map_or(unread.len(), |(start, ..)| start);
            if let Some(fatal) = self.fatal.iter().find(|f| find(&unread[..horizon], f.as_bytes()).is_some()) {
                let text = format!("{}: '{fatal}' came while waiting for '{what}'", self.name);
                drop(received);
                return Err(Failure::new(format!("{text}; {}", self.tail())));
            }
            if let Some((start, end, tag)) = found {
                let before = String::from_utf8_lossy(&unread[..start]).into_owned();
                self.cursor += end;
                return Ok((tag, before));
            }
            let problem = if received.closed { Some("the machine ended") } else { None };
            let left = self.deadline.checked_duration_since(Instant::now());
            let problem = problem.or(if left.is_none() { Some("the watchdog ran out") } else { None });
            if let Some(problem) = problem {
                drop(received);
                return Err(Failure::new(format!(
                    "{}: {problem} while waiting for '{what}'; {}",
                    self.name,
                    self.tail()
                )));
            }
            received = shared
                .changed
                .wait_timeout(received, left.unwrap_or_default())
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
    }

    /// The last lines, for failures.
    fn tail(&self) -> String {
        let all = self.all();
        let lines: Vec<&str> = all.lines().filter(|l| !l.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(12)..];
        format!("last seen (all in {}):\n    {}", self.log.display(), last.join("\n    "))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    if needle.is_empty() {
        return Some(0);
    }
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Cursor, time::Duration};

    fn serial(input: &'static str) -> Serial {
        let log = std::env::temp_dir().join(format!("tessera-serial-{}-{:p}.log", std::process::id(), input));
        let deadline = Instant::now() + Duration::from_secs(20);
        Serial::new("test", Box::new(Cursor::new(input)), Box::new(Vec::new()), &log, deadline).unwrap()
    }

    #[test]
    fn waits_consume_in_order() {
        let mut port = serial("boot\nprompt> ps\nname state\nprompt> ");
        assert_eq!(port.expect("prompt> ").unwrap(), "boot\n");
        assert_eq!(port.expect_line("^name (.*)$").unwrap()[1], "state");
        assert_eq!(port.expect_any(&["nothing", "prompt> "]).unwrap().0, 1);
        assert!(port.expect("prompt> ").unwrap_err().0.contains("machine ended"));
    }

    #[test]
    fn a_fatal_text_fails_only_before_the_match() {
        let mut port = serial("ready\nPANIC: x\nmore\n");
        port.fatal("PANIC");
        port.expect("ready").unwrap();
        assert!(port.expect("more").unwrap_err().0.contains("'PANIC' came"));
    }
}
