//! Answers of `init`.

use super::super::*;

impl init::Server for Example {
    fn log(&mut self, _: &mut Call, level: Level, text: &str) -> Result<(), Failure> {
        self.note(format!("log {level} {text}"))
    }
    fn exit(&mut self, _: &mut Call, code: i32, reason: &str) -> Result<(), Failure> {
        self.note(format!("exit {code} {reason}"))
    }
    fn panicked(&mut self, _: &mut Call, text: &str) -> Result<(), Failure> {
        self.note(format!("panicked {text}"))
    }
    fn ready(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("ready")
    }
    fn bus_master(&mut self, _: &mut Call, device: u32) -> Result<(), Failure> {
        self.note(format!("bus_master {device}"))
    }
    fn no_bus_master(&mut self, _: &mut Call, device: u32) -> Result<(), Failure> {
        self.note(format!("no_bus_master {device}"))
    }
    fn reset_device(&mut self, _: &mut Call, device: u32, begin: bool) -> Result<u32, Failure> {
        self.note(format!("reset_device {device} {begin}"))?;
        Ok(20)
    }
    fn device_memory(&mut self, call: &mut Call, pages: u32) -> Result<(), Failure> {
        self.note(format!("device_memory {pages}"))?;
        call.give(36);
        Ok(())
    }
    fn video_memory(&mut self, call: &mut Call, piece: u32, make: bool) -> Result<(), Failure> {
        self.note(format!("video_memory {piece} {make}"))?;
        call.give(37);
        Ok(())
    }
}
