//! Transfers of the tablet's two endpoints (xHCI 1.2, 4.11.2, 4.10).

use super::Controller;
use super::ring::{Block, CHAIN, Code, IMMEDIATE, Next, ON_COMPLETION, ON_SHORT, kind};
use super::slot::{CONTROL, Control, Endpoint, REPORTS, Sending, State};
use super::tablet::{Setup, Tablet};
use crate::memory::GuestMemory;

/// Blocks of an endpoint's ring that are done at a time.
const MOST: usize = 64;
/// Events that a block and what ends with it may make.
const EVENTS: u32 = 2;
/// An event's parameter is what its block says, not where it stands.
const EVENT_DATA: u32 = 1 << 2;
/// Bytes of moved data that such an event tells.
const MOVED: u32 = 0xff_ffff;

/// What came of a block.
enum Done {
    /// It is over, with so many bytes of it not moved.
    With(Code, u32),
    /// It stays where it is until the device has something.
    Waits,
}

/// Moves bytes to where a block says. Answers how the block ended; not all of it used is short.
fn send(block: Block, sending: &mut Sending, moved: &mut u32, memory: &GuestMemory) -> Done {
    let rest = sending.rest();
    let count = rest.len().min(block.length() as usize);
    if count > 0 && (block.has(IMMEDIATE) || memory.write_slice(block.parameter, &rest[..count]).is_none()) {
        return Done::With(Code::BlockError, block.length());
    }
    sending.sent += count;
    *moved = moved.wrapping_add(count as u32) & MOVED;
    let left = block.length() - count as u32;
    Done::With(if left > 0 { Code::Short } else { Code::Success }, left)
}

fn control(block: Block, endpoint: &mut Endpoint, tablet: &mut Tablet, memory: &GuestMemory) -> Done {
    match block.kind() {
        kind::SETUP if block.has(IMMEDIATE) && block.length() == 8 => {
            let setup = Setup::read(block.parameter.to_le_bytes());
            let mut begun = Control::begun(setup);
            match tablet.request(setup) {
                // The longest is shorter.
                Ok(bytes) => begun.stalled = begun.sending.bytes.extend_from_slice(&bytes).is_err(),
                Err(_) => begun.stalled = true,
            }
            endpoint.control = Some(begun);
            Done::With(Code::Success, 0)
        }
        kind::DATA | kind::NORMAL => match &mut endpoint.control {
            None => Done::With(Code::BlockError, block.length()),
            Some(begun) if begun.stalled => Done::With(Code::Stall, block.length()),
            Some(begun) if begun.is_in => send(block, &mut begun.sending, &mut endpoint.moved, memory),
            // No request that is known needs what comes with it.
            Some(_) => Done::With(Code::Success, 0),
        },
        kind::STATUS => match endpoint.control.take() {
            None => Done::With(Code::BlockError, 0),
            Some(begun) if begun.stalled => Done::With(Code::Stall, 0),
            Some(_) => Done::With(Code::Success, 0),
        },
        kind::NO_OP => Done::With(Code::Success, 0),
        _ => Done::With(Code::BlockError, block.length()),
    }
}

fn reports(block: Block, endpoint: &mut Endpoint, tablet: &mut Tablet, memory: &GuestMemory) -> Done {
    match block.kind() {
        kind::NORMAL => {
            if endpoint.report.is_none() {
                let Some(report) = tablet.report() else { return Done::Waits };
                endpoint.report = Some(Sending {
                    // It is shorter than an answer may be.
                    bytes: heapless::Vec::from_slice(&report).unwrap_or_default(),
                    sent: 0,
                });
            }
            let Some(report) = &mut endpoint.report else { return Done::Waits };
            let done = send(block, report, &mut endpoint.moved, memory);
            let more = !report.rest().is_empty();
            if !block.has(CHAIN) {
                endpoint.report = None;
            }
            match done {
                Done::With(Code::Success, left) if more && !block.has(CHAIN) => Done::With(Code::Babble, left),
                done => done,
            }
        }
        kind::NO_OP => Done::With(Code::Success, 0),
        _ => Done::With(Code::BlockError, block.length()),
    }
}

