//! A booted host and its debug shell.

use crate::{Failure, Result, ensure, machine::Machine, serial::Serial, text::columns};

/// What the shell prints when it waits for a command.
pub const PROMPT: &str = "tessera> ";
/// The key that leaves a guest's console.
pub const LEAVE: &[u8] = &[0x1d];

/// A host whose shell waits for a command.
pub struct Host {
    /// The machine.
    pub machine: Machine,
    /// What came before the first prompt: boot progress and banner.
    pub boot_text: String,
}

impl Host {
    /// Waits for the first prompt.
    pub fn new(mut machine: Machine) -> Result<Self> {
        let boot_text = machine.serial.expect(PROMPT)?;
        Ok(Self { machine, boot_text })
    }

    /// COM1.
    pub fn serial(&mut self) -> &mut Serial {
        &mut self.machine.serial
    }

    /// COM2.
    pub fn com2(&mut self) -> Result<&mut Serial> {
        self.machine.com2()
    }

    /// Runs a command and returns what it printed, without echo and prompt.
    pub fn command(&mut self, line: &str) -> Result<String> {
        self.start_command(line)?;
        let output = self.machine.serial.expect(PROMPT)?;
        Ok(output.trim_matches('\n').to_owned())
    }

    /// Types a command and waits for its echo.
    pub fn start_command(&mut self, line: &str) -> Result<()> {
        self.machine.serial.send(line.as_bytes())?;
        // A line that is too long for the terminal is shown in part.
        if columns(PROMPT) + columns(line) < 80 {
            self.machine.serial.expect(line)?;
        }
        self.machine.serial.send(b"\r")?;
        self.machine.serial.expect("\n")?;
        Ok(())
    }

    /// As [`Self::command`], and fails when a line is wider than 80 columns or the output is empty.
    pub fn neat_command(&mut self, line: &str) -> Result<String> {
        let output = self.command(line)?;
        ensure!(!output.trim().is_empty(), "`{line}` printed nothing");
        if let Some(wide) = output.lines().find(|l| columns(l) > 80) {
            return Err(Failure::new(format!(
                "`{line}` printed a line of {} columns: {wide}",
                columns(wide)
            )));
        }
        Ok(output)
    }

    /// Runs `line` again until its output satisfies `done`; the watchdog bounds it.
    pub fn poll_command(&mut self, line: &str, mut done: impl FnMut(&str) -> bool) -> Result<String> {
        loop {
            let output = self.command(line)?;
            if done(&output) {
                return Ok(output);
            }
            // Only so that asking does not take the machine's whole time; nothing depends on how long this is.
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    /// The pages that `mem` says are free.
    pub fn free_pages(&mut self) -> Result<u64> {
        let text = self.neat_command("mem")?;
        free_pages(&text).ok_or_else(|| Failure::new(format!("`mem` has no line about free memory:\n{text}")))
    }

    /// Waits until at least `pages` are free, as they were before. More is right: what had just ended then may have given back the last of its memory afterwards.
    pub fn wait_for_free(&mut self, pages: u64) -> Result<()> {
        self.poll_command("mem", |text| free_pages(text).is_some_and(|free| free >= pages))?;
        Ok(())
    }

    /// Waits until free memory is zeroed ahead, but for at most 1 MiB in small pieces.
    pub fn wait_until_zeroed(&mut self) -> Result<()> {
        let is_zeroed = |text: &str| {
            free_pages(text)
                .zip(zeroed_pages(text))
                .is_some_and(|(free, zeroed)| zeroed + 256 >= free)
        };
        self.poll_command("mem", is_zeroed)?;
        Ok(())
    }

    /// Waits until a server of this name runs.
    pub fn wait_until_runs(&mut self, server: &str) -> Result<()> {
        self.poll_command("ps", |text| {
            text.lines().any(|line| line.contains(server) && line.contains("running"))
        })?;
        Ok(())
    }

    /// Opens a guest's console and waits for `text` on it (from its scrollback or live).
    pub fn console(&mut self, vm: &str, text: &str) -> Result<String> {
        self.start_command(&format!("vm console {vm}"))?;
        match self.machine.serial.expect_any(&[text, PROMPT])? {
            (0, before) => Ok(before),
            (_, answer) => Err(Failure::new(format!(
                "the console of {vm} ended before '{text}': {}",
                answer.trim()
            ))),
        }
    }

    /// Leaves a guest's console.
    pub fn leave_console(&mut self) -> Result<String> {
        self.machine.serial.send(LEAVE)?;
        self.machine.serial.expect(PROMPT)
    }
}

/// The number of pages in the line of `mem` about what is free.
fn free_pages(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("free "))?;
    // The size is two words, the pages come after it.
    line.split_whitespace().nth(2)?.parse().ok()
}

/// The number of pages in the line of `mem` about what is zeroed ahead.
fn zeroed_pages(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.trim().starts_with("Zeroed ahead"))?;
    line.split_once('(')?.1.split_once(' ')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{free_pages, zeroed_pages};

    #[test]
    fn zeroed_pages_are_read_from_their_line() {
        let text = "Largest free run: 512 MiB (131072 pages)\nZeroed ahead, of what is free: 6.2 MiB (1600 pages)";
        assert_eq!(zeroed_pages(text), Some(1600));
        assert_eq!(zeroed_pages("Largest free run: 512 MiB (131072 pages)"), None);
    }

    #[test]
    fn free_pages_are_read_from_the_table() {
        let table = "guests                   0 B       0    0.0\nfree                 1.9 GiB  508832   97.0\nLargest free run: 512 MiB (131072 pages)";
        assert_eq!(free_pages(table), Some(508_832));
        assert_eq!(free_pages("guests 0 B 0 0.0"), None);
    }
}
