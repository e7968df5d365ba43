//! The serial console of a simulated machine, and its shell.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Poll, Waker},
};
use tessera_hostd::host::Console;

#[derive(Default)]
pub(super) struct Terminal {
    pub(super) output: Vec<u8>,
    pub(super) waiting: Vec<Waker>,
    pub(super) line: Vec<u8>,
    pub(super) panics: u32,
    pub(super) watchdog_timeouts: u32,
    pub(super) asleep: bool,
}

impl Terminal {
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// What somebody types: a shell that knows `panic`, `hang` and `sleep`.
    pub(super) fn take_in(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte != b'\r' && *byte != b'\n' {
                self.line.push(*byte);
                self.write(&[*byte]);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let answer = match line.as_slice() {
                b"" => String::new(),
                b"panic" => {
                    self.panics += 1;
                    "Kernel panic - not syncing: sysrq triggered crash\r\n".into()
                }
                b"sleep" => {
                    self.asleep = true;
                    String::new()
                }
                b"hang" => {
                    self.watchdog_timeouts += 1;
                    String::new()
                }
                line => format!("{}: not found\r\n", String::from_utf8_lossy(line)),
            };
            self.write(format!("\r\n{answer}/ # ").as_bytes());
        }
    }
}

pub(super) struct View(pub(super) Rc<RefCell<Terminal>>, pub(super) usize);

impl Console for View {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        let mut terminal = self.0.borrow_mut();
        let rest = terminal.output.get(self.1..).unwrap_or(&[]);
        if rest.is_empty() {
            terminal.waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.1 += count;
        Poll::Ready(count)
    }
    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<usize> {
        self.0.borrow_mut().take_in(bytes);
        Poll::Ready(bytes.len())
    }
}