impl Controller {
    /// Goes on with all endpoints.
    pub(super) fn run_endpoints(&mut self, memory: &GuestMemory) {
        for index in 0..self.slots.len() {
            for number in [CONTROL, REPORTS] {
                self.run_endpoint(index, number, memory);
            }
        }
    }

    fn run_endpoint(&mut self, index: usize, number: u8, memory: &GuestMemory) {
        let slot = &mut self.slots[index];
        let Some(endpoint) = slot.endpoint(number).filter(|endpoint| endpoint.rung) else {
            return;
        };
        match endpoint.state {
            State::Running => {}
            // The doorbell starts it (4.8.3).
            State::Stopped => {
                endpoint.state = State::Running;
                slot.tell_endpoint(memory, number);
            }
            State::Disabled | State::Halted | State::Error => endpoint.rung = false,
        }
        for _ in 0..MOST {
            if !self.interrupter.events.has_room(EVENTS) {
                return;
            }
            let Some(endpoint) = self.slots[index].endpoint(number).filter(|endpoint| endpoint.rung) else {
                return;
            };
            endpoint.polled = true;
            match endpoint.ring.next(memory) {
                Next::Empty => endpoint.rung = false,
                Next::Broken => {
                    let at = endpoint.ring.pointer() & !0xf;
                    self.ended(index, number, Block::default(), at, (Code::BlockError, 0), memory);
                }
                Next::Block(block, at) => {
                    let done = match (block.kind(), number) {
                        (kind::EVENT_DATA, _) => Done::With(if endpoint.short { Code::Short } else { Code::Success }, 0),
                        // The rest of a transfer whose packet was short is passed over (4.10.1.1).
                        (kind::NORMAL, _) if endpoint.short => Done::With(Code::Short, block.length()),
                        (_, CONTROL) => control(block, endpoint, &mut self.tablet, memory),
                        _ => reports(block, endpoint, &mut self.tablet, memory),
                    };
                    match done {
                        Done::Waits => return,
                        Done::With(code, left) => self.ended(index, number, block, at, (code, left), memory),
                    }
                }
            }
        }
        // As with commands.
        if let Some(endpoint) = self.slots[index].endpoint(number) {
            endpoint.rung = false;
        }
    }

    /// A block is over.
    fn ended(&mut self, index: usize, number: u8, block: Block, at: u64, (code, left): (Code, u32), memory: &GuestMemory) {
        let slot = &mut self.slots[index];
        let Some(endpoint) = slot.endpoint(number) else { return };
        let told_short = endpoint.short;
        let (parameter, status, flag) = if block.kind() == kind::EVENT_DATA {
            (block.parameter, endpoint.moved, EVENT_DATA)
        } else {
            (at, left & MOVED, 0)
        };
        let failed = !matches!(code, Code::Success | Code::Short);
        if failed {
            endpoint.state = if code == Code::BlockError { State::Error } else { State::Halted };
            (endpoint.rung, endpoint.control, endpoint.report) = (false, None, None);
        } else {
            endpoint.ring.advance();
            endpoint.short |= code == Code::Short;
        }
        if failed || !block.has(CHAIN) {
            (endpoint.short, endpoint.moved) = (false, 0);
        } else if block.kind() == kind::EVENT_DATA {
            endpoint.moved = 0;
        }
        if failed {
            slot.tell_endpoint(memory, number);
        }
        let short = code == Code::Short && block.has(ON_SHORT) && !told_short && flag == 0;
        if failed || short || block.has(ON_COMPLETION) {
            let event = Block {
                parameter,
                status: status | u32::from(code as u8) << 24,
                control: u32::from(kind::TRANSFER_EVENT) << 10 | flag | u32::from(number) << 16 | (index as u32 + 1) << 24,
            };
            self.tell(memory, event);
        }
    }
}
