//! What a controller tells of itself unasked (Base 2.0, 5.2 and 5.16.1): one request for an event is always with it; it ends it when it has something to say, and says which log page has more.
//! The error log is also read when the log page with the condition says that it has grown.

use super::command::{ALL_NAMESPACES, Command, Pointer, Status, admin};
use super::identify::{self, HEALTH_LENGTH, LoggedError};
use super::queue::InFlight;
use super::{HEALTH_MS, Nvme};
use crate::disk::events::Told;
use alloc::{format, string::String};

/// Tags of commands on the admin queue; 0 is a step of the preparation.
pub const PAGE: u32 = 1;
const CONFIGURE: u32 = 2;
const EVENT: u32 = 3;
/// Log pages.
const ERRORS: u8 = 1;
const HEALTH: u8 = 2;
/// Entries of the error log that are read at most.
const MAX_ERRORS: usize = 16;
/// Feature: which events are told; the five warnings of the condition.
const CONFIGURATION: (u32, u32) = (0x0b, 0x1f);

/// What is known of the log pages.
#[derive(Debug, Default)]
pub struct Logs {
    /// A request for an event is with the controller, or it refused one.
    armed: bool,
    /// The page that is being read.
    reading: Option<u8>,
    /// Errors are to be read next.
    errors_wanted: bool,
    /// The condition is to be read next.
    health_wanted: bool,
    /// When the condition was asked for last.
    asked: Option<u64>,
    /// Warnings that the controller gave last.
    warnings: u8,
    /// Number of the last error that is known; none before the first look.
    last_error: Option<u64>,
    /// What is to be told.
    pub told: Told,
}

impl Logs {
    /// The controller was reset: nothing is with it any more.
    pub const fn reset(&mut self) {
        self.armed = false;
        self.reading = None;
        self.asked = None;
    }
}

impl Nvme {
    fn submit_own(&mut self, command: Command, tag: u32, since: u64) -> bool {
        let whose = InFlight { tag, sector: 0, since };
        // Full: it is asked again later.
        let submitted = self.admin.submit(&command, &[], None, whose).is_ok();
        self.admin.ring(&*self.registers);
        submitted
    }

    /// Asks for what is due. Called now and then while the controller is ready.
    pub(super) fn tend_logs(&mut self, now: u64) {
        if !self.logs.armed {
            let (feature, events) = CONFIGURATION;
            let command = Command {
                opcode: admin::SET_FEATURES,
                arguments: [feature, events, 0, 0, 0, 0],
                ..Command::default()
            };
            self.logs.armed = self.submit_own(command, CONFIGURE, now);
        }
        if self.logs.reading.is_some() {
            return;
        }
        let due = self.logs.asked.is_none_or(|asked| now.saturating_sub(asked) >= HEALTH_MS);
        if self.logs.errors_wanted {
            let count = MAX_ERRORS.min(usize::from(self.info.errors) + 1);
            self.read_page(ERRORS, count * identify::ERROR_LENGTH, now);
        } else if due || self.logs.health_wanted {
            self.read_page(HEALTH, HEALTH_LENGTH, now);
        }
    }

    fn read_page(&mut self, page: u8, length: usize, now: u64) {
        let command = Command {
            opcode: admin::LOG_PAGE,
            namespace: ALL_NAMESPACES,
            pointer: Pointer {
                list: false,
                words: [self.scratch.physical(), 0],
            },
            // Number of double words less one from bit 16 on.
            arguments: [u32::from(page) | (length as u32 / 4 - 1) << 16, 0, 0, 0, 0, 0],
        };
        if !self.submit_own(command, PAGE, now) {
            return;
        }
        self.logs.reading = Some(page);
        if page == HEALTH {
            self.logs.asked = Some(now);
            self.logs.health_wanted = false;
        } else {
            self.logs.errors_wanted = false;
        }
    }

    /// One of these commands has completed.
    pub(super) fn log_completed(&mut self, tag: u32, status: Status, result: u32) {
        match tag {
            // A controller that does not tell these events has others, so its answer makes no difference.
            CONFIGURE => self.await_event(),
            EVENT if status.is_ok() => {
                self.event(result);
                self.await_event();
            }
            PAGE => {
                let page = self.logs.reading.take();
                if status.is_ok() {
                    self.page(page);
                }
            }
            _ => {}
        }
    }

    fn await_event(&mut self) {
        let command = Command {
            opcode: admin::ASYNC_EVENT,
            ..Command::default()
        };
        // It may take for ever.
        self.logs.armed = self.submit_own(command, EVENT, u64::MAX);
    }

    /// Type in bits 0 to 2, what in particular in bits 8 to 15.
    fn event(&mut self, result: u32) {
        match (result & 7, result >> 8 & 0xff) {
            (0, what) => {
                self.logs.errors_wanted = true;
                self.logs.told.push(format!("the controller reports {}", error_event(what)));
            }
            (1, _) => self.logs.health_wanted = true,
            _ => {}
        }
    }

    fn page(&mut self, page: Option<u8>) {
        if page == Some(ERRORS) {
            let mut bytes = [0; MAX_ERRORS * identify::ERROR_LENGTH];
            let length = bytes.len().min((usize::from(self.info.errors) + 1) * identify::ERROR_LENGTH);
            self.scratch.copy_out(0, &mut bytes[..length]);
            self.errors(&identify::errors(&bytes[..length]));
            return;
        }
        let mut bytes = [0; HEALTH_LENGTH];
        self.scratch.copy_out(0, &mut bytes);
        self.health = identify::health(&bytes);
        let warnings = identify::warnings(&bytes);
        for (bit, text) in identify::WARNINGS {
            if warnings & !self.logs.warnings & bit != 0 {
                self.logs.told.push(format!("the controller warns: {text}"));
            } else if !warnings & self.logs.warnings & bit != 0 {
                self.logs.told.push(format!("the controller does not warn any more: {text}"));
            }
        }
        self.logs.warnings = warnings;
        let count = identify::error_count(&bytes);
        // What is in it from before is history.
        let last = *self.logs.last_error.get_or_insert(count);
        self.logs.errors_wanted |= count > last;
    }

    /// Tells the errors that are newer than the last one that is known.
    fn errors(&mut self, found: &[LoggedError]) {
        let last = self.logs.last_error.unwrap_or(0);
        let mut highest = last;
        // The newest comes first.
        for error in found.iter().rev().filter(|error| error.number > last) {
            highest = highest.max(error.number);
            self.logs.told.push(describe(error));
        }
        self.logs.last_error = Some(highest);
    }
}

fn describe(error: &LoggedError) -> String {
    let reason = match Status(error.status).outcome(error.sector) {
        Ok(()) => "no error".into(),
        Err(reason) => format!("{reason}"),
    };
    format!(
        "error {} in the controller's log: queue {}, namespace {}, sector {}: {reason}",
        error.number, error.queue, error.namespace, error.sector
    )
}

const fn error_event(what: u32) -> &'static str {
    match what {
        0 => "a write to a doorbell that does not exist",
        1 => "an invalid value at a doorbell",
        2 => "a failed self-test",
        3 => "an internal error that stays",
        4 => "an internal error that may pass",
        5 => "that its firmware could not be loaded",
        _ => "an error",
    }
}
