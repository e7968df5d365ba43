//! The guest's serial line: two rings shared with the VMX.

use tessera_ring::{Reader, Writer};
use tessera_rt::{Frame, Notification, abi::object::Rights, log, require, vm};
use tessera_vmm::devices::chipset::Console;
use tessera_vmm::devices::uart::Sink;

/// Bytes after which the VMX is told, whether the line is finished or not.
const BATCH: usize = 256;

/// Both directions.
pub struct RingConsole {
    output: Writer<'static>,
    input: Reader<'static>,
    /// Tells the VMX that there is output.
    signal: Notification,
    unflushed: usize,
}

impl RingConsole {
    /// Maps the rings.
    pub fn attach() -> Result<Self, &'static str> {
        let map = |name| vm::map(Frame::new(require(name)), Rights::READ | Rights::WRITE, 0).map_err(|_| "a console ring cannot be mapped");
        let (output, input) = (map("console.output")?, map("console.input")?);
        // SAFETY: both mappings stay for the life of the process, and only these two use them.
        let (writer, reader) = unsafe {
            (
                Writer::attach(output.as_ptr(), output.length),
                Reader::attach(input.as_ptr(), input.length),
            )
        };
        let (Some(output), Some(input)) = (writer, reader) else {
            return Err("a console ring is too small");
        };
        Ok(Self {
            output,
            input,
            signal: Notification::new(require("vmx.signal")),
            unflushed: 0,
        })
    }
}

impl Sink for RingConsole {
    fn send(&mut self, byte: u8) {
        // The VMX keeps the scrollback in the ring; when it lags behind, what does not fit is lost, as on a real line without flow control.
        if self.output.write(&[byte]) == 0 {
            self.flush();
            return;
        }
        self.unflushed += 1;
        if byte == b'\n' || self.unflushed >= BATCH {
            self.flush();
        }
    }
}

impl Console for RingConsole {
    fn receive(&mut self) -> Option<u8> {
        let mut byte = [0];
        (self.input.read(&mut byte) == 1).then_some(byte[0])
    }

    fn has_input(&mut self) -> bool {
        self.input.available() > 0
    }

    fn has_unflushed(&self) -> bool {
        self.unflushed > 0
    }

    fn debug(&mut self, line: &str) {
        log::debug!("{line}");
    }

    fn flush(&mut self) {
        self.unflushed = 0;
        // The VMX may be starting anew; it looks at the ring when it is back.
        let _ = self.signal.signal();
    }
}
