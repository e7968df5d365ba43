//! The screen of a machine, served by its VMX.

use super::{
    Answer,
    console::{PATIENCE, Pause, Pieces},
    failed, machines,
};
use alloc::{boxed::Box, format, rc::Rc};
use core::task::{Context, Poll};
use tessera_hostd::{
    host::{Console, Failure, HostError, ScreenView},
    platform::Platform,
};
use tessera_proto::{
    CallError,
    vm_manager::VmService,
    vm_screen::View as Kind,
    vm_screen::{Client, Keys, MAX_DATA, MAX_TEXT},
};
use tessera_rt::Connection;

struct View {
    client: Client<Connection>,
    /// Frees the slot at the end.
    _slot: machines::Slot,
    number: u64,
    /// Place in the stream of what is read next.
    from: u64,
    pieces: Pieces,
    last: bool,
    reading: Pause,
    writing: Pause,
}

/// Opens a machine's screen.
pub fn open(name: &str, view: ScreenView, platform: Rc<dyn Platform>) -> Answer<Box<dyn Console>> {
    let slot = machines::connect(name, VmService::Console, machines::CONNECT_PATIENCE)?;
    let mut client = Client(slot.connection(PATIENCE));
    let kind = match view {
        ScreenView::Rfb => Kind::Rfb,
        ScreenView::Picture { divisor } => Kind::Picture { divisor },
    };
    let number = client.open(kind).map_err(|error| refused(name, &error))?;
    Ok(Box::new(View {
        client,
        _slot: slot,
        number,
        from: 0,
        pieces: Pieces::default(),
        last: false,
        reading: Pause::new(platform.clone()),
        writing: Pause::new(platform),
    }))
}

fn refused(name: &str, error: &CallError) -> HostError {
    match error {
        CallError::Failed(failure) if failure.kind == tessera_proto::FailureKind::Unsupported => {
            HostError::new(Failure::Unsupported, format!("{name} has no screen"))
        }
        _ => failed(&format!("The screen of {name} cannot be reached"), error),
    }
}

/// Presses keys, then types a text.
pub fn type_at(name: &str, codes: &[u16], text: &str) -> Answer<()> {
    let slot = machines::connect(name, VmService::Console, machines::CONNECT_PATIENCE)?;
    let mut client = Client(slot.connection(PATIENCE));
    if !codes.is_empty() {
        let keys = Keys { codes: codes.to_vec() };
        client.press(keys).map_err(|error| refused(name, &error))?;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let part = rest.get(..rest.floor_char_boundary(MAX_TEXT)).unwrap_or(rest);
        let taken = client.type_text(part).map_err(|error| refused(name, &error))? as usize;
        if taken == 0 {
            let text = format!(
                "{name} does not take what was typed: {} of {} bytes are left",
                rest.len(),
                text.len()
            );
            return Err(HostError::new(Failure::Busy, text));
        }
        rest = rest.get(taken..).unwrap_or("");
    }
    Ok(())
}

impl Drop for View {
    fn drop(&mut self) {
        // A VMX that does not answer forgets it by itself.
        let _ = self.client.close(self.number);
    }
}

impl Console for View {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<usize> {
        if self.pieces.is_empty() {
            if self.last {
                return Poll::Ready(0);
            }
            if self.reading.lasts(context) {
                return Poll::Pending;
            }
            // One that was started again knows nothing of this view, which ends then: the viewer comes back with another ticket.
            let Ok(chunk) = self.client.read(self.number, self.from) else {
                return Poll::Ready(0);
            };
            self.from += chunk.data.len() as u64;
            self.last = chunk.last;
            self.pieces.put(chunk.data);
            if self.pieces.is_empty() {
                if self.last {
                    return Poll::Ready(0);
                }
                self.reading.begin(context);
                return Poll::Pending;
            }
        }
        Poll::Ready(self.pieces.take(buffer))
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<usize> {
        if bytes.is_empty() {
            return Poll::Ready(0);
        }
        if self.writing.lasts(context) {
            return Poll::Pending;
        }
        let part = bytes.get(..MAX_DATA).unwrap_or(bytes);
        match self.client.write(self.number, part) {
            Ok(0) => {
                self.writing.begin(context);
                Poll::Pending
            }
            Ok(taken) => Poll::Ready((taken as usize).min(part.len())),
            Err(_) => Poll::Ready(0),
        }
    }
}
