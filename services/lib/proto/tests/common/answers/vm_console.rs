//! Answers of `vm_console`.

use super::super::*;

impl vm_console::Server for Example {
    fn attach(&mut self, call: &mut Call) -> Result<(), Failure> {
        self.note(format!("attach {:?}", call.cap(0)))
    }
    fn detach(&mut self, _: &mut Call) -> Result<(), Failure> {
        self.note("detach")
    }
    fn read(&mut self, _: &mut Call, cursor: u64) -> Result<ConsoleChunk, Failure> {
        self.note(format!("read {cursor}"))?;
        Ok(ConsoleChunk {
            next: 300,
            lost: 1,
            data: b"login: ".to_vec(),
        })
    }
    fn write(&mut self, _: &mut Call, data: &[u8]) -> Result<u32, Failure> {
        self.note(format!("write {data:?}"))?;
        Ok(data.len() as u32)
    }
}
