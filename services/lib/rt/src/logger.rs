//! The backend of the `log` crate: every line goes to init.

use crate::{Connection, Endpoint, text::Line};
use core::fmt::Write;
use log::{LevelFilter, Log, Metadata, Record};
use tessera_manifest::slots;
use tessera_proto::init::{Client, Level, MAX_LINE};

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warn,
            log::Level::Info => Level::Info,
            log::Level::Debug => Level::Debug,
            log::Level::Trace => Level::Trace,
        };
        let mut text = Line::<{ 4 * MAX_LINE }>::new();
        let _ = write!(text, "{}", record.args());
        lines(level, text.as_str());
    }

    fn flush(&self) {}
}

/// Sends text to init's log, line by line, long lines cut into pieces. Errors are dropped: there is nobody to tell.
pub fn lines(level: Level, text: &str) {
    let mut init = Client(Connection::new(Endpoint::new(slots::INIT)));
    for line in text.lines() {
        let mut rest = line;
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(rest.floor_char_boundary(MAX_LINE));
            let _ = init.log(level, piece);
            rest = tail;
        }
    }
}

/// Routes the `log` macros to init. `level` is the least important level that is sent.
pub fn install(level: LevelFilter) {
    static LOGGER: Logger = Logger;
    // An error means that the program chose a logger of its own before.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
}
