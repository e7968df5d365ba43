//! Answers of `hostd`.

use super::super::*;

impl hostd::Server for Example {
    fn ping(&mut self, _: &mut Call, to: &str, sequence: u16, bytes: u16, wait_ms: u32) -> Result<Echo, Failure> {
        self.note(format!("ping {to} {sequence} {bytes} {wait_ms}"))?;
        Ok(Echo {
            address: "192.0.2.1".into(),
            microseconds: Some(1234),
        })
    }
}
