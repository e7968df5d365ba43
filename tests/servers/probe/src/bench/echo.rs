//! The other process of the benchmarks: answers calls, waits for signals, handles faults.

use tessera_rt::abi::object::Rights;
use tessera_rt::abi::syscall::MessageInfo;
use tessera_rt::{Endpoint, Frame, Notification, Reply, require, slots, sys, vm};

/// Length of a control message; no benchmark uses it. Its second word says what to do next.
pub const CONTROL: usize = 24;
/// Go on answering.
pub const ECHO: u64 = 0;
/// Wait for the Notification that comes along, as many times as the third word says, and note the TSC each time in the Frame that comes along too.
pub const SIGNAL: u64 = 1;
/// Until the next control message, what comes are faults: let the thread go on two bytes further.
pub const FAULT: u64 = 2;

/// Serves for ever.
pub fn run() {
    let endpoint = Endpoint::new(require("echo"));
    let Ok(caps) = slots::take_range(2) else { return };
    let utcb = sys::utcb();
    // SAFETY: this thread's message buffer; no message is being made.
    unsafe {
        (&raw mut (*utcb).receive_slot).write(caps);
        (&raw mut (*utcb).receive_count).write(2);
    }
    let control = MessageInfo::new(CONTROL, 0).bytes();
    let mut words = [0; 6];
    let mut outcome = endpoint.recv(Reply::FIRST, None, &mut words);
    loop {
        if outcome.info.bytes() != control {
            outcome = endpoint.reply_recv(Reply::FIRST, outcome.info, None, &mut words);
            continue;
        }
        let empty = MessageInfo::new(0, 0);
        match words[1] {
            SIGNAL => {
                let rounds = words[2];
                let _ = Reply::FIRST.send(empty, &mut words);
                note_signals(Notification::new(caps), Frame::new(caps + 1), rounds);
                outcome = endpoint.recv(Reply::FIRST, None, &mut words);
            }
            FAULT => {
                outcome = endpoint.reply_recv(Reply::FIRST, empty, None, &mut words);
                let resume = MessageInfo::new(16, 0);
                while outcome.info.bytes() != control {
                    words[0] = words[2] + 2;
                    words[1] = words[3];
                    outcome = endpoint.reply_recv(Reply::FIRST, resume, None, &mut words);
                }
                outcome = endpoint.reply_recv(Reply::FIRST, empty, None, &mut words);
            }
            _ => outcome = endpoint.reply_recv(Reply::FIRST, empty, None, &mut words),
        }
    }
}

fn note_signals(notification: Notification, frame: Frame, rounds: u64) {
    let page = match vm::map(frame, Rights::READ | Rights::WRITE, 0) {
        Ok(page) => page,
        Err(error) => return crate::report::line(format_args!("probe: echo FAILED to map the frame: {}", error.text())),
    };
    for _ in 0..rounds {
        let _ = notification.wait(None);
        let now = sys::tsc();
        // SAFETY: the frame is mapped, is one page, and the other side only reads it.
        unsafe { page.as_ptr().cast::<u64>().write_volatile(now) };
    }
    page.unmap();
    slots::free(notification.slot());
    slots::free(frame.slot());
    // Both slots go on receiving capabilities: they were taken for this.
}
