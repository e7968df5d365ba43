//! A machine's serial console on the shell's terminal: bytes go through both ways, until Ctrl-] returns.
//!
//! Nothing is polled: input, the guest's output and the log (which says when the machine or its VMX ended) all wake the terminal's wait. Only while the guest does not take its
//! input, the rest is offered again after a pause.

use crate::{
    commands::{Context, Doing, Failure},
    terminal::Style,
};
use alloc::{collections::VecDeque, format, string::String};
use core::time::Duration;
use tessera_abi::Error;
use tessera_proto::{CallError, vm_console::MAX_DATA};

/// Ctrl-].
pub const LEAVE: u8 = 0x1d;
/// Input that is kept while the guest does not take it.
const MAX_PENDING: usize = 1024;
/// Pause before input is offered again.
const RETRY: Duration = Duration::from_millis(10);
/// Offers without effect after which the input is dropped, so that Ctrl-] behind it is seen.
const MAX_RETRIES: u32 = 100;

/// Input on its way to the guest.
#[derive(Default)]
struct Input {
    pending: VecDeque<u8>,
    retries: u32,
}

/// Shows the console until Ctrl-] or until the machine ends.
///
/// # Errors
/// The console cannot be opened.
pub fn attach(context: &mut Context<'_>, name: &str) -> Result<(), Failure> {
    context.host.console_open(name).doing(&format!("open the console of {name}"))?;
    // Without the log, the end of the machine is noticed at the next key: no reason to give up.
    let _ = context.host.follow_log();
    context
        .out
        .styled_line(Style::Faint, &format!("Console of {name}; Ctrl-] returns to the shell."));
    let ended = run(context, name);
    context.host.console_close();
    if context.out.is_styled() {
        // The guest may have left a colour or a hidden cursor behind.
        context.out.terminal().write(b"\x1b[0m\x1b[?25h");
    }
    context.out.text("\n");
    match ended {
        None => context.out.styled_line(Style::Faint, &format!("Left the console of {name}.")),
        Some(reason) => context
            .out
            .styled_line(Style::Warning, &format!("The console of {name} has closed: {reason}.")),
    }
    Ok(())
}

/// Passes bytes through; `None` when Ctrl-] was typed, else why the console closed.
fn run(context: &mut Context<'_>, name: &str) -> Option<String> {
    let mut cursor = 0;
    let mut input = Input::default();
    loop {
        // A guest that never stops printing must not keep Ctrl-] from being seen: input comes first after each chunk.
        if take_input(context, &mut input) {
            return None;
        }
        if let Err(error) = offer(context, &mut input) {
            return Some(reason(&error));
        }
        let chunk = match context.host.console_read(cursor) {
            Ok(chunk) => chunk,
            Err(error) => return Some(reason(&error)),
        };
        if chunk.next != cursor {
            cursor = chunk.next;
            context.out.terminal().write(&chunk.data);
            continue;
        }
        let timeout = (!input.pending.is_empty()).then_some(RETRY);
        let wake = context.out.terminal().wait(timeout);
        // A log line may mean that the VMX was started anew and has forgotten who listens, or that there is none any more.
        if wake.event
            && let Err(error) = context.host.console_open(name)
        {
            return Some(reason(&error));
        }
    }
}

/// Why a console closes.
fn reason(error: &CallError) -> String {
    match error {
        // The endpoint belongs to the machine and goes with it.
        CallError::Kernel(Error::Deleted | Error::BadSlot) => "the machine has ended".into(),
        error => format!("{error}"),
    }
}

/// Takes what was typed; true at Ctrl-].
fn take_input(context: &mut Context<'_>, input: &mut Input) -> bool {
    while input.pending.len() < MAX_PENDING {
        match context.out.terminal().read() {
            Some(LEAVE) => return true,
            Some(byte) => input.pending.push_back(byte),
            None => break,
        }
    }
    false
}

/// Offers what was typed to the guest.
fn offer(context: &mut Context<'_>, input: &mut Input) -> Result<(), CallError> {
    while !input.pending.is_empty() {
        let bytes = input.pending.make_contiguous();
        let piece = bytes.get(..bytes.len().min(MAX_DATA)).unwrap_or_default();
        let taken = match context.host.console_write(piece) {
            // The VMX ended with the bytes: they may or may not have arrived. Typing them twice would be worse than losing them.
            Err(CallError::Kernel(Error::ServerDied)) => piece.len(),
            taken => taken?.min(piece.len()),
        };
        if taken == 0 {
            input.retries += 1;
            if input.retries >= MAX_RETRIES {
                input.pending.clear();
                input.retries = 0;
                context.out.terminal().write(b"\x07");
            }
            break;
        }
        input.pending.drain(..taken);
        input.retries = 0;
    }
    Ok(())
}

#[cfg(test)]
#[path = "console_tests.rs"]
mod tests;
