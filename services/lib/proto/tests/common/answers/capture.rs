//! Answers of `capture`.

use super::super::*;

impl capture::Server for Example {
    fn captures(&mut self, _: &mut Call, first: u32) -> Result<Page<CaptureInfo>, Failure> {
        self.note(format!("captures {first}"))?;
        let info = CaptureInfo {
            id: 7,
            port: "debian.0".into(),
            snap: 128,
            room: 65_536,
            waiting: 9,
            frames: 10,
            lost: 11,
            running: true,
        };
        Ok(Page {
            items: vec![info],
            next: None,
        })
    }
    fn start(&mut self, _: &mut Call, port: &str, snap: u32, room: u32) -> Result<u32, Failure> {
        self.note(format!("start {port} {snap} {room}"))?;
        Ok(7)
    }
    fn read(&mut self, _: &mut Call, id: u32, from: u64) -> Result<CaptureChunk, Failure> {
        self.note(format!("read {id} {from}"))?;
        Ok(CaptureChunk {
            bytes: vec![10, 13, 13, 10],
            end: true,
        })
    }
    fn peek(&mut self, _: &mut Call, id: u32, from: u64) -> Result<CaptureChunk, Failure> {
        self.note(format!("peek {id} {from}"))?;
        Ok(CaptureChunk {
            bytes: vec![10, 13, 13],
            end: false,
        })
    }
    fn stop(&mut self, _: &mut Call, id: u32) -> Result<(), Failure> {
        self.note(format!("stop {id}"))
    }
    fn remove(&mut self, _: &mut Call, id: u32) -> Result<(), Failure> {
        self.note(format!("remove {id}"))
    }
}
