//! The server on the running system.

use tessera_proto::{
    Call, Failure, FailureKind,
    vm_console::{self, ConsoleChunk, MAX_DATA},
};
use tessera_ring::{Reader, Writer};
use tessera_rt::{
    CNode, Endpoint, Frame, Notification, Reply,
    abi::{Error, object::Rights},
    exit, log, require,
    server::{Service, serve},
    slots, start, vm,
};
use tessera_vmx::scrollback::Scrollback;

/// One console.
struct Console {
    output: Scrollback<'static>,
    input: Writer<'static>,
    /// Tells the VMM that there is input.
    vmm: Notification,
    /// Slot for the notification of whoever is attached.
    listener: u32,
    attached: bool,
}

impl Console {
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

impl Service for Console {
    fn message(&mut self, call: &mut Call, request: &[u8], reply: &mut [u8]) -> usize {
        vm_console::dispatch(self, call, request, reply)
    }

    fn notified(&mut self, _bits: u64) {
        if self.output.update() {
            self.tell();
        }
    }
}

fn ring(name: &str) -> vm::Mapping {
    match vm::map(Frame::new(require(name)), Rights::READ | Rights::WRITE, 0) {
        Ok(mapping) => mapping,
        Err(error) => fail(name, error),
    }
}

fn fail(what: &str, error: Error) -> ! {
    log::error!("{what}: {}", error.text());
    exit(1, "the console cannot be set up")
}

/// The program. init has bound `vmx.signal` to its thread.
pub fn run() {
    let (output, input) = (ring("console.output"), ring("console.input"));
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
    let listener = slots::take().unwrap_or_else(|error| fail("no slot for a listener", error));
    let mut console = Console {
        output: Scrollback::new(reader),
        input: writer,
        vmm: Notification::new(require("vmm.signal")),
        listener,
        attached: false,
    };
    start::ready();
    if let Err(error) = serve(Endpoint::new(require("control")), Reply::FIRST, &mut console) {
        fail("the control endpoint cannot be served", error);
    }
}
