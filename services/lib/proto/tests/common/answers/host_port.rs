//! Answers of `host_port`.

use super::super::*;

impl host_port::Server for Example {
    fn open(&mut self, call: &mut Call, group: &str) -> Result<HostPortInfo, Failure> {
        self.note(format!("open {group} {:?}", call.cap(0)))?;
        call.give(64);
        Ok(HostPortInfo {
            mac: [6, 0x54, 1, 2, 3, 4],
            mtu: 1500,
        })
    }
    fn close(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("close")
    }
}
