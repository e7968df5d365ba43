//! One serial port of an emulated machine: bytes go in, lines are waited for.

use crate::{Failure, Result, text::Plain};
use regex::Regex;
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
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
    /// Where the emulator says why it ended.
    emulator_log: Option<PathBuf>,
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
            emulator_log: None,
        })
    }

    /// Names the emulator's own log, whose end a failure quotes when the machine has ended.
    #[must_use]
    pub fn with_emulator_log(mut self, path: PathBuf) -> Self {
        self.emulator_log = Some(path);
        self
    }

    /// Puts the log so far beside itself, where no later machine of the same name writes.
    pub fn keep_log(&self) {
        // It is only there to be looked at.
        let _ = fs::copy(&self.log, self.log.with_extension("failed.log"));
    }

    /// Moves the end of every wait to `limit` from now on.
    pub fn wait_at_most(&mut self, limit: Duration) {
        self.deadline = Instant::now() + limit;
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
                let ended = received.closed;
                drop(received);
                let words = if ended { self.last_words() } else { String::new() };
                return Err(Failure::new(format!(
                    "{}: {problem} while waiting for '{what}'; {}{words}",
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

    /// What the emulator said before it ended, for failures.
    fn last_words(&self) -> String {
        let Some(path) = &self.emulator_log else { return String::new() };
        // Without a log there is nothing to quote.
        let text = fs::read(path).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
        let words = complaints(&text);
        if words.is_empty() {
            return String::new();
        }
        format!("\n  the emulator said (all in {}):\n    {}", path.display(), words.join("\n    "))
    }
}

/// The last lines of an emulator's log that say something is wrong. Bochs marks them with `p[` and `e[` behind the time, and prints all registers after the last one;
/// QEMU writes nothing else.
fn complaints(log: &str) -> Vec<&str> {
    let level = |line: &str| line.trim_start_matches(|c: char| c.is_ascii_digit()).bytes().next();
    let is_bochs = log.lines().any(|line| line.starts_with("0000000000"));
    let mut lines: Vec<&str> = log
        .lines()
        .filter(|line| !line.trim().is_empty() && (!is_bochs || matches!(level(line), Some(b'p' | b'e'))))
        .collect();
    lines.drain(..lines.len().saturating_sub(6));
    lines
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
    use std::io::Cursor;

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
    fn the_emulators_complaints_are_found() {
        let bochs = "00000000000i[      ] started\n00323988703e[CPU0  ] VMENTRY FAIL: bad\n00323988704p[CPU0  ] >>PANIC<< 3rd exception\n00323988704i[CPU0  ] | RAX=0\n";
        assert_eq!(complaints(bochs).len(), 2);
        assert_eq!(complaints("qemu: out of memory\n"), ["qemu: out of memory"]);
    }

    #[test]
    fn a_fatal_text_fails_only_before_the_match() {
        let mut port = serial("ready\nPANIC: x\nmore\n");
        port.fatal("PANIC");
        port.expect("ready").unwrap();
        assert!(port.expect("more").unwrap_err().0.contains("'PANIC' came"));
    }
}
