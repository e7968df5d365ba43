//! A machine's serial console on the shell's terminal: bytes go through both ways, until Ctrl-] returns.
//!
//! Nothing is polled: input, the guest's output and the log (which says when the machine or its VMX ended) all wake the terminal's wait. Only while the guest does not take its
//! input, the rest is offered again after a pause.

use crate::{
    commands::{Context, Doing, Failure},
    host::Answer,
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

/// Shows the console until Ctrl-] or until the machine ends. One that does not answer yet, because its VMX is just being started or its processor is busy, is waited for.
///
/// # Errors
/// The console cannot be opened.
pub fn attach(context: &mut Context<'_>, name: &str) -> Result<(), Failure> {
    let late = match context.host.console_open(name) {
        Err(CallError::Kernel(Error::TimedOut)) => true,
        opened => opened.doing(&format!("open the console of {name}")).map(|()| false)?,
    };
    // Without the log, the end of the machine is noticed at the next key: no reason to give up.
    let _ = context.host.follow_log();
    context
        .out
        .styled_line(Style::Faint, &format!("Console of {name}; Ctrl-] returns to the shell."));
    let ended = run(context, name, late);
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

/// Passes bytes through; `late` if attaching has yet to succeed. `None` when Ctrl-] was typed, else why the console closed.
fn run(context: &mut Context<'_>, name: &str, late: bool) -> Option<String> {
    let mut cursor = 0;
    let mut input = Input::default();
    let (mut attach, mut late) = (late, false);
    loop {
        // A guest that never stops printing must not keep Ctrl-] from being seen: input comes first after each chunk.
        if take_input(context, &mut input) {
            // What was typed before Ctrl-] is still meant for the guest. It is offered once; a console that has just failed does not matter any more.
            let _ = offer(context, &mut input);
            return None;
        }
        match exchange(context, name, &mut input, &mut cursor, &mut attach) {
            // There may be more.
            Ok(true) => continue,
            Ok(false) => late = false,
            Err(CallError::Kernel(Error::TimedOut)) => {
                if !late {
                    context.out.styled_line(Style::Faint, "(The console does not answer yet.)");
                }
                late = true;
            }
            Err(error) => return Some(reason(&error)),
        }
        let wake = context.out.terminal().wait((late || !input.pending.is_empty()).then_some(RETRY));
        // A log line may mean that the VMX was started anew and has forgotten who listens, or that there is none any more.
        attach |= wake.log || late;
    }
}

/// Attaches if that is due, sends what was typed, and prints what the guest printed; true if it printed something.
fn exchange(context: &mut Context<'_>, name: &str, input: &mut Input, cursor: &mut u64, attach: &mut bool) -> Answer<bool> {
    if *attach {
        context.host.console_open(name)?;
        *attach = false;
    }
    offer(context, input)?;
    let chunk = context.host.console_read(*cursor)?;
    if chunk.next == *cursor {
        return Ok(false);
    }
    *cursor = chunk.next;
    context.out.terminal().write(&chunk.data);
    Ok(true)
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
fn offer(context: &mut Context<'_>, input: &mut Input) -> Answer<()> {
    while !input.pending.is_empty() {
        let bytes = input.pending.make_contiguous();
        let piece = bytes.get(..bytes.len().min(MAX_DATA)).unwrap_or_default();
        let taken = match context.host.console_write(piece) {
            // The VMX ended with the bytes or is late: they may or may not have arrived. Typing them twice would be worse than losing them.
            Err(CallError::Kernel(Error::ServerDied | Error::TimedOut)) => piece.len(),
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
