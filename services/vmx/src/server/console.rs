//! The serial console: rings that are shared with the VMM.

use super::{fail, map};
use tessera_proto::{
    Call, Failure, FailureKind,
    vm_console::{self, ConsoleChunk, MAX_DATA},
};
use tessera_ring::{Reader, Writer};
use tessera_rt::{CNode, Notification, abi::object::Rights, exit, require, slots};
use tessera_vmx::scrollback::Scrollback;

/// One console.
pub struct Console {
    output: Scrollback<'static>,
    input: Writer<'static>,
    /// Tells the VMM that there is input.
    vmm: Notification,
    /// Slot for the notification of whoever is attached.
    listener: u32,
    attached: bool,
}

impl Console {
    /// Puts the rings in place.
    pub fn attach() -> Self {
        let (output, input) = (
            map("console.output", Rights::READ | Rights::WRITE),
            map("console.input", Rights::READ | Rights::WRITE),
        );
        // SAFETY: both mappings stay for the life of the process, and only these two use them.
        let (reader, writer) = unsafe {
            (
                Reader::attach(output.as_ptr(), output.length),
                Writer::attach(input.as_ptr(), input.length),
            )
        };
        let (Some(reader), Some(writer)) = (reader, writer) else {
            exit(1, "a console ring is too small")
        };
        Self {
            output: Scrollback::new(reader),
            input: writer,
            vmm: Notification::new(require("vmm.signal")),
            listener: slots::take().unwrap_or_else(|error| fail("no slot for a listener", error)),
            attached: false,
        }
    }

    /// The guest may have printed.
    pub fn look(&mut self) {
        if self.output.update() {
            self.tell();
        }
    }

    fn tell(&mut self) {
        // The listener may have ended; it attaches again when it is back.
        if self.attached && Notification::new(self.listener).signal().is_err() {
            self.attached = false;
        }
    }
}

impl vm_console::Server for Console {
    fn attach(&mut self, call: &mut Call) -> Result<(), Failure> {
        let Some(slot) = call.cap(0) else {
            return Err(FailureKind::BadRequest.into());
        };
        // An empty slot answers BadSlot, which is as good.
        let _ = CNode::OWN.delete(self.listener);
        self.attached = false;
        CNode::OWN.take(self.listener, CNode::OWN, slot).map_err(|error| {
            Failure::new(
                FailureKind::Internal,
                format_args!("the console cannot keep the notification: {}", error.text()),
            )
        })?;
        self.attached = true;
        Ok(())
    }

    fn detach(&mut self, _call: &mut Call) -> Result<(), Failure> {
        self.attached = false;
        let _ = CNode::OWN.delete(self.listener);
        Ok(())
    }

    fn read(&mut self, _call: &mut Call, cursor: u64) -> Result<ConsoleChunk, Failure> {
        self.output.update();
        let chunk = self.output.read(cursor, MAX_DATA);
        Ok(ConsoleChunk {
            next: chunk.next,
            lost: chunk.lost,
            data: chunk.data,
        })
    }

    fn write(&mut self, _call: &mut Call, data: &[u8]) -> Result<u32, Failure> {
        let written = self.input.write(data);
        if written > 0 {
            // The VMM may be ending; init will say so.
            let _ = self.vmm.signal();
        }
        Ok(written as u32)
    }
}
